"""The chunked body of an answer, read in the same way on both paths.

Requests are read as RFC 9112, 7.1 has it and in no other way (`chunked.py`): a balancer before the gateway
may disagree about where one ends. Nothing follows an answer: blanks behind a size and lines that end in LF
alone, which servers write and curl and nginx read alike, are read, and the connection is not used again.
"""

from __future__ import annotations

import re
from typing import Any, Final

import h11

from ..http.message import MAX_HEAD
from ..http.response_head import UnreadableHead
from .chunked import MAX_LINE

# Beyond 15 digits every parser has an overflow of its own. An extension holds no control but HTAB.
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})([ \t]*)(?:;[\t\x20-\x7e\x80-\xff]*)?\r?\n")
_SIZE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?")
_TRAILER: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\r?\n")
# What nearly all chunks begin with. What does not match it is read line by line.
_PLAIN: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
TURN_CHUNKS: Final = 1024
"""Chunks, or lines of them, that are read before others have their turn: one of a single byte costs as much
as one of 64 KiB.
"""
FRAMED_OTHERWISE: Final = "the body of the upstream's answer is not framed as HTTP/1.1 has it"


class ResponseChunks:
    """A reader that takes a body as it comes, and returns what is in its chunks. Extensions and trailers are
    dropped: they are not masked.
    """

    __slots__ = ("_held", "_left", "_line", "_part", "_trailers", "_wrong", "done", "regular", "rest")

    def __init__(self) -> None:
        self._part = self._size
        self._held = b""
        """What has come and was not read yet."""
        self._left = 0
        """Bytes of this chunk that are still to come."""
        self._line = b""
        self._trailers = 0
        self._wrong: UnreadableHead | None = None
        """Found behind chunks that were good, and raised in the next turn."""
        self.done = False
        self.regular = True
        """True if all of it was written as RFC 9112 wants it."""
        self.rest = b""
        """What came behind its end."""

    @property
    def lags(self) -> bool:
        """True if more is here than was read: feed it again, even with nothing, once others had a turn."""
        return bool(self._held) or self._wrong is not None

    @property
    def waiting(self) -> int:
        """Bytes that were not read yet."""
        return len(self._held)

    def forget(self) -> None:
        """Drop what was not read yet."""
        self._held, self._wrong = b"", None

    def feed(self, data: bytes) -> bytes:
        """Return what is in the chunks that fit into a turn, in one piece. Raises UnreadableHead."""
        wrong, self._wrong = self._wrong, None
        if wrong is not None:
            raise wrong
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        at = 0
        try:
            at = self._read(data, pieces)
        except UnreadableHead as error:
            if not pieces:
                raise
            at, self._wrong = len(data), error
        if self.done:
            self.rest += data[at:]
        else:
            self._held = data[at:]
        return b"".join(pieces)

    def _read(self, data: bytes, pieces: list[bytes]) -> int:
        """Read as much as fits into a turn; return where that ends. Raises UnreadableHead."""
        at = steps = 0
        while at < len(data) and not self.done and steps + len(pieces) < TURN_CHUNKS:
            if self._left:
                piece = data[at : at + self._left]
                self._left -= len(piece)
                at += len(piece)
                pieces.append(piece)
                continue
            if not self._line and self._part == self._size:
                begin, at = at, _read_plain(data, at, pieces, TURN_CHUNKS - steps)
                if at > begin:
                    continue
            at = self._read_line(data, at)
            steps += 1
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        """Read a line, or as much of it as is here; return where that ends. Raises UnreadableHead."""
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if len(self._line) > MAX_LINE or not (end or self._may_become_a_line()):
            raise UnreadableHead(FRAMED_OTHERWISE)
        if not end:
            return len(data)
        line, self._line = self._line, b""
        self.regular &= line.endswith(b"\r\n")
        self._part(line)
        return end

    def _may_become_a_line(self) -> bool:
        """Return whether the rest of a line is worth waiting for."""
        if self._part == self._behind:
            return self._line == b"\r"
        return self._part != self._size or _SIZE_BEGUN.fullmatch(self._line) is not None

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise UnreadableHead(FRAMED_OTHERWISE)
        self.regular &= not found[2]
        self._left = int(found[1], 16)
        self._part = self._behind if self._left else self._trailer

    def _behind(self, line: bytes) -> None:
        """Read the end of the line that every chunk ends with."""
        if line not in (b"\r\n", b"\n"):
            raise UnreadableHead(FRAMED_OTHERWISE)
        self._part = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line)
        if line in (b"\r\n", b"\n"):
            self.done = True
        elif self._trailers > MAX_HEAD or not _TRAILER.fullmatch(line):
            raise UnreadableHead(FRAMED_OTHERWISE)


def _read_plain(data: bytes, at: int, pieces: list[bytes], most: int) -> int:
    """Read chunks that are here in full and have nothing but a size: several times as fast as line by line.

    Args:
        pieces: takes what is in them.
        most: how many it may become.

    Returns where the first begins that was not read.
    """
    while len(pieces) < most and (found := _PLAIN.match(data, at)):
        begin = found.end()
        end = begin + int(found[1], 16)
        if end == begin or data[end : end + 2] != b"\r\n":
            break
        pieces.append(data[begin:end])
        at = end + 2
    return at


class ChunksForMitmproxy:
    """The same reader in the shape of h11's, as mitmproxy calls them."""

    def __init__(self) -> None:
        self.chunks = ResponseChunks()
        self._over = self._stops = False

    def __call__(self, buf: Any) -> h11.Data | h11.EndOfMessage | None:
        """Return what fits into a turn; leave only what lies behind the body in the buffer. mitmproxy asks
        until it gets None: so it gets None behind a piece, where others are to have their turn.

        Raises h11.RemoteProtocolError.
        """
        if self._over:
            return h11.EndOfMessage()
        if self._stops:
            self._stops = False
            return None
        came = buf.maybe_extract_at_most(len(buf)) if buf else b""
        try:
            data = self.chunks.feed(bytes(came))
        except UnreadableHead as wrong:
            raise h11.RemoteProtocolError(str(wrong)) from None
        self._over = self.chunks.done
        buf += self.chunks.rest
        if data:
            self._stops = self.chunks.lags
            return h11.Data(data=data)
        return h11.EndOfMessage() if self._over else None

    def read_eof(self) -> h11.EndOfMessage:
        raise h11.RemoteProtocolError(FRAMED_OTHERWISE)
