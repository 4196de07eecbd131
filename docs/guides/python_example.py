"""A trainer publishes every step of a model; an engine follows, bit for bit."""

import sys
import tempfile

import torch

import siltstone


def make_model():
    return torch.nn.Sequential(
        torch.nn.Embedding(256, 64), torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 256)
    )


def main(bucket):
    torch.manual_seed(0)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    repository = siltstone.open(bucket, create=True)
    publisher = repository.publisher(dtype="bf16")  # the weights are fp32, engines run bf16
    publisher.publish(model, step=0)

    # In another process, on another machine: the same bucket is all they share.
    engine = make_model().to(torch.bfloat16)
    replica = siltstone.open(bucket).replica(engine)

    def arrived(step):
        print(f"{step.version.name}: {step.bytes_fetched} bytes, paused {step.commit_seconds * 1e3:.2f} ms")

    with replica.follow(on_version=arrived, interval=0.05, until=5) as follower:
        for step in range(1, 6):
            tokens = torch.randint(0, 256, (8, 16))
            loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            report = publisher.publish(model, step=step, message=f"loss {loss.item():.4f}")
            share = report.changed_elements / report.total_elements
            print(f"{report.version.name}: {share:.2%} changed, {report.bytes_written} bytes")
        follower.join()

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(torch.bfloat16), engine.state_dict()[name])
    for version in repository.log():
        print(version.name, version.time, version.message)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
