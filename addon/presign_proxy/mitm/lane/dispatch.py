"""The way of a granted request onto a connection to its upstream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol

from ...core.decision import Deny, Forward
from ...errors import Denied
from ...gateway import unreachable
from ...gateway.admission import ROUNDS, restless
from ...limits.slots import LimitHold
from .granted_request import GrantedRequest
from .held_body import HeldUpload
from .request_body import Body
from .resend import may_be_sent_again
from .upstream import UpstreamConnection
from .upstream_pool import PoolKey

if TYPE_CHECKING:
    from .client_side import ClientSide
    from .shared import LaneShared

Stage = Literal["preparing", "reading", "connecting", "sending", "waiting", "receiving", "trailing", "done"]


class Dispatched(Protocol):
    """The exchange, as its dispatch sees it."""

    granted: GrantedRequest
    stage: Stage
    body: Body

    @property
    def limit_hold(self) -> LimitHold: ...

    @property
    def ended(self) -> bool: ...

    def send(self, upstream: UpstreamConnection, wire: bytes) -> None:
        """Write the head, which holds the credential, and what has come of the body."""

    def deny(self, why: Deny) -> None:
        """End with a refusal."""

    def fail(self, why: str, code: str = "upstream", status: int | None = None) -> None:
        """End with an answer that names a failure."""

    def collapse(self, error: Exception) -> None:
        """End after a failure of the gateway's own. Does not fail itself."""


class Dispatch:
    """Waits for what a grant waits for, and for a connection; keeps that until the exchange ends.

    The exchange is an argument and no attribute. Objects that refer to each other are freed by a garbage
    collection, during which every client waits.
    """

    __slots__ = ("_due", "_lane", "_resent", "_rounds", "_shared", "_task", "_wire", "place", "upstream")

    def __init__(self, lane: ClientSide, shared: LaneShared, wire: bytes | None) -> None:
        """
        Args:
            wire: the head that goes to the upstream; None where its credential was not fetched yet.
        """
        self._lane = lane
        self._shared = shared
        self._wire = wire
        self._rounds = 0
        self._due = 0.0
        """When all waits must be over, of `time.monotonic` (`timeouts.connect`); 0 before the first wait."""
        self._resent = False
        """True if the request was sent before, on a connection that its upstream had closed."""
        self._task: asyncio.Task[None] | None = None
        self.place: PoolKey | None = None
        self.upstream: UpstreamConnection | None = None
        """The connection on which the request was sent."""

    def _set_deadline(self, exchange: Dispatched) -> None:
        self._due = time.monotonic() + exchange.granted.forward.connection.conduct.connect_timeout

    def prepare(self, exchange: Dispatched) -> None:
        """Send the request once nothing has to be waited for any more."""
        if not self._due:
            self._set_deadline(exchange)
        self._run(exchange, self._prepare)

    def sends_at_once(self, exchange: Dispatched) -> bool:
        """Send on a connection that is there, if the upstream's address needs no check. Return whether."""
        if self._resent:
            return False
        place = self._shared.place_at_once(self._lane.client, exchange.granted.forward)
        upstream = self._shared.pool.take(place) if place is not None else None
        if place is None or upstream is None:
            return False
        self._send(exchange, place, upstream)
        return True

    async def _prepare(self, exchange: Dispatched) -> None:
        """Wait for what the grant waits for, then for a connection."""
        forward = exchange.granted.forward
        completed = await self._shared.admission.complete(
            forward, exchange.granted.request, self._lane.client, exchange.limit_hold, self._due
        )
        if isinstance(completed, Deny):
            exchange.deny(completed)
            return
        if completed is not exchange.granted.forward and not self._adopt(exchange, completed):
            return
        if exchange.ended:
            return
        if isinstance(exchange.body, HeldUpload) and not exchange.body.done:
            exchange.stage = "reading"
            exchange.body.move()
            self._lane.proceed()
            await exchange.body.wait()
            exchange.stage = "preparing"
            self._set_deadline(exchange)
        if self.sends_at_once(exchange):
            self._lane.proceed()
        else:
            await self._connect(exchange)

    def _adopt(self, exchange: Dispatched, forward: Forward) -> bool:
        """Go on with another grant of the same request. Return False where its body is read otherwise."""
        if forward.hold != exchange.granted.forward.hold:
            why = "its connection was changed while it waited"
            exchange.deny(Deny("unavailable", why, forward.style, forward.facts))
            return False
        exchange.granted = granted = exchange.granted.under(forward)
        self._wire = granted.outgoing()
        return True

    def _run(self, exchange: Dispatched, work: Callable[[Dispatched], Awaitable[None]]) -> None:
        self._task = self._shared.run(_contained(exchange, work))

    async def _connect(self, exchange: Dispatched) -> None:
        exchange.stage = "connecting"
        forward = exchange.granted.forward
        try:
            async with asyncio.timeout(self._due - time.monotonic()):
                place = await self._shared.place(self._lane.client, forward)
                pool = self._shared.pool
                upstream = (None if self._resent else pool.take(place)) or await pool.open(place)
        except TimeoutError:
            exchange.fail("the upstream was not connected to in time", status=504)
        except OSError as error:
            exchange.fail(unreachable.of_error(forward.origin.host, error))
        else:
            self._connected(exchange, place, upstream)

    def _connected(self, exchange: Dispatched, place: PoolKey, upstream: UpstreamConnection) -> None:
        if exchange.ended:
            self._shared.pool.give_back(place, upstream)  # the client has gone meanwhile
            return
        if upstream.lost or upstream.odd or upstream.transport is None:
            upstream.close()
            exchange.fail("the upstream closed, or spoke, before it was asked")
            return
        self._send(exchange, place, upstream)
        self._lane.proceed()

    def _send(self, exchange: Dispatched, place: PoolKey, upstream: UpstreamConnection) -> None:
        """Send the request, if it is granted in this very moment too."""
        granted = exchange.granted
        confirmed = self._shared.admission.confirm(granted.forward, granted.request)
        if confirmed is not granted.forward:
            self._shared.pool.give_back(place, upstream)
            self._go_round(exchange, confirmed)
            return
        wire, self._wire = self._wire, None  # it holds the credential
        try:
            if wire is None and self.upstream is not None:
                raise LookupError("this request was signed, and has left")
            wire = wire or granted.leaving(exchange.body)
        except Exception as error:
            upstream.close()
            if not isinstance(error, Denied):
                raise
            exchange.fail(error.detail, error.code)
            return
        self.place, self.upstream = place, upstream
        exchange.send(upstream, wire)

    def _go_round(self, exchange: Dispatched, decided: Forward | Deny) -> None:
        """End what is refused now. What another registry grants waits for all of that again."""
        self._rounds += 1
        if isinstance(decided, Deny) or self._rounds > ROUNDS:
            exchange.deny(decided if isinstance(decided, Deny) else restless(decided))
            return
        exchange.stage = "preparing"
        if self._adopt(exchange, decided):
            self.prepare(exchange)

    def send_again(self, exchange: Dispatched) -> bool:
        """Send once more on a new connection, confirmed again as it leaves. Return whether that may be."""
        upstream, granted = self.upstream, exchange.granted
        if self._resent or exchange.stage != "waiting" or upstream is None or granted.forward.sent is None:
            return False
        if not may_be_sent_again(granted.head, granted.forward, upstream):
            return False
        upstream.close()
        self.upstream, self._resent = None, True
        self._set_deadline(exchange)
        self._wire = granted.outgoing()
        self._run(exchange, self._connect)
        return True

    def let_go(self) -> None:
        """End the connection, and what is waited for."""
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()


async def _contained(exchange: Dispatched, work: Callable[[Dispatched], Awaitable[None]]) -> None:
    """Do it. Where it fails, end the exchange, which would wait for ever otherwise."""
    try:
        await work(exchange)
    except Denied as denied:
        exchange.fail(denied.detail)
    except Exception as error:
        exchange.collapse(error)
