"""A proxy in front of any server here that does to chosen requests what networks and overloaded
servers do. A test arms faults through a method; what is not chosen passes through unchanged.

    with Ceph() as ceph, FaultProxy(ceph) as proxy:
        proxy.arm("reset_after", method="PUT", path_contains="/commits/")

| fault | what happens to the request |
|---|---|
| `reset` | the connection is reset before anything is forwarded |
| `reset_after` | it is forwarded and carried out; instead of the reply comes a reset |
| `stall` | silence, until `release()` or for `seconds`; then it is forwarded late, awaited or not |
| `truncate` | half of the reply's body, then the connection is closed in order |
| `stall_body` | half of the reply's body, then silence as in `stall`, then the rest |
| `corrupt` | one bit in the middle of the reply's body is flipped |
| `short_length` | the reply declares, and has, half of its body |
| `duplicate` | it is forwarded twice, one after the other; the second reply is returned |
| 429, 500, 503 | that status, and nothing is forwarded; `retry_after=1` adds the header |
"""

import tempfile
import threading
import urllib.parse
from dataclasses import dataclass

from .proxy import Handler, Listener, length_of, pieces_of

STATUS_CODES = {429: "TooManyRequests", 500: "InternalError", 503: "SlowDown"}
IN_MEMORY_BYTES = 1 << 20


@dataclass
class Fault:
    """What `arm` returns. `seen` counts matching requests, `fired` those it was done to."""

    name: object
    when: int
    times: float
    method: str
    path_contains: str
    seconds: float
    retry_after: int
    seen: int = 0
    fired: int = 0

    def matches(self, request):
        return self.method in (None, request.method) and self.path_contains in request.path


@dataclass(frozen=True)
class Request:
    """A request as the proxy received it; `path` is as sent, without the query."""

    method: str
    path: str
    query: dict
    headers: object


class FaultProxy(Listener):
    """In front of `upstream`, anything with an endpoint. It has the same keys, and signed requests
    to it are good at the server, which checks the Host they were sent with."""

    def __init__(self, upstream):
        parts = urllib.parse.urlsplit(upstream.endpoint)
        self.upstream = parts.netloc
        self.access_key, self.secret_key = upstream.access_key, upstream.secret_key
        self.region = upstream.region
        self.requests = []
        self._prefix = parts.path
        self._faults = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._stopping = False

    def start(self):
        super().start()
        self.endpoint += self._prefix
        return self

    def stop(self):
        self._stopping = True
        self._released.set()
        super().stop()

    def arm(self, fault, when=1, times=1, method=None, path_contains="", seconds=600,
            retry_after=None):
        """From the `when`-th matching request on, counted from now, `times` requests meet the fault
        (None: all). Where several faults match, the one armed first is done. `method` None is any;
        `path_contains` is looked for in the path as sent."""
        if fault not in STATUS_CODES and not hasattr(_Handler, f"do_fault_{fault}"):
            raise ValueError(f"no fault '{fault}'")
        armed = Fault(fault, when, float("inf") if times is None else times, method, path_contains,
                      seconds, retry_after)
        with self._lock:
            self._faults.append(armed)
        return armed

    def disarm(self):
        """Takes every fault back and ends every stall."""
        with self._lock:
            self._faults = []
        self.release()

    def release(self):
        """Ends the stalls of now; later ones stall again."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()

    def count(self, method=None, path_contains=""):
        with self._lock:
            return sum(method in (None, request.method) and path_contains in request.path
                       for request in self.requests)

    def note(self, request):
        """Records a request and returns the fault it meets, or None."""
        with self._lock:
            self.requests.append(request)
            chosen = None
            for fault in self._faults:
                if not fault.matches(request):
                    continue
                fault.seen += 1
                if chosen is None and fault.seen >= fault.when and fault.fired < fault.times:
                    fault.fired += 1
                    chosen = fault
            return chosen

    def stall(self, seconds):
        """Returns whether to go on; not when the proxy is stopped."""
        with self._lock:
            released = self._released
        released.wait(seconds)
        return not self._stopping


class _Handler(Handler):
    """One method per fault; each answers the request."""

    def answer(self):
        fault = self.proxy.note(Request(self.command, self.path_only, dict(self.query),
                                        self.headers))
        if fault is None:
            self.relay(self.forwarded())
        elif fault.name in STATUS_CODES:
            wait = [("Retry-After", str(fault.retry_after))] if fault.retry_after else []
            self.refuse(fault.name, STATUS_CODES[fault.name], "a fault that a test armed", wait)
        else:
            getattr(self, f"do_fault_{fault.name}")(fault)

    def forwarded(self, body=None):
        return self.forward(self.proxy.upstream, self.path, self.sent_headers(),
                            self.body() if body is None else body)

    def do_fault_reset(self, _fault):
        self.reset()

    def do_fault_reset_after(self, _fault):
        for _ in pieces_of(self.forwarded()):
            pass
        self.reset()

    def do_fault_stall(self, fault):
        if self.proxy.stall(fault.seconds):
            self.relay(self.forwarded())
        else:
            self.reset()

    def do_fault_truncate(self, _fault):
        reply = self.forwarded()
        self.relay(reply, first(pieces_of(reply), half_of(reply)))
        self.close_connection = True

    def do_fault_stall_body(self, fault):
        reply = self.forwarded()
        pieces = pieces_of(reply)

        def with_a_pause():
            before, after = cut(pieces, half_of(reply))
            yield from before
            if not self.proxy.stall(fault.seconds):
                raise ConnectionError("the proxy was stopped")
            yield from after

        self.relay(reply, with_a_pause())

    def do_fault_corrupt(self, _fault):
        reply = self.forwarded()
        before, after = cut(pieces_of(reply), half_of(reply))

        def with_a_flip():
            yield from before
            for position, piece in enumerate(after):
                yield piece if position else bytes([piece[0] ^ 1]) + piece[1:]

        self.relay(reply, with_a_flip())

    def do_fault_short_length(self, _fault):
        reply = self.forwarded()
        self.relay(reply, first(pieces_of(reply), half_of(reply)), half_of(reply))

    def do_fault_duplicate(self, _fault):
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as kept:
            for piece in self.body():
                kept.write(piece)
            for reply_is_lost in (True, False):
                kept.seek(0)
                reply = self.forwarded(iter(lambda: kept.read(IN_MEMORY_BYTES), b""))
                if reply_is_lost:
                    reply.read()
            self.relay(reply)


FaultProxy.handler = _Handler


def half_of(reply):
    return (length_of(reply) or 0) // 2


def cut(pieces, length):
    """Two iterators over the pieces of the first `length` bytes and of the rest, to be used in this
    order."""
    rest = []

    def before():
        missing = length
        while missing and (piece := next(pieces, None)) is not None:
            if len(piece) > missing:
                rest.append(piece[missing:])
            yield piece[:missing]
            missing -= min(missing, len(piece))

    def after():
        yield from rest
        yield from pieces

    return before(), after()


def first(pieces, length):
    return cut(pieces, length)[0]
