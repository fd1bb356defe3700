"""A response body on its way to the client: decoded if it must be, masked, counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .content_coding import Decoder
from .masking import Mask, MaskedStream

PATIENCE: Final = 0.02
"""Seconds for which the end of a piece waits for what comes next."""
TURN: Final = 1024 * 1024
"""Bytes of a body that are passed on before others have their turn: one that is decoded may have no end."""

LEAST: Final = 16 * 1024
"""What a piece of it counts for at least, be it empty: it may have taken as long as one of so many bytes."""


class Body:
    """Takes chunks from the upstream and yields what may go to the client."""

    __slots__ = ("_decoder", "_masked", "size")

    def __init__(self, mask: Mask, *, encoded: bool = False) -> None:
        self._decoder = Decoder() if encoded else None
        self._masked = MaskedStream(mask) if mask else None
        self.size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """A piece may be empty where the body is decoded. Raises DecodingError."""
        self.size += len(chunk)
        if self._decoder is not None:
            return map(self._safe, self._decoder.feed(chunk))
        safe = self._safe(chunk)
        return iter((safe,) if safe else ())

    def _safe(self, piece: bytes) -> bytes:
        """What of it may go on now."""
        return self._masked(piece) if self._masked and piece else piece

    @property
    def waits(self) -> bool:
        """Whether something is held back that may go on if nothing more comes for a moment."""
        return self._masked is not None and self._masked.is_short

    def overdue(self) -> bytes:
        """What was held back, now that nothing more has come."""
        return self._masked.overdue() if self._masked is not None else b""

    def finish(self) -> Iterator[bytes]:
        """What was held back. Raises DecodingError where the body is not whole."""
        if self._decoder and self.size:
            self._decoder.finish()
        if self._masked and (rest := self._masked(b"")):
            yield rest
