"""Chunked bodies: those of requests are read as RFC 9112, 7.1 has it and in no other way.

h11 takes blanks after a size, sizes of twenty digits, anything at all for an extension, and trailers whose
lines end in LF alone. A balancer in front of the gateway that reads one of them otherwise sees the next
request where we see the body.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

import h11
from h11 import LocalProtocolError
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer

from ..http.message import MAX_HEAD

MAX_LINE: Final = 8 * 1024
"""Bytes of the size of a chunk with its extension, or of one trailer."""
MAX_JOINED: Final = 1024
"""Chunks that are read in one go."""
_NO_SIZE: Final = "the size of a chunk is not as HTTP/1.1 has it"
_NO_TRAILER: Final = "a trailer is not as HTTP/1.1 has it"

# Beyond 15 digits every parser has an overflow of its own. An extension holds no control but HTAB.
_SIZE_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
# Not folded: what begins with a blank would belong to the field before.
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class StrictChunks(ChunkedReader):
    """h11's reader over lines that were checked before."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = _Lines()
        self.failed = False
        """True if the body is not as it has to be."""

    def __call__(self, buf: Any) -> Any:
        if buf is not self._lines:  # h11 calls itself behind the last chunk
            self._lines.buf = buf
        try:
            return super().__call__(cast(ReceiveBuffer, self._lines))
        except LocalProtocolError:
            self.failed = True
            raise


class _Lines:
    """A receive buffer from which sizes of chunks and trailers are read line by line.

    A line ends in CR LF. To a parser that ends it at LF alone, as h11 does for trailers, the body may end
    elsewhere.
    """

    def __init__(self) -> None:
        self.buf: Any = None
        self._size = 0

    def maybe_extract_next_line(self) -> Any:
        line = self._line(_NO_SIZE)
        if line is not None and not _SIZE_LINE.fullmatch(line):
            raise LocalProtocolError(_NO_SIZE)
        return line

    def maybe_extract_lines(self) -> list[bytes] | None:
        """Return no trailers, once they have ended: they are fields that were not checked."""
        while (line := self._line(_NO_TRAILER)) is not None:
            if line == b"\r\n":
                return []
            self._size += len(line)
            if self._size > MAX_HEAD or not _TRAILER.fullmatch(line):
                raise LocalProtocolError(_NO_TRAILER)
        return None

    def _line(self, wrong: str) -> bytes | None:
        line = self.buf.maybe_extract_next_line()
        if line is not None:
            return bytes(line)
        # An LF that is there now has no CR. To wait for the end of the line might take for ever.
        if len(self.buf) > MAX_LINE or b"\n" in bytes(self.buf):
            raise LocalProtocolError(wrong)
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.buf, name)


class JoinedChunks:
    """A reader over another one. What is there at once is one piece, however many chunks it came in.

    A chunk of one byte has six on the wire, and costs as much to pass on as one of 64 KiB.
    """

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._behind: Any = None
        """What follows the chunks that were joined: the end of the body, or an error."""
        self.lags = False
        """True if there may be more of them, after other connections have had their turn."""

    @property
    def failed(self) -> bool:
        """True if the body is not as it has to be, as far as the events so far say."""
        return self._behind is None and bool(getattr(self._reader, "failed", False))

    def __call__(self, buf: Any) -> Any:
        """Return the next event. Raises h11.ProtocolError."""
        found, self._behind, self.lags = self._behind, None, False
        if isinstance(found, Exception):
            raise found
        if found is not None:
            return found
        pieces: list[bytes] = []
        while len(pieces) < MAX_JOINED:
            event = self._next(buf, pieces)
            if not isinstance(event, h11.Data):
                if not pieces:
                    return event
                self._behind = event
                break
            pieces.append(bytes(event.data))
        else:
            self.lags = True
        return h11.Data(data=b"".join(pieces))

    def _next(self, buf: Any, pieces: list[bytes]) -> Any:
        try:
            return self._reader(buf)
        except h11.ProtocolError as error:
            if not pieces:
                raise
            return error

    def read_eof(self) -> Any:
        """Return what the end of the connection means. Raises h11.ProtocolError."""
        return self._reader.read_eof()
