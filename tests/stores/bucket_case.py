"""What the tests of remote stores share: checkpoints, the program, and a bucket's whole life."""

import json
import os
import random
import shutil
import struct
import sys
import tempfile
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "cli")]

from program import RunsProgram  # noqa: E402 - found through the path above

ROWS, COLUMNS = 600, 1000
TENSORS = ("embed.weight", "layer.weight")
STALL = ("--stall-timeout", "1")


def url_of(endpoint, path):
    """The URL of a bucket at an S3 endpoint; the program finds keys in its environment."""
    return f"s3://{path}?endpoint={endpoint}"


class BucketCase(RunsProgram, unittest.TestCase):
    """A test case with a scratch folder, an environment for `server`, and changing weights."""

    server = None

    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="siltstone-stores-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.env = dict(self.server.environment() if self.server else os.environ,
                        SILTSTONE_CACHE=str(self.work / "cache"))
        for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            self.env.pop(proxy, None)
        self.random = random.Random(self.id())
        self.words = bytearray(self.random.randbytes(2 * ROWS * COLUMNS * len(TENSORS)))

    def checkpoint(self, name, changes=5000):
        """A model folder that differs from the one before in about so many words."""
        for _ in range(changes):
            self.words[2 * self.random.randrange(len(self.words) // 2)] ^= 1
        folder = self.work / name
        folder.mkdir()
        size = 2 * ROWS * COLUMNS
        header = json.dumps({tensor: {"dtype": "BF16", "shape": [ROWS, COLUMNS],
                                      "data_offsets": [i * size, (i + 1) * size]}
                             for i, tensor in enumerate(TENSORS)}).encode()
        header += b" " * (-len(header) % 8)
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + self.words)
        (folder / "config.json").write_text(json.dumps({"name": name}))
        return folder

    def fails(self, status, *words, says=()):
        done = self.run_it(*words)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout}{done.stderr}")
        for text in (says,) if isinstance(says, str) else says:
            self.assertIn(text, done.stderr)
        return done.stderr

    def assert_same_folders(self, one, other):
        files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
        self.assertEqual(files, {path.relative_to(other) for path in other.rglob("*")
                                 if path.is_file() and ".siltstone" not in str(path)})
        for path in files:
            self.assertEqual((one / path).read_bytes(), (other / path).read_bytes(), path)

    def publish_all(self, bucket, folders, *options):
        """One version each; their roots."""
        return [self.json("publish", bucket, folder, "--step", step, *options)["root"]
                for step, folder in enumerate(folders)]

    def live(self, bucket, *options):
        """Everything that is done with a bucket, checked against the folders that were published and
        against a bucket in a directory."""
        self.ok("init", bucket, *options)
        folders = [self.checkpoint(f"step{i}") for i in range(4)]
        roots = self.publish_all(bucket, folders)
        local = self.work / "directory"
        self.ok("init", local)
        self.assertEqual(roots, self.publish_all(local, folders))
        self.assertEqual([version["root"] for version in self.json("log", bucket)["versions"]], roots[::-1])

        for step in (0, 3):
            out = self.work / f"out{step}"
            self.ok("checkout", bucket, f"main@{step}", out)
            self.assert_same_folders(folders[step], out)
        replica = self.work / "replica"
        self.ok("pull", bucket, replica, "--to", "main@1")
        self.assert_same_folders(folders[1], replica)
        self.assertEqual(self.json("pull", bucket, replica)["root"], roots[3])
        self.assert_same_folders(folders[3], replica)

        self.ok("tag", bucket, "best", "main@2")
        self.ok("branch", bucket, "trial", "tag:best")
        other = self.checkpoint("trial")
        self.assertEqual(self.json("publish", bucket, other, "--branch", "trial")["version"], "trial@3")
        self.ok("pull", bucket, self.work / "trial-replica", "--branch", "trial")
        self.assert_same_folders(other, self.work / "trial-replica")
        self.assertGreater(self.json("diff", bucket, "main@0", "main@3")["changed_elements"], 0)
        report = self.json("verify", bucket, "--data")
        self.assertEqual((report["versions"], report["problems"]), (5, []))
        return folders, roots
