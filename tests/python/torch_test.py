"""torch: modules and tensors of every kind are published exactly and written in place."""

import os

import pytest

import siltstone

torch = pytest.importorskip("torch")


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(96, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.body = torch.nn.Linear(32, 32, bias=False)
        self.head = torch.nn.Linear(32, 96, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("scratch", torch.zeros(5), persistent=False)

    def forward(self, tokens):
        return self.head(self.norm(self.body(self.embed(tokens)))) * self.scale


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def train(model, optimizer, steps=1):
    for _ in range(steps):
        tokens = torch.randint(0, 96, (4, 8))
        torch.nn.functional.cross_entropy(model(tokens).float().view(-1, 96), tokens.view(-1)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_a_module_is_published_with_ties_once(bucket):
    model = Tied()
    bucket.publish(model)
    assert set(bucket.tensors()) == {"embed.weight", "norm.weight", "norm.bias", "body.weight", "scale"}
    loaded = bucket.load("main")
    assert list(loaded) == sorted(loaded)
    assert all(equal(loaded[name], model.state_dict()[name]) for name in loaded)
    other = Tied()
    assert bucket.load("main", other) is other
    assert other.head.weight is other.embed.weight
    assert all(equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    # The same through a state dict, whose tied tensors are two objects.
    report = bucket.publish(model.state_dict())
    assert report.version.root == bucket["main@0"].root


def test_a_version_may_hold_both_names_of_a_tie(bucket):
    model = Tied()
    both = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    publisher = bucket.publisher()
    publisher.publish(both)
    assert {"embed.weight", "head.weight"} <= set(bucket.tensors())
    other = Tied()
    replica = bucket.replica(other)
    both["embed.weight"][3] += 1
    both["head.weight"][3] += 1
    publisher.publish(both)
    replica.update()
    assert equal(other.head.weight, both["head.weight"])


def test_training_in_fp32_publishes_bf16_and_a_replica_follows_bit_for_bit(bucket):
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    engine = Tied().to(torch.bfloat16)
    publisher = bucket.publisher(dtype=torch.bfloat16)
    publisher.publish(model, step=0)
    replica = bucket.replica(engine)
    pointer = engine.embed.weight.data_ptr()
    for step in range(1, 6):
        train(model, optimizer)
        report = publisher.publish(model, step=step)
        assert 0 < report.changed_elements < report.total_elements
        replica.update()
        policy = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
        assert all(equal(tensor, policy[name]) for name, tensor in engine.state_dict().items())
        trainers = Tied().to(torch.bfloat16)
        trainers.load_state_dict(policy)
        tokens = torch.randint(0, 96, (2, 7))
        assert torch.equal(trainers(tokens), engine(tokens))
    assert engine.embed.weight.data_ptr() == pointer
    # What is retained: 2 bytes for each element, no more.
    core = publisher._retained
    assert core.size_bytes("embed.weight") == 2 * model.embed.weight.numel()
    assert core.size_bytes("body.weight") == 2 * model.body.weight.numel()


def test_an_iterator_of_masters_gives_what_a_module_gives(bucket):
    model = Tied()
    bucket.publish(model, dtype="bf16")
    pairs = ((name, p.data) for name, p in [*model.named_parameters(), ("scale", model.scale)])
    report = bucket.publish(pairs, "iterator", dtype="bf16")
    assert report.version.root == bucket.head().root


def every_dtype():
    random = torch.randint(0, 256, (64,), dtype=torch.uint8)
    names = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "bfloat16", "float32",
             "float64", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz",
             "float8_e5m2fnuz"]
    tensors = {name: random.view(getattr(torch, name)) for name in names if hasattr(torch, name)}
    tensors["bool"] = random > 100
    tensors["scalar"] = torch.tensor(-0.0, dtype=torch.bfloat16)
    tensors["empty"] = torch.empty(3, 0, 2, dtype=torch.bfloat16)
    tensors["nan"] = torch.tensor([0x7FC1, 0xFF81, 0x8000, 0x0001], dtype=torch.uint16).view(torch.bfloat16)
    return tensors


def test_every_dtype_comes_back_bit_for_bit(bucket):
    tensors = every_dtype()
    publisher = bucket.publisher()
    publisher.publish(tensors)
    live = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    replica = bucket.replica(live)
    for seed in range(3):
        for tensor in tensors.values():
            if tensor.dtype is not torch.bool and tensor.numel() > 4:
                bits(tensor)[seed :: 9] ^= 1 << seed
        publisher.publish(tensors)
        replica.update()
        loaded = bucket.load("main")
        for name, tensor in tensors.items():
            assert equal(live[name], tensor), name
            assert equal(loaded[name], tensor), name


def test_what_is_strided_or_needs_grad_is_handled(bucket):
    base = torch.arange(24.0).reshape(4, 6).requires_grad_()
    views = {"turned": base.t(), "every": base[:, ::2], "expanded": base[0].expand(3, 6), "graph": base * 2,
             "conj": torch.complex(base, base).to(torch.complex64).conj()}
    bucket.publish(views)
    loaded = bucket.load("main")
    assert all(torch.equal(loaded[name], views[name].detach().resolve_conj()) for name in views)
    with pytest.raises(siltstone.Unsupported, match="'every' is not contiguous"):
        bucket.load("main", {name: v.detach().resolve_conj() for name, v in views.items()})
    bucket.publish({"c": torch.zeros(3, dtype=torch.complex64)}, "conj")
    with pytest.raises(siltstone.Unsupported, match="'c' is a conj"):  # or a copy would be written to
        bucket.load("conj", {"c": torch.zeros(3, dtype=torch.complex64).conj()})


def test_what_cannot_be_published_is_refused_by_name(bucket):
    with pytest.raises(siltstone.InvalidArgument, match="'m' is on the meta device"):
        bucket.publish({"m": torch.empty(3, device="meta")})
    with pytest.raises(siltstone.Unsupported, match="'s' has layout"):
        bucket.publish({"s": torch.eye(3).to_sparse()})
    with pytest.raises(siltstone.Unsupported, match="'c' has dtype complex128"):
        bucket.publish({"c": torch.zeros(3, dtype=torch.complex128)})
    bucket.publish({"w": torch.zeros(3)})
    with pytest.raises(siltstone.Mismatch, match="has no tensor 'w'"):
        bucket.load("main", torch.nn.Linear(2, 2))
    with pytest.raises(siltstone.Mismatch, match="the version lacks.*'x'"):
        bucket.load("main", {"w": torch.zeros(3), "x": torch.zeros(1)})
    with pytest.raises(siltstone.Mismatch, match="dtype or shape"):
        bucket.load("main", {"w": torch.zeros(4)})


def test_dtensors_are_taken_whole_or_refused(bucket):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        tensor = torch.arange(12.0).reshape(4, 3)
        bucket.publish({"w": distribute_tensor(tensor, mesh, [Replicate()])})
        assert torch.equal(bucket.load("main")["w"], tensor)
        with pytest.raises(siltstone.Unsupported, match="'w' is a shard.*full_tensor"):
            bucket.publish({"w": distribute_tensor(tensor, mesh, [Shard(0)])})
    finally:
        dist.destroy_process_group()


def test_a_checkout_opens_with_from_pretrained(bucket, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                      intermediate_size=128, vocab_size=256, tie_word_embeddings=True)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    model.config.save_pretrained(tmp_path / "files")
    with bucket.publisher(companions=tmp_path / "files") as publisher:
        publisher.publish(model)
        with torch.no_grad():
            model.model.norm.weight.mul_(1.5)
        publisher.publish(model)
    bucket.checkout("main", tmp_path / "model")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    tokens = torch.arange(20).reshape(2, 10)
    assert torch.equal(model(tokens).logits, again(tokens).logits)
    # What the library itself saves has the same state.
    model.save_pretrained(tmp_path / "saved")
    other = siltstone.init(tmp_path / "other")
    assert other.publish(tmp_path / "saved", cache=tmp_path / "cache").version.root == bucket.head().root


def test_a_version_tells_its_digests_and_gives_some_of_its_tensors(bucket):
    model = torch.nn.Linear(7, 5)
    bucket.publish(model)
    with torch.no_grad():
        model.weight += 1
    bucket.publish(model)
    digests = bucket.digests()
    assert digests == {name: siltstone.digest(tensor) for name, tensor in model.state_dict().items()}
    assert bucket.digests("main@0")["bias"] == digests["bias"] and bucket.digests("main@0")["weight"] != digests["weight"]
    some = {"bias": torch.zeros(5)}
    assert bucket.load("main", some, some=True) is some
    assert torch.equal(some["bias"], model.bias)
    with pytest.raises(siltstone.Mismatch):
        bucket.load("main", {"bias": torch.zeros(5)})
    with pytest.raises(siltstone.Mismatch):
        bucket.load("main", {"bias": torch.zeros(5), "other": torch.zeros(5)}, some=True)
