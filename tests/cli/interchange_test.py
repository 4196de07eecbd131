#!/usr/bin/env python3
"""import and export as a user types them: both layouts and every encoding, JSON, messages, and what a kill leaves."""

import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from program import PROGRAM, RunsProgram

WAYS = [("trl", "gap_delta"), ("trl", "raw"), ("trl", "indices"), ("slime", "xor"), ("slime", "overwrite")]
WORDS = 200_000


class Interchange(RunsProgram, unittest.TestCase):
    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="siltstone-interchange-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.env = dict(os.environ, SILTSTONE_CACHE=str(self.work / "cache"))
        self.random = random.Random(4)
        self.words = bytearray(self.random.randbytes(2 * WORDS))
        self.bucket = self.work / "bucket"
        self.ok("init", self.bucket)

    def fails(self, status, says, *words):
        done = self.run_it(*words)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout}{done.stderr}")
        self.assertIn(says, done.stderr)

    def publish(self, versions):
        """Checkpoints that differ from the last one by a hundredth of the words."""
        roots = []
        for step in range(versions):
            folder = self.work / f"step{step}"
            folder.mkdir()
            header = json.dumps({"w": {"dtype": "BF16", "shape": [WORDS], "data_offsets": [0, 2 * WORDS]}}).encode()
            (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + self.words)
            (folder / "config.json").write_text("{}")
            roots.append(self.json("publish", self.bucket, folder, "--step", step)["root"])
            for at in self.random.sample(range(WORDS), WORDS // 100):
                self.words[2 * at] ^= 1
        return roots

    def log(self, bucket):
        return self.json("log", bucket)["versions"][::-1]

    def test_there_and_back(self):
        roots = self.publish(4)
        for layout, encoding in WAYS:
            with self.subTest(layout=layout, encoding=encoding):
                out, back = self.work / f"{layout}-{encoding}", self.work / f"back-{layout}-{encoding}"
                options = ("--format", layout, "--encoding", encoding)
                first = self.json("export", self.bucket, "main@0..main@1", out, *options)
                self.assertEqual([v["kind"] for v in first["versions"]], ["full", "delta"])
                self.assertEqual((first["format"], first["present"]), (layout, 0))
                self.ok("init", back)
                self.assertEqual(len(self.json("import", back, out)["versions"]), 2)
                rest = self.json("export", self.bucket, "main", out, *options)
                self.assertEqual([v["version"] for v in rest["versions"]], ["main@2", "main@3"])
                self.assertEqual([v["changed_elements"] for v in rest["versions"]], [WORDS // 100] * 2)
                self.assertEqual(rest["present"], 2)
                report = self.json("import", back, out)
                self.assertEqual([v["root"] for v in report["versions"]], roots[2:])
                self.assertEqual((report["format"], report["head"], report["pending"], report["skipped"]),
                                 (layout, "main@3", "", []))
                self.assertEqual([v["root"] for v in self.log(back)], roots)
                self.assertEqual([v["step"] for v in self.log(back)], [0, 1, 2, 3])
                self.assertIn("nothing new", self.ok("import", back, out))
                self.assertIn("nothing new", self.ok("export", self.bucket, "main", out, *options))
                self.ok("verify", back, "--data")

    def test_exit_statuses(self):
        self.publish(3)
        out = self.work / "out"
        self.fails(2, "--format", "export", self.bucket, "main", out)
        self.fails(2, "--format", "export", self.bucket, "main", out, "--format", "other")
        self.fails(2, "no encoding 'xor'", "export", self.bucket, "main", out, "--format", "trl", "--encoding", "xor")
        self.fails(3, "main@9", "export", self.bucket, "main@9", out, "--format", "trl")
        self.fails(3, "no folder", "import", self.bucket, out)
        out.mkdir()
        self.fails(3, "weight_vNNNNNN", "import", self.bucket, out)
        self.ok("export", self.bucket, "main", out, "--format", "slime")
        self.assertIn("nothing new", self.ok("import", self.bucket, out))
        shutil.rmtree(out / "weight_v000001")
        other = self.work / "other"
        self.ok("init", other)
        self.fails(4, "builds on version 1", "import", other, out)
        self.assertEqual([v["step"] for v in self.log(other)], [0])
        self.fails(2, "--format", "import", other, out, "--format", "zip")
        self.ok("export", self.bucket, "main@0", out, "--format", "trl")
        self.fails(2, "both", "import", other, out)
        self.fails(5, "nothing is overwritten", "export", other, "main", self.edited(out), "--format", "trl")

    def edited(self, out):
        """The folder, with another version 0 in it."""
        path = out / "anchors/step_000000.safetensors"
        path.write_bytes(re.sub(rb'("siltstone_root":")....', rb"\1ffff", path.read_bytes()))
        return out

    def moments(self, command, made, count):
        """Random times at which the command, as long as it runs, is still at work."""
        begin = time.monotonic()
        self.ok(*command[1:])
        seconds = time.monotonic() - begin
        shutil.rmtree(made)
        return [self.random.uniform(0, seconds) for _ in range(count)]

    def kill_after(self, seconds, command):
        """Whether the command was still running."""
        process = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL

    def test_a_killed_export_leaves_no_halves_and_goes_on(self):
        roots = self.publish(8)
        for layout in ("trl", "slime"):
            out, back = self.work / f"killed-{layout}", self.work / f"killed-back-{layout}"
            command = [PROGRAM, "export", self.bucket, "main", out, "--format", layout]
            killed = 0
            for seconds in self.moments(command, out, 40):
                killed += self.kill_after(seconds, command)
                names = [p for p in out.rglob("*") if p.name.startswith(("step_", "weight_v"))]
                for path in names if layout == "trl" else []:
                    length = struct.unpack("<Q", path.read_bytes()[:8])[0]
                    header = json.loads(path.read_bytes()[8:8 + length])
                    ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
                    self.assertEqual(path.stat().st_size, 8 + length + max(ends, default=0))
                for path in names if layout == "slime" else []:
                    weight_map = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
                    self.assertTrue(all((path / file).exists() for file in weight_map.values()))
                if killed % 4 == 0:
                    shutil.rmtree(out, ignore_errors=True)
            self.assertGreater(killed, 0)
            self.ok(*command[1:])
            self.ok("init", back)
            self.ok("import", back, out)
            self.assertEqual([v["root"] for v in self.log(back)], roots)

    def test_a_killed_import_goes_on(self):
        roots = self.publish(8)
        out, back = self.work / "out", self.work / "back"
        self.ok("export", self.bucket, "main", out, "--format", "slime")
        self.ok("init", back)
        command = [PROGRAM, "import", back, out]
        moments = self.moments(command, back, 20)
        self.ok("init", back)
        self.assertGreater(sum([self.kill_after(seconds, command) for seconds in moments]), 0)
        self.ok(*command[1:])
        self.assertEqual([v["root"] for v in self.log(back)], roots)
        self.ok("verify", back, "--data")


if __name__ == "__main__":
    unittest.main()
