"""Decoding of content codings. A mask finds credentials only in a decoded body."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

CODINGS: Final = frozenset((b"gzip", b"x-gzip", b"deflate"))
"""Codings that the gateway decodes."""
UNREADABLE: Final = frozenset(b"br zstd compress x-compress dcb dcz exi pack200-gzip".split())
"""Codings that the gateway does not decode (IANA, HTTP Content Coding Registry). We requested identity."""

_PIECE: Final = 64 * 1024
_SLICE: Final = 8 * 1024
_MEMBERS: Final = 16
"""Most gzip members in one piece. A member with a single byte, or none, costs as much as 16 KiB."""
_MAGIC: Final = b"\x1f\x8b"
_GZIP, _ZLIB, _BARE = 31, 15, -15
"""zlib's `wbits` for the three formats: the size of the window, and the format around it."""


class DecodingError(Exception):
    """The body is not what its Content-Encoding says."""


class Decoder:
    """A decoder for gzip, zlib and bare deflate. Its pieces have at most 64 KiB, however far a chunk expands.

    A piece may be empty; decoding it still took time. RFC 9110, 8.4.1 calls zlib "deflate", and some servers
    send bare deflate under that name. After a gzip member another one may follow (RFC 1952, 2.2); anything
    else there is padding and is dropped.
    """

    __slots__ = ("_begun", "_over", "_start", "_zlib")

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=_GZIP)
        self._start = b""
        """The first bytes of a stream, kept until they show its format."""
        self._begun = self._over = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decode a chunk. Raises DecodingError."""
        # In slices, because zlib copies the rest of its input at the end of each member and after each piece.
        for at in range(0, len(chunk), _SLICE):
            yield from self._decoded(chunk[at : at + _SLICE])

    def _decoded(self, chunk: bytes) -> Iterator[bytes]:
        made: list[bytes] = []
        room = _PIECE
        try:
            while chunk and not self._over:
                if not self._begun:
                    chunk = self._begin(chunk)
                    continue
                made.append(self._zlib.decompress(chunk, room))
                room -= len(made[-1])
                chunk = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
                self._begun = not self._zlib.eof
                if not room or len(made) >= _MEMBERS:
                    yield b"".join(made)
                    made, room = [], _PIECE
        except zlib.error:
            if made:
                yield b"".join(made)
            raise DecodingError("the body is not valid gzip or zlib") from None
        if made:
            yield b"".join(made)

    def _begin(self, chunk: bytes) -> bytes:
        """Detect the format of a stream. Returns the data to decode; nothing until there are two bytes."""
        self._start += chunk
        if len(self._start) < 2:
            return b""
        start, self._start = self._start, b""
        if self._zlib.eof and start[:2] != _MAGIC:
            self._over = True
            return b""
        if self._zlib.eof or start[:2] == _MAGIC:
            self._zlib = zlib.decompressobj(wbits=_GZIP)
        elif start[0] & 0x0F == 8 and int.from_bytes(start[:2], "big") % 31 == 0:  # RFC 1950, 2.2
            self._zlib = zlib.decompressobj(wbits=_ZLIB)
        else:
            self._zlib = zlib.decompressobj(wbits=_BARE)
        self._begun = True
        return start

    def finish(self) -> None:
        """Check that the body is complete. Raises DecodingError if it is not."""
        if not self._zlib.eof:
            raise DecodingError("the body is truncated")
