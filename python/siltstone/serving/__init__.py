"""A small inference server whose weights follow a bucket in place: for tests and demonstrations, not for production.

    python -m siltstone.serving MODEL_DIR --bucket /data/bucket --at main@7 --follow

A causal language model of transformers on the CPU, behind `POST /v1/completions` and the weight-update routes of
vLLM, so that `siltstone.integrations.vllm.Server` drives it. Requests may name the version they need
(`X-Siltstone-Min-Version`, `X-Siltstone-Exact-Version`), and answers name the one they were made with. One token of
one request is computed at a time; there is no batching, no prefix cache, no user and no encryption.

docs/guides/serving.md has the routes.
"""

from siltstone._version_needs import NotHeld, NotReached, VersionNeeds

from .engine import Completion, Engine, Sampling
from .gate import Gate
from .server import Server

__all__ = ["Completion", "Engine", "Gate", "NotHeld", "NotReached", "Sampling", "Server", "VersionNeeds"]
