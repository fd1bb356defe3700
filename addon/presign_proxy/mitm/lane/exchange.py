"""One request and its response, on their way through the lane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from ...core import rewrite_response
from ...core.answers import Answer, refusal
from ...core.decision import Deny, Forward, denial
from ...core.masking import Mask, mask_for
from ...core.policy import body_too_large, body_too_late
from ...core.response_body import Body
from ...errors import Denied
from ...gateway.admission import ROUNDS, restless
from ...http.message import Fields, Request
from ...http.response_head import UNFRAMED
from ...limits.slots import LimitHold
from ...observe.audit_record import Outcome
from . import request_head
from .record import Record
from .request_body import UploadError, upload_of
from .request_head import RequestHead
from .resend import may_be_sent_again
from .response import Delivery
from .upstream import UpstreamConnection
from .upstream_pool import PoolKey

if TYPE_CHECKING:
    from .client_side import ClientSide
    from .shared import LaneShared

logger = logging.getLogger(__name__)

Stage = Literal["preparing", "connecting", "sending", "waiting", "receiving", "trailing", "done"]

# After these a server and we may not agree where the request ended.
_SUSPECT: Final = frozenset((400, 408, 411, 413, 414, 431, 501, 505))


class Exchange:
    """Reads from its upstream (`upstream.Reader`) and writes to its lane. Ends in `_finish`, exactly once."""

    __slots__ = (
        "_delivery",
        "_due",
        "_head",
        "_lane",
        "_last",
        "_mask",
        "_place",
        "_record",
        "_request",
        "_resent",
        "_rounds",
        "_shared",
        "_task",
        "_upload",
        "_upstream",
        "_wire",
        "forward",
        "limit_hold",
        "stage",
    )

    def __init__(
        self,
        lane: ClientSide,
        shared: LaneShared,
        head: RequestHead,
        request: Request,
        forward: Forward,
        wire: bytes | None,
    ) -> None:
        """Args: wire: the head that goes to the upstream; None where its credential was not fetched yet."""
        self._lane = lane
        self._shared = shared
        self._head = head
        self._request = request
        self.forward = forward
        self._wire = wire
        self.limit_hold = LimitHold()
        self.stage: Stage = "preparing"
        self._upload = upload_of(head.length)
        self._record = Record()
        self._upstream: UpstreamConnection | None = None
        self._place: PoolKey | None = None
        # Of what has not been fetched yet there is none.
        self._mask = Mask(()) if forward.sent is None else mask_for(forward.connection.injector)
        self._delivery = Delivery(lane, self)
        self._last = head.last
        self._resent = False
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self._rounds = 0

    # -- towards the upstream -------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the request, at once where nothing has to be waited for."""
        self._due = time.monotonic() + self.forward.connection.conduct.connect_timeout
        if self.forward.waits or not self._sends_at_once():
            self._run(self._prepare)

    def _sends_at_once(self) -> bool:
        """Send it on a connection that is there, if where it leads needs no judging."""
        place = None if self._resent else self._shared.place_at_once(self._lane.client, self.forward)
        upstream = self._shared.pool.take(place) if place is not None else None
        if place is None or upstream is None:
            return False
        self._send(place, upstream)
        return True

    async def _prepare(self) -> None:
        """Wait for what the grant waits for, then for a connection."""
        completed = await self._shared.admission.complete(
            self.forward, self._request, self._lane.client, self.limit_hold, self._due
        )
        if isinstance(completed, Deny):
            self._deny(completed)
            return
        if completed is not self.forward:
            self._adopt(completed)
        if self.ended:
            return
        if self._sends_at_once():
            self._lane.proceed()
        else:
            await self._connect(completed)

    def _adopt(self, forward: Forward) -> None:
        """Go on with another grant of the same request."""
        self.forward, sent = forward, forward.sent
        self._mask = Mask(()) if sent is None else mask_for(forward.connection.injector)
        self._wire = None if sent is None else request_head.outgoing(self._head, forward.origin, sent)

    def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = self._shared.run(self._contained(work))

    async def _contained(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, and end the exchange where that fails: nobody else would hear of it."""
        try:
            await work()
        except Denied as denied:
            self._fail(denied.detail)
        except Exception as error:
            self.collapse(error)

    async def _connect(self, forward: Forward) -> None:
        self.stage = "connecting"
        try:
            async with asyncio.timeout(self._due - time.monotonic()):
                place = await self._shared.place(self._lane.client, forward)
                pool = self._shared.pool
                upstream = (None if self._resent else pool.take(place)) or await pool.open(place)
        except TimeoutError:
            self._fail("the upstream was not connected to in time", status=504)
        except OSError as error:
            self._fail(f"the upstream cannot be connected to ({type(error).__name__})")
        else:
            self._connected(place, upstream)

    def _connected(self, place: PoolKey, upstream: UpstreamConnection) -> None:
        if self.ended:
            self._shared.pool.give_back(place, upstream)  # the client has gone meanwhile
            return
        if upstream.lost or upstream.odd or upstream.transport is None:
            upstream.close()
            self._fail("the upstream closed, or spoke, before it was asked")
            return
        self._send(place, upstream)
        self._lane.proceed()

    def _send(self, place: PoolKey, upstream: UpstreamConnection) -> None:
        """Write the head, which holds the credential, if it is granted in this very moment too."""
        confirmed = self._shared.admission.confirm(self.forward, self._request)
        if confirmed is not self.forward:
            self._shared.pool.give_back(place, upstream)
            self._go_round(confirmed)
            return
        wire, self._wire = self._wire, None
        if wire is None:
            raise LookupError("the credential of this grant was not fetched, or is sent already")
        self._place, self._upstream = place, upstream
        self.stage = "sending"
        self._upload.move()
        upstream.begin(self, self._head.method, whole=self._upload.done)
        upstream.write(wire)
        if self._upload.done:
            self._sent()

    def _go_round(self, decided: Forward | Deny) -> None:
        """What was granted before is refused now, or another registry grants it: wait for all of that."""
        self._rounds += 1
        if isinstance(decided, Deny) or self._rounds > ROUNDS:
            self._deny(decided if isinstance(decided, Deny) else restless(decided))
            return
        self.stage = "preparing"
        self._adopt(decided)
        self._run(self._prepare)

    @property
    def ended(self) -> bool:
        return self.stage == "done"

    @property
    def is_sending(self) -> bool:
        """Whether what the client sends belongs to this request, and can go on."""
        return self.stage in ("sending", "receiving", "trailing") and not self._upload.done

    @property
    def wants_more(self) -> bool:
        """Whether the body has not come in full."""
        return not self._upload.done

    def upload(self, data: bytes) -> bytes:
        """Pass on a piece of the body; returns what belongs to the next request."""
        try:
            mine, rest = self._upload.feed(data)
            self._upload.move()
        except UploadError as error:
            return self._cut(Denied("malformed", str(error)))
        most = self.forward.terms.max_body
        if most is not None and self._upload.size > most:
            # The upstream gets neither this piece nor the end of the body.
            return self._cut(body_too_large(most))
        if self._upstream is not None:
            self._upstream.write(mine, whole=self._upload.done)
        if self._upload.done and self.stage == "sending":
            self._sent()
        elif self._upload.done and self.stage == "trailing":
            self._end()
        return rest

    def _cut(self, denied: Denied) -> bytes:
        """Refuse a body half-way; nobody can tell where the next request begins."""
        self._last, why = True, denial(denied, self.forward.style, self.forward.facts)
        if self._delivery.begun:
            self._break(why.detail, why)
        else:
            self._deny(why)
        return b""

    def _sent(self) -> None:
        self.stage = "waiting"
        self._due = time.monotonic() + self.forward.connection.conduct.response_timeout

    def check_time(self, now: float) -> None:
        """End it where its upstream has been silent for too long, or a body stands still."""
        try:
            self._lane.keep_awake()
            if self.stage == "waiting" and now > self._due:
                self._fail("the upstream did not answer in time", status=504)
            elif self.is_sending and self._upload.stalls(now, self.forward.connection.conduct.patience):
                self._stall()
        except Exception as error:
            self.collapse(error)

    def _stall(self) -> None:
        if self.stage == "trailing":
            self._end()
        elif self._upload.is_held:
            self._fail("the upstream took no more of the body in time", status=504)
        else:
            self._cut(body_too_late(self.forward.connection.conduct.body_timeout))

    def hold(self, on: bool) -> None:
        self._upload.hold(on)
        self._lane.hold(on)

    # -- towards the client ---------------------------------------------------------------------------

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        self._record.hear(status)
        try:
            reply = rewrite_response.rewrite(
                rewrite_response.Reply(status, reason, fields), self.forward, self._mask
            )
            bodyless = self._head.method == b"HEAD" or status in UNFRAMED
            chunked = not (bodyless or reply.sized)  # in chunks, the client sees whether the end is missing
            head = request_head.response(reply.sent, chunked=chunked, close=self._closes)
            self._delivery.begin(head, Body(self._mask, encoded=reply.encoded), chunked=chunked)
        except Denied as denied:
            self._fail(denied.detail, denied.code)
            return False
        except Exception as error:
            logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
            self._fail("the gateway failed at the response", "internal")
            return False
        self.stage, self._record.status = "receiving", status
        if status in _SUSPECT and self._upstream is not None:
            self._upstream.odd = True
        return not bodyless

    @property
    def _closes(self) -> bool:
        """Whether the client's connection ends with this response."""
        return self._last or self._shared.draining

    def data(self, piece: bytes) -> None:
        self._delivery.add(piece)

    def received(self) -> None:
        if not self._upload.done:
            self._upload.move()
        self._delivery.pump()

    def complete(self) -> None:
        self._delivery.end()

    def spoilt(self, why: str) -> None:
        self._break(why)

    def passed_on(self) -> None:
        if self.stage == "trailing":
            return
        self._delivery.close()
        if self._upload.done or self._closes or self._upstream is None or self._upstream.odd:
            self._end()
        else:
            self.stage = "trailing"  # the upstream still reads

    def _end(self) -> None:
        """Response and request are over, or nobody wants the rest of the request."""
        whole = self._upload.done
        upstream, place = self._upstream, self._place
        self._upstream = None
        if upstream is not None and not whole:
            upstream.close()  # it would take the rest of the body for a request
        self._finish(Outcome(status=self._record.status), None)
        if upstream is not None and place is not None and whole:
            self._shared.pool.give_back(place, upstream)
        self._lane.over(self, close=self._closes or not whole)

    def lost(self, why: str = "") -> None:
        if self.ended:
            return
        if self.stage == "trailing":
            self._end()  # nobody reads the rest
        elif self._delivery.has_head:
            self._break(why or "the upstream broke off its response")
        elif not self._send_again(why):
            self._fail(why or f"the upstream failed while {self.stage}")

    def _send_again(self, why: str) -> bool:
        """Send it once more on a new connection, judged again as it leaves; whether that may be."""
        upstream, sent = self._upstream, self.forward.sent
        if why or self._resent or self.stage != "waiting" or upstream is None or sent is None:
            return False
        if not may_be_sent_again(self._head, self.forward, upstream):
            return False
        upstream.close()
        self._upstream, self._resent = None, True
        self._due = time.monotonic() + self.forward.connection.conduct.connect_timeout
        self._wire = request_head.outgoing(self._head, self.forward.origin, sent)
        self._run(lambda: self._connect(self.forward))
        return True

    # -- the end --------------------------------------------------------------------------------------

    def _deny(self, why: Deny) -> None:
        """Refuse what was granted before it was known whole: its limits, its credential, its body."""
        if self.ended:
            return
        answer = why.answer
        self._let_go()
        self._finish(Outcome(status=answer.status), why)
        self._answer(answer)

    def _fail(self, why: str, code: str = "upstream", status: int | None = None) -> None:
        """End it with an answer of ours, or by breaking off what has begun."""
        if self.ended:
            return
        if self._delivery.begun:
            self._break(why)
            return
        answer = refusal(code, self.forward.request_id, self.forward.style, status)
        self._let_go()
        self._finish(Outcome(status=answer.status, code=code, error=why), None)
        self._answer(answer)

    def _break(self, why: str, refused: Deny | None = None) -> None:
        """Break off a response whose head is out: the client sees that it is not whole."""
        if self.ended:
            return
        self._delivery.flush()
        self._let_go()
        self._finish(Outcome(status=self._record.status, error=why), refused)
        self._lane.over(self, close=True, now=True)

    def abandon(self, why: str) -> None:
        """The client has gone, or must go."""
        if self.ended:
            return
        self._let_go()
        self._finish(Outcome(status=self._record.status, error=why), None)

    def lose(self, why: str) -> None:
        """End it from outside."""
        try:
            self._fail(why)
        except Exception as error:
            self.collapse(error)

    def collapse(self, error: Exception) -> None:
        """Something of ours failed: end it, whatever else fails. What cannot be answered is cut off."""
        logger.error("presign: failed in the lane (%s); the request is refused", type(error).__name__)
        with contextlib.suppress(Exception):
            self._fail("the gateway failed", "internal")
        self.stage = "done"
        self._shared.exchanges.discard(self)
        for end in (self._let_go, self.limit_hold.let_go):
            with contextlib.suppress(Exception):
                end()
        self._lane.cut(self)

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def _let_go(self) -> None:
        """End what the upstream does for it. Before its slot is free."""
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _answer(self, answer: Answer) -> None:
        close = self._closes or not self._upload.done
        self._lane.send(request_head.answer(answer, close=close, bodyless=self._head.method == b"HEAD"))
        self._lane.over(self, close=close)

    def _finish(self, outcome: Outcome, refused: Deny | None) -> None:
        """Book it: what is waited for, its slot, its line in the audit log."""
        self.stage = "done"
        self._shared.exchanges.discard(self)
        self._delivery.let_go()
        self.limit_hold.let_go()
        size = (self._upload.size, self._delivery.size)
        peer = self._lane.client.peername
        self._record.write(self._shared.audit_log, refused or self.forward, outcome, peer, size=size)
