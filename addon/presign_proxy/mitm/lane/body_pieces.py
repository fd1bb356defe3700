"""The body of a response as the client gets it, decoded and masked, in pieces."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.response_body import Body


class BodyPieces:
    """What has come of a body and was not passed on."""

    __slots__ = ("_finished", "_pieces", "body", "complete", "incoming")

    def __init__(self, body: Body) -> None:
        self.body = body
        """What decodes and masks it."""
        self.incoming: list[bytes] = []
        """What has come, as it came."""
        self._pieces: Iterator[bytes] | None = None
        self.complete = False
        """True if all of it has come."""
        self._finished = False
        """True if what was held back for the end is being passed on."""

    def take(self) -> bytes | None:
        """Return the next piece; None where more has to come first. Raises DecodingError."""
        while True:
            if self._pieces is None:
                if self.incoming:
                    # Together: a piece costs as much as 64 KiB, and an upstream may send each byte as one.
                    whole = b"".join(self.incoming)
                    self.incoming.clear()
                    self._pieces = self.body.feed(whole)
                elif self.complete and not self._finished:
                    self._finished, self._pieces = True, self.body.finish()
                else:
                    return None
            if (piece := next(self._pieces, None)) is not None:
                return piece
            self._pieces = None
