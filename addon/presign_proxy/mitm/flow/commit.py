"""The decision on a flow, and what is done with it: granted, refused or let through."""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine
from typing import Any

from mitmproxy import http

from ...core.decision import Decision, Deny, Facts, Forward, PassThrough, Preflight
from ...gateway.admission import Admission
from ...gateway.request_id import new_request_id
from ...http.message import Request, asks_for_websocket, is_sound
from ...observe.audit_log import AuditLog
from ...observe.audit_record import GONE, Outcome
from .arrival import arrival_of
from .flow_display import hide, mark_grant, mark_preflight, mark_refusal
from .incoming_request import framing_fault, request_of, second_fault
from .outgoing_request import let_through, show
from .response import response_of
from .state import FlowState, FlowStates

logger = logging.getLogger(__name__)


class Committer:
    """Decides on flows. Until a flow's state holds the decision, its stream refuses the request."""

    def __init__(self, admission: Admission, states: FlowStates, audit_log: AuditLog) -> None:
        self._admission = admission
        self._states = states
        self._audit_log = audit_log

    def decide(self, flow: http.HTTPFlow) -> Coroutine[Any, Any, None] | None:
        """Decide at once; return a coroutine for what a grant has to wait for."""
        flow_state = self._states.get(flow)
        decision: Decision = Deny("internal", "the decision failed", "json", Facts(new_request_id()))
        waiting = None
        try:
            arrival = flow_state.arrival if flow_state else arrival_of(flow.request, tunnelled=True)
            request = request_of(flow, arrival)
            decided = self._decide(flow, flow_state, request)
            if flow_state is not None and isinstance(decided, Forward) and decided.waits:
                waiting = self._wait(flow, flow_state, decided, request)
            decision = decided
        except Exception as error:
            logger.error("presign: failed to decide (%s); the request is refused", type(error).__name__)
        finally:
            if waiting is None:
                self._commit(flow, flow_state, decision)
        return waiting

    async def _wait(
        self, flow: http.HTTPFlow, flow_state: FlowState, forward: Forward, request: Request
    ) -> None:
        """Complete a grant. Nothing is committed before, and the stream refuses the request."""
        decision: Decision | None = Deny("internal", "the decision failed", forward.style, forward.facts)
        try:
            flow_state.progress.enter("preparing")
            until = flow_state.progress.since + forward.connection.conduct.connect_timeout
            work = self._admission.complete(forward, request, flow.client_conn, flow_state.limit_hold, until)
            decision = await flow_state.progress.unless_left(work)
        except Exception as error:
            logger.error("presign: failed to decide (%s); the request is refused", type(error).__name__)
        finally:
            if decision is not None:
                self._commit(flow, flow_state, decision)
            else:
                self._drop(flow, flow_state, forward)

    def _drop(self, flow: http.HTTPFlow, flow_state: FlowState, forward: Forward) -> None:
        """Drop a request whose client has gone before it was decided; its stream learns of that next."""
        flow_state.drop()
        hide(flow)
        self._audit_log.write(forward, flow_state.progress.outcome(None, GONE), flow.client_conn.peername)

    def _decide(self, flow: http.HTTPFlow, flow_state: FlowState | None, request: Request) -> Decision:
        taken_over = self._states.clients.take_over(flow.client_conn, request, self._admission.registry)
        decision = taken_over or self._admission.decide(request)
        if flow_state is not None:
            # A granted request has passed the grammar; a refused one may not have been checked by it.
            sound = not isinstance(decision, Deny) or is_sound(request)
            flow_state.know_framing(sound=sound and not asks_for_websocket(request.fields))
        if isinstance(decision, PassThrough):
            why = second_fault(request, flow_state.arrival if flow_state else None) if decision.second else ""
            return Deny("malformed", why, "json", Facts(new_request_id())) if why else decision
        if flow.error is not None:
            # mitmproxy has rejected the request, and has not even filled in where it is addressed.
            return Deny("malformed", "mitmproxy finds it invalid", decision.style, decision.facts)
        if isinstance(decision, Deny | Preflight):
            return decision
        if flow_state is None:
            # Replayed, or on a layer that is not ours: its way out would not be guarded.
            return Deny("invalid", "it is not a live request", decision.style, decision.facts)
        if why := framing_fault(flow.request, flow_state.arrival, decision):
            return Deny("malformed", why, decision.style, decision.facts)
        flow_state.keep_request(request)
        return decision

    def _commit(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Decision) -> None:
        """Apply a decision. Until the flow's state holds it, the stream refuses the request."""
        if isinstance(decision, PassThrough):
            let_through(flow, decision)  # if that fails, there is no decision, and it is refused
            if flow_state is not None:
                flow_state.pass_through(decision)
                self._audit_log.meter.passed += 1
        elif isinstance(decision, Forward):
            self._grant(flow, flow_state, decision)
        elif isinstance(decision, Preflight):
            self._answer(flow, flow_state, decision)
        else:
            self._refuse(flow, flow_state, decision)

    def _grant(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Forward) -> None:
        """Apply a grant; refuse the request if that fails half-way."""
        try:
            if flow_state is None:
                raise LookupError("a grant needs the state of its flow")
            snapshot = show(flow, decision)
            mark_grant(flow, decision)
            # Last of all: nothing that fails may come after it.
            self._states.grant(flow_state, decision, snapshot)
        except Exception as error:
            logger.error("presign: failed to rewrite (%s); the request is refused", type(error).__name__)
            why = Deny("internal", "the rewrite failed", decision.style, decision.facts)
            self._refuse(flow, flow_state, why)

    def _answer(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Preflight) -> None:
        """Answer a preflight. It has no line in the audit log: nothing is forwarded or refused."""
        if flow_state is not None:
            flow_state.refuse(decision, decision.answer)
            flow_state.log()
        hide(flow)
        flow.response = response_of(decision.answer, close=False)
        mark_preflight(flow)
        self._audit_log.meter.preflights += 1

    def _refuse(self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Deny) -> None:
        answer = decision.answer
        if flow_state is not None:
            flow_state.refuse(decision, answer)
        hide(flow)
        flow.response = response_of(answer, close=False)
        mark_refusal(flow, decision)
        duration = time.monotonic() - flow_state.progress.started if flow_state is not None else 0.0
        self.record(flow, flow_state, decision, Outcome(status=answer.status, duration=duration))

    def record(
        self, flow: http.HTTPFlow, flow_state: FlowState | None, decision: Deny, outcome: Outcome
    ) -> None:
        """Write a refusal to the audit log."""
        if flow_state is not None:
            flow_state.log()
        self._audit_log.write(decision, outcome, flow.client_conn.peername)
