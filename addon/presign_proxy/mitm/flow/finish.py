"""The end of an exchange on the flow path, written down once."""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.flow import Error

from ...core.decision import Decision, Deny, Facts, Forward
from ...errors import STATUS
from ...gateway.request_id import new_request_id
from ...observe.audit_log import AuditLog
from ...observe.audit_record import GONE, Outcome
from .flow_display import mark_end, mark_refusal
from .response import begins_websocket
from .state import FlowState, FlowStates


class Finisher:
    """Writes the ends of granted exchanges to the audit log, and frees what they hold."""

    def __init__(self, states: FlowStates, audit_log: AuditLog) -> None:
        self._states = states
        self._audit_log = audit_log

    def answered(self, flow: http.HTTPFlow) -> None:
        """End an exchange whose answer is complete, unless a WebSocket begins with it."""
        flow_state = self._states.get(flow)
        if flow_state is None or not begins_websocket(flow, flow_state):
            self._finish(flow, None)

    def closed(self, flow: http.HTTPFlow) -> None:
        """End a WebSocket."""
        self._finish(flow, None)

    def failed(self, flow: http.HTTPFlow) -> None:
        """End an exchange whose client has gone, or whose upstream has failed."""
        flow_state = self._states.get(flow)
        gone = not flow.client_conn.connected or (flow.error and flow.error.msg == Error.KILLED_MESSAGE)
        progress = flow_state.progress if flow_state is not None else None
        if progress is None or gone or progress.left:
            self._finish(flow, GONE)
        elif flow_state is not None and flow_state.is_second:
            self._refuse_second(flow, flow_state)
        elif progress.stage == "receiving":
            self._finish(flow, progress.why or "the upstream broke off its response")
        else:
            # The stream answers so, as soon as mitmproxy lets it.
            status = 504 if progress.timed_out else STATUS["upstream"]
            self._finish(flow, progress.why or f"the upstream failed while {progress.stage}", status)

    def _refuse_second(self, flow: http.HTTPFlow, flow_state: FlowState) -> None:
        """Refuse a request to a host of `also` that gave no answer. Its stream answers so, next."""
        if flow.response is not None:
            return  # the client sees that the answer was cut off
        data, why = flow.request.data, flow_state.progress.why or "the upstream failed"
        facts = Facts(new_request_id(), data.method.decode(), str(flow.client_conn.peername[0]))
        detail = f"{data.scheme.decode()}://{data.host}:{data.port}, without a presign: {why}"
        decision = Deny("upstream", detail, "json", facts)
        flow_state.refuse(decision, decision.answer)
        flow_state.log()
        mark_refusal(flow, decision)
        outcome = flow_state.progress.outcome(decision.answer.status, None, "upstream")
        self._audit_log.write(decision, outcome, flow.client_conn.peername)

    def lost(self, client: Client) -> None:
        """End the exchanges of a client that was cut off because something of ours failed."""
        for flow_state in self._states.lost(client):
            self.end(flow_state, flow_state.progress.outcome(None, "the gateway failed at the protocol"))

    def stopped(self) -> None:
        """End all exchanges: the gateway stops."""
        for flow_state in self._states.live():
            self.end(flow_state, flow_state.progress.outcome(None, "the gateway was stopped"))

    def _finish(self, flow: http.HTTPFlow, error: str | None, failed: int | None = None) -> None:
        if (flow_state := self._states.get(flow)) is not None and flow_state.grant is not None:
            status = failed or (flow.response.status_code if flow.response else None)
            outcome = flow_state.progress.outcome(status, error, "upstream" if failed else None)
            mark_end(flow, self.end(flow_state, outcome), outcome, flow_state.take_bodies())

    def end(self, flow_state: FlowState, outcome: Outcome) -> Decision | None:
        """Write down how a granted exchange has ended, once. Return what was decided at last."""
        decision: Decision | None = flow_state.decision
        if not isinstance(decision, Forward) or flow_state.progress.stage == "done":
            return None
        if (why := flow_state.progress.withdrawn) is not None:
            decision = Deny(why.code, why.detail, decision.style, decision.facts)
        flow_state.log()
        self._audit_log.write(decision, outcome, flow_state.client.peername)
        self._states.retire(flow_state)
        return decision
