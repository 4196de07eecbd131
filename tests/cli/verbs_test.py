#!/usr/bin/env python3
"""Every verb as a user types it: results, JSON keys, exit statuses, messages, and what pulling does."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

from program import PROGRAM, RunsProgram

VERBS = ["init", "publish", "log", "show", "diff", "checkout", "pull", "verify", "tag", "branch",
         "inspect", "bench", "import", "export"]


class Verbs(RunsProgram, unittest.TestCase):
    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="siltstone-verbs-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.env = dict(os.environ, SILTSTONE_CACHE=str(self.work / "cache"))
        self.random = random.Random(2)
        self.words = bytearray(self.random.randbytes(40000))
        self.bucket = self.work / "bucket"

    def folder(self, name, config="{}"):
        """A checkpoint that differs from the last one by fifty words."""
        for _ in range(50):
            self.words[2 * self.random.randrange(20000)] ^= 1
        out = self.work / name
        out.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"w": {"dtype": "BF16", "shape": [200, 100], "data_offsets": [0, 40000]}}).encode()
        (out / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + self.words)
        (out / "config.json").write_text(config)
        return out

    def fails(self, status, *words, says=""):
        done = self.run_it(*words)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout}{done.stderr}")
        self.assertTrue(done.stderr.strip())
        self.assertIn(says, done.stderr)
        again = self.run_it(*words, "--json")
        if status != 2:
            self.assertEqual(json.loads(again.stdout.strip().splitlines()[-1])["error"]["exit"], status)
        return done.stderr

    def start(self, versions=3):
        self.ok("init", self.bucket)
        return [self.json("publish", self.bucket, self.folder(f"step{i}"), "--step", i) for i in range(versions)]

    def test_help(self):
        self.assertIn("Example", self.ok("--help"))
        for verb in VERBS:
            self.assertIn("Example", self.ok(verb, "--help"), verb)
        self.assertRegex(self.ok("--version"), r"\d+\.\d+")

    def test_documents(self):
        first, second, third = self.start()
        for report in (first, second):
            self.assertLessEqual({"version", "kind", "bytes_written", "section_bytes", "changed_elements",
                                  "total_elements", "bits_per_changed_element", "seconds", "root"}, set(report))
        self.assertEqual((first["version"], first["kind"]), ("main@0", "anchor"))
        self.assertEqual((second["version"], second["kind"]), ("main@1", "delta"))
        self.assertAlmostEqual(second["bits_per_changed_element"],
                               8 * second["section_bytes"] / second["changed_elements"])
        log = self.json("log", self.bucket)["versions"]
        self.assertEqual([version["seq"] for version in log], [2, 1, 0])
        self.assertEqual([version["step"] for version in log], [2, 1, 0])
        self.assertEqual(len(self.json("log", self.bucket, "-n", "2")["versions"]), 2)
        self.assertEqual(self.json("show", self.bucket, "main@1")["root"], second["root"])
        out = self.json("checkout", self.bucket, "main@1", self.work / "out")
        self.assertLessEqual({"version", "bytes_fetched", "files", "seconds", "root"}, set(out))
        pulled = self.json("pull", self.bucket, self.work / "replica")
        self.assertLessEqual({"from", "to", "bytes_fetched", "stage_seconds", "commit_seconds", "root"}, set(pulled))
        self.assertEqual((pulled["from"], pulled["to"], pulled["root"]), (None, "main@2", third["root"]))
        verified = self.json("verify", self.bucket, "--data")
        self.assertEqual((verified["ok"], verified["versions"], verified["problems"]), (True, 3, []))
        changed = self.json("diff", self.bucket, "main@0", "main@1")
        self.assertEqual(changed["changed_elements"], second["changed_elements"])
        self.assertEqual(self.json("diff", self.work / "step0", self.work / "step1"), changed)
        self.assertEqual(self.json("tag", self.bucket, "good", "main@1")["version"], "main@1")
        self.assertEqual(self.json("tag", self.bucket)["tags"], [{"name": "good", "version": "main@1"}])
        self.ok("branch", self.bucket, "side", "tag:good")
        self.assertEqual(self.json("show", self.bucket, "side")["version"], "main@1")
        self.assertEqual(self.json("show", self.bucket, "root:" + second["root"][:10])["version"], "main@1")

    def test_exit_statuses(self):
        self.start(2)
        self.fails(2)
        self.fails(2, "fly")
        self.fails(2, "publish", self.bucket)
        self.fails(2, "show", self.bucket, "main@@1", says="names no version")
        self.fails(3, "log", self.work / "nothing", says="siltstone init")
        self.fails(3, "show", self.bucket, "main@9", says="main@9")
        self.fails(3, "publish", self.bucket, self.work / "nothing", says="nothing")
        self.fails(5, "init", self.bucket, says="already holds")
        self.fails(5, "checkout", self.bucket, "main", self.work, says="--force")
        self.fails(5, "publish", self.bucket, self.folder("next"), "--parent", "main@0", says="somebody else")
        pack = next(self.bucket.glob("obj/main/00000001/*/0-0.safetensors"))
        content = bytearray(pack.read_bytes())
        content[-20] ^= 4
        pack.chmod(0o644)
        pack.write_bytes(content)
        self.fails(4, "verify", self.bucket, "--data", says="does not hold")
        self.fails(4, "checkout", self.bucket, "main@1", self.work / "out", says="SHA-256")
        self.assertFalse((self.work / "out").exists())
        self.ok("checkout", self.bucket, "main@0", self.work / "out")

    def test_inspect(self):
        published = self.start(2)[1]
        text = self.ok("inspect", self.bucket, "main@1", "--steps")
        self.assertRegex(text, r"(?m)^w +BF16 +\w+ +20,000 ")
        self.assertIn("JSON headers", text)
        report = self.json("inspect", self.bucket, "--steps")
        self.assertEqual(report["changed_elements"], published["changed_elements"])
        self.assertEqual(report["section_bytes"], published["section_bytes"])
        self.assertEqual(sum(row["elements"] for row in report["steps"]), 20000)
        self.assertEqual(sum(row["changed_elements"] for row in report["steps"]), published["changed_elements"])
        self.assertEqual(sum(row["by_steps"]["1"] for row in report["steps"]), published["changed_elements"])
        (pack,) = self.bucket.glob("obj/main/00000001/*/0-0.safetensors")
        alone = self.json("inspect", pack)
        self.assertEqual(alone, report | {"steps": []})
        self.fails(2, "inspect", self.bucket, "main@0", says="it is a plain anchor")
        self.fails(2, "inspect", self.bucket, "--tensor", "v*", says="no tensor that changed matches")
        self.fails(2, "inspect", pack, "--steps", says="name the bucket and the version")
        self.fails(4, "inspect", self.bucket / "repo.json", says="repo.json")

    def test_effort(self):
        self.ok("init", self.bucket)
        self.ok("publish", self.bucket, self.folder("a"))
        codecs = []
        for effort in ("fast", "default", "max"):
            self.ok("publish", self.bucket, self.folder(effort), "--effort", effort)
            codecs += self.json("inspect", self.bucket)["codecs"]
        self.assertNotIn("class", codecs[0])
        self.ok("verify", self.bucket, "--data")
        self.fails(2, "publish", self.bucket, self.folder("b"), "--effort", "some", says="fast, default or max")

    def test_momentum(self):
        """Published and pulled version by version, each in a process of its own."""
        self.ok("init", self.bucket)
        live = self.work / "live"
        for i in range(5):
            folder = self.folder(f"step{i}")
            self.ok("publish", self.bucket, folder, "--momentum", "--codec", "momentum")
            pulled = self.json("pull", self.bucket, live)
            self.assertEqual((live / "model.safetensors").read_bytes(), (folder / "model.safetensors").read_bytes())
            if i > 0:
                uses = self.json("inspect", self.bucket, "main")["codecs"]
                self.assertEqual("momentum" in uses, i > 1, uses)
                self.assertLess(pulled["bytes_fetched"], 10000)
        self.ok("verify", self.bucket, "--data")
        self.ok("checkout", self.bucket, "main@2", self.work / "again")
        self.assertEqual((self.work / "again/model.safetensors").read_bytes(),
                         (self.work / "step2/model.safetensors").read_bytes())
        report = self.json("bench", self.work / "step2", self.work / "step3", "--earlier", self.work / "step1",
                           "--codec", "momentum", "--rounds", "1")
        self.assertEqual([result["name"] for result in report["results"]], ["momentum"])
        self.fails(2, "bench", self.work / "step2", self.work / "step3", "--codec", "momentum", says="before")

    def test_bench(self):
        old, new = self.folder("old"), self.folder("new")
        text = self.ok("bench", old, new, "--rounds", "1")
        self.assertIn("elements changed", text)
        self.assertRegex(text, r"(?m)^step +[\d,]+ ")
        self.assertIn("effort default chose", text)
        report = self.json("bench", old / "model.safetensors", new)
        self.assertEqual((report["tensors"], report["dense_bytes"], report["elements"], report["rounds"]),
                         (1, 40000, 20000, 3))
        self.assertEqual(report["changed_elements"], self.json("diff", old, new)["changed_elements"])
        rows = {row["name"]: row for row in report["results"]}
        self.assertLessEqual({"raw", "step", "dense", "class", "dense_delta", "fast", "default", "max"}, set(rows))
        for row in rows.values():
            self.assertTrue(row["exact"])
            self.assertAlmostEqual(row["bits_per_changed_element"],
                                   8 * row["section_bytes"] / report["changed_elements"])
            self.assertAlmostEqual(row["fraction_of_dense"], row["section_bytes"] / 40000)
        self.assertEqual(rows["max"]["section_bytes"], min(row["section_bytes"] for row in rows.values()))
        self.assertLessEqual(rows["fast"]["section_bytes"], rows["raw"]["section_bytes"])
        some = self.json("bench", old, new, "--codec", "raw", "--codec", "default", "--tensor", "w*")
        self.assertEqual([row["name"] for row in some["results"]], ["raw", "default"])
        self.assertEqual(some["results"][0]["section_bytes"], rows["raw"]["section_bytes"])
        same = self.json("bench", old, old, "--rounds", "1")
        self.assertEqual({row["section_bytes"] for row in same["results"]}, {0})

    def test_bench_refuses(self):
        old, new = self.folder("old"), self.folder("new")
        self.fails(2, "bench", old)
        self.fails(2, "bench", old, new, "--codec", "nonesuch", says="there is no codec or effort 'nonesuch'")
        self.fails(2, "bench", old, new, "--rounds", "0")
        self.fails(2, "bench", old, new, "--tensor", "v*", says="no tensor matches")
        self.fails(3, "bench", old, self.work / "nothing", says="nothing")
        weights = new / "model.safetensors"
        weights.write_bytes(weights.read_bytes().replace(b"[200, 100]", b"[100, 200]"))
        self.fails(2, "bench", old, new, says="no tensor has the same")

    @unittest.skipUnless(os.getuid() == 0, "needs root to become somebody without rights")
    def test_permission(self):
        self.start(1)
        os.chmod(self.work, 0o755)
        program = shutil.copy(PROGRAM, "/tmp") if not os.access("/tmp", os.X_OK) else PROGRAM
        folder = self.folder("next")
        done = self.run_it("publish", self.bucket, folder, "--no-cache", user=65534, group=65534) \
            if os.stat(Path(program).parent).st_mode & 0o001 else None
        if done is None:
            self.skipTest("the program lies where nobody else may run it")
        self.assertEqual(done.returncode, 6, done.stderr)
        self.assertEqual(len(self.json("log", self.bucket)["versions"]), 1)

    def test_trainers_that_rewrite_and_trainers_that_do_not(self):
        self.ok("init", self.bucket)
        for i in range(4):
            report = self.json("publish", self.bucket, self.folder("live"))
            self.assertEqual(report["kind"], "delta" if i else "anchor")
        self.assertIn("anchor of main@0", report["base"])
        for i in range(3):
            report = self.json("publish", self.bucket, self.folder(f"new{i}"))
        self.assertIn("hard links", report["base"])
        shutil.rmtree(self.work / "new2")
        self.assertIn("hard links", self.json("publish", self.bucket, self.folder("last"))["base"])
        shutil.rmtree(self.work / "cache")
        self.ok("publish", self.bucket, self.folder("after"))
        self.assertTrue(self.json("verify", self.bucket, "--data")["ok"])
        self.ok("checkout", self.bucket, "main", self.work / "out")
        self.assertTrue((self.work / "out/model.safetensors").read_bytes().endswith(self.words))

    def test_pull_refuses_what_it_does_not_know_and_repairs(self):
        self.start(2)
        replica = self.work / "replica"
        self.ok("pull", self.bucket, replica, "--to", "main@0")
        weights = replica / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-3] ^= 1
        weights.write_bytes(content)
        self.fails(4, "pull", self.bucket, replica, says="--repair")
        self.assertEqual(weights.read_bytes(), content)
        self.ok("pull", self.bucket, replica, "--repair")
        self.assertEqual(weights.read_bytes(), (self.work / "step1/model.safetensors").read_bytes())
        foreign = self.work / "foreign"
        foreign.mkdir()
        (foreign / "notes.txt").write_text("mine")
        self.fails(4, "pull", self.bucket, foreign, says="not empty")
        copied = shutil.copytree(self.work / "step0", self.work / "copied")
        self.assertEqual(self.json("pull", self.bucket, copied)["from"], "main@0")
        other = self.work / "other"
        self.ok("init", other)
        self.ok("publish", other, self.work / "step0")
        self.fails(4, "pull", other, replica, says="another repository")

    def test_companions_come_and_go(self):
        self.ok("init", self.bucket)
        first = self.folder("a", "{\"a\": 1}")
        (first / "licence.txt").write_text("free")
        self.ok("publish", self.bucket, first)
        replica = self.work / "replica"
        self.ok("pull", self.bucket, replica)
        self.assertEqual((replica / "licence.txt").read_text(), "free")
        self.assertEqual(self.json("publish", self.bucket, self.folder("b", "{\"b\": 2}"))["kind"], "delta")
        self.ok("pull", self.bucket, replica)
        self.assertEqual((replica / "config.json").read_text(), "{\"b\": 2}")
        self.assertFalse((replica / "licence.txt").exists())

    def test_follow(self):
        self.start(1)
        replica, record = self.work / "replica", self.work / "record"
        command = f"echo $SILTSTONE_VERSION $SILTSTONE_STEP $SILTSTONE_DIR >> {record}"
        follower = subprocess.Popen([PROGRAM, "pull", self.bucket, replica, "--follow", "--interval", "0.02",
                                     "--until", "3", "--on-update", command, "--json"],
                                    env=self.env, stdout=subprocess.PIPE, text=True)
        for i in range(1, 4):
            self.ok("publish", self.bucket, self.folder(f"step{i}"), "--step", i)
        lines = [json.loads(line) for line in follower.communicate(timeout=60)[0].splitlines()]
        self.assertEqual(follower.returncode, 0)
        self.assertEqual(lines[-1]["to"], "main@3")
        self.assertEqual(len(record.read_text().splitlines()), len(lines))
        self.assertIn(f"main@3 3 {replica}", record.read_text())
        self.assertEqual((replica / "model.safetensors").read_bytes(),
                         (self.work / "step3/model.safetensors").read_bytes())

    def test_update_command_that_fails_runs_again(self):
        self.start(1)
        replica, record = self.work / "replica", self.work / "record"
        self.fails(1, "pull", self.bucket, replica, "--on-update", "exit 7", says="status 7")
        self.ok("pull", self.bucket, replica, "--on-update", f"echo again >> {record}")
        self.ok("pull", self.bucket, replica, "--on-update", f"echo again >> {record}")
        self.assertEqual(record.read_text(), "again\n")

    def test_terminated_follower_ends_cleanly(self):
        self.start(1)
        follower = subprocess.Popen([PROGRAM, "pull", self.bucket, self.work / "replica", "--follow"], env=self.env,
                                    stdout=subprocess.PIPE)
        follower.stdout.readline()
        self.fails(5, "pull", self.bucket, self.work / "replica", says="another process")
        follower.send_signal(signal.SIGTERM)
        self.assertEqual(follower.wait(timeout=30), 0)
        follower.stdout.close()

    def test_full_disk(self):
        self.start(1)
        folder = self.folder("big")
        header = json.dumps({"w": {"dtype": "U8", "shape": [1 << 23], "data_offsets": [0, 1 << 23]}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(1 << 23))
        limited = f"ulimit -f 2048; exec {PROGRAM} publish {self.bucket} {folder} --no-cache"
        done = subprocess.run(["bash", "-c", limited], env=self.env, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("too large", done.stderr)
        self.assertEqual(len(self.json("log", self.bucket)["versions"]), 1)
        self.ok("publish", self.bucket, folder)
        limited = f"ulimit -f 2048; exec {PROGRAM} checkout {self.bucket} main@1 {self.work / 'out'}"
        done = subprocess.run(["bash", "-c", limited], env=self.env, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual([path.name for path in self.work.iterdir() if path.name.startswith((".out", "out"))], [])
        self.ok("checkout", self.bucket, "main@1", self.work / "out")


if __name__ == "__main__":
    unittest.main()
