"""Publisher: what a trainer holds, to publish its weights after every step."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _core, tensors
from .errors import InvalidArgument

_OPTIONS = ("codec", "effort", "memory_bytes", "momentum", "pack_anchors", "parent", "threads")


def companion_files(companions: Any) -> dict[str, bytes]:
    """{relative path: bytes} of a dict or of a folder's files, weights left out."""
    if companions is None:
        return {}
    if isinstance(companions, (str, os.PathLike)):
        folder = Path(companions)
        if not folder.is_dir():
            raise InvalidArgument(f"companions: '{folder}' is not a folder")
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix not in (".safetensors", ".bin", ".pt", ".pth")
            and not path.name.endswith(".safetensors.index.json")
        }
    return {
        str(path): content.encode() if isinstance(content, str) else bytes(content)
        for path, content in companions.items()
    }


def check_options(options: dict[str, Any]) -> None:
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise TypeError(f"unexpected option '{unknown[0]}'; there are {', '.join(_OPTIONS)}")


class Publisher:
    """Publishes a branch's versions, one after the other. Made by `Repository.publisher`.

    It keeps a copy of what it published last (2 bytes per element of bf16), so that a publish compares
    in memory; its first publish reads the branch's head from the bucket, if there is one. A publish that
    fails leaves the copy as it was, and the next one starts from there: nothing drifts.

    dtype: "bf16" (or torch.bfloat16) publishes fp32 tensors rounded to bf16 - to nearest, ties to even,
        NaNs kept - in the pass that compares them; None publishes all tensors as they are.
    companions: small files that travel with the weights and make a checkout a model folder: a folder
        (say, where `save_pretrained` wrote), or {relative path: bytes or str}.
    effort: "fast", "default" or "max": what may be spent on making deltas small.
    momentum: deltas 5 to 9 % smaller, for readers that take every version.
    pack_anchors: anchors a third smaller, which only Siltstone reads.
    codec, threads, memory_bytes: as on the command line.

    Threads: one publish at a time. A context manager: leaving it frees the copy.
    """

    def __init__(self, repository: Any, branch: str = "main", *, dtype: Any = None, companions: Any = None,
                 **options: Any):
        check_options(options)
        if dtype is not None and str(dtype).removeprefix("torch.") not in ("bf16", "bfloat16"):
            raise InvalidArgument(f"dtype must be None or 'bf16', found {dtype!r}")
        self.repository = repository
        self.branch = branch
        self._f32_as_bf16 = dtype is not None
        self._companions = companion_files(companions)
        self._options = options
        self._retained = _core.RetainedBase()

    def __repr__(self):
        return f"<siltstone.Publisher of {self.branch} in {self.repository.url}>"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Free the retained copy. A later publish reads the head from the bucket again."""
        self._retained = _core.RetainedBase()

    @property
    def version(self) -> str | None:
        """Name of the version that is held, or None."""
        return self._retained.version

    @property
    def rounds_to_bf16(self) -> bool:
        """Whether fp32 tensors are published as bf16."""
        return self._f32_as_bf16

    def publish(self, source: Any, *, step: int | None = None, message: str = "",
                progress: Callable[[int, int], Any] | None = None) -> _core.PublishReport:
        """Make the weights the branch's next version; returns a PublishReport.

        source: a torch module, a dict of tensors, or an iterator of (name, tensor).
            Tensors: torch's, or anything with `__dlpack__`; any shape; any dtype that safetensors knows.
            Contiguous CPU tensors are read where they are and must not change meanwhile; others, and
            all that an iterator gives, are copied to host memory. Tied tensors are published once,
            under the first of their names; `requires_grad` does not matter. Sharded DTensors are
            refused (Unsupported).
        step, message: recorded in the version.

        When it returns the version is durable. Raises Conflict if somebody else published to the branch
        meanwhile, Unavailable if it is not known whether the commit happened: publish again then.
        """
        views = tensors.to_publish(source, self._f32_as_bf16)
        options = dict(self._options, branch=self.branch, step=step, message=message)
        return self.repository._core.publish_tensors(
            *views.lists, self._f32_as_bf16, self._companions, self._retained, progress, **options
        )
