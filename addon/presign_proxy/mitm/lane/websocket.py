"""A WebSocket on the lane: an exchange whose response may be a 101, and bytes both ways after it.

Nothing looks into the frames. The client's are passed on as the body of its request is, and the upstream's as
the body of an endless response, so both are held back by the same gates.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from ...core.masking import Mask
from ...core.response_body import Body
from ...core.rewrite_response import Reply, rewrite
from ...core.upgrade import SWITCHING
from ...errors import Denied
from ...http.message import Fields
from . import request_head
from .exchange import Exchange
from .record import End
from .request_body import Sized

if TYPE_CHECKING:
    from .client_side import ClientSide
    from .granted_request import GrantedRequest
    from .shared import LaneShared

logger = logging.getLogger(__name__)

PATIENCE: Final = 1.0
"""Seconds in which the other side has to end too, or to send more, once one side has ended."""
TOO_LONG: Final = "the WebSocket lasted as long as the connection allows"
BROKEN_OFF: Final = "the upstream broke off the WebSocket"
UNMASKED: Final = Mask(())
"""Frames are not masked: a client masks its own (RFC 6455, 5.3), and compression hides the rest."""


class Frames(Sized):
    """What a client sends after the 101: it ends with its connection."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(0)
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        self.size += len(data)
        return data, b""


class WebSocketExchange(Exchange):
    """An exchange that goes on behind a 101. Neither of its connections is used again, whatever comes."""

    __slots__ = ("_gone", "_half", "_moved", "_passed", "_until")

    def __init__(
        self, lane: ClientSide, shared: LaneShared, granted: GrantedRequest, wire: bytes | None
    ) -> None:
        """Args: wire: the head for the upstream; None where its credential was not fetched yet."""
        super().__init__(lane, shared, granted, wire)
        # What a client sends behind a handshake that fails was meant as frames, never as a request.
        self._last = True
        self._until = 0.0
        """The time at which the WebSocket ends, on the monotonic clock; 0 before the 101."""
        self._half = False
        """True if one side says no more."""
        self._moved = 0.0
        """When something was sent last, by either side."""
        self._passed = self._gone = False
        """True if the client has all that the upstream has sent; if the upstream's connection is over."""

    @property
    def is_switched(self) -> bool:
        """True if frames are passed on."""
        return self._until > 0 and not self.ended

    # -- the answer to the handshake ------------------------------------------------------------------

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        if (upstream := self._dispatch.upstream) is not None:
            upstream.odd = True
        if status != SWITCHING:
            return super().head(status, reason, fields)
        self.record.begin_answer(status)
        try:
            came, granted = Reply(status, reason, fields), self.granted
            reply = rewrite(came, granted.forward, granted.mask, self.limit_hold.fields)
        except Denied as denied:
            self.fail(denied.detail, denied.code)
            return False
        except Exception as error:
            logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
            self.fail("the gateway failed at the response", "internal")
            return False
        self._switch(reply)
        return True

    def _switch(self, reply: Reply) -> None:
        """Begin to pass on frames, first those that the client has sent ahead."""
        self._moved = time.monotonic()
        self._until = self._moved + self.granted.forward.connection.conduct.max_duration
        self.body = Frames()
        self._delivery.begin(request_head.switched(reply.sent), Body(UNMASKED), chunked=False)
        self.stage, self.record.status = "receiving", reply.status
        if (upstream := self._dispatch.upstream) is not None:
            upstream.on_end = self._upstream_ended
        self._lane.proceed()

    # -- while it lasts -------------------------------------------------------------------------------

    def upload(self, data: bytes) -> bytes:
        self._moved = time.monotonic()
        return super().upload(data)

    def data(self, piece: bytes) -> None:
        self._moved = time.monotonic()
        super().data(piece)

    def check_time(self, now: float) -> None:
        """End a WebSocket that lasts too long, or whose other side stays silent after one has ended."""
        if not self.is_switched:
            super().check_time(now)
            return
        try:
            self._lane.keep_awake()
            if now > self._until:
                self._break(TOO_LONG)
            elif self._half and now - self._moved > PATIENCE:
                self._end_both()
        except Exception as error:
            self.collapse(error)

    # -- the end --------------------------------------------------------------------------------------

    def end_input(self) -> None:
        """Pass on that the client says no more."""
        upstream = self._dispatch.upstream
        self.body.done, self._moved = True, time.monotonic()
        if self._half or upstream is None or not upstream.socket.end_output():
            self._end_both()
            return
        self._half = True
        self._shared.clients.half_closed.add(self._lane.client)

    def _upstream_ended(self) -> bool:
        """Pass on that the upstream says no more. Return whether the client's frames still go to it."""
        both, self._half, self._moved = self._half, True, time.monotonic()
        try:
            self._delivery.end()
        except Exception as error:
            self.collapse(error)
        return not self.ended and not both

    def passed_on(self) -> None:
        """Go on after all that the upstream has sent, once it has ended."""
        if not self.is_switched:
            super().passed_on()
            return
        self._passed = True
        if self.body.done or self._gone or not self._lane.writer.end_output():
            self._end_both()

    def complete(self) -> None:
        self._gone = True
        if self.is_switched and self._passed:
            self._end_both()
        else:
            super().complete()

    def lost(self, why: str = "") -> None:
        if self.is_switched and self._half and not why:
            self._end_both()  # an upstream that resets what its client has ended breaks nothing off
        else:
            super().lost(why or (BROKEN_OFF if self.is_switched else ""))

    def _end_both(self) -> None:
        """End both connections, which have nothing more to say."""
        upstream, self._dispatch.upstream = self._dispatch.upstream, None
        self._delivery.flush()
        if upstream is not None:
            upstream.reader = upstream.sender = upstream.on_end = None
            upstream.socket.close(PATIENCE)
        self.body.done = True  # nothing more of it is waited for
        self._finish(End(self.record.status))
        self._lane.over(self, close=True)
