#!/usr/bin/env python3
"""The prover of the demo must notice what it claims to notice."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import prove  # noqa: E402


def write_weights(path, tensors):
    """tensors: name -> (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text
                     + b"".join(data for _, _, data in tensors.values()))


class ProveTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        step = self.root / "trainer" / "step_0003"
        (step / "sub").mkdir(parents=True)
        write_weights(step / "model.safetensors", {
            "a": ("BF16", [2, 3], bytes(range(12))),
            "b": ("F32", [1], b"\x00\x00\xc0\x7f"),  # a NaN
            "empty": ("F32", [0], b""),
        })
        (step / "config.json").write_text("{}")
        (step / "sub" / "more.json").write_text("[]")
        self.trainer = step
        self.replica = self.root / "replica"
        shutil.copytree(step, self.replica)

    def problems(self):
        return prove.compare_folders(self.trainer, self.replica)[3]

    def test_accepts_an_equal_folder_and_counts_it(self):
        self.assertEqual(prove.compare_folders(self.trainer, self.replica), (3, 16, 3, []))

    def test_ignores_hidden_files_of_the_replica(self):
        (self.replica / ".siltstone").mkdir()
        (self.replica / ".siltstone" / "state.json").write_text("{}")
        self.assertEqual(self.problems(), [])

    def test_notices_every_flipped_bit_of_the_weights(self):
        path = self.replica / "model.safetensors"
        good = path.read_bytes()
        data = len(good) - 16
        for bit in range(16 * 8):
            bad = bytearray(good)
            bad[data + bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bad)
            self.assertIn("bytes differ", " ".join(self.problems()), bit)

    def test_notices_another_header_with_the_same_data(self):
        write_weights(self.replica / "model.safetensors", {
            "a": ("F16", [2, 3], bytes(range(12))),
            "b": ("F32", [1], b"\x00\x00\xc0\x7f"),
            "empty": ("F32", [0], b""),
        })
        self.assertIn("dtype", " ".join(self.problems()))

    def test_notices_a_short_file(self):
        path = self.replica / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        self.assertNotEqual(self.problems(), [])

    def test_notices_missing_and_extra_and_changed_companions(self):
        (self.replica / "config.json").unlink()
        (self.replica / "other.json").write_text("{}")
        (self.replica / "sub" / "more.json").write_text("[1]")
        text = " ".join(self.problems())
        for word in ("config.json: missing", "other.json", "sub/more.json: files differ"):
            self.assertIn(word, text)

    def test_an_absent_step_is_not_a_proof(self):
        self.trainer = self.root / "trainer" / "step_0004"
        self.trainer.mkdir()
        self.assertNotEqual(self.problems(), [])

    def test_the_program_logs_and_exits_by_the_result(self):
        log = self.root / "proofs.jsonl"
        environment = dict(os.environ, SILTSTONE_VERSION="main@3", SILTSTONE_ROOT="00ff",
                           SILTSTONE_DIR=str(self.replica))
        command = [sys.executable, str(HERE / "prove.py"), "--trainer",
                   str(self.root / "trainer"), "--log", str(log)]
        self.assertEqual(subprocess.run(command, env=environment, check=False).returncode, 0)
        (self.replica / "config.json").write_text("{ }")
        done = subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual([line["proven"] for line in lines], [True, False])
        self.assertEqual(lines[0]["version"], "main@3")


if __name__ == "__main__":
    unittest.main()
