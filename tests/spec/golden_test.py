#!/usr/bin/env python3
"""The second reader agrees with every golden pack, refuses every bad one, and knows the worked digests."""

import json
import unittest
from pathlib import Path

import decode
import digest
from xxh64 import xxh64

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def old_bytes(value):
    if isinstance(value, str):
        return bytearray.fromhex(value)
    return bytearray((bytes.fromhex(value["repeat"]) * (value["bytes"] // 8 + 1))[:value["bytes"]])


def new_bytes(value, old):
    if isinstance(value, str):
        return bytearray.fromhex(value)
    out = bytearray(old)
    for at, byte in value["patches"]:
        out[at] = int(byte, 16)
    return out


class Golden(unittest.TestCase):
    def read(self, folder, case):
        description = json.loads((folder / f"{case}.json").read_text())
        packs = [decode.read_pack((folder / name).read_bytes()) for name in description["packs"]]
        known = {tensor["name"] for tensor in description["tensors"]}
        self.assertLessEqual({name for pack in packs for name in pack}, known)
        before, after = [], []
        for tensor in description["tensors"]:
            dtype, shape = tensor["dtype"], tensor["shape"]
            words = old_bytes(tensor["old"])
            expected = new_bytes(tensor["new"], words)
            earlier = bytes.fromhex(tensor["earlier"]) if "earlier" in tensor else None
            row = (tensor["name"], decode.DTYPES[dtype][0], shape)
            before.append((*row, digest.sum_at(words)))
            found = []
            for name, pack in zip(description["packs"], packs):
                for section in decode.sections_of(pack.get(tensor["name"], b""), dtype, shape):
                    section.apply(words, earlier)
                    found.append((name, section.row, section.col, section.changed, digest.text(section.before),
                                  digest.text(section.after)))
            self.assertEqual(words, expected, tensor["name"])
            self.assertEqual(sorted(found), sorted(
                (s["pack"], s["row_begin"], s["col_begin"], s["changed"], s["sum_before"], s["sum_after"])
                for s in tensor["sections"]))
            after.append((*row, digest.sum_at(words)))
        self.assertEqual(digest.root(before), description["from"])
        self.assertEqual(digest.root(after), description["to"])

    def test_reads_every_golden_pack(self):
        for kind in ("read", "write"):
            folder = GOLDEN / kind / "pack"
            for case in json.loads((folder / "manifest.json").read_text())["cases"]:
                with self.subTest(kind=kind, case=case):
                    self.read(folder, case)

    def test_refuses_every_bad_pack(self):
        folder = GOLDEN / "refuse" / "pack"
        cases = json.loads((folder / "manifest.json").read_text())["cases"]
        self.assertGreaterEqual(len(cases), 40)
        for case in cases:
            with self.subTest(case=case["pack"]):
                tensor = case["tensor"]
                with self.assertRaises(decode.FormatError) as raised:
                    entries = decode.read_pack((folder / case["pack"]).read_bytes())
                    words = old_bytes(tensor["old"])
                    for entry in entries.values():
                        for section in decode.sections_of(entry, tensor["dtype"], tensor["shape"]):
                            section.apply(words, bytes(len(words)))
                self.assertEqual(raised.exception.code, case["code"])


class WorkedDigests(unittest.TestCase):
    def test_sums(self):
        self.assertEqual(digest.text(digest.sum_at(bytes(range(20)))), "30f64f993759eaf42ff3e1aa87698e93")
        data = bytes((7 * i + 3) % 251 for i in range(20001))
        self.assertEqual(digest.sum_at(data), (0xB7849A09F7B7CE9F, 0x22D560CBA4C5F767))
        self.assertEqual(digest.sum_at(data, 8 * (2**38 + 5)), (0xE172BDF451BD8062, 0x72C7F8ED065C2485))

    def test_roots(self):
        rows = [("token_type_ids", 21, [0, 4], (0, 0)),
                ("model.norm.weight", 15, [10], digest.sum_at(bytes(range(20))))]
        self.assertEqual(digest.root(rows), "6658988412b6895b3dffb98ecdb408849eecd474b2b711119ff0cebfb1adc1e4")
        self.assertEqual(digest.root([]), "15395e344043ab7e0d22779c8a08560e290467578da1e7816df8542c4590fa05")

    def test_xxh64(self):
        self.assertEqual(xxh64(b""), 0xEF46DB3751D8E999)
        self.assertEqual(xxh64(b"abc"), 0x44BC2CF5AD770999)


if __name__ == "__main__":
    unittest.main()
