"""Content codings taken off again, because a mask cannot read through them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

CODINGS: Final = frozenset((b"gzip", b"x-gzip", b"deflate"))
"""Codings that are decoded; identity was requested, and any other is refused."""

_PIECE: Final = 64 * 1024


class DecodingError(Exception):
    """The body is not what its Content-Encoding says."""


class Decoder:
    """Decodes gzip and zlib (RFC 9110, 8.4.1) in pieces of at most 64 KiB, however far a chunk expands."""

    __slots__ = ("_zlib",)

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=47)  # 32 + 15: gzip or zlib, as the header says

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises DecodingError."""
        try:
            while chunk:
                if self._zlib.eof:
                    self._zlib = zlib.decompressobj(wbits=47)  # RFC 1952, 2.2: members follow one another
                yield self._zlib.decompress(chunk, _PIECE)
                chunk = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        except zlib.error:
            raise DecodingError("the body is not valid gzip or zlib") from None

    def finish(self) -> None:
        """Raises DecodingError where the body ends too early."""
        if not self._zlib.eof:
            raise DecodingError("the body is truncated")
