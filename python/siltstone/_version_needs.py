"""What a request may ask of the weights that answer it, and how HTTP says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .errors import Conflict, Error, InvalidArgument, Mismatch, NotFound, PermissionDenied, Unavailable, Unsupported

AT_LEAST, EXACTLY = "X-Siltstone-Min-Version", "X-Siltstone-Exact-Version"  # of requests
HELD, FIRST = "X-Siltstone-Weight-Version", "X-Siltstone-First-Weight-Version"  # of answers
RETRY_SECONDS = 1  # a request that was refused for its version has waited already


class NotReached(Unavailable):
    """The weights are older than a request needs, and did not get there in time."""


class NotHeld(Mismatch):
    """The weights are not the version that a request asks for."""


def parse_version(text: str) -> tuple[str, int]:
    """("main", 12) of "main@12"."""
    branch, at, seq = text.strip().rpartition("@")
    if not at or not branch or not (seq.isascii() and seq.isdigit()):
        raise InvalidArgument(f"a version is written BRANCH@NUMBER, such as main@12; found {text[:80]!r}")
    return branch, int(seq)


def version_name(version: tuple[str, int] | None) -> str:
    return "of no known version" if version is None else "@".join(map(str, version))


@dataclasses.dataclass(frozen=True)
class VersionNeeds:
    """What a request needs of the weights: both as ("main", 12), or None.

    at_least  that version of that branch, or a later one
    exactly   that version, for every token
    """

    at_least: tuple[str, int] | None = None
    exactly: tuple[str, int] | None = None

    @classmethod
    def of(cls, header: Callable[[str], str | None]) -> VersionNeeds:
        """Of a request, of which `header(name)` is what it says or None. Raises InvalidArgument."""
        said = (header(name) for name in (AT_LEAST, EXACTLY))
        return cls(*(None if text is None else parse_version(text) for text in said))

    def reached(self, held: tuple[str, int] | None) -> bool:
        if self.at_least is None:
            return True
        return held is not None and held[0] == self.at_least[0] and held[1] >= self.at_least[1]

    def check(self, held: tuple[str, int] | None) -> None:
        """Raises NotReached or NotHeld."""
        if not self.reached(held):
            raise NotReached(f"the weights are {version_name(held)}; at least {version_name(self.at_least)} is needed")
        if self.exactly not in (None, held):
            raise NotHeld(f"the weights are {version_name(held)}; exactly {version_name(self.exactly)} is needed")


STATUSES = (
    (NotHeld, 412),
    (InvalidArgument, 400),
    (PermissionDenied, 403),
    (NotFound, 404),
    ((Conflict, Mismatch, Unsupported), 409),
    (Unavailable, 503),
)


def status_of(error: Error) -> int:
    """The HTTP status that a failure is answered with."""
    return next((status for kinds, status in STATUSES if isinstance(error, kinds)), 500)


def error_answer(status: int, error: Exception | str) -> dict:
    """The body that a failure is answered with."""
    return {"error": {"message": str(error), "type": type(error).__name__.lstrip("_"), "code": status}}
