"""torch.compile: compiled code reads the weights where they are, so it sees updates without being compiled again."""

import pytest

import siltstone

torch = pytest.importorskip("torch")

WIDTH = 32


def make(dtype):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH, bias=False)
    ).to(dtype).eval()


def step(model, seed):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            hit = torch.rand(parameter.shape, generator=draw) < 0.2
            parameter.add_(torch.randn(parameter.shape, generator=draw) * hit)


def counting(backend, compilations):
    """The backend, with a count of the graphs that it gets."""
    from torch._dynamo import lookup_backend

    compiler = lookup_backend(backend)

    def compile_counted(graph, inputs):
        compilations.append(graph)
        return compiler(graph, inputs)

    return compile_counted


def run(model, x):
    with torch.inference_mode():
        return model(x).clone()


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_code_sees_updates(bucket, backend):
    dtype = torch.bfloat16
    trainer, x = make(dtype), torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)
    bucket.publish(trainer)
    compilations = []
    compiled = torch.compile(make(dtype), backend=counting(backend, compilations))
    try:
        before = run(compiled, x)
    except Exception as error:
        if backend != "inductor":
            raise
        pytest.skip(f"inductor cannot run here: {str(error)[:300]}")
    assert len(compilations) == 1
    replica = bucket.replica(compiled, load=False)
    for seed in range(3):
        step(trainer, seed)
        bucket.publish(trainer)
        replica.update()
        after = run(compiled, x)
        assert len(compilations) == 1, "an update compiles nothing again"
        assert not torch.equal(after, before)
        cold = make(dtype)
        cold.load_state_dict(trainer.state_dict())
        assert torch.equal(after, run(torch.compile(cold, backend=backend), x))
        if backend == "eager":
            assert torch.equal(after, run(cold, x))
        before = after


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_names_are_those_of_the_module_before_it_was_compiled(bucket, part):
    plain = make(torch.float32)
    wrapped = make(torch.float32)
    step(wrapped, 5)
    if part:
        wrapped[0] = torch.compile(wrapped[0], backend="eager")
    else:
        wrapped = torch.compile(wrapped, backend="eager")
    bucket.publish(wrapped)
    assert sorted(bucket.tensors()) == sorted(plain.state_dict())
    bucket.load(into=plain)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), wrapped.parameters(), strict=True))
    replica = siltstone.open(bucket.url).replica(wrapped, load=False)
    assert replica.version.name == "main@0"
