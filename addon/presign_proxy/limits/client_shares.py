"""What clients over HTTP/2 may have of a worker: streams under way, and bytes that they do not take.

A client may have no more than it leaves to all others together. One alone gets half of what there is, ten get
an eleventh each, and the next one finds room.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

STREAMS: Final = 5000
"""Streams under way in a worker at most. Each client may have one in any case."""
MAX_STREAMS: Final = 100
"""Streams of one client at a time, as it is told (RFC 9113, 5.1.2)."""
MAX_WAITING: Final = 64 * 1024 * 1024
"""Bytes of answers that wait in a worker for clients over HTTP/2 to take them."""


def streams_of(clients: int) -> int:
    """Streams of all clients together where there may be so many clients: as over HTTP/1."""
    return min(clients, STREAMS)


class _Share(NamedTuple):
    streams: int = 0
    waiting: int = 0


_NONE: Final = _Share()


class Shares:
    """Counts what each client has, and what all have."""

    def __init__(self, most: Callable[[], int] = lambda: STREAMS) -> None:
        """Args: most: streams of all clients at a time."""
        self._most = most
        self._of: WeakKeyDictionary[Any, _Share] = WeakKeyDictionary()
        self._streams = self._waiting = 0

    def note(self, client: Any, streams: int, waiting: int) -> None:
        """What a client has by now.

        Args:
            waiting: bytes of its answers that it does not take.
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
        """It has gone, and has nothing any more."""
        self.note(client, 0, 0)

    def may_begin(self, own: int) -> bool:
        """Whether a client that has so many streams may begin another; the first one always."""
        return own == 0 or own < self._most() - self._streams

    @property
    def room(self) -> int:
        """Bytes of answers that may wait for any one client."""
        return max(MAX_WAITING - self._waiting, 0)
