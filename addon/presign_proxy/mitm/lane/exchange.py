"""One request and its response, on their way through the lane."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

from ...core.answers import Answer
from ...core.decision import Deny, denial
from ...core.policy import body_too_late
from ...core.rewrite_response import Reply
from ...core.under_way import CODE as ENDED
from ...errors import Denied
from ...http.message import Fields
from ...limits.slots import LimitHold
from . import request_head
from .client_head import SUSPECT, client_head
from .dispatch import Dispatch, Stage
from .granted_request import GrantedRequest
from .held_body import body_of
from .record import End, Record
from .response import Delivery
from .upstream import UpstreamConnection

if TYPE_CHECKING:
    from .client_side import ClientSide
    from .shared import LaneShared

logger = logging.getLogger(__name__)

_TAKING: Final = ("reading", "sending", "receiving", "trailing")
"""Stages in which what the client sends is taken."""


class Exchange:
    """Reads from its upstream (`upstream.Reader`) and writes to its lane. Ends in `_finish`, exactly once."""

    __slots__ = (
        "_delivery",
        "_dispatch",
        "_due",
        "_lane",
        "_last",
        "_shared",
        "body",
        "granted",
        "limit_hold",
        "record",
        "stage",
    )

    def __init__(
        self, lane: ClientSide, shared: LaneShared, granted: GrantedRequest, wire: bytes | None
    ) -> None:
        """Args: wire: the head for the upstream; None where its credential was not fetched yet."""
        self._lane = lane
        self._shared = shared
        self.granted = granted
        self.limit_hold = LimitHold()
        self.stage: Stage = "preparing"
        self.body = body_of(granted.head.length, granted.forward, shared.admission.held_bodies)
        self.record = Record()
        self._dispatch = Dispatch(lane, shared, wire)
        self._delivery = Delivery(lane.writer, self)
        self._last = granted.head.last
        self._due = 0.0
        """The time at which the response has to begin, on the monotonic clock."""

    # -- towards the upstream -------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the request, at once if it waits for nothing."""
        if self.granted.forward.waits or self.body.holds or not self._dispatch.sends_at_once(self):
            self._dispatch.prepare(self)

    def send(self, upstream: UpstreamConnection, wire: bytes) -> None:
        """Write the head, which holds the credential, and a body that was held."""
        self.stage = "sending"
        self.body.move()
        upstream.begin(self, self.granted.head.method, whole=self.body.done and not self.body.holds)
        upstream.write(wire, whole=self.body.holds)
        if self.body.done:
            self._sent()

    @property
    def ended(self) -> bool:
        return self.stage == "done"

    @property
    def is_sending(self) -> bool:
        """True if what the client sends belongs to this request, and can go on."""
        return self.stage in _TAKING and not self.body.done

    @property
    def wants_more(self) -> bool:
        """True if the body has not come in full."""
        return not self.body.done

    def upload(self, data: bytes) -> bytes:
        """Pass on a piece of the body. Return what belongs to the next request."""
        try:
            mine, rest = self.body.take(data, self.granted.forward.terms.max_body)
        except Denied as denied:
            return self._cut(denied)
        if (upstream := self._dispatch.upstream) is not None:
            upstream.write(mine, whole=self.body.done)
        if self.body.done and self.stage == "sending":
            self._sent()
        elif self.body.done and self.stage == "trailing":
            self._end()
        return rest

    def _cut(self, denied: Denied) -> bytes:
        """Refuse a body half-way. Where the next request begins is unknown, so none is read."""
        forward = self.granted.forward
        self._last, why = True, denial(denied, forward.style, forward.facts)
        if self._delivery.begun:
            self._break(why.detail, why)
        else:
            self.deny(why)
        return b""

    def _sent(self) -> None:
        self.stage = "waiting"
        self._due = time.monotonic() + self.granted.forward.connection.conduct.response_timeout

    def check_time(self, now: float) -> None:
        """End where the upstream has been silent for too long, or a body stands still."""
        try:
            self._lane.keep_awake()
            if self.stage == "waiting" and now > self._due:
                self.fail("the upstream did not answer in time", status=504)
            elif self.is_sending:
                self._check_body(now)
        except Exception as error:
            self.collapse(error)

    def _check_body(self, now: float) -> None:
        conduct = self.granted.forward.connection.conduct
        if not self.body.stalls(now, conduct.patience):
            return
        if self.stage == "trailing":
            self._end()
        elif self.body.is_held:
            self.fail("the upstream took no more of the body in time", status=504)
        else:
            self._cut(body_too_late(conduct.body_timeout))

    def hold(self, on: bool) -> None:
        self.body.hold(on)
        self._lane.hold(on)

    # -- towards the client ---------------------------------------------------------------------------

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        self.record.begin_answer(status)
        self.body.let_go()  # of one that was held, the upstream has what it wants
        self._shared.admission.answered(self.granted.forward, status)
        try:
            head = client_head(self.granted, Reply(status, reason, fields), self.limit_hold, last=self._ends)
        except Denied as denied:
            self.fail(denied.detail, denied.code)
            return False
        self._last = head.last
        self._delivery.begin(head.wire, head.body, chunked=head.chunked)
        self.stage, self.record.status = "receiving", status
        if status in SUSPECT and self._dispatch.upstream is not None:
            self._dispatch.upstream.odd = True
        return head.has_body

    @property
    def _ends(self) -> bool:
        """True if the client's connection ends with this response."""
        return self._last or self._shared.draining

    def data(self, piece: bytes) -> None:
        self._delivery.add(piece)

    def received(self) -> None:
        if not self.body.done:
            self.body.move()
        self._delivery.pump()

    def complete(self) -> None:
        self._delivery.end()

    def spoilt(self, why: str) -> None:
        self._break(why)

    def passed_on(self) -> None:
        if self.stage == "trailing":
            return
        self._delivery.close()
        upstream = self._dispatch.upstream
        if self.body.done or self._ends or upstream is None or upstream.odd:
            self._end()
        else:
            self.stage = "trailing"  # the upstream still reads

    def _end(self) -> None:
        """End after the response. The rest of a request that is not over is never read."""
        whole, dispatch = self.body.done, self._dispatch
        upstream, place, dispatch.upstream = dispatch.upstream, dispatch.place, None
        if upstream is not None and not whole:
            upstream.close()  # it would take the rest of the body for a request
        self._finish(End(self.record.status))
        if upstream is not None and place is not None and whole:
            self._shared.pool.give_back(place, upstream)
        self._lane.over(self, close=self._ends or not whole)

    def lost(self, why: str = "") -> None:
        if self.ended:
            return
        if self.stage == "trailing":
            self._end()  # the rest of the request is not read
        elif self._delivery.has_head:
            self._break(why or "the upstream broke off its response")
        elif why or not self._dispatch.send_again(self):
            self.fail(why or f"the upstream failed while {self.stage}")

    def pause(self) -> None:
        if self._dispatch.upstream is not None:
            self._dispatch.upstream.pause()

    def resume(self) -> None:
        if self._dispatch.upstream is not None:
            self._dispatch.upstream.resume()

    # -- the end --------------------------------------------------------------------------------------

    def deny(self, why: Deny) -> None:
        """Refuse what was granted before it was known whole: its limits, its credential, its body."""
        if not self.ended:
            self._answer(why.answer, End(why.answer.status), why)

    def fail(self, why: str, code: str = "upstream", status: int | None = None) -> None:
        """End with an answer of ours, or by breaking off what has begun."""
        if self._delivery.begun:
            self._break(why, code=code if code == ENDED else None)
        elif not self.ended:
            forward = self.granted.forward
            answer = denial(Denied(code, why, status), forward.style, forward.facts).answer
            self._answer(answer, End(answer.status, code=code, error=why))

    def _answer(self, answer: Answer, end: End, refused: Deny | None = None) -> None:
        """End with an answer of ours."""
        self._dispatch.let_go()  # before the slot is free
        self._finish(end, refused)
        close = self._ends or not self.body.done
        bodyless = self.granted.head.method == b"HEAD"
        self._lane.writer.send(request_head.answer(answer, close=close, bodyless=bodyless))
        self._lane.over(self, close=close)

    def _break(self, why: str, refused: Deny | None = None, code: str | None = None) -> None:
        """Break off a response whose head is out: the client sees that it is not whole."""
        if self.ended:
            return
        self._delivery.flush()
        self._dispatch.let_go()
        self._finish(End(self.record.status, code=code, error=why), refused)
        self._lane.over(self, close=True, now=True)
        if code == ENDED:
            self._lane.writer.reset()  # nothing more leaves, and the client cannot take that for the end

    def abandon(self, why: str) -> None:
        """End without an answer: the client has gone, or must go."""
        if not self.ended:
            self._dispatch.let_go()
            self._finish(End(self.record.status, error=why))

    def lose(self, why: str) -> None:
        """End for a reason outside of the exchange. Does not fail."""
        try:
            self.fail(why)
        except Exception as error:
            self.collapse(error)

    def collapse(self, error: Exception) -> None:
        """End after a failure of ours, whatever else fails. Cut off a client that cannot be answered."""
        logger.error("presign: failed in the lane (%s); the request is refused", type(error).__name__)
        with contextlib.suppress(Exception):
            self.fail("the gateway failed", "internal")
        self.stage = "done"
        self._shared.exchanges.discard(self)
        for end in (self._dispatch.let_go, self.body.let_go, self.limit_hold.let_go):
            with contextlib.suppress(Exception):
                end()
        self._lane.cut(self)

    def _finish(self, end: End, refused: Deny | None = None) -> None:
        """Give up what is waited for and the slot, and write the line in the audit log."""
        self.stage = "done"
        self._shared.exchanges.discard(self)
        self._delivery.let_go()
        self.body.let_go()
        self.limit_hold.let_go()
        decision, peer = refused or self.granted.forward, self._lane.client.peername
        self.record.write(self._shared.audit_log, decision, peer, end, (self.body.size, self._delivery.size))
