#!/usr/bin/env python3
"""Repositories of every released format are opened, verified and rebuilt by today's program."""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = os.environ["SILTSTONE"]


def run(*words):
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True)


class OldRepositories(unittest.TestCase):
    def test_every_archive(self):
        archives = sorted(HERE.glob("*.tar"))
        self.assertTrue(archives)
        for archive in archives:
            with self.subTest(archive=archive.name), tempfile.TemporaryDirectory() as scratch:
                self.check(archive, Path(scratch))

    def check(self, archive, work):
        with tarfile.open(archive) as tar:
            tar.extractall(work)
        bucket = work / "bucket"
        verified = run("verify", bucket, "--data", "--json")
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)
        expected = json.loads(archive.with_suffix(".json").read_text())
        for version, files in expected.items():
            out = work / version
            done = run("checkout", bucket, version, out)
            self.assertEqual(done.returncode, 0, done.stderr)
            found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}
            self.assertEqual(found, files, version)
        self.assertIn("main@2", run("show", bucket, "tag:release").stdout)
        self.assertIn("main@1", run("show", bucket, "experiment").stdout)
        replica = work / "replica"
        for version in ("main@1", "main@4"):
            done = run("pull", bucket, replica, "--to", version)
            self.assertEqual(done.returncode, 0, done.stderr)
            found = hashlib.sha256((replica / "model.safetensors").read_bytes()).hexdigest()
            self.assertEqual(found, expected[version]["model.safetensors"])


if __name__ == "__main__":
    unittest.main()
