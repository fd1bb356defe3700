"""What was decided about which flow, bound to the identity of the flow object.

Not `flow.metadata`: that is written to dumps, read back from forged ones, and copied when an addon duplicates
a flow. A copy of a granted flow has no state here, and what has no state is not forwarded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from mitmproxy.connection import Client

from ...core.answers import Answer, Style
from ...core.decision import Decision, Deny, Facts, Forward, PassThrough, Preflight
from ...core.masking import Mask, mask_for
from ...core.under_way import Basis, basis_of
from ...errors import Denied
from ...gateway.admission import Admission
from ...http.message import Fields, Request
from ...limits.slots import LimitHold
from ...observe.under_way import Running
from ..client_state import ClientStates
from ..sockets import abort
from .arrival import Arrival
from .progress import Progress
from .routes import way_of
from .shown_bodies import ShownBodies
from .waiting_stream import WaitingStream

Confirm = Callable[[Forward, Request], Forward | Deny]
"""Decides again on what was granted before; `Admission.confirm`."""

# Stands where a grant was: nothing more is sent on the strength of it.
_OVER: Final = Deny("internal", "the exchange is over", "json", Facts(""))


class Granted(NamedTuple):
    """What is known from the grant on, also once the grant itself is over."""

    request_id: str
    style: Style
    readable: Fields
    """`Facts.readable`."""
    max_body: int | None
    patience: tuple[int, int]
    """`Conduct.patience`."""
    snapshot: tuple[Any, ...]
    """The request on the flow, which must still equal this when it leaves."""
    mask: Mask
    basis: Basis
    bodies: ShownBodies | None
    """What a UI is to show when the exchange has ended; None where there is no UI."""


class FlowState:
    """One flow: how it came, what was decided, how far it got."""

    __slots__ = (
        "__weakref__",
        "answer",
        "arrival",
        "client",
        "decision",
        "ends_connection",
        "granted",
        "is_logged",
        "limit_hold",
        "progress",
        "request",
        "stream",
    )

    def __init__(self, arrival: Arrival, client: Client) -> None:
        self.arrival = arrival
        self.client = client
        self.decision: Decision | None = None
        """Until there is one, the stream refuses the request."""
        self.granted: Granted | None = None
        self.request: Request | None = None
        """As it arrived, signature included; kept until its head has left."""
        self.answer: Answer | None = None
        """The refusal that the client gets."""
        self.ends_connection = True
        """True if parsers may read the request differently, so that the next one may begin elsewhere."""
        self.is_logged = False
        """True if the request has its line in the log, or was too many to get one."""
        self.stream: WaitingStream | None = None
        """Where the exchange goes on; None once it has ended."""
        self.limit_hold = LimitHold()
        self.progress = Progress()

    # -- what was decided -----------------------------------------------------------------------------

    def know_framing(self, *, sound: bool) -> None:
        """Note whether the request is HTTP that all parsers read alike, so that its end is known."""
        self.ends_connection = not sound

    def keep_request(self, request: Request) -> None:
        """Keep the request as it arrived, to decide on it again when it leaves."""
        self.request = request

    def pass_through(self, decision: PassThrough) -> None:
        """Let the request go on as it came."""
        self.decision = decision

    def put_in_force(self, decision: Forward, granted: Granted) -> None:
        """Put a grant in force, or put it in the place of the one that is. This cannot fail half-way."""
        self.granted, self.decision = granted, decision

    def refuse(self, decision: Deny | Preflight, answer: Answer) -> None:
        """Answer the request instead of forwarding it, and give back what it took of the limits."""
        self.answer, self.decision, self.request = answer, decision, None
        self.limit_hold.let_go()

    def drop(self) -> None:
        """Give the request up undecided: its client has gone. It is logged now."""
        self.limit_hold.let_go()
        self.request, self.is_logged = None, True

    def log(self) -> None:
        """Note that the request has its line in the log."""
        self.is_logged = True

    def take_request(self) -> Request | None:
        """Return the request as it arrived, and keep it no longer."""
        request, self.request = self.request, None
        return request

    def take_bodies(self) -> ShownBodies | None:
        """Return the bodies that a UI is to show, and keep them no longer."""
        if self.granted is None or self.granted.bodies is None:
            return None
        bodies, self.granted = self.granted.bodies, self.granted._replace(bodies=None)
        return bodies

    def end(self) -> None:
        """Let go of the credential and the request: the exchange is over. A UI may keep its flow for days."""
        self.decision, self.request = _OVER, None

    # -- what is asked about it -----------------------------------------------------------------------

    @property
    def exceeded(self) -> int | None:
        """The signed size of the body, if more of it has come; otherwise None."""
        most = self.granted.max_body if self.granted is not None else None
        return most if most is not None and self.progress.upload.size > most else None

    @property
    def is_second(self) -> bool:
        """True if it goes without a presign to a host of `also`."""
        return isinstance(self.decision, PassThrough) and self.decision.second

    @property
    def grant(self) -> Forward | None:
        """The grant, as long as it is in force."""
        return self.decision if isinstance(self.decision, Forward) else None

    # -- its stream -----------------------------------------------------------------------------------

    def begin(self, stream: WaitingStream) -> None:
        """Note the stream in which the exchange goes on."""
        self.stream, self.progress.upload.is_open = stream, stream.uploading

    def leave_stream(self) -> None:
        """Keep the stream no longer: it refers back to the flow."""
        self.stream = None


class FlowStates:
    """The states of all flows that mitmproxy keeps, and which of them are granted requests under way."""

    def __init__(self, admission: Admission, clients: ClientStates) -> None:
        """Args: admission: asked at the moment in which a granted request leaves."""
        self.clients = clients
        self.answered = admission.answered
        self.held_bodies = admission.held_bodies
        self._confirm: Confirm = admission.confirm
        self._states: WeakKeyDictionary[Any, FlowState] = WeakKeyDictionary()
        # A UI keeps flows, and with them their states, long after their exchanges.
        self._granted: WeakSet[FlowState] = WeakSet()
        # Those that were answered before all of their body had come.
        self._trailing: WeakSet[FlowState] = WeakSet()
        self.shows_bodies = False
        """True if a UI is there to show the bodies of granted requests."""

    def open(self, flow: Any, arrival: Arrival) -> FlowState:
        """Begin the state of a flow. Without a decision in it, nothing is forwarded."""
        flow_state = self._states[flow] = FlowState(arrival, flow.client_conn)
        return flow_state

    def get(self, flow: Any) -> FlowState | None:
        """Return the state of this very flow object, or None: then nothing may be forwarded for it."""
        return self._states.get(flow)

    def grant(self, flow_state: FlowState, decision: Forward, snapshot: tuple[Any, ...]) -> None:
        """Put a grant in force. What can fail is done first, so that a failure leaves the request refused.

        Args: snapshot: the request on the flow, which must still equal this when it leaves.
        """
        granted = Granted(
            decision.request_id,
            decision.style,
            decision.facts.readable,
            decision.terms.max_body,
            decision.connection.conduct.patience,
            snapshot,
            mask_for(decision.connection.injector, decision.connection.others),
            basis_of(decision.facts),
            ShownBodies() if self.shows_bodies else None,
        )
        self._granted.add(flow_state)
        flow_state.put_in_force(decision, granted)

    def is_logged(self, flow: Any) -> bool:
        """Return whether the request of this flow has its line in the log."""
        flow_state = self.get(flow)
        return flow_state is not None and flow_state.is_logged

    def confirm(self, flow_state: FlowState) -> Denied | None:
        """Decide again on what is about to leave. Return why it may not.

        What was changed meanwhile leaves as it would be granted now, if that goes the same way.
        """
        grant, granted, request = flow_state.grant, flow_state.granted, flow_state.take_request()
        if grant is None or granted is None or request is None:
            return Denied("internal", "nothing was granted, or it has left before")
        decided = self._confirm(grant, request)
        if decided is grant:
            return None
        if isinstance(decided, Deny):
            return Denied(decided.code, decided.detail, decided.status)
        renewed = decided.filled_as(grant)
        if renewed is None or way_of(renewed) != way_of(grant):
            return Denied("unavailable", "its connection was changed while it waited")
        flow_state.put_in_force(
            renewed, granted._replace(mask=mask_for(renewed.connection.injector, renewed.connection.others))
        )
        return None

    def retire(self, flow_state: FlowState) -> None:
        """End a granted exchange: let go of the credential, and free the slot.

        The slot is freed once the upstream has nothing to do for the request any more, and not before.
        """
        self._granted.discard(flow_state)
        flow_state.end()
        progress = flow_state.progress
        progress.upload.let_go()
        if not progress.response.is_complete:
            self.end_upstream(flow_state)
        if progress.response.is_complete and progress.upload.is_open:
            self._trailing.add(flow_state)
        else:
            flow_state.leave_stream()
            flow_state.limit_hold.let_go()
        progress.enter("done")

    def end_upstream(self, flow_state: FlowState) -> None:
        """Close the connection on which an exchange goes on, unless it carries others too."""
        server = flow_state.progress.server
        if server is not None and getattr(server, "alpn", None) != b"h2":
            abort(flow_state.client, server)

    @property
    def in_flight(self) -> int:
        """How many granted requests have not ended."""
        return len(self._granted)

    def running(self) -> list[Running]:
        """Return what is under way, for an operator."""
        known = [(one.grant, one.progress.started) for one in self._granted]
        return [Running(grant.facts, began) for grant, began in known if grant is not None]

    def live(self) -> list[FlowState]:
        """Return the states of granted requests whose exchange goes on."""
        return list(self._granted)

    def is_waiting(self, flow_state: FlowState) -> bool:
        """Return whether it is the upstream's turn, and the client is there to take what comes."""
        layer, server = self.clients.layer_of(flow_state.client), flow_state.progress.server
        held = layer is not None and server is not None and layer.backlog_of(server)
        return not held and flow_state.client not in self.clients.half_closed

    def under_way(self) -> list[FlowState]:
        """Return the states of granted requests that go on, also only with the rest of their body."""
        return [*self._granted, *(one for one in self._trailing if one.progress.upload.is_open)]

    def uploads(self) -> list[FlowState]:
        """Return the states of granted requests whose body has not come in full, answered or not."""
        return [flow_state for flow_state in self.under_way() if flow_state.progress.upload.is_open]

    def lost(self, client: Client) -> list[FlowState]:
        """Return the states of granted requests of a client that was cut off."""
        if client not in self.clients.cut_off:
            return []
        return [flow_state for flow_state in self.live() if flow_state.client is client]
