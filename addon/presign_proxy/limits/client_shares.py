"""Shares of a worker for HTTP/2 clients: open streams, and bytes of answers that clients do not read.

A client may use no more than it leaves to all others together. A single client gets half of the total, ten
clients get an eleventh each, and there is always room for the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

STREAMS: Final = 5000
"""Most open streams in a worker. Each client may have one in any case."""
MAX_STREAMS: Final = 100
"""Most concurrent streams of one client, as announced to it (RFC 9113, 5.1.2)."""
MAX_WAITING: Final = 64 * 1024 * 1024
"""Most bytes of answers in a worker that HTTP/2 clients have not read yet."""


def streams_of(clients: int) -> int:
    """Return the most streams of all clients together, for a limit on the number of clients.

    It is one stream for each client, as over HTTP/1, but at most `STREAMS`.
    """
    return min(clients, STREAMS)


class _Share(NamedTuple):
    streams: int = 0
    waiting: int = 0


_NONE: Final = _Share()


class Shares:
    """The shares of all clients of a worker."""

    def __init__(self, most: Callable[[], int] = lambda: STREAMS) -> None:
        """
        Args:
            most: returns the most concurrent streams of all clients together.
        """
        self._most = most
        self._of: WeakKeyDictionary[Any, _Share] = WeakKeyDictionary()
        self._streams = self._waiting = 0

    def note(self, client: Any, streams: int, waiting: int) -> None:
        """Record what a client uses now.

        Args:
            waiting: bytes of its answers that it has not read yet.
        """
        before, now = self._of.get(client, _NONE), _Share(streams, waiting)
        if before == now:
            return
        self._streams += now.streams - before.streams
        self._waiting += now.waiting - before.waiting
        if now == _NONE:
            self._of.pop(client, None)
        else:
            self._of[client] = now

    def forget(self, client: Any) -> None:
        """Record that a client has disconnected and uses nothing."""
        self.note(client, 0, 0)

    def may_begin(self, own: int) -> bool:
        """Return whether a client with `own` streams may open another. The first one is always allowed."""
        return own == 0 or own < self._most() - self._streams

    @property
    def room(self) -> int:
        """Bytes of answers that may wait for one client."""
        return max(MAX_WAITING - self._waiting, 0)
