"""`python -m siltstone.serving`."""

import argparse
import sys
from pathlib import Path

import torch
import transformers

from siltstone._program import failures_told

from .engine import Engine
from .server import Server


def load(folder, dtype="auto"):
    """(model, tokenizer or None) of a model folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    has_one = any((Path(folder) / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    return model, transformers.AutoTokenizer.from_pretrained(folder) if has_one else None


def _arguments(arguments):
    parser = argparse.ArgumentParser(
        prog="python -m siltstone.serving",
        description="A small inference server on the CPU whose weights follow a bucket in place: for tests and "
        "demonstrations, not for production.",
        epilog="example: python -m siltstone.serving /models/live --bucket /data/bucket --at main@7 --follow",
    )
    parser.add_argument("model_dir", help="a model folder as transformers loads it")
    parser.add_argument("--bucket", help="as for every command of siltstone; without it, /init_weight_transfer_engine tells")
    parser.add_argument("--at", help="the version that the folder is, bit for bit, such as main@7")
    parser.add_argument("--follow", action="store_true", help="move to every new version; else /update_weights does")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks at the branch")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--version-wait", type=float, default=30.0,
                        help="seconds for which a request waits for the version it needs")
    parser.add_argument("--compile", metavar="BACKEND", help="wrap the model by torch.compile, such as inductor")
    given = parser.parse_args(arguments)
    if (given.bucket is None) != (given.at is None):
        parser.error("--bucket and --at come together")
    if given.follow and given.bucket is None:
        parser.error("--follow needs --bucket and --at")
    return given


def main(arguments=None):
    given = _arguments(arguments)
    try:
        model, tokenizer = load(given.model_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {given.model_dir}: {error}")
    if given.compile:
        model = torch.compile(model, backend=given.compile, dynamic=True)
    engine = Engine(model, version_wait=given.version_wait)
    with failures_told(OSError):
        if given.bucket is not None:
            start = engine.follow if given.follow else engine.attach
            start(given.bucket, given.at, branch=given.branch, interval=given.interval)
        server = Server(engine, host=given.host, port=given.port, name=given.model_dir, tokenizer=tokenizer)
        print(f"serving {engine.version or 'weights of no known version'} at {server.url}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
