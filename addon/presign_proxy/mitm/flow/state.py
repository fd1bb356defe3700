"""What was decided about which flow, bound to the identity of the flow object.

Not `flow.metadata`: that is written to dumps, read back from forged ones, and copied when somebody
duplicates a flow. A copy of a granted flow has no entry here, and what has no entry is not forwarded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from ...core.answers import Answer, Style
from ...core.decision import Decision, Deny, Facts, Forward, PassThrough
from ...core.links import Led
from ...core.masking import Mask, mask_for
from ...core.registry import Registry
from ...core.response_body import Body
from ...errors import Denied
from ...http.message import Request
from ...limits.client_shares import STREAMS, Shares, streams_of
from ...limits.slots import LimitHold
from ...observe.audit_record import Outcome
from .. import bell, sockets
from ..backpressure import MAX_HELD, OneOfMany
from ..half_closed import HalfClosed
from ..sockets import abort
from ..turns import Turns
from .shown_bodies import ShownBodies

Stage = Literal["deciding", "connecting", "sending", "waiting", "receiving", "done"]

READS: Final = 4
"""Pieces of answers to clients over HTTP/2 that are read in one turn of the event loop."""

Confirm = Callable[[Forward, Request], Forward | Deny]
"""Decides again on what was granted before; `Admission.confirm`."""

# Stands where a grant was: nothing more is sent on the strength of it.
_OVER: Final = Deny("internal", "the exchange is over", "json", Facts(""))


class Arrival(NamedTuple):
    """How a request came, read before mitmproxy rewrites it.

    `hosts` are its Host fields, `authority` the :authority of HTTP/2; `tunnelled` says whether the
    destination was set before the request (CONNECT, SOCKS, transparent, reverse); `absolute`, whether a
    whole URL in the request line sets it. Of such a URL inside a tunnel `authority` is the host; `scheme` is
    that of either.
    """

    hosts: tuple[bytes, ...]
    authority: bytes
    absolute: bool
    tunnelled: bool
    scheme: bytes = b""
    has_body: bool = True


class LaneDecision(NamedTuple):
    """What the lane decided on a request that it does not serve: the flow path answers or passes it."""

    request: Request
    registry: Registry | None
    decision: Deny | PassThrough


@dataclass(eq=False, slots=True, weakref_slot=True)
class FlowState:
    """One flow: how it came, what was decided, how far it got."""

    arrival: Arrival
    client: Any = None
    decision: Decision | None = None
    request: Request | None = None
    """As it arrived, signature included; kept until its head has left."""
    stream: Any = None
    """Where it waits; gone with its end."""
    answer: Answer | None = None
    ends_connection: bool = True
    """Until it is known for HTTP that all read alike, nobody can tell where the next request begins."""
    snapshot: tuple[Any, ...] = ()
    mask: Mask | None = None
    body: Body | None = None
    links: tuple[Led, ...] = ()
    """Values of the response head that the flow does not show as the client gets them."""
    stage: Stage = "deciding"
    started: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    """Seconds of the connection's `timeouts.connect` that were over before a connection was asked for."""
    server: Any = None
    timed_out: bool = False
    withdrawn: Denied | None = None
    """Why what was granted was refused after all, on its way."""
    max_body: int | None = None
    failed: str | None = None
    """The code of the answer that took the place of the upstream's, once it was granted."""
    why: str | None = None
    """The exact reason, where there is more to say than the code does."""
    upstream_status: int | None = None
    uploaded: int = 0
    moved: float = 0.0
    """When something of the body, or of the answer, came last."""
    held: bool = False
    """Whether its upstream did not take it when that was looked at last."""
    patience: tuple[int, int] = (0, 0)
    """`Conduct.patience`."""
    uploading: bool = False
    """Whether the body has not come in full."""
    left: bool = False
    """Whether the client wants no answer any more: it has gone, or has reset its stream."""
    replied: bool = False
    """Whether the upstream's answer has come in full."""
    guarded: bool = False
    upstream_duration: float | None = None
    request_id: str = ""
    style: Style = "json"
    limit_hold: LimitHold = field(default_factory=LimitHold)
    told: bool = False
    """Whether the request has its line in the log, or was too many to get one."""
    bodies: ShownBodies | None = None
    """What a UI is to show when the exchange has ended; None where there is no UI."""
    waiting: asyncio.Task[Any] | None = None
    """Waits for what it takes to decide."""

    @property
    def overruns(self) -> bool:
        """Whether more of the body has come than was signed."""
        return self.max_body is not None and self.uploaded > self.max_body

    def leave(self) -> None:
        """Its client wants no answer any more: nothing is waited for on its behalf."""
        self.left = True
        if self.waiting is not None:
            self.waiting.cancel()

    async def unless_left[Found](self, work: Coroutine[Any, Any, Found]) -> Found | None:
        """What comes of it; None where the client has gone meanwhile."""
        task = self.waiting = asyncio.current_task()
        try:
            if self.left:  # before the hook was run
                work.close()
                return None
            return await work
        except asyncio.CancelledError:
            if not self.left or task is None:
                raise
            task.uncancel()  # what else this task does goes on
            return None
        finally:
            self.waiting = None

    def enter(self, stage: Stage) -> None:
        self.stage, self.since = stage, time.monotonic() - (self.waited if stage == "connecting" else 0)

    def heard(self, status: int) -> None:
        """The head of the upstream's answer is there."""
        self.upstream_status, self.upstream_duration = status, time.monotonic() - self.started

    def outcome(self, status: int | None, error: str | None, code: str | None = None) -> Outcome:
        """How a granted exchange has ended: now, with this status, and why if not as it should."""
        return Outcome(
            status=status,
            upstream_status=self.upstream_status,
            bytes_in=self.uploaded,
            bytes_out=self.body.size if self.body else 0,
            duration=time.monotonic() - self.started,
            code=self.failed or code,
            error=error or self.why,
            upstream_duration=self.upstream_duration,
        )

    @property
    def is_second(self) -> bool:
        """Whether it goes without a presign to a host of `also`."""
        return isinstance(self.decision, PassThrough) and self.decision.second

    @property
    def grant(self) -> Forward | None:
        return self.decision if isinstance(self.decision, Forward) else None


class FlowStates:
    """The entries of all live flows, and since when each client owes the head of a request."""

    def __init__(self, confirm: Confirm, clients: Callable[[], int] = lambda: STREAMS) -> None:
        """
        Args:
            confirm: asked in the moment in which a granted request leaves.
            clients: how many there may be.
        """
        self._confirm = confirm
        self.shares = Shares(lambda: streams_of(clients()))
        # In which streams over HTTP/2 are begun with, and in which answers to them are read.
        self.turns = Turns(sockets.call)
        self.reads = Turns(bell.call, READS)
        self._entries: WeakKeyDictionary[Any, FlowState] = WeakKeyDictionary()
        # A UI keeps flows, and with them their entries, long after their exchanges.
        self._granted: WeakSet[FlowState] = WeakSet()
        # Those that were answered before all of their body had come.
        self._trailing: WeakSet[FlowState] = WeakSet()
        self.heads: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self.layers: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._judged: WeakKeyDictionary[Any, LaneDecision] = WeakKeyDictionary()
        # Clients that were cut off because something of ours failed; no hook tells of their requests' ends.
        self.cut: WeakSet[Any] = WeakSet()
        self.shows_bodies = False
        """Whether a UI is there to show the bodies of granted requests."""
        # Clients that say no more, and wait for their answers; those of them, and all, that have gone.
        self.mute = HalfClosed()
        self.gone: WeakSet[Any] = WeakSet()
        # Clients on the lane from which nothing is read for now, neither their end.
        self.deaf: WeakSet[Any] = WeakSet()
        # The same on the flow path: so much of what they have sent waits here.
        self._full: WeakSet[Any] = WeakSet()
        # Clients of tunnels that carry no HTTP, which are told of an end only, be it a reset.
        self.raw: WeakSet[Any] = WeakSet()
        self._departed: WeakSet[Any] = WeakSet()

    def open(self, flow: Any, arrival: Arrival) -> FlowState:
        flow_state = self._entries[flow] = FlowState(arrival, client=flow.client_conn)
        return flow_state

    def get(self, flow: Any) -> FlowState | None:
        """The entry of this very flow object, or None: then nothing may be forwarded for it."""
        return self._entries.get(flow)

    def grant(self, flow_state: FlowState, decision: Forward) -> None:
        self._granted.add(flow_state)
        flow_state.guarded, flow_state.request_id, flow_state.style = (
            True,
            decision.request_id,
            decision.style,
        )
        flow_state.max_body = (
            decision.terms.max_body
        )  # also once the answer is there, and the grant let go of
        flow_state.patience = decision.connection.conduct.patience
        flow_state.bodies = ShownBodies() if self.shows_bodies else None
        flow_state.decision = decision

    def is_told(self, flow: Any) -> bool:
        """Whether the request of this flow has been told of in a line."""
        flow_state = self.get(flow)
        return flow_state is not None and flow_state.told

    def confirm(self, flow_state: FlowState) -> Denied | None:
        """Decide again on what is about to leave. Returns why it may not.

        What was changed meanwhile leaves as it would be granted now, if that goes the same way.
        """
        grant, request, flow_state.request = flow_state.grant, flow_state.request, None
        if grant is None or request is None:
            return Denied("internal", "nothing was granted, or it has left before")
        decided = self._confirm(grant, request)
        if decided is grant:
            return None
        if isinstance(decided, Deny):
            return Denied(decided.code, decided.detail, decided.status)
        renewed = decided.filled_as(grant)
        if renewed is None or (renewed.origin, renewed.resolve) != (grant.origin, grant.resolve):
            return Denied("unavailable", "its connection was changed while it waited")
        flow_state.decision, flow_state.mask = renewed, mask_for(renewed.connection.injector)
        return None

    def retire(self, flow_state: FlowState) -> None:
        """The exchange is over: let go of the credential; a UI may keep the flow for days.

        Its slot is free once its upstream has nothing to do for it any more, and not before.
        """
        self._granted.discard(flow_state)
        flow_state.decision, flow_state.request = _OVER, None
        if not flow_state.replied:
            self.end_upstream(flow_state)
        if flow_state.replied and flow_state.uploading:
            self._trailing.add(flow_state)
        else:
            flow_state.stream = None
            flow_state.limit_hold.let_go()
        flow_state.enter("done")

    def end_upstream(self, flow_state: FlowState) -> None:
        """Close the connection on which an exchange goes on, unless it carries others too."""
        if flow_state.server is not None and getattr(flow_state.server, "alpn", None) != b"h2":
            abort(flow_state.client, flow_state.server)

    @property
    def in_flight(self) -> int:
        """How many granted requests have not ended."""
        return len(self._granted)

    def live(self) -> list[FlowState]:
        """Entries of granted requests whose exchange goes on."""
        return list(self._granted)

    def is_waiting(self, flow_state: FlowState) -> bool:
        """Whether it is its upstream's turn, and its client is there to take what comes."""
        layer = self.layers.get(flow_state.client)
        held = layer is not None and flow_state.server is not None and layer.backlog_of(flow_state.server)
        return not held and flow_state.client not in self.mute

    def uploads(self) -> list[FlowState]:
        """Entries of granted requests whose body has not come in full, answered or not."""
        return [flow_state for flow_state in (*self._granted, *self._trailing) if flow_state.uploading]

    def unheard(self) -> set[Any]:
        """Clients that may have gone without anybody's having been told: those that say no more, and those
        that are not listened to while nobody takes more of what they send.
        """
        return {
            *self.mute.all(),
            *self.deaf,
            *self._full,
            *self.raw,
            *(flow_state.client for flow_state in self.uploads()),
        }

    def lost(self, client: Any) -> list[FlowState]:
        """Entries of granted requests of a client that was cut off."""
        if client not in self.cut:
            return []
        return [flow_state for flow_state in self.live() if flow_state.client is client]

    def holds_too_much(self, client: Any) -> bool:
        """Whether what a client sent piles up here."""
        layer = self.layers.get(client)
        full = layer is not None and layer.held_bytes() > MAX_HELD
        (self._full.add if full else self._full.discard)(client)
        return full

    def gating(self, client: Any, server: Any) -> tuple[Callable[[], bool], OneOfMany | None]:
        """What keeps an upstream connection from being read, and how it is read where it is one of many."""
        one = OneOfMany(server, lambda: self.layers.get(client), self.reads)
        return one.is_shut, one if client.alpn == b"h2" else None

    def idle_stranger(self) -> Any:
        """The oldest client that was never granted anything and asks for nothing now; None if none is."""
        for client, layer in list(self.layers.items()):
            if client not in self.heads and layer.is_idle_stranger():
                return client
        return None

    def forget(self, client: Any) -> None:
        """A client is gone. Its layers refer back to it, so that weak keys alone would keep both for ever."""
        self.layers.pop(client, None)
        self.shares.forget(client)
        self.heads.pop(client, None)
        self._judged.pop(client, None)
        self.mute.discard(client)
        for clients in (self.cut, self.gone, self.deaf, self._full, self.raw):
            clients.discard(client)
        self._departed.add(client)

    def has_departed(self, client: Any) -> bool:
        """Whether a client is known to have gone, also while its upstreams are still being ended."""
        return client in self.gone or client in self._departed

    def hand_over(self, client: Any, judged: LaneDecision) -> None:
        """Keep what was decided on the next request of a client, so that nobody decides on it again."""
        self._judged[client] = judged

    def take_over(self, flow: Any, request: Request, registry: Registry | None) -> Deny | PassThrough | None:
        """What was decided on this very request under this very registry; None where that is still to do."""
        judged = self._judged.pop(flow.client_conn, None)
        if judged is None or judged.registry is not registry or judged.request != request:
            return None
        return judged.decision

    def owe_head(self, client: Any) -> None:
        self.heads.setdefault(client, time.monotonic())

    def paid_head(self, client: Any) -> None:
        self.heads.pop(client, None)
