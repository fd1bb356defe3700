"""What waits for a peer's windows over HTTP/2: counted as it comes and goes, and sent however they change.

mitmproxy keeps each piece of a body as it came: of a body of single bytes, a million of them, to be added up
for each frame that comes. A peer may make its window smaller and so leave one below zero (RFC 9113, 6.9.2).
For mitmproxy there is room in that. And it sends a piece in one frame though the peer takes shorter ones by
now.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any, Final

from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection, SendH2Data

_JOINED: Final = 1024
"""Bytes up to which pieces become one: two that stand together have more, so there are few of them."""
_LONGEST: Final = 16 * 1024
"""Bytes of a piece. No peer may ask for shorter frames (RFC 9113, 6.5.2)."""


class Waiting(deque[SendH2Data]):
    """Pieces of one body, in their order. mitmproxy changes it by the three methods below alone."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        """Bytes of all of them."""

    def append(self, piece: SendH2Data) -> None:
        data, end_stream = piece
        self.size += len(data)
        last = self[-1] if self else None
        if last is not None and not last.end_stream and len(last.data) + len(data) <= _JOINED:
            super().pop()
            super().append(SendH2Data(last.data + data, end_stream))
            return
        while len(data) > _LONGEST:
            super().append(SendH2Data(data[:_LONGEST], False))
            data = data[_LONGEST:]
        super().append(SendH2Data(data, end_stream))

    def appendleft(self, piece: SendH2Data) -> None:
        self.size += len(piece.data)
        super().appendleft(piece)

    def popleft(self) -> SendH2Data:
        piece = super().popleft()
        self.size -= len(piece.data)
        return piece


class WindowedConnection(BufferedH2Connection):
    """mitmproxy's connection, whose windows are never below zero to it, and whose buffers are counted."""

    def local_flow_control_window(self, stream_id: int) -> int:
        """The bytes that may be sent: none where the window is below zero. What h2 counts stays as it is."""
        return max(0, super().local_flow_control_window(stream_id))

    def waiting_of(self, stream_id: int) -> int:
        """Bytes of a stream that its peer's window keeps from being sent."""
        found: Any = self.stream_buffers.get(stream_id)
        return int(found.size) if found is not None else 0

    @property
    def waiting(self) -> int:
        """Bytes of all streams that the peer's windows keep from being sent."""
        return sum(map(self.waiting_of, self.stream_buffers))


def make_windowed(connection: BufferedH2Connection) -> None:
    """Before the first byte is sent."""
    connection.__class__ = WindowedConnection
    buffers: Any = defaultdict(Waiting)
    connection.stream_buffers = buffers
