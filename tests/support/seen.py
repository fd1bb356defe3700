"""What an upstream saw: every request with its raw bytes, and every byte that never became a request."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

KEPT_BODY = 64 * 1024
"""Bodies up to this size are kept; larger ones are only counted and hashed."""

Headers = tuple[tuple[str, str], ...]


@dataclass
class Seen:
    """One request. Text is latin-1 of the bytes received, so nothing is lost or normalised."""

    raw: bytes
    """The head as received (HTTP/2: rendered as one, `GET /path HTTP/2`, one line per field)."""
    method: str
    target: str
    headers: Headers
    connection: int
    tls: bool = False
    sni: str | None = None
    alpn: str | None = None
    trailers: bytes = b""
    complete: bool = False
    """The body was received to its end."""
    length: int = 0
    _kept: bytearray = field(default_factory=bytearray, repr=False)
    _hash: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)

    def feed(self, data: bytes) -> None:
        """Account for a piece of the body."""
        self.length += len(data)
        self._hash.update(data)
        if self.length <= KEPT_BODY:
            self._kept += data
        else:
            self._kept.clear()

    @property
    def body(self) -> bytes | None:
        """The body, or None where it was too large to be kept."""
        return bytes(self._kept) if self.length <= KEPT_BODY else None

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def everything(self) -> bytes:
        """All bytes of the request that were kept: head, body, trailers."""
        return self.raw + (self.body or b"") + self.trailers

    def all(self, name: str) -> list[str]:
        """Every value of the header `name`, in any spelling of its case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of the header `name`."""
        return next(iter(self.all(name)), None)


class SeenLog:
    """A thread-safe record: written by the upstream's thread, read by the test's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests: list[Seen] = []
        self._fragments: list[bytes] = []
        self._connections = 0
        self._numbers = 0

    def connected(self) -> int:
        """Count a connection and return its number, which is never reused."""
        with self._changed:
            self._connections += 1
            self._numbers += 1
            return self._numbers

    def started(self, request: Seen) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def finished(self, request: Seen) -> None:
        with self._changed:
            request.complete = True
            self._changed.notify_all()

    def fragment(self, data: bytes) -> None:
        """Bytes that did not become a request: an unfinished or oversized head, a foreign protocol."""
        with self._changed:
            if data:
                self._fragments.append(data)

    def clear(self) -> None:
        with self._changed:
            self._requests.clear()
            self._fragments.clear()
            self._connections = 0

    def take(self) -> tuple[list[Seen], list[bytes]]:
        """The requests and the fragments since the last time, each handed out once."""
        with self._changed:
            found = self._requests, self._fragments
            self._requests, self._fragments = [], []
            return found

    @property
    def requests(self) -> list[Seen]:
        with self._changed:
            return list(self._requests)

    @property
    def fragments(self) -> list[bytes]:
        with self._changed:
            return list(self._fragments)

    @property
    def connections(self) -> int:
        with self._changed:
            return self._connections

    def wait_for(self, count: int, timeout: float = 5.0) -> list[Seen]:
        """Wait until `count` requests were received to their end; returns all, also on time-out."""
        return self._wait(lambda: sum(request.complete for request in self._requests) >= count, timeout)

    def wait_for_heads(self, count: int, timeout: float = 5.0) -> list[Seen]:
        """Wait until `count` heads have arrived, their bodies perhaps still under way."""
        return self._wait(lambda: len(self._requests) >= count, timeout)

    def _wait(self, done: Callable[[], bool], timeout: float) -> list[Seen]:
        deadline = time.monotonic() + timeout
        with self._changed:
            while not done() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return list(self._requests)
