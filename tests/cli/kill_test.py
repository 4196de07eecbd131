#!/usr/bin/env python3
"""kill -9 of `publish` and of `pull --follow` at random moments: nothing lost, no torn file.

At least 300 kills hit a running process. After each: the log is dense and holds only versions that the
trainer wrote; every weight file of the replica is, at that very moment, whole and of some version.
"""

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from program import PROGRAM, RunsProgram

KILLS = 300
SHARDS = 3
SHARD_BYTES = 1 << 19
# Each delta then depends on what publisher and follower kept of the one before.
PUBLISH = (PROGRAM, "publish", "--momentum", "--codec", "momentum")


class Trainer:
    """Writes folders of three shards whose words change a little from step to step."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.random = random.Random(seed)
        self.words = [bytearray(self.random.randbytes(SHARD_BYTES)) for _ in range(SHARDS)]
        self.steps = 0

    def write(self):
        out = self.folder / f"step_{self.steps}"
        out.mkdir(parents=True)
        weight_map = {}
        for number, words in enumerate(self.words):
            name = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
            header = {f"t{number}": {"dtype": "BF16", "shape": [256, SHARD_BYTES // 512],
                                     "data_offsets": [0, SHARD_BYTES]}}
            text = json.dumps(header).encode()
            (out / name).write_bytes(struct.pack("<Q", len(text)) + text + words)
            weight_map[f"t{number}"] = name
        (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        (out / "config.json").write_text(json.dumps({"step": self.steps // 10}))
        self.steps += 1
        for words in self.words:
            for _ in range(2000):
                words[2 * self.random.randrange(SHARD_BYTES // 2)] ^= 1
        return out


def digests(folder):
    """SHA-256 of every weight file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


class Kill(RunsProgram, unittest.TestCase):
    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="siltstone-kill-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.env = dict(os.environ, SILTSTONE_CACHE=str(self.work / "cache"))
        self.bucket = self.work / "bucket"
        self.replica = self.work / "replica"
        self.random = random.Random(11)
        self.trainer = Trainer(self.work / "trainer", 3)
        self.versions = []  # digests of every committed version
        self.known = {}  # file name -> digests it had in any step that was written
        self.ok("init", self.bucket)

    def write_step(self):
        folder = self.trainer.write()
        found = digests(folder)
        for name, digest in found.items():
            self.known.setdefault(name, set()).add(digest)
        return folder, found

    def log_length(self):
        log = json.loads(self.ok("log", self.bucket, "--json"))["versions"]
        self.assertEqual([version["seq"] for version in log], list(range(len(log)))[::-1])
        return len(log)

    def kill_soon(self, process, longest):
        """Kills after a random time; whether that hit a running process."""
        time.sleep(self.random.uniform(0, longest))
        running = process.poll() is None
        process.kill()
        process.wait()
        return running and process.returncode == -9

    def publish_under_kills(self):
        """Publishes one step, being killed again and again; returns the kills that hit."""
        folder, found = self.write_step()
        hits = 0
        while True:
            process = subprocess.Popen([*PUBLISH, self.bucket, folder, "--json"], env=self.env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if hits < 4:
                hits += self.kill_soon(process, self.duration * 1.2)
            _, error = process.communicate()
            length = self.log_length()
            self.assertIn(length - len(self.versions), (0, 1))
            if length > len(self.versions):
                self.versions.append(found)
                shutil.rmtree(folder)
                return hits
            if process.returncode not in (0, -9):
                self.fail(error.decode())

    def assert_no_torn_file(self):
        for name, digest in digests(self.replica).items():
            self.assertIn(digest, self.known[name], f"{name} is torn")

    def test_publish_and_follow(self):
        folder, found = self.write_step()
        begin = time.monotonic()
        self.ok("publish", self.bucket, folder)
        self.duration = time.monotonic() - begin
        self.versions.append(found)
        publish_hits = follow_hits = 0
        while publish_hits < KILLS // 2 or follow_hits < KILLS // 2:
            follower = subprocess.Popen([PROGRAM, "pull", self.bucket, self.replica, "--follow", "--interval", "0.01"],
                                        env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            publish_hits += self.publish_under_kills()
            self.assertIsNone(follower.poll(), "the follower ended by itself")
            follow_hits += self.kill_soon(follower, 0.03)
            follower.stderr.close()
            self.assert_no_torn_file()

        self.ok("pull", self.bucket, self.replica)
        self.assertEqual(digests(self.replica), self.versions[-1])
        left = sorted(path.name for path in (self.replica / ".siltstone").iterdir())
        ways_back = [name for name in left if name.startswith("way-back-")]
        self.assertLessEqual(len(ways_back), 1)
        self.assertEqual([name for name in left if name not in ways_back], ["lock", "replica.json"])
        for seq in self.random.sample(range(len(self.versions)), 20):
            out = self.work / "out"
            self.ok("checkout", self.bucket, f"main@{seq}", out)
            self.assertEqual(digests(out), self.versions[seq])
            shutil.rmtree(out)
        self.ok("verify", self.bucket, "--data")
        self.ok("publish", self.bucket, self.write_step()[0])
        for what in ("files-*", "way-back-*"):
            kept = [path.name for path in (self.work / "cache").rglob(what)]
            self.assertLessEqual(len(kept), 1, "killed publishers left what nobody removes")
        inspected = [json.loads(self.ok("inspect", self.bucket, f"main@{seq}", "--json"))["codecs"]
                     for seq in range(1, len(self.versions), 7)]
        looking_back = sum("momentum" in codecs for codecs in inspected)
        self.assertGreater(looking_back, 0)
        print(f"{looking_back} of {len(inspected)} versions looked at are coded by momentum")
        print(f"{publish_hits} publishes and {follow_hits} followers killed, {len(self.versions)} versions")


if __name__ == "__main__":
    unittest.main()
