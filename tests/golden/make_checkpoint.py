#!/usr/bin/env python3
"""Writes the golden files of docs/format/checkpoint.md beside itself, and the corpus of the fuzz
target, from struct and json alone: a second writer of the format.

    make_checkpoint.py            writes them
    make_checkpoint.py --check    fails if what it would write differs from what is there
"""

import hashlib
import json
import pathlib
import struct
import sys
import tempfile

BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8,
        "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16,
        "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
        "U64": 64}


def pattern(size, seed=1):
    """Bytes that do not repeat soon and need no library."""
    out = bytearray()
    while len(out) < size:
        out += hashlib.sha256(struct.pack("<QQ", seed, len(out))).digest()
    return bytes(out[:size])


def size_of(dtype, shape):
    elements = 1
    for dimension in shape:
        elements *= dimension
    assert elements * BITS[dtype] % 8 == 0
    return elements * BITS[dtype] // 8


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def container(header, data):
    return struct.pack("<Q", len(header)) + header + data


def layout(tensors, metadata=None):
    """tensors: (name, dtype, shape), back to back in this order -> (header object, data size)."""
    header = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, dtype, shape in tensors:
        end = at + size_of(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return header, at


def padded(header, alignment):
    return header + b" " * (-(8 + len(header)) % alignment)


# What must be read. name -> bytes; a description beside each says what a reader must find.
def read_cases():
    cases = {}

    def add(name, tensors, metadata=None, pad=0, dump=compact):
        header, size = layout(tensors, metadata)
        cases[name] = container(dump(header) + b" " * pad, pattern(size))

    add("every_dtype", [(d.lower(), d, [2, 4]) for d in BITS])
    add("no_tensors", [])
    add("metadata_only", [], {"format": "pt"})
    add("metadata_empty", [("a", "U8", [1])], {})
    add("metadata_control_characters", [("a", "U8", [1])], {"k\n": "v\t\u0001", "": ""})
    add("zero_dimensional", [("step", "I64", []), ("flag", "BOOL", [])])
    add("empty_tensors", [("e1", "F32", [0]), ("w", "F32", [2]), ("e2", "BF16", [3, 0, 7])])
    add("only_empty_tensors", [("e1", "F32", [0]), ("e2", "F4", [0, 3])])
    add("header_spaces", [("a", "F16", [3])], pad=5)
    add("header_not_aligned", [("abc", "F64", [1])])
    add("name_unicode", [("gewicht.\u00e4\u6f22\U0001f600", "U8", [2])])
    add("name_escaped", [("a", "U8", [1]), ("q\"\\/\u00e9", "U8", [1])],
        dump=lambda h: json.dumps(h, separators=(",", ":")).replace("\"a\"", "\"\\u0061\"").encode())
    add("name_512_bytes", [("n" * 512, "U8", [1])])
    add("name_like_a_path", [("../../etc/passwd", "U8", [1]), ("..", "U8", [1])])
    add("rank_16", [("r", "U8", [1] * 15 + [3])])
    add("header_indented", [("a", "U8", [1]), ("b", "I16", [2])], {"format": "pt"},
        dump=lambda h: json.dumps(h, indent=2).encode())

    # Keys in an order of their own, and data in another than the header's.
    cases["keys_reordered"] = container(
        b'{"b":{"data_offsets":[4,6],"shape":[2],"dtype":"U8"},'
        b'"a":{"shape":[2,1],"data_offsets":[0,4],"dtype":"BF16"},'
        b'"__metadata__":{"z":"1","a":"2"}}', pattern(6))
    # Empty tensors whose place in the header says nothing about their neighbours.
    cases["empty_tensors_scattered"] = container(
        b'{"z":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},'
        b'"e2":{"dtype":"U8","shape":[0],"data_offsets":[4,4]},'
        b'"e1":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},'
        b'"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
        b'"e0":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', pattern(4))
    return cases


def describe(content):
    """One line per tensor in order of name: what a reader must find in a golden read file."""
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8:8 + size])
    data = content[8 + size:]
    metadata = header.pop("__metadata__", {})
    lines = ["metadata %s" % json.dumps(metadata, sort_keys=True)]
    for name in sorted(header, key=lambda n: n.encode()):
        begin, end = header[name]["data_offsets"]
        shape = ",".join(str(d) for d in header[name]["shape"])
        lines.append("%s [%s] %d %s %s" % (header[name]["dtype"], shape, begin,
                                           hashlib.sha256(data[begin:end]).hexdigest(), name))
    return "\n".join(lines) + "\n"


# What must be refused: name -> (bytes, code, message behind the path).
def refuse_cases():
    cases = {}

    def raw(name, content, message, code="corrupt"):
        cases[name] = (content, code, message)

    def head(name, header, message, data=b"", code="corrupt"):
        raw(name, container(header if isinstance(header, bytes) else header.encode(), data), message,
            code)

    def one(name, fields, message, data=4, code="corrupt"):
        head(name, '{"a":{%s}}' % fields, message, pattern(data), code)

    field8 = "a safetensors file begins with a length field of 8"
    raw("file_empty", b"", "the file has 0 bytes; " + field8)
    raw("file_7_bytes", b"\x02\0\0\0\0\0\0", "the file has 7 bytes; " + field8)
    raw("file_git_lfs_pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "the file looks like a Git LFS pointer, not like weights; fetch the weights with "
        "'git lfs pull'")
    promise = "the length field promises a header of %d bytes, "
    raw("length_100000001", struct.pack("<Q", 100000001) + b"{}",
        promise % 100000001 + "at most 100000000 are allowed")
    raw("length_all_ones", b"\xff" * 8 + b"{}",
        promise % (2**64 - 1) + "at most 100000000 are allowed")
    raw("length_beyond_file", struct.pack("<Q", 3) + b"{}",
        promise % 3 + "but only 2 bytes follow: the file is cut off")
    raw("header_cut_off", container(b'{"a":{"dtype":"U8"', b""),
        "the header is not valid JSON: it ends after 18 bytes, before its last value does")
    head("header_empty", b"", "the header is empty; expected an object")
    head("header_array", b"[]", "the header begins with the byte 0x5b; expected '{'")
    head("header_leading_space", b" {}", "the header begins with the byte 0x20; expected '{'")
    head("header_byte_order_mark", b"\xef\xbb\xbf{}",
         "the header begins with the byte 0xef; expected '{'")
    follows = "the byte 0x%02x follows the closing brace of the header; only spaces may"
    head("header_trailing_newline", b"{}\n", follows % 10)
    head("header_trailing_tab_and_spaces", b"{}\t  ", follows % 9)
    head("header_trailing_nul", b"{}\0\0", "the header has a NUL byte at byte 2")
    head("header_trailing_object", b"{}{}", "the header is not valid JSON near byte 2")
    head("header_trailing_comma", b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}',
         "the header is not valid JSON near byte 53")
    head("header_comment", b"{/**/}", "the header is not valid JSON near byte 1")
    head("header_single_quotes", b"{'a':1}", "the header is not valid JSON near byte 1")
    head("header_invalid_utf8", b'{"\xff":{}}', "the header is not valid UTF-8 at byte 2")
    head("header_overlong_utf8", b'{"\xc0\xaf":{}}', "the header is not valid UTF-8 at byte 2")
    head("header_utf8_surrogate", b'{"\xed\xa0\x80":{}}',
         "the header is not valid UTF-8 at byte 2")
    head("header_lone_surrogate_escape", b'{"\\ud800":{}}',
         "the header is not valid JSON near byte 8")
    head("header_deep_nesting", b'{"a":{"shape":' + b"[" * 5000 + b"]" * 5000 + b"}}",
         "tensor 'a': 'shape' holds an array; expected an array of non-negative integers")

    head("metadata_twice", '{"__metadata__":{},"__metadata__":{}}',
         "key '__metadata__' stands twice in the header")
    head("metadata_key_twice", '{"__metadata__":{"k":"1","\\u006b":"2"}}',
         "'__metadata__' key 'k' stands twice")
    head("metadata_number", '{"__metadata__":{"k":1}}',
         "'__metadata__' entry 'k' is the number 1; expected a string")
    head("metadata_null", '{"__metadata__":{"k":null}}',
         "'__metadata__' entry 'k' is null; expected a string")
    head("metadata_nested", '{"__metadata__":{"k":{}}}',
         "'__metadata__' entry 'k' is an object; expected a string")
    head("metadata_array", '{"__metadata__":[]}', "'__metadata__' is an array; expected an object")
    head("metadata_string", '{"__metadata__":"pt"}',
         "'__metadata__' is the string 'pt'; expected an object")

    empty = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    head("name_empty", '{"":%s}' % empty, "a tensor has an empty name")
    head("name_513_bytes", '{"%s":%s}' % ("n" * 513, empty),
         "tensor '%s...' has a name of 513 bytes, at most 512 are allowed" % ("n" * 512))
    head("name_newline", '{"a\\nb":%s}' % empty,
         "tensor 'a\\x0ab' has a control character in its name")
    head("name_nul", '{"a\\u0000":%s}' % empty,
         "tensor 'a\\x00' has a control character in its name")
    head("name_c1_control", '{"a\\u009b":%s}' % empty,
         "tensor 'a\\xc2\\x9b' has a control character in its name")
    head("tensor_twice", '{"a":%s,"a":%s}' % (empty, empty),
         "tensor 'a' stands twice in the header")
    head("tensor_twice_by_escape", '{"a":%s,"b":%s,"\\u0061":%s}' % (empty, empty, empty),
         "tensor 'a' stands twice in the header")
    head("tensor_null", '{"a":null}', "tensor 'a' is null; expected an object")
    head("tensor_array", '{"a":[]}', "tensor 'a' is an array; expected an object")
    head("tensor_number", '{"a":0}', "tensor 'a' is the number 0; expected an object")

    u8, four, span = '"dtype":"U8"', '"shape":[4]', '"data_offsets":[0,4]'
    one("field_unknown", ",".join([u8, four, span, '"strides":[1]']),
        "tensor 'a' has the unknown key 'strides'; expected dtype, shape and data_offsets")
    one("field_wrong_case", ",".join(['"Dtype":"U8"', four, span]),
        "tensor 'a' has the unknown key 'Dtype'; expected dtype, shape and data_offsets")
    one("dtype_missing", ",".join([four, span]), "tensor 'a' lacks the key 'dtype'")
    one("shape_missing", ",".join([u8, span]), "tensor 'a' lacks the key 'shape'")
    one("offsets_missing", ",".join([u8, four]), "tensor 'a' lacks the key 'data_offsets'")
    one("dtype_twice", ",".join([u8, u8, four, span]), "tensor 'a': key 'dtype' stands twice")
    one("shape_twice", ",".join([u8, four, four, span]), "tensor 'a': key 'shape' stands twice")
    one("offsets_twice", ",".join([u8, four, span, span]),
        "tensor 'a': key 'data_offsets' stands twice")
    one("dtype_unknown", ",".join(['"dtype":"F128"', four, span]),
        "tensor 'a' has the unknown dtype 'F128'", code="unsupported")
    one("dtype_lower_case", ",".join(['"dtype":"u8"', four, span]),
        "tensor 'a' has the unknown dtype 'u8'", code="unsupported")
    one("dtype_number", ",".join(['"dtype":5', four, span]),
        "tensor 'a': 'dtype' is the number 5; expected a string")
    one("dtype_array", ",".join(['"dtype":["U8"]', four, span]),
        "tensor 'a': 'dtype' is an array; expected a string")
    whole = "; expected an array of non-negative integers"
    one("shape_number", ",".join([u8, '"shape":4', span]),
        "tensor 'a': 'shape' is the number 4" + whole)
    one("shape_negative", ",".join([u8, '"shape":[-4]', span]),
        "tensor 'a': 'shape' holds the number -4" + whole)
    one("shape_minus_zero", ",".join([u8, '"shape":[-0]', span]),
        "tensor 'a': 'shape' holds the number -0" + whole)
    one("shape_fraction", ",".join([u8, '"shape":[4.0]', span]),
        "tensor 'a': 'shape' holds the number 4.0" + whole)
    one("shape_exponent", ",".join([u8, '"shape":[4e0]', span]),
        "tensor 'a': 'shape' holds the number 4e0" + whole)
    one("shape_string", ",".join([u8, '"shape":["4"]', span]),
        "tensor 'a': 'shape' holds the string '4'" + whole)
    one("shape_true", ",".join([u8, '"shape":[true]', span]),
        "tensor 'a': 'shape' holds true" + whole)
    one("shape_2_to_63", ",".join([u8, '"shape":[9223372036854775808]', span]),
        "tensor 'a': dimension 9223372036854775808 is beyond 2^63 - 1")
    one("shape_2_to_64", ",".join([u8, '"shape":[18446744073709551616]', span]),
        "tensor 'a': 'shape' holds the number 18446744073709551616" + whole)
    one("shape_rank_17", ",".join([u8, '"shape":[4%s]' % (",1" * 16), span]),
        "tensor 'a' has more than 16 dimensions")
    large = "[%s]" % ",".join(["4294967296"] * 3)
    one("shape_product_overflow", ",".join([u8, '"shape":' + large, span]),
        "tensor 'a': the elements of U8 %s need more than 2^63 - 1 bytes" % large)
    one("shape_product_overflow_beside_zero",
        ",".join([u8, '"shape":[0,%s' % large[1:], '"data_offsets":[0,0]']),
        "tensor 'a': the elements of U8 [0,%s need more than 2^63 - 1 bytes" % large[1:], data=0)
    one("shape_bytes_overflow",
        ",".join(['"dtype":"F64"', '"shape":[2305843009213693952]', '"data_offsets":[0,0]']),
        "tensor 'a': the elements of F64 [2305843009213693952] need more than 2^63 - 1 bytes", data=0)
    one("sub_byte_f4_partial", '"dtype":"F4","shape":[3],"data_offsets":[0,2]',
        "tensor 'a': the elements of F4 [3] do not fill whole bytes", data=2)
    one("sub_byte_f6_partial", '"dtype":"F6_E2M3","shape":[2,3],"data_offsets":[0,5]',
        "tensor 'a': the elements of F6_E2M3 [2,3] do not fill whole bytes", data=5)
    pair = "; expected an array of two non-negative integers"
    one("offsets_one_number", ",".join([u8, four, '"data_offsets":[0]']),
        "tensor 'a': 'data_offsets' has 1 numbers; expected two")
    one("offsets_three_numbers", ",".join([u8, four, '"data_offsets":[0,4,4]']),
        "tensor 'a': 'data_offsets' has more than two numbers")
    one("offsets_object", ",".join([u8, four, '"data_offsets":{}']),
        "tensor 'a': 'data_offsets' is an object" + pair)
    one("offsets_negative", ",".join([u8, four, '"data_offsets":[-4,0]']),
        "tensor 'a': 'data_offsets' holds the number -4" + pair)
    one("offsets_reversed", ",".join([u8, four, '"data_offsets":[4,0]']),
        "tensor 'a' begins at offset 4, behind its end at 0")
    one("offsets_beyond_file", ",".join([u8, four, span]),
        "the tensors fill 4 bytes, but 3 bytes stand behind the header: the file is cut off", data=3)
    one("offsets_end_2_to_64",
        ",".join([u8, four, '"data_offsets":[18446744073709551612,18446744073709551615]']),
        "tensor 'a': U8 [4] needs 4 bytes, but its data_offsets span 3")
    one("size_too_small", ",".join(['"dtype":"F32"', four, span]),
        "tensor 'a': F32 [4] needs 16 bytes, but its data_offsets span 4")
    one("size_too_large", ",".join([u8, '"shape":[3]', span]),
        "tensor 'a': U8 [3] needs 3 bytes, but its data_offsets span 4")
    one("data_trailing_byte", ",".join([u8, four, span]),
        "the tensors fill 4 bytes, but 5 bytes stand behind the header: bytes that no tensor owns",
        data=5)
    head("data_without_tensors", "{}",
         "the tensors fill 0 bytes, but 1 bytes stand behind the header: bytes that no tensor owns",
         b"x")
    one("hole_at_start", ",".join([u8, four, '"data_offsets":[1,5]']),
        "tensor 'a' begins at offset 1, which leaves a hole: the bytes before end at 0", data=5)

    def two(name, a, b, message, data):
        text = '{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'
        head(name, '{"a":%s,"b":%s}' % (text % (a[1] - a[0], *a), text % (b[1] - b[0], *b)), message,
             pattern(data))

    two("hole_between", (0, 2), (3, 5),
        "tensor 'b' begins at offset 3, which leaves a hole: the bytes before end at 2", 5)
    two("overlap", (0, 3), (2, 4), "tensor 'b' begins at offset 2, inside tensor 'a', which ends at 3",
        4)
    two("overlap_same_range", (0, 2), (0, 2),
        "tensor 'b' begins at offset 0, inside tensor 'a', which ends at 2", 2)
    two("overlap_by_empty_tensor", (0, 4), (2, 2),
        "tensor 'b' begins at offset 2, inside tensor 'a', which ends at 4", 4)
    return cases


# What make_safetensors_prefix must write: name -> (alignment, metadata, tensors). The test holds
# the same table.
WRITE = {
    "no_tensors": (8, None, []),
    "format_pt": (8, {"format": "pt"}, [("weight", "F32", [2, 3]), ("bias", "F32", [3])]),
    "metadata_keeps_order": (8, {"z": "1", "a": "2"}, []),
    "text_escaped": (8, {"k\n": "\"\\/\b\f\r\t\u0001\u007f\u00e9\U0001f600"},
                     [("q\"\\\u6f22", "U8", [1])]),
    "aligned_64": (64, None, [("a", "BF16", [1]), ("b", "U8", [0]), ("c", "I64", [])]),
    "aligned_4096": (4096, {"format": "pt"}, [("a", "F6_E3M2", [4, 2])]),
    "every_dtype": (16, None, [(d.lower(), d, [2, 4]) for d in BITS]),
}

CORPUS = ["every_dtype", "no_tensors", "metadata_only", "metadata_control_characters", "name_escaped",
          "empty_tensors_scattered", "keys_reordered", "header_spaces", "rank_16"]


def write_tree(golden, corpus):
    for folder in (golden / "read", golden / "refuse", golden / "write"):
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    inputs = {}
    for name, content in read_cases().items():
        (golden / "read/checkpoint" / (name + ".safetensors")).write_bytes(content)
        (golden / "read/checkpoint" / (name + ".txt")).write_text(describe(content))
        inputs[name] = content
    table = []
    for name, (content, code, message) in refuse_cases().items():
        (golden / "refuse/checkpoint" / (name + ".safetensors")).write_bytes(content)
        table.append("%s\t%s\t%s\n" % (name, code, message))
        if len(content) < 200:
            inputs[name] = content
    (golden / "refuse/checkpoint/expected.tsv").write_text("".join(table))
    for name, (alignment, metadata, tensors) in WRITE.items():
        header, _ = layout(tensors, metadata)
        prefix = container(padded(compact(header), alignment), b"")
        (golden / "write/checkpoint" / (name + ".prefix")).write_bytes(prefix)
    for name, content in inputs.items():
        if len(content) < 8 or (name in read_cases() and name not in CORPUS):
            continue
        (size,) = struct.unpack_from("<Q", content)
        header, data = content[8:8 + size], content[8 + size:]
        (corpus / name).write_bytes(struct.pack("<Q", len(data)) + header)


def check(golden, corpus):
    """What differs; golden folders may hold nothing else, the corpus may grow."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = pathlib.Path(folder)
        write_tree(fresh, fresh / "corpus")
        problems = []
        for kind in ("read", "refuse", "write"):
            made, kept = fresh / kind / "checkpoint", golden / kind / "checkpoint"
            names = {p.name for p in made.iterdir()} | {p.name for p in kept.iterdir()}
            problems += [kept / n for n in sorted(names) if not same(made / n, kept / n)]
        problems += [corpus / p.name for p in sorted((fresh / "corpus").iterdir())
                     if not same(p, corpus / p.name)]
        return problems


def same(a, b):
    return a.exists() and b.exists() and a.read_bytes() == b.read_bytes()


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    inputs = here.parent.parent / "fuzz/corpus/safetensors_header"
    if sys.argv[1:] == ["--check"]:
        wrong = check(here, inputs)
        for path in wrong:
            print("differs from what make_checkpoint.py writes:", path)
        sys.exit(1 if wrong else 0)
    write_tree(here, inputs)
