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
from ...core.response_body import Body
from ...errors import Denied
from ...http.message import Request
from ...limits.slots import LimitHold
from ...observe.audit_record import Outcome
from ..client_state import ClientStates
from ..sockets import abort
from .shown_bodies import ShownBodies

Stage = Literal["deciding", "connecting", "sending", "waiting", "receiving", "done"]

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
        self.stage, self.since = stage, time.monotonic()

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
    """The states of all flows that mitmproxy keeps, and which of them are granted requests under way."""

    def __init__(self, confirm: Confirm, clients: ClientStates) -> None:
        """
        Args:
            confirm: asked at the moment in which a granted request leaves.
        """
        self.clients = clients
        self._confirm = confirm
        self._states: WeakKeyDictionary[Any, FlowState] = WeakKeyDictionary()
        # A UI keeps flows, and with them their states, long after their exchanges.
        self._granted: WeakSet[FlowState] = WeakSet()
        # Those that were answered before all of their body had come.
        self._trailing: WeakSet[FlowState] = WeakSet()
        self.shows_bodies = False
        """Whether a UI is there to show the bodies of granted requests."""

    def open(self, flow: Any, arrival: Arrival) -> FlowState:
        flow_state = self._states[flow] = FlowState(arrival, client=flow.client_conn)
        return flow_state

    def get(self, flow: Any) -> FlowState | None:
        """The entry of this very flow object, or None: then nothing may be forwarded for it."""
        return self._states.get(flow)

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
        layer = self.clients.layer_of(flow_state.client)
        held = layer is not None and flow_state.server is not None and layer.backlog_of(flow_state.server)
        return not held and flow_state.client not in self.clients.half_closed

    def uploads(self) -> list[FlowState]:
        """Entries of granted requests whose body has not come in full, answered or not."""
        return [flow_state for flow_state in (*self._granted, *self._trailing) if flow_state.uploading]

    def lost(self, client: Any) -> list[FlowState]:
        """Entries of granted requests of a client that was cut off."""
        if client not in self.clients.cut_off:
            return []
        return [flow_state for flow_state in self.live() if flow_state.client is client]
