"""Data that wait for a peer's windows over HTTP/2, counted, and sent however those windows change.

mitmproxy keeps each piece of a body as it came: of a body of single bytes, a million of them, to be added up
for each frame that comes. A peer may make its window smaller and so leave one below zero (RFC 9113, 6.9.2),
which mitmproxy takes for room. And mitmproxy sends a piece in one frame though the peer may take shorter ones
by now.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import h2.events
from mitmproxy.proxy.layers.http._http2 import Http2Connection
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection, SendH2Data

_JOINED: Final = 1024
"""Bytes up to which pieces become one: two that stand together have more, so there are few of them."""
_LONGEST: Final = 16 * 1024
"""Bytes of a piece. A peer may not ask for shorter frames (RFC 9113, 6.5.2)."""


class Waiting(deque[SendH2Data]):
    """The pieces of one body, in their order. mitmproxy changes them by the three methods below alone."""

    def __init__(self, buffers: Buffers) -> None:
        """Args: buffers: where the pieces are counted."""
        super().__init__()
        self.size = 0
        """Bytes of all of them."""
        self._buffers = buffers

    def append(self, piece: SendH2Data) -> None:
        data, end_stream = piece
        self._count(len(data))
        last = self[-1] if self else None
        # An end alone never waits: mitmproxy sends nothing once a window is used up, and the peer that knows
        # how long the body is opens it for no more than that.
        joined = not data or (last is not None and len(last.data) + len(data) <= _JOINED)
        if last is not None and not last.end_stream and joined:
            super().pop()
            super().append(SendH2Data(last.data + data, end_stream))
            return
        while len(data) > _LONGEST:
            super().append(SendH2Data(data[:_LONGEST], False))
            data = data[_LONGEST:]
        super().append(SendH2Data(data, end_stream))

    def appendleft(self, piece: SendH2Data) -> None:
        self._count(len(piece.data))
        super().appendleft(piece)

    def popleft(self) -> SendH2Data:
        piece = super().popleft()
        self._count(-len(piece.data))
        return piece

    def _count(self, size: int) -> None:
        self.size += size
        self._buffers.size += size


class Buffers(dict[int, Waiting]):
    """The pieces on each stream of a connection. mitmproxy changes them by the methods below alone."""

    size = 0
    """Bytes of all of them, so that they are not added up again each time."""

    def __missing__(self, stream_id: int) -> Waiting:
        found = self[stream_id] = Waiting(self)
        return found

    def __setitem__(self, stream_id: int, waiting: Waiting) -> None:
        self.size += waiting.size
        super().__setitem__(stream_id, waiting)

    def __delitem__(self, stream_id: int) -> None:
        self.pop(stream_id)

    def pop(self, stream_id: int, *default: Any) -> Any:
        found = super().pop(stream_id, *default)
        self.size -= found.size if isinstance(found, Waiting) else 0
        return found

    def clear(self) -> None:
        self.size = 0
        super().clear()


class WindowedConnection(BufferedH2Connection):
    """mitmproxy's connection, with windows that are never below zero, and counted buffers."""

    def receive_data(self, data: Any) -> list[h2.events.Event]:
        found: list[h2.events.Event] = super().receive_data(data)
        for event in found:
            if isinstance(event, h2.events.StreamReset):
                self.stream_trailers.pop(event.stream_id or 0, None)
        return found

    def reset_stream(self, stream_id: int, error_code: int = 0) -> None:
        self.stream_trailers.pop(stream_id, None)  # mitmproxy keeps them with the connection
        super().reset_stream(stream_id, error_code)

    def local_flow_control_window(self, stream_id: int) -> int:
        """Return how many bytes may be sent: none if the window is below zero, which stays as h2 counts."""
        return max(0, super().local_flow_control_window(stream_id))

    def forget(self) -> None:
        """Drop all that waits: the connection has ended."""
        self.stream_buffers.clear()
        self.stream_trailers.clear()

    def waiting_of(self, stream_id: int) -> int:
        """Return how many bytes of a stream the peer's window keeps from being sent."""
        found: Any = self.stream_buffers.get(stream_id)
        return int(found.size) if found is not None else 0

    @property
    def waiting(self) -> int:
        """Bytes of all streams that the peer's windows keep from being sent."""
        buffers: Any = self.stream_buffers
        return int(buffers.size)


def make_windowed(connection: BufferedH2Connection) -> None:
    """Make a connection such a one. To be called before the first byte is sent."""
    connection.__class__ = WindowedConnection
    buffers: Any = Buffers()
    connection.stream_buffers = buffers


def unsent(side: Http2Connection, stream_id: int) -> int:
    """Return how many bytes of a stream the peer's window keeps from being sent."""
    return windowed(side).waiting_of(stream_id)


def all_unsent(side: Http2Connection) -> int:
    """Return how many bytes of all streams a peer's windows keep from being sent."""
    return windowed(side).waiting


def windowed(side: Http2Connection) -> WindowedConnection:
    """Return the connection of a side. Both sides make it such a one."""
    connection = side.h2_conn
    if not isinstance(connection, WindowedConnection):
        raise TypeError("a connection whose buffers are not counted")
    return connection
