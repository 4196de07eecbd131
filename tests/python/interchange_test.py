"""Import and export against writers and readers of both layouts that share no code with the library.

They are written from the layouts' descriptions with numpy, safetensors, zstandard and xxhash alone.
"""

import hashlib
import json
import zlib

import numpy as np
import pytest
import xxhash
import zstandard
from conftest import Weights, same
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import siltstone

STEPS = 4


class Model(Weights):
    """With bf16 words, which numpy calls uint16, and a tensor whose change needs gaps of 32 bits."""

    def __init__(self):
        super().__init__()
        self["wide"] = self.random.integers(0, 1 << 16, 200_000, dtype=np.uint16)
        self["scalar"] = np.float32(self.random.standard_normal())[...].copy()

    def step(self):
        for name, tensor in self.items():
            flat = tensor.reshape(-1)
            changed = self.random.random(flat.size) < 0.02
            if name == "wide":
                changed[:150_000] = False
            flat.view(f"u{flat.itemsize}")[changed] ^= 1


def states():
    """Each with something changed but the third, which is the second again."""
    model, out = Model(), []
    for step in range(STEPS):
        out.append(model.copy())
        if step != 1:
            model.step()
    return out


def words(tensor):
    return tensor.reshape(-1).view(f"u{tensor.itemsize}")


def changes(old, new):
    """{name: (positions, new values)} of what differs in bits."""
    found = {name: np.flatnonzero(words(old[name]) != words(new[name])) for name in new}
    return {name: (at, new[name].reshape(-1)[at]) for name, at in found.items() if at.size}


# TRL's prototype.


def trl_path(folder, step, full):
    path = folder / ("anchors" if full else "deltas") / f"step_{step:06d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def trl_header(step, changed, total, params, **more):
    values = {"format": "sparse_weight_patch", "version": 1, "model_version": step, "num_changed_params": params,
              "total_changed_elements": changed, "total_elements": total, "sparsity": 1 - changed / total, **more}
    return {key: str(value) for key, value in values.items()}


def state_sha256(state):
    return hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()


def gaps(positions):
    out = np.diff(positions, prepend=-1) - 1
    return out.astype(np.uint16 if out.max() <= 0xFFFF else np.uint32)


def write_trl(folder, step, old, new, encoding):
    """As the prototype's three writers did: encoding is gap_delta, raw, indices or checksums."""
    total = sum(tensor.size for tensor in new.values())
    sparse = {} if encoding == "checksums" else {"sparse": old is not None}
    if old is None:
        header = trl_header(step, total, total, len(new), **sparse)
        if encoding == "checksums":
            header = {"format": "anchor_checkpoint", "version": "1", "model_version": str(step),
                      "base_model_id": "", "checksum_sha256": state_sha256(new)}
        return save_file(new, trl_path(folder, step, True), metadata=header)
    tensors, differ = {}, changes(old, new)
    for name, (positions, values) in differ.items():
        if encoding in ("indices", "checksums"):
            tensors[f"{name}.indices"], tensors[f"{name}.values"] = positions.astype(np.int32), values
        else:
            tensors[f"{name}.idx"] = gaps(positions) if encoding == "gap_delta" else positions.astype(np.int32)
            tensors[f"{name}.val"] = values
    more = {"encoding": encoding}
    if encoding == "indices":
        more = {"changed_params": json.dumps(list(differ))}
    if encoding == "checksums":
        more = {"changed_params": json.dumps(list(differ)), "prev_model_version": step - 1, "anchor_step": 0,
                "checksum_sha256": state_sha256(new)}
        tensors = tensors or {"__empty_delta__": np.zeros(1, np.int32)}
    changed = sum(positions.size for positions, _ in differ.values())
    header = trl_header(step, changed, total, len(differ), **sparse, **more)
    return save_file(tensors, trl_path(folder, step, False), metadata=header)


def read_trl(folder, step, state):
    """The state of a step from that of the step before."""
    anchor = trl_path(folder, step, True)
    if anchor.exists():
        return load_file(anchor)
    state = {name: tensor.copy() for name, tensor in state.items()}
    path = trl_path(folder, step, False)
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        header = file.metadata()
    assert (header["format"], header["version"], header["sparse"]) == ("sparse_weight_patch", "1", "True")
    assert int(header["model_version"]) == step
    assert int(header["total_elements"]) == sum(tensor.size for tensor in state.values())
    later = "encoding" in header
    index, value = (".idx", ".val") if later else (".indices", ".values")
    names = [key.removesuffix(value) for key in tensors if key.endswith(value)]
    changed = 0
    for name in names:
        positions = tensors[name + index]
        if header.get("encoding", "raw") == "raw":
            assert positions.dtype == np.int32
        else:
            assert positions.dtype == (np.uint16 if positions.max(initial=0) <= 0xFFFF else np.uint32)
            positions = np.cumsum(positions.astype(np.int64) + 1) - 1
        state[name].reshape(-1)[positions] = tensors[name + value]
        changed += positions.size
    assert (int(header["num_changed_params"]), int(header["total_changed_elements"])) == (len(names), changed)
    if not later:
        assert sorted(json.loads(header["changed_params"])) == sorted(names)
        assert int(header["prev_model_version"]) == step - 1
    return state


# slime's disk deltas.


def digest(kind, data):
    return f"{zlib.adler32(data):08x}" if kind == "adler32" else xxhash.xxh3_128(data).hexdigest()


def write_slime(folder, step, old, new, encoding, kind="xxh3-128", shards=2):
    """Changed tensors over as many files as that, as several ranks would write them."""
    version = folder / f"weight_v{step:06d}"
    version.mkdir(parents=True)
    if old is None:
        save_file(new, version / "model.safetensors")
        return (version / "config.json").write_text("{}")
    files, weight_map = [({}, {}) for _ in range(shards)], {}
    for number, (name, _) in enumerate(changes(old, new).items()):
        before, after = (np.frombuffer(state[name].tobytes(), np.uint8) for state in (old, new))
        plain = before ^ after
        if encoding == "overwrite":
            at = np.flatnonzero(plain)
            plain = np.concatenate([np.array([at.size, *at], "<u4").view(np.uint8), after[at]])
        frame = zstandard.ZstdCompressor(level=1).compress(plain.tobytes())
        tensors, digests = files[number % shards]
        tensors[name], digests[name] = np.frombuffer(frame, np.uint8), digest(kind, after.tobytes())
        weight_map[name] = f"model-{number % shards:05d}-of-{shards:05d}.safetensors"
    for number, (tensors, digests) in enumerate(files):
        if tensors:
            save_file(tensors, version / f"model-{number:05d}-of-{shards:05d}.safetensors", metadata=digests)
    metadata = {"version": f"{step:06d}", "base_version": f"{step - 1:06d}", "delta_encoding": encoding,
                "compression_format": "zstd", "checksum_format": kind}
    index = json.dumps({"metadata": metadata, "weight_map": weight_map})
    return (version / "model.safetensors.index.json").write_text(index)


def read_slime(folder, step, state):
    version = folder / f"weight_v{step:06d}"
    index = json.loads((version / "model.safetensors.index.json").read_text())
    metadata = index["metadata"]
    tensors, digests = {}, {}
    for path in sorted(version.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            digests |= file.metadata() or {}
        for name, tensor in load_file(path).items():
            assert index["weight_map"][name] == path.name
            tensors[name] = tensor
    assert tensors.keys() == index["weight_map"].keys()
    if "delta_encoding" not in metadata:
        return tensors
    assert (metadata["version"], metadata["base_version"]) == (f"{step:06d}", f"{step - 1:06d}")
    assert (metadata["compression_format"], metadata["checksum_format"]) == ("zstd", "xxh3-128")
    state = dict(state)
    for name, frame in tensors.items():
        assert frame.dtype == np.uint8 and frame.ndim == 1
        plain = np.frombuffer(zstandard.ZstdDecompressor().decompress(frame.tobytes()), np.uint8)
        data = np.frombuffer(state[name].tobytes(), np.uint8).copy()
        if metadata["delta_encoding"] == "xor":
            data ^= plain
        else:
            count = int(plain[:4].view("<u4")[0])
            data[plain[4:4 + 4 * count].view("<u4")] = plain[4 + 4 * count:]
        assert digest("xxh3-128", data.tobytes()) == digests[name]
        state[name] = data.view(state[name].dtype).reshape(state[name].shape)
    return state


def load(bucket, version, like):
    into = {name: np.zeros_like(tensor) for name, tensor in like.items()}
    return bucket.load(version, into)


@pytest.mark.parametrize("encoding", ["gap_delta", "raw", "indices", "checksums"])
def test_what_trl_wrote_is_imported(bucket, tmp_path, encoding):
    all_states = states()
    for step, state in enumerate(all_states):
        write_trl(tmp_path / "out", step + 1, all_states[step - 1] if step else None, state, encoding)
    report = bucket.import_from(tmp_path / "out")
    assert (report.layout, report.versions, report.head.step, report.skipped) == ("trl", STEPS, STEPS, [])
    for step, state in enumerate(all_states):
        assert same(load(bucket, f"main@{step}", state), state)
    assert bucket.import_from(tmp_path / "out").versions == 0


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
@pytest.mark.parametrize("kind", ["xxh3-128", "adler32"])
@pytest.mark.parametrize("base", [True, False])
def test_what_slime_wrote_is_imported(bucket, tmp_path, encoding, kind, base):
    all_states = states()
    for step, state in enumerate(all_states):
        folder = tmp_path / ("base" if base and step == 0 else "out")
        write_slime(folder, step, all_states[step - 1] if step else None, state, encoding, kind)
    engine = tmp_path / "base" / "weight_v000000" if base else None
    report = bucket.import_from(tmp_path / "out", base=engine)
    assert (report.layout, report.versions, report.head.step, report.pending) == ("slime", STEPS, STEPS - 1, "")
    for step, state in enumerate(all_states):
        assert same(load(bucket, f"main@{step}", state), state)
    bucket.checkout("main", tmp_path / "again")
    assert same(load_file(tmp_path / "again" / "model.safetensors"), all_states[-1])
    assert (tmp_path / "again" / "config.json").read_text() == "{}"


@pytest.mark.parametrize(("layout", "encoding"), [("trl", "gap_delta"), ("trl", "raw"), ("trl", "indices"),
                                                  ("slime", "xor"), ("slime", "overwrite")])
def test_what_is_exported_is_read_by_others(bucket, tmp_path, layout, encoding):
    all_states = states()
    with bucket.publisher(companions={"config.json": "{}"}) as publisher:
        for step, state in enumerate(all_states):
            publisher.publish(state, step=step)
    report = bucket.export_to(tmp_path / "out", "main@0..main@1", layout=layout, encoding=encoding)
    assert (report.versions, report.present) == (2, 0)
    report = bucket.export_to(tmp_path / "out", layout=layout, encoding=encoding)
    assert (report.versions, report.present) == (STEPS - 2, 2)
    read = {"trl": read_trl, "slime": read_slime}[layout]
    state = None
    for step, expected in enumerate(all_states):
        state = read(tmp_path / "out", step, state)
        assert same(state, expected), step
    full = [path.name for path in (tmp_path / "out").rglob("*") if path.name in ("config.json", "anchors")]
    assert full == (["config.json"] if layout == "slime" else ["anchors"])


def test_errors_are_those_of_the_package(bucket, tmp_path):
    first, second = states()[:2]
    write_slime(tmp_path / "out", 1, None, first, "xor")
    write_slime(tmp_path / "out", 2, first, second, "xor")
    path = tmp_path / "out" / "weight_v000002" / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("xxh3-128", "blake3"))
    with pytest.raises(siltstone.Unsupported, match="blake3"):
        bucket.import_from(tmp_path / "out")
    assert bucket.head().step == 1
    assert bucket.import_from(tmp_path / "out", unchecked=True).versions == 1
    assert same(load(bucket, "main", second), second)
    with pytest.raises(siltstone.InvalidArgument, match="no layout 'zip'"):
        bucket.export_to(tmp_path / "out", layout="zip")
    other = siltstone.init(tmp_path / "other")
    other.publish(second)
    assert other.export_to(tmp_path / "trl", layout="trl").versions == 1
    with pytest.raises(siltstone.Conflict, match="nothing is overwritten"):
        bucket.export_to(tmp_path / "trl", bucket.version("main@0"), layout="trl")
