"""The heads that come over HTTP/2 in one turn, put together from their frames."""

from __future__ import annotations

from ...http.message import MAX_HEAD
from .hpack_fields import count_fields
from .http2_excess import Excess

_PADDED, _PRIORITY = 0x8, 0x20


class HeadBlocks:
    """Collects the fragments of a head, and looks at it once it is whole."""

    __slots__ = ("_block", "_is_open", "count", "sizes")

    def __init__(self) -> None:
        self._block = bytearray()
        self._is_open = False
        self.count = 0
        """Heads that have come in full in this turn."""
        self.sizes: dict[int, list[int]] = {}
        """Bytes on the wire of the heads of this turn, by stream: the request's, then its trailers'."""

    def begin_turn(self) -> None:
        """Forget the heads of the last turn."""
        self.sizes.clear()
        self.count = 0

    def forget(self) -> None:
        """Drop the fragments of a head that will not be completed: the connection has ended."""
        self._block.clear()

    def begin(self, stream: int, fragment: bytearray, *, ends: bool) -> None:
        """Begin a head with the fragment of a HEADERS frame. Raises Excess."""
        self._block, self._is_open = bytearray(), True
        self.go_on(stream, fragment, ends=ends)

    def go_on(self, stream: int, fragment: bytearray, *, ends: bool) -> None:
        """Add the fragment of a CONTINUATION frame, which is ignored outside of a head. Raises Excess."""
        if not self._is_open:
            return
        self._block += fragment
        if len(self._block) > MAX_HEAD:
            raise Excess("a head is too large")
        if ends:
            self._is_open = False
            count_fields(bytes(self._block))
            self.count += 1
            self.sizes.setdefault(stream, []).append(len(self._block))


def fragment_of(held: bytearray, at: int, length: int, flags: int) -> bytearray:
    """Return the fragment of a head in a HEADERS frame (RFC 9113, 6.2).

    Args:
        at: where the payload of the frame begins.
    """
    start, end = at, at + length
    if flags & _PADDED and length:
        end -= held[at]
        start += 1
    if flags & _PRIORITY:
        start += 5
    return held[start : max(start, end)]
