"""A response body on its way to the client: decoded if needed, masked, counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .content_coding import Decoder
from .masking import Mask, MaskedStream

PATIENCE: Final = 0.02
"""Seconds for which the end of a piece waits for the next piece."""
TURN: Final = 1024 * 1024
"""Bytes of a body that are sent before other tasks run: a decoded body may be endless."""

LEAST: Final = 16 * 1024
"""Bytes that a piece counts for at least, even if it is empty: it may have taken as long as so many bytes."""


class Body:
    """A body that takes chunks from the upstream and yields pieces for the client."""

    __slots__ = ("_decoder", "_masked", "size")

    def __init__(self, mask: Mask, *, encoded: bool = False) -> None:
        self._decoder = Decoder() if encoded else None
        self._masked = MaskedStream(mask) if mask else None
        self.size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the pieces of a chunk. A piece of an encoded body may be empty. Raises DecodingError."""
        self.size += len(chunk)
        if self._decoder is not None:
            return map(self._safe, self._decoder.feed(chunk))
        safe = self._safe(chunk)
        return iter((safe,) if safe else ())

    def _safe(self, piece: bytes) -> bytes:
        """Return the part of a piece that may be sent now."""
        return self._masked(piece) if self._masked and piece else piece

    @property
    def waits(self) -> bool:
        """True if bytes are held back that may be sent if nothing more arrives for a moment."""
        return self._masked is not None and self._masked.is_short

    def overdue(self) -> bytes:
        """Return the bytes that were held back, because nothing more has arrived."""
        return self._masked.overdue() if self._masked is not None else b""

    def finish(self) -> Iterator[bytes]:
        """Yield the bytes that are still held back. Raises DecodingError if the body is incomplete."""
        if self._decoder and self.size:
            self._decoder.finish()
        if self._masked and (rest := self._masked(b"")):
            yield rest
