"""A chunked body of an answer, in the one reading that both paths have of it.

Requests are read as RFC 9112, 7.1 has it and in no other way (`chunks.py`): a balancer before the gateway
may disagree about where one ends. Behind an answer comes nothing: what servers write and curl and nginx read
alike, blanks behind a size and lines that end in LF alone, is read, and the connection is not used again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import h11

from .chunks import MAX_LINE
from .message import MAX_HEAD
from .response_heads import Unreadable

# Beyond 15 digits every parser has an overflow of its own. An extension holds no control but HTAB.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})([ \t]*)(?:;[\t\x20-\x7e\x80-\xff]*)?\r?\n")
_SIZE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?")
_TRAILER: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\r?\n")
FRAMED_OTHERWISE: Final = "the body of the upstream's answer is not framed as HTTP/1.1 has it"


class ResponseChunks:
    """Takes a body as it comes, and gives what is in its chunks. Extensions and trailers are dropped: they
    are fields that nobody masks.
    """

    __slots__ = ("_left", "_line", "_part", "_trailers", "done", "regular", "rest")

    def __init__(self) -> None:
        self._part = self._size
        self._left = 0
        """Bytes of this chunk that are still to come."""
        self._line = b""
        self._trailers = 0
        self.done = False
        self.regular = True
        """Whether all of it was written as RFC 9112 wants it."""
        self.rest = b""
        """What came behind its end."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What is in the chunks, piece by piece. Raises Unreadable."""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                yield piece
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            if len(self._line) > MAX_LINE or not (end or self._may_become_a_line()):
                raise Unreadable(FRAMED_OTHERWISE)
            if not end:
                break
            at, line, self._line = end, self._line, b""
            self.regular &= line.endswith(b"\r\n")
            self._part(line)
        if self.done:
            self.rest += data[at:]

    def _may_become_a_line(self) -> bool:
        """Whether the rest of a line is worth waiting for."""
        if self._part == self._behind:
            return self._line == b"\r"
        return self._part != self._size or _SIZE_BEGUN.fullmatch(self._line) is not None

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Unreadable(FRAMED_OTHERWISE)
        self.regular &= not found[2]
        self._left = int(found[1], 16)
        self._part = self._behind if self._left else self._trailer

    def _behind(self, line: bytes) -> None:
        """The end of the line that every chunk ends with."""
        if line not in (b"\r\n", b"\n"):
            raise Unreadable(FRAMED_OTHERWISE)
        self._part = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if line in (b"\r\n", b"\n"):
            self.done = True
        elif self._trailers > MAX_HEAD or not _TRAILER.fullmatch(line):
            raise Unreadable(FRAMED_OTHERWISE)


class ChunksForMitmproxy:
    """The same in the shape of h11's readers, as mitmproxy asks them."""

    def __init__(self) -> None:
        self.chunks = ResponseChunks()
        self._over = False

    def __call__(self, buf: Any) -> h11.Data | h11.EndOfMessage | None:
        """What has come since; only what lies behind the body is left in the buffer.

        Raises h11.RemoteProtocolError.
        """
        if self._over:
            return h11.EndOfMessage()
        came = buf.maybe_extract_at_most(len(buf)) if buf else b""
        try:
            data = b"".join(self.chunks.feed(bytes(came)))
        except Unreadable as wrong:
            raise h11.RemoteProtocolError(str(wrong)) from None
        self._over = self.chunks.done
        buf += self.chunks.rest
        if data:
            return h11.Data(data=data)
        return h11.EndOfMessage() if self._over else None

    def read_eof(self) -> h11.EndOfMessage:
        raise h11.RemoteProtocolError(FRAMED_OTHERWISE)
