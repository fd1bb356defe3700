"""One request and its response, on their way through the lane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from .. import replies
from ..admission import ROUNDS, restless
from ..answers import Answer, refusal
from ..audit import Outcome
from ..bodies import Body
from ..decisions import Deny, Forward, denial
from ..errors import STATUS, Denied
from ..limits.limiter import Seat
from ..masking import Mask, mask_for
from ..message import Fields, Request
from ..policy import body_too_large
from ..replies import Reply
from . import heads
from .delivery import Delivery
from .heads import RequestHead
from .link import Link
from .pool import Place
from .uploads import UploadError, upload_of

if TYPE_CHECKING:
    from .express import Express
    from .layer import Lane

logger = logging.getLogger(__name__)

Stage = Literal["preparing", "connecting", "sending", "waiting", "receiving", "trailing", "done"]

# After these a server and we may not agree where the request ended.
_SUSPECT: Final = frozenset((400, 408, 411, 413, 414, 431, 501, 505))


class Exchange:
    """Reads from its upstream (`link.Reader`) and writes to its lane. Ends in `_finish`, exactly once."""

    __slots__ = (
        "_delivery",
        "_due",
        "_express",
        "_head",
        "_lane",
        "_last",
        "_link",
        "_mask",
        "_place",
        "_request",
        "_rounds",
        "_started",
        "_status",
        "_task",
        "_timed_out",
        "_upload",
        "_upstream_status",
        "_waited",
        "_wire",
        "forward",
        "seat",
        "stage",
    )

    def __init__(
        self,
        lane: Lane,
        express: Express,
        head: RequestHead,
        request: Request,
        forward: Forward,
        wire: bytes | None,
    ) -> None:
        """Args: wire: the head that goes to the upstream; None where its credential was not fetched yet."""
        self._lane = lane
        self._express = express
        self._head = head
        self._request = request
        self.forward = forward
        self._wire = wire
        self.seat = Seat()
        self.stage: Stage = "preparing"
        self._upload = upload_of(head.length)
        self._started = time.monotonic()
        self._link: Link | None = None
        self._place: Place | None = None
        # Of what has not been fetched yet there is none.
        self._mask = Mask(()) if forward.sent is None else mask_for(forward.connection.injector)
        self._delivery = Delivery(lane, self)
        self._last = head.last
        self._status: int | None = None
        self._upstream_status: int | None = None
        self._waited: float | None = None
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timed_out = False
        self._rounds = 0

    # -- towards the upstream -------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the request, at once where nothing has to be waited for."""
        if self.forward.waits or not self._sends_at_once():
            self._run(self._prepare)

    def _sends_at_once(self) -> bool:
        """Send it on a connection that is there, if where it leads needs no judging."""
        place = self._express.place_at_once(self._lane.client, self.forward)
        link = self._express.pool.take(place) if place is not None else None
        if place is None or link is None:
            return False
        self._send(place, link)
        return True

    async def _prepare(self) -> None:
        """Wait for what the grant waits for, then for a connection."""
        completed = await self._express.admission.complete(
            self.forward, self._request, self._lane.client, self.seat
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
        self._wire = None if sent is None else heads.outgoing(self._head, forward.origin, sent)

    def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = self._express.run(self._contained(work))

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
            async with asyncio.timeout(forward.connection.conduct.connect_timeout):
                place = await self._express.place(self._lane.client, forward)
                link = self._express.pool.take(place) or await self._express.pool.open(place)
        except TimeoutError:
            self._timed_out = True
            self._fail("the upstream was not connected to in time")
        except OSError as error:
            self._fail(f"the upstream cannot be connected to ({type(error).__name__})")
        else:
            self._connected(place, link)

    def _connected(self, place: Place, link: Link) -> None:
        if self.ended:
            self._express.pool.give_back(place, link)  # the client has gone meanwhile
            return
        if link.lost or link.odd or link.transport is None:
            link.close()
            self._fail("the upstream closed, or spoke, before it was asked")
            return
        self._send(place, link)
        self._lane.proceed()

    def _send(self, place: Place, link: Link) -> None:
        """Write the head, which holds the credential, if it is granted in this very moment too."""
        confirmed = self._express.admission.confirm(self.forward, self._request)
        if confirmed is not self.forward:
            self._express.pool.give_back(place, link)
            self._go_round(confirmed)
            return
        wire, self._wire = self._wire, None
        if wire is None:
            raise LookupError("the credential of this grant was not fetched, or is sent already")
        self._place, self._link = place, link
        self.stage = "sending"
        link.begin(self, self._head.method, whole=self._upload.done)
        link.write(wire)
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
        except UploadError as error:
            return self._cut(Deny("malformed", str(error), self.forward.style, self.forward.facts))
        most = self.forward.terms.max_body
        if most is not None and self._upload.size > most:
            # The upstream gets neither this piece nor the end of the body.
            return self._cut(denial(body_too_large(most), self.forward.style, self.forward.facts))
        if self._link is not None:
            self._link.write(mine, whole=self._upload.done)
        if self._upload.done and self.stage == "sending":
            self._sent()
        elif self._upload.done and self.stage == "trailing":
            self._end()
        return rest

    def _cut(self, why: Deny) -> bytes:
        """Refuse a body half-way; nobody can tell where the next request begins."""
        self._last = True
        if self._delivery.begun:
            self._break(why.detail, why)
        else:
            self._deny(why)
        return b""

    def _sent(self) -> None:
        self.stage = "waiting"
        self._due = time.monotonic() + self.forward.connection.conduct.response_timeout

    def check_time(self, now: float) -> None:
        """End it where its upstream has been silent for too long."""
        if self.stage != "waiting" or now <= self._due:
            return
        self._timed_out = True
        try:
            self._fail("the upstream did not answer in time")
        except Exception as error:
            self.collapse(error)

    def hold(self, on: bool) -> None:
        self._lane.hold(on)

    # -- towards the client ---------------------------------------------------------------------------

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        self._upstream_status = status
        self._waited = time.monotonic() - self._started
        try:
            reply = replies.rewrite(Reply(status, reason, fields), self.forward, self._mask)
            bodyless = self._head.method == b"HEAD" or status in (204, 304)
            chunked = not bodyless and (reply.chunked or reply.encoded)
            if not (bodyless or chunked or reply.sized):
                self._last = True  # it ends with the connection, there as here
            head = heads.response(reply, chunked=chunked, close=self._closes)
            self._delivery.begin(head, Body(self._mask, encoded=reply.encoded), chunked=chunked)
        except Denied as denied:
            self._fail(denied.detail)
            return False
        except Exception as error:
            logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
            self._fail("the gateway failed at the response", "internal")
            return False
        self.stage, self._status = "receiving", status
        if status in _SUSPECT and self._link is not None:
            self._link.odd = True
        return not bodyless

    @property
    def _closes(self) -> bool:
        """Whether the client's connection ends with this response."""
        return self._last or self._express.draining

    def data(self, piece: bytes) -> None:
        self._delivery.add(piece)

    def received(self) -> None:
        self._delivery.pump()

    def complete(self) -> None:
        self._delivery.end()

    def spoilt(self, why: str) -> None:
        self._break(why)

    def passed_on(self) -> None:
        if self.stage == "trailing":
            return
        self._delivery.close()
        if self._upload.done or self._closes or self._link is None or self._link.odd:
            self._end()
        else:
            self.stage = "trailing"  # the upstream still reads

    def _end(self) -> None:
        """Response and request are over, or nobody wants the rest of the request."""
        whole = self._upload.done
        link, place = self._link, self._place
        self._link = None
        if link is not None and not whole:
            link.close()  # it would take the rest of the body for a request
        self._finish(Outcome(status=self._status), None)
        if link is not None and place is not None and whole:
            self._express.pool.give_back(place, link)
        self._lane.over(self, close=self._closes or not whole)

    def lost(self) -> None:
        """Never sent again, be it safe by its method: what was admitted once arrives once."""
        if self.ended:
            return
        if self.stage == "trailing":
            self._end()  # nobody reads the rest
        elif self._delivery.has_head:
            self._break("the upstream broke off its response")
        else:
            self._fail(f"the upstream failed while {self.stage}")

    # -- the end --------------------------------------------------------------------------------------

    def _deny(self, why: Deny) -> None:
        """Refuse what was granted before it was known whole: its limits, its credential, its body."""
        if self.ended:
            return
        self._delivery.drop()
        answer = refusal(
            why.code,
            why.request_id,
            why.style,
            why.status,
            limit=why.limit,
            more=why.fields,
        )
        self._let_go()
        self._finish(Outcome(status=answer.status), why)
        self._answer(answer)

    def _fail(self, why: str, code: str = "upstream") -> None:
        """End it with an answer of ours, or by breaking off what has begun."""
        if self.ended:
            return
        if self._delivery.begun:
            self._break(why)
            return
        self._delivery.drop()
        status = 504 if self._timed_out else STATUS[code]
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
        self._finish(Outcome(status=self._status, error=why), refused)
        self._lane.over(self, close=True, now=True)

    def abandon(self, why: str) -> None:
        """The client has gone, or must go."""
        if self.ended:
            return
        self._let_go()
        self._finish(Outcome(status=self._status, error=why), None)

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
        self._express.exchanges.discard(self)
        for end in (self._let_go, self.seat.let_go):
            with contextlib.suppress(Exception):
                end()
        self._lane.cut(self)

    def pause(self) -> None:
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        if self._link is not None:
            self._link.resume()

    def _let_go(self) -> None:
        """End what the upstream does for it. Before its slot is free."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _answer(self, answer: Answer) -> None:
        close = self._closes or not self._upload.done
        fields = answer.fields + (((b"Connection", b"close"),) if close else ())
        lines = [b"HTTP/1.1 %d %b" % (answer.status, answer.reason), *[b"%b: %b" % field for field in fields]]
        body = b"" if self._head.method == b"HEAD" else answer.body
        self._lane.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self._lane.over(self, close=close)

    def _finish(self, outcome: Outcome, refused: Deny | None) -> None:
        """Book it: what is waited for, its slot, its line in the audit log."""
        self.stage = "done"
        self._express.exchanges.discard(self)
        self._delivery.let_go()
        self.seat.let_go()
        outcome = outcome._replace(
            upstream_status=self._upstream_status,
            bytes_in=self._upload.size,
            bytes_out=self._delivery.size,
            duration=time.monotonic() - self._started,
            upstream_duration=self._waited,
        )
        try:
            peer = self._lane.client.peername
            self._express.journal.write(refused or self.forward, outcome, peer, lane=True)
        except Exception as error:
            logger.error("presign: failed to write the audit log (%s)", type(error).__name__)
