"""One request and its response, on their way through the lane."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from .. import replies
from ..answers import Answer, refusal
from ..audit import Outcome
from ..bodies import Body
from ..decisions import Deny, Forward, denial
from ..errors import STATUS, Denied
from ..limits.limiter import Seat
from ..masking import Mask, mask_for
from ..message import Fields, Request
from ..policy import body_too_large
from ..query import target
from ..replies import Reply
from .heads import RequestHead
from .link import Link
from .pool import Place
from .uploads import UploadError, upload_of

if TYPE_CHECKING:
    from .express import Express
    from .layer import Lane

logger = logging.getLogger(__name__)

Stage = Literal["preparing", "connecting", "sending", "waiting", "receiving", "trailing", "done"]

_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""What may be sent again where a connection that was kept turns out to be closed (RFC 9110, 9.2.2)."""
_PIECE: Final = 64 * 1024
"""Bytes that are passed on in one piece."""
_OURS: Final = frozenset((b"connection", b"transfer-encoding"))
# After these a server and we may not agree where the request ended.
_SUSPECT: Final = frozenset((400, 408, 411, 413, 414, 431, 501, 505))


class Exchange:
    """Reads from its upstream (`link.Reader`) and writes to its lane. Ends in `_finish`, exactly once."""

    def __init__(
        self, lane: Lane, express: Express, head: RequestHead, request: Request, forward: Forward
    ) -> None:
        self._lane = lane
        self._express = express
        self._head = head
        self._request = request
        self.forward = forward
        self.seat = Seat()
        self.stage: Stage = "preparing"
        self._upload = upload_of(head.length)
        self._started = time.monotonic()
        self._link: Link | None = None
        self._place: Place | None = None
        # Of what has not been fetched yet there is none.
        self._mask = Mask(()) if forward.sent is None else mask_for(forward.connection.injector)
        self._body: Body | None = None
        self._chunked = False
        self._last = head.last
        self._head_sent = False
        self._incoming: deque[bytes] = deque()
        self._pieces: Iterator[bytes] | None = None
        self._out: list[bytes] = []
        self._waiting = 0
        self._complete = self._finished = self._paused = False
        self._status: int | None = None
        self._upstream_status: int | None = None
        self._waited: float | None = None
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timed_out = False

    # -- towards the upstream -------------------------------------------------------------------------

    def begin(self) -> None:
        """Send the request, at once where nothing has to be waited for."""
        forward = self.forward
        if forward.resolve is None and not forward.tallies and forward.sent is not None:
            place = self._express.place_at_once(forward)
            link = self._express.pool.take(place) if place is not None else None
            if place is not None and link is not None:
                self._send(place, link)
                return
        self._task = self._express.run(self._prepare())

    async def _prepare(self) -> None:
        """Wait for what the grant waits for, then for a connection."""
        try:
            completed = await self._express.admission.complete(
                self.forward, self._request, self._lane.client, self.seat
            )
            if isinstance(completed, Deny):
                self._deny(completed)
                return
            self.forward = completed
            self._mask = mask_for(completed.connection.injector)
            place = await self._express.place(self._lane.client, completed)
            await self._connect(place)
        except Denied as denied:
            self._fail(denied.detail)
        except Exception as error:
            logger.error("presign: failed in the lane (%s); the request is refused", type(error).__name__)
            self._fail("the gateway failed", "internal")

    async def _connect(self, place: Place) -> None:
        if self.ended:
            return
        self.stage = "connecting"
        link = self._express.pool.take(place)
        if link is None:
            try:
                async with asyncio.timeout(self.forward.connection.conduct.connect_timeout):
                    link = await self._express.pool.open(place)
            except TimeoutError:
                self._timed_out = True
                self._fail("the upstream was not connected to in time")
                return
            except OSError as error:
                self._fail(f"the upstream cannot be connected to ({type(error).__name__})")
                return
        self._connected(place, link)

    def _connected(self, place: Place, link: Link) -> None:
        if self.ended:
            self._express.pool.give_back(place, link)  # the client has gone meanwhile
            return
        self._send(place, link)
        self._lane.proceed()

    def _send(self, place: Place, link: Link) -> None:
        """Write the head: with the credential, framed as the body came."""
        forward, sent = self.forward, self.forward.sent
        if sent is None:
            raise LookupError("the credential of this grant was not fetched")
        self._place, self._link = place, link
        lines = [
            b"%b %b HTTP/1.1\r\nHost: %b"
            % (self._head.method, target(sent.path, sent.query), forward.origin.authority.encode("ascii")),
            *[b"%b: %b" % field for field in sent.fields],
        ]
        if self._head.length is None:
            lines.append(b"Transfer-Encoding: chunked")
        self.stage = "sending"
        link.begin(self)
        link.write(b"\r\n".join(lines) + b"\r\n\r\n")
        if self._upload.done:
            self._sent()

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
            self._link.write(mine)
        if self._upload.done and self.stage == "sending":
            self._sent()
        elif self._upload.done and self.stage == "trailing":
            self._end()
        return rest

    def _cut(self, why: Deny) -> bytes:
        """Refuse a body half-way; nobody can tell where the next request begins."""
        self._last = True
        if self._head_sent:
            self._break(why.detail, why)
        else:
            self._deny(why)
        return b""

    def _sent(self) -> None:
        self.stage = "waiting"
        self._due = time.monotonic() + self.forward.connection.conduct.response_timeout

    def check_time(self, now: float) -> None:
        """End it where its upstream has been silent for too long."""
        if self.stage == "waiting" and now > self._due:
            self._timed_out = True
            self._fail("the upstream did not answer in time")

    def hold(self, on: bool) -> None:
        self._lane.hold(on)

    # -- towards the client ---------------------------------------------------------------------------

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        self._upstream_status = status
        self._waited = time.monotonic() - self._started
        try:
            reply = replies.rewrite(Reply(status, reason, fields), self.forward, self._mask)
            bodyless = self._head.method == b"HEAD" or status in (204, 304)
            self._body = Body(self._mask, encoded=reply.encoded)
            self._out.append(self._head_of(reply, bodyless=bodyless))
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

    def _head_of(self, reply: Reply, *, bodyless: bool) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (reply.status, reply.reason)]
        sized = chunked = False
        for name, value in reply.fields:
            key = name.lower()
            sized = sized or key == b"content-length"
            chunked = chunked or key == b"transfer-encoding"
            if key not in _OURS:
                lines.append(b"%b: %b" % (name, value))
        if not bodyless and (chunked or reply.encoded):
            self._chunked = True
            lines.append(b"Transfer-Encoding: chunked")
        elif not bodyless and not sized:
            self._last = True  # it ends with the connection, there as here
        if self._closes:
            lines.append(b"Connection: close")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    @property
    def _closes(self) -> bool:
        """Whether the client's connection ends with this response."""
        return self._last or self._express.draining

    def data(self, piece: bytes) -> None:
        self._incoming.append(piece)

    def received(self) -> None:
        self._pump()

    def complete(self) -> None:
        self._complete = True
        self._pump()

    def _pump(self) -> None:
        """Pass on what has come, as far as the client takes it: decoding may make a thousandfold of it."""
        if self._paused or self.ended:
            return
        try:
            while (piece := self._next_piece()) is not None:
                self._put(piece)
                if self._lane.is_full:
                    self._paused = True
                    self.pause()
                    self._lane.when_drained(self._resume)
                    return
        except Exception as error:
            logger.warning("presign: a response body cannot be passed on (%s)", type(error).__name__)
            self._break("the response cannot be decoded")
            return
        if self._complete:
            self._close_response()
        else:
            self._flush()

    def _next_piece(self) -> bytes | None:
        """The next piece of the body as the client gets it. Raises DecodingError."""
        body = self._body
        while body is not None:
            if self._pieces is None:
                if self._incoming:
                    self._pieces = body.feed(self._incoming.popleft())
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
        if self._waiting >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._waiting = 0
            self._head_sent = True
            self._lane.send(data)

    def _resume(self) -> None:
        self._paused = False
        self.resume()
        self._pump()

    def _close_response(self) -> None:
        """All of the response has been passed on."""
        if self._body is None or self.stage == "trailing":
            return
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self._flush()
        if self._upload.done or self._closes or self._link is None or self._link.odd:
            self._end()
        else:
            self.stage = "trailing"  # the upstream still reads

    def _end(self) -> None:
        """Response and request are over, or nobody wants the rest of the request."""
        whole = self._upload.done
        link, place = self._link, self._place
        self._finish(Outcome(status=self._status), None)
        if link is not None and place is not None:
            if whole:
                self._express.pool.give_back(place, link)
            else:
                link.close()  # it would take the rest of the body for a request
        self._lane.over(self, close=self._closes or not whole)

    def lost(self) -> None:
        if self.ended:
            return
        link, place = self._link, self._place
        if self._may_try_again() and link is not None and place is not None:
            self._link = None
            self._task = self._express.run(self._again(place))
        elif self._head_sent or self._out:
            self._break("the upstream broke off its response")
        else:
            self._fail(f"the upstream failed while {self.stage}")

    def _may_try_again(self) -> bool:
        """Whether the server closed a kept connection before it saw this request."""
        link = self._link
        return (
            link is not None
            and link.reused
            and not link.heard
            and self._head.method in _SAFE
            and self._head.length == 0
        )

    async def _again(self, place: Place) -> None:
        try:
            await self._connect(place)
        except Exception as error:
            logger.error("presign: failed in the lane (%s); the request is refused", type(error).__name__)
            self._fail("the gateway failed", "internal")

    # -- the end --------------------------------------------------------------------------------------

    def _deny(self, why: Deny) -> None:
        """Refuse what was granted before it was known whole: its limits, its credential, its body."""
        if self.ended:
            return
        self._out.clear()
        answer = refusal(
            why.code,
            why.request_id,
            why.style,
            why.status,
            limit=why.limit,
            more=why.fields,
        )
        self._finish(Outcome(status=answer.status), why)
        self._let_go()
        self._answer(answer)

    def _fail(self, why: str, code: str = "upstream") -> None:
        """End it with an answer of ours, or by breaking off what has begun."""
        if self.ended:
            return
        if self._head_sent:
            self._break(why)
            return
        self._out.clear()
        status = 504 if self._timed_out else STATUS[code]
        answer = refusal(code, self.forward.request_id, self.forward.style, status)
        self._finish(Outcome(status=answer.status, code=code, error=why), None)
        self._let_go()
        self._answer(answer)

    def _break(self, why: str, refused: Deny | None = None) -> None:
        """Break off a response whose head is out: the client sees that it is not whole."""
        if self.ended:
            return
        self._flush()
        self._finish(Outcome(status=self._status, error=why), refused)
        self._let_go()
        self._lane.over(self, close=True, now=True)

    def abandon(self, why: str) -> None:
        """The client has gone, or must go."""
        if self.ended:
            return
        self._finish(Outcome(status=self._status, error=why), None)
        self._let_go()

    def lose(self, why: str) -> None:
        """End it from outside."""
        self._fail(why)

    def pause(self) -> None:
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        if self._link is not None:
            self._link.resume()

    def _let_go(self) -> None:
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
        self.seat.let_go()
        self._express.exchanges.discard(self)
        self._express.journal.write(
            refused or self.forward,
            outcome._replace(
                upstream_status=self._upstream_status,
                bytes_in=self._upload.size,
                bytes_out=self._body.size if self._body else 0,
                duration=time.monotonic() - self._started,
                upstream_duration=self._waited,
            ),
        )
