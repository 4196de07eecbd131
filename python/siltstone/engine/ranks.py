"""What the ranks of one engine agree on, so that all of them move or none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import BY_CODE, Error, InternalError


class Ranks:
    """The ranks that share one model. Every rank calls the methods in the same order: each waits for all.

    group   a torch.distributed process group that carries objects of host memory (gloo); None: one rank alone

    Threads: one call at a time.
    """

    def __init__(self, group: Any = None):
        self._group = group
        self.rank, self.size = 0, 1
        if group is not None:
            import torch.distributed

            self.rank = torch.distributed.get_rank(group)
            self.size = torch.distributed.get_world_size(group)

    def gather(self, value: Any) -> list:
        """What every rank gave, by rank."""
        if self.size == 1:
            return [value]
        import torch.distributed

        out = [None] * self.size
        torch.distributed.all_gather_object(out, value, group=self._group)
        return out

    def all(self, call: Callable[[], Any]) -> Any:
        """Runs `call` on every rank. Its result here, if it succeeded everywhere; else raises on every rank: what it
        raised here, or what it raised on the first rank where it failed."""
        result = None

        def run():
            nonlocal result
            result = call()

        self.agree(run)
        return result

    def agree(self, call: Callable[[], Any]) -> list:
        """As `all`, but gives what it returned on every rank, by rank."""
        result = failure = told = None
        try:
            result = call()
        except Exception as error:
            failure, told = error, (getattr(error, "code", None), f"{error}")
        everybody = self.gather((told, result))
        if failure is not None:
            raise failure
        for rank, (other, _) in enumerate(everybody):
            if other is not None:
                code, text = other
                raise BY_CODE.get(code, InternalError if code is None else Error)(f"rank {rank}: {text}")
        return [result for _, result in everybody]
