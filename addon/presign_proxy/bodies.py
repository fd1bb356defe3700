"""A response body on its way to the client: decoded if it must be, masked, counted."""

from __future__ import annotations

from collections.abc import Iterator

from .decoding import Decoder
from .masking import Mask, MaskedStream


class Body:
    """Takes chunks from the upstream and yields what may go to the client."""

    __slots__ = ("_decoder", "_masked", "size")

    def __init__(self, mask: Mask, *, encoded: bool = False) -> None:
        self._decoder = Decoder() if encoded else None
        self._masked = MaskedStream(mask) if mask else None
        self.size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Raises DecodingError."""
        self.size += len(chunk)
        if self._decoder is not None:
            return filter(None, map(self._safe, self._decoder.feed(chunk)))
        safe = self._safe(chunk)
        return iter((safe,) if safe else ())

    def _safe(self, piece: bytes) -> bytes:
        """What of it may go on now."""
        return self._masked(piece) if self._masked and piece else piece

    def finish(self) -> Iterator[bytes]:
        """What was held back. Raises DecodingError where the body is not whole."""
        if self._decoder and self.size:
            self._decoder.finish()
        if self._masked and (rest := self._masked(b"")):
            yield rest
