#!/usr/bin/env python3
"""The parts of the comparison that need the standard library only: files, tables, our own rows."""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import checkpoints  # noqa: E402
import commands  # noqa: E402
import generate  # noqa: E402
import peers  # noqa: E402
import tables  # noqa: E402


def row(name, size=1000, failure=None):
    made = tables.Row(name, f"Title {name}", "somebody")
    made.size, made.encode_speed, made.decode_speed, made.mebibytes, made.exact = size, 1.2345, 20, 3.4, True
    made.failure = failure
    return made


FACTS = {"dense": 16000, "words": 8000, "changed": 400, "tensors": 6}


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="siltstone-peers-")
        self.addCleanup(folder.cleanup)
        self.work = Path(folder.name)


class Checkpoints(Folder):
    def write(self, name, tensors):
        path = self.work / name / "model.safetensors"
        path.parent.mkdir()
        checkpoints.write_checkpoint(path, tensors)
        return path

    def open(self, path):
        checkpoint = checkpoints.Checkpoint(path)
        self.addCleanup(checkpoint.close)
        return checkpoint

    def test_what_is_written_is_read(self):
        tensors = {"b": ("BF16", (2, 3), bytes(range(12))), "a": ("F32", (), b"abcd"), "none": ("U8", (0, 4), b"")}
        path = self.write("one", tensors)
        (length,) = struct.unpack("<Q", path.read_bytes()[:8])
        self.assertEqual(length % 8, 0)
        checkpoint = self.open(path)
        for name, (dtype, shape, data) in tensors.items():
            entry = checkpoint.entries[name]
            self.assertEqual((entry.dtype, entry.shape, entry.size), (dtype, shape, len(data)))
            buffer = bytearray(entry.size)
            checkpoint.read_into(entry, buffer)
            self.assertEqual(buffer, data)
        self.assertEqual(checkpoint.entries["b"].word_bytes, 2)

    def test_only_tensors_of_equal_shape_are_shared(self):
        old = self.open(self.write("old", {"same": ("U8", (2,), b"ab"), "shape": ("U8", (2,), b"ab"),
                                           "dtype": ("I8", (2,), b"ab"), "gone": ("U8", (1,), b"a"),
                                           "empty": ("U8", (0,), b"")}))
        new = self.open(self.write("new", {"dtype": ("U8", (2,), b"ab"), "shape": ("U8", (1, 2), b"ab"),
                                           "empty": ("U8", (0,), b""), "same": ("U8", (2,), b"cd")}))
        self.assertEqual([entry.name for _, entry in checkpoints.shared_entries(old, new)], ["same"])

    def test_refuses_broken_files(self):
        with self.assertRaises(ValueError):
            self.write("bad", {"a": ("BF16", (3,), b"abcd")})
        path = self.write("cut", {"a": ("BF16", (3,), b"abcdef")})
        path.write_bytes(path.read_bytes()[:-1])
        checkpoint = self.open(path)
        with self.assertRaises(ValueError):
            checkpoint.read_into(checkpoint.entries["a"], bytearray(6))
        header = json.dumps({"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 5]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(5))
        with self.assertRaises(ValueError):
            checkpoints.Checkpoint(path)

    def test_a_trace_has_two_steps(self):
        self.write("step_2", {})
        with self.assertRaises(ValueError):
            checkpoints.trace_paths(self.work)
        self.write("step_1", {})
        self.assertEqual([path.parent.name for path in checkpoints.trace_paths(self.work)], ["step_1", "step_2"])


class Generate(unittest.TestCase):
    def test_layout_has_the_size_asked_for(self):
        for mebibytes in (128, 1024, 4096):
            shapes = generate.layout(mebibytes)
            header = checkpoints.header_bytes({name: ("BF16", shape) for name, shape in shapes.items()})
            entries = json.loads(header[8:])
            end = max(fields["data_offsets"][1] for fields in entries.values())
            self.assertLess(abs(end / 2**20 / mebibytes - 1), 0.03)
            self.assertGreater(len(shapes), 80)

    def test_folders_are_named_by_percent(self):
        self.assertEqual([generate.folder_name(density) for density in (0.001, 0.5, 1)], ["0.1", "50", "100"])


class Tables(unittest.TestCase):
    def test_rows(self):
        self.assertEqual(tables.row_line(row("a"), FACTS, 2),
                         "| Title a | somebody | 500 | 20.000 | 0.06250 | 1.23 | 20 | 3 | yes |")
        self.assertEqual(tables.row_line(row("a", failure="no a|b"), FACTS, 2),
                         "| Title a | somebody | | | | | | | no a/b |")
        self.assertIn("| - |", tables.row_line(row("a"), dict(FACTS, changed=0), 1))

    def test_section(self):
        lines = tables.section("Name", [row("a")], FACTS, 2, 3)
        self.assertEqual(lines[0], "## Name")
        self.assertIn("2 pairs of 0.0 MiB in 3 tensors; 200 words changed per pair (5.000 %)", lines[2])
        self.assertEqual(len(lines), 7)

    def test_merging(self):
        first = tables.section("One", [row("a"), row("b")], FACTS, 1, 3)
        second = tables.section("Two", [row("a")], FACTS, 1, 3)
        text = tables.merged(tables.merged("# Head\n", first), second)
        self.assertEqual(text.split("\n"), ["# Head", "", *first, "", *second, ""])
        again = tables.merged(text, tables.section("One", [row("b", 77), row("c", 88)], FACTS, 1, 3))
        self.assertEqual([tables.title_of(line) for line in again.split("\n") if tables.title_of(line)],
                         ["method", "Title a", "Title b", "Title c", "method", "Title a"])
        self.assertIn("| Title b | somebody | 77 |", again)
        self.assertNotIn("| Title b | somebody | 1,000 |", again)
        self.assertEqual(tables.merged("", first), "\n".join(first) + "\n")


class Choice(unittest.TestCase):
    def arguments(self, methods=None, skip=()):
        return types.SimpleNamespace(methods=methods, skip=list(skip))

    def test_wanted(self):
        step, other = row("siltstone-step"), row("xdelta3")
        self.assertTrue(peers.wanted(self.arguments(), step))
        self.assertTrue(peers.wanted(self.arguments(["siltstone"]), step))
        self.assertTrue(peers.wanted(self.arguments(["siltstone-step"]), step))
        self.assertFalse(peers.wanted(self.arguments(["siltstone-raw"]), step))
        self.assertFalse(peers.wanted(self.arguments(["siltstone"]), other))
        self.assertFalse(peers.wanted(self.arguments(skip=["siltstone"]), step))
        self.assertFalse(peers.wanted(self.arguments(skip=["xdelta3"]), other))
        self.assertTrue(peers.only_ours(self.arguments(["siltstone", "siltstone-raw"])))
        self.assertFalse(peers.only_ours(self.arguments(["siltstone", "xdelta3"])))
        self.assertFalse(peers.only_ours(self.arguments()))


class Ours(Folder):
    def test_our_rows_come_from_the_program(self):
        values = random.Random(3)
        words = bytearray(values.randbytes(20000))
        for number in range(3):
            (self.work / str(number)).mkdir()
            checkpoints.write_checkpoint(self.work / str(number) / "model.safetensors",
                                         {"w": ("BF16", (100, 100), words)})
            words[2 * values.randrange(10000)] ^= 1
            words[2 * values.randrange(10000)] ^= 1
        document = self.work / "table.md"
        for _ in range(2):
            subprocess.run([sys.executable, HERE / "peers.py", "--siltstone", os.environ["SILTSTONE"], "--trace",
                            self.work, "--methods", "siltstone", "--skip", "siltstone-dense", "--repeat", "1",
                            "--heading", "Tiny", "--markdown", document], check=True, capture_output=True)
        text = document.read_text()
        self.assertIn("1 pair of 0.0 MiB in 1 tensors; 2 words changed per pair", text)
        self.assertEqual(text.count("Siltstone `momentum`"), 1)
        self.assertEqual(text.count("Siltstone `raw`"), 1)
        self.assertEqual(text.count("Siltstone effort default"), 1)
        self.assertNotIn("dense`", text)

    def test_a_program_that_fails_says_why(self):
        with self.assertRaisesRegex(RuntimeError, "exit status 3: .*nothing"):
            commands.run([os.environ["SILTSTONE"], "bench", self.work / "nothing", self.work])
        self.assertEqual(commands.run(["echo", "word"]).output, "word\n")


if __name__ == "__main__":
    unittest.main()
