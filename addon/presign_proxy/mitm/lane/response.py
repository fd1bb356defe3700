"""A response on its way to one client: decoded, masked, framed, and no faster than the client takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

from ...core.response_body import LEAST, PATIENCE, TURN, Body

if TYPE_CHECKING:
    from .client_side import ClientSide

logger = logging.getLogger(__name__)

PIECE: Final = 64 * 1024
"""Bytes that are passed on in one piece."""


class BodySource(Protocol):
    """The exchange that a response belongs to."""

    @property
    def ended(self) -> bool: ...

    def pause(self) -> None:
        """Read no more of the response for now."""

    def resume(self) -> None: ...

    def passed_on(self) -> None:
        """All of it has been sent but for what ends its framing."""

    def spoilt(self, why: str) -> None:
        """It cannot be passed on."""

    def collapse(self, error: Exception) -> None:
        """Something of ours failed."""


class _Over:
    """Stands for an exchange that has ended."""

    ended = True

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def passed_on(self) -> None: ...

    def spoilt(self, why: str) -> None: ...

    def collapse(self, error: Exception) -> None: ...


_OVER: Final = _Over()


class Delivery:
    """Its head is put in before anything else, its body piece by piece; nothing of it is kept longer than
    the client needs to take it.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_complete",
        "_finished",
        "_incoming",
        "_lane",
        "_out",
        "_paused",
        "_pieces",
        "_source",
        "_timer",
        "_waiting",
        "begun",
    )

    def __init__(self, lane: ClientSide, source: BodySource) -> None:
        self._lane = lane
        self._source: BodySource = source
        self._body: Body | None = None
        self._chunked = False
        self._incoming: list[bytes] = []
        self._pieces: Iterator[bytes] | None = None
        self._out: list[bytes] = []
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._complete = self._finished = self._paused = False
        self.begun = False
        """Whether something of it has been sent to the client."""

    @property
    def size(self) -> int:
        """Bytes of the body, as they came."""
        return self._body.size if self._body else 0

    @property
    def has_head(self) -> bool:
        """Whether the upstream has answered, be it that nothing of it is sent yet."""
        return self.begun or bool(self._out)

    def begin(self, head: bytes, body: Body, *, chunked: bool) -> None:
        self._body, self._chunked = body, chunked
        self._out.append(head)

    def add(self, piece: bytes) -> None:
        self._incoming.append(piece)

    def let_go(self) -> None:
        """Its exchange is over: what was not sent never is, for an answer of ours may be in its place.

        It is freed at once: what refers to each other waits for a garbage collection, during which every
        client waits.
        """
        self._source = _OVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """All of it has come."""
        self._complete = True
        self.pump()

    def pump(self) -> None:
        """Pass on what has come, as far as the client takes it: decoding may make a thousandfold of it."""
        if self._paused or self._source.ended:
            return
        passed = 0
        try:
            while (piece := self._next_piece()) is not None:
                if piece:
                    self._put(piece)
                passed += max(len(piece), LEAST)
                if self._lane.is_full:
                    self._pause()
                    self._lane.when_drained(self._resume)
                    return
                if passed >= TURN:
                    self._pause()
                    asyncio.get_running_loop().call_soon(self._resume)
                    return
        except Exception as error:
            logger.warning("presign: a response body cannot be passed on (%s)", type(error).__name__)
            self._source.spoilt("the response cannot be decoded")
            return
        if self._complete and self._body is not None:
            self._source.passed_on()
        else:
            self.flush()
            if self._body is not None and self._body.waits and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._prompt)

    def _prompt(self) -> None:
        """Nothing more has come: pass on what was held back."""
        self._timer = None
        if self._paused or self._complete or self._source.ended or self._body is None:
            return
        try:
            if safe := self._body.overdue():
                self._put(safe)
                self.flush()
        except Exception as error:
            self._source.collapse(error)

    def close(self) -> None:
        """Send the last of it."""
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()

    def flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._waiting = 0
            self.begun = True
            self._lane.send(data)

    def _next_piece(self) -> bytes | None:
        """The next piece of the body as the client gets it. Raises DecodingError."""
        body = self._body
        while body is not None:
            if self._pieces is None:
                if self._incoming:
                    # Together: a piece costs as much as 64 KiB, and an upstream may send each byte as one.
                    whole = b"".join(self._incoming)
                    self._incoming.clear()
                    self._pieces = body.feed(whole)
                elif self._complete and not self._finished:
                    self._finished, self._pieces = True, body.finish()
                else:
                    return None
            if (piece := next(self._pieces, None)) is not None:
                return piece
            self._pieces = None
        return None

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
