"""A response on its way to one client: framed, and sent no faster than the client takes it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from ...core.response_body import LEAST, PATIENCE, TURN, Body
from .body_pieces import BodyPieces

if TYPE_CHECKING:
    from .client_side import ClientOutput

logger = logging.getLogger(__name__)

PIECE: Final = 64 * 1024
"""Bytes that are passed on in one piece."""


class BodySource(Protocol):
    """The exchange that a response belongs to."""

    @property
    def ended(self) -> bool: ...

    def pause(self) -> None:
        """Read no more of the response for now."""

    def resume(self) -> None:
        """Read on."""

    def passed_on(self) -> None:
        """Go on: all of the response has been sent but for what ends its framing."""

    def spoilt(self, why: str) -> None:
        """End: the response cannot be passed on."""

    def collapse(self, error: Exception) -> None:
        """End after a failure of the gateway's own."""


class _Over:
    """What stands for an exchange that has ended."""

    ended = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def passed_on(self) -> None: ...

    def spoilt(self, why: str) -> None: ...

    def collapse(self, error: Exception) -> None: ...


_OVER: Final = _Over()


class Delivery:
    """The head first, then the body piece by piece.

    Nothing of it is kept longer than the client needs to take it.
    """

    __slots__ = (
        "_chunked",
        "_out",
        "_output",
        "_paused",
        "_pieces",
        "_source",
        "_timer",
        "_waiting",
        "begun",
    )

    def __init__(self, output: ClientOutput, source: BodySource) -> None:
        self._output = output
        self._source: BodySource = source
        self._pieces: BodyPieces | None = None
        self._chunked = False
        self._out: list[bytes] = []
        self._waiting = 0
        """Bytes of the body in `_out`."""
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self.begun = False
        """True if something of the response has been sent to the client."""

    @property
    def size(self) -> int:
        """Bytes of the body, as they came."""
        return self._pieces.body.size if self._pieces is not None else 0

    @property
    def has_head(self) -> bool:
        """True if the upstream has answered, even if nothing of that is sent yet."""
        return self.begun or bool(self._out)

    def begin(self, head: bytes, body: Body, *, chunked: bool) -> None:
        """Take the head as the client gets it, and what decodes and masks the body."""
        self._pieces, self._chunked = BodyPieces(body), chunked
        self._out.append(head)

    def add(self, piece: bytes) -> None:
        """Take a piece of the body, as it came."""
        if self._pieces is not None:
            self._pieces.incoming.append(piece)

    def let_go(self) -> None:
        """Forget the exchange, which is over. What was not sent never is: an answer of ours may replace it.

        The exchange is freed at once. Objects that refer to each other would wait for a garbage collection,
        during which every client waits.
        """
        self._source = _OVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Pass on the rest: all of the response has come."""
        if self._pieces is not None:
            self._pieces.complete = True
        self.pump()

    def pump(self) -> None:
        """Pass on what has come, as far as the client takes it: decoding may make a thousandfold of it."""
        pieces = self._pieces
        if self._paused or self._source.ended or pieces is None:
            return
        passed = 0
        try:
            while (piece := pieces.take()) is not None:
                if piece:
                    self._put(piece)
                passed += max(len(piece), LEAST)
                if self._output.is_full:
                    self._pause()
                    self._output.when_drained(self._resume)
                    return
                if passed >= TURN:
                    self._pause()
                    asyncio.get_running_loop().call_soon(self._resume)
                    return
        except Exception as error:
            logger.warning("presign: a response body cannot be passed on (%s)", type(error).__name__)
            self._source.spoilt("the response cannot be decoded")
            return
        if pieces.complete:
            self._source.passed_on()
        else:
            self.flush()
            if pieces.body.waits and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._prompt)

    def _prompt(self) -> None:
        """Pass on what was held back, because nothing more has come."""
        self._timer, pieces = None, self._pieces
        if self._paused or self._source.ended or pieces is None or pieces.complete:
            return
        try:
            if safe := pieces.body.overdue():
                self._put(safe)
                self.flush()
        except Exception as error:
            self._source.collapse(error)

    def close(self) -> None:
        """Send the rest, and what ends the framing."""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()

    def flush(self) -> None:
        """Send what was put together."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._waiting = 0
            self.begun = True
            self._output.send(data)

    def _put(self, safe: bytes) -> None:
        self._out.append(b"%x\r\n%b\r\n" % (len(safe), safe) if self._chunked else safe)
        self._waiting += len(safe)
        if self._waiting >= PIECE:
            self.flush()

    def _pause(self) -> None:
        self._paused = True
        self._source.pause()

    def _resume(self) -> None:
        self._paused = False
        try:
            self._source.resume()
            self.pump()
        except Exception as error:
            self._source.collapse(error)
