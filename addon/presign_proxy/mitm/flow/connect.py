"""CONNECT on the flow path: it carries no presign, and with `unsigned: deny` it leads to known hosts only."""

from __future__ import annotations

from mitmproxy import http

from ...core import tunnel
from ...core.answers import Answer
from ...core.decision import PASS, Deny, Facts
from ...core.redact import redact
from ...core.registry import Registry
from ...gateway.request_id import new_request_id
from ...observe.audit_record import Outcome
from .arrival import arrival_of
from .commit import Committer
from .incoming_request import request_of
from .response import response_of
from .state import FlowStates


def decide_connect(
    flow: http.HTTPFlow, registry: Registry | None, states: FlowStates, committer: Committer
) -> None:
    """Answer a CONNECT, or let it pass. Until its state says that it may pass, the stream refuses it."""
    answer = _answer(flow, registry, states, committer)
    flow_state = states.get(flow)
    if answer is not None:
        flow.response = response_of(answer, close=True)
    elif flow_state is not None:
        flow_state.pass_through(PASS)


def _answer(
    flow: http.HTTPFlow, registry: Registry | None, states: FlowStates, committer: Committer
) -> Answer | None:
    arrival = arrival_of(flow.request, tunnelled=False)
    request = request_of(flow, arrival)._replace(target=b"/")
    code = tunnel.refused(registry, request)
    if flow.request.data.method != b"CONNECT" or flow.request.data.path:
        code = "malformed"  # mitmproxy tunnels in any case of letters, wherever the target points
    if code is None:
        return None
    detail = f"CONNECT to {request.origin.host}:{request.origin.port}"
    decision = Deny(code, detail, "json", Facts(new_request_id(), "CONNECT", request.client))
    answer = decision.answer
    if code == "unsigned":
        answer = answer._replace(reason=tunnel.REASON)
    flow.request.data.headers = http.Headers(redact(b"/", request.fields).fields)
    committer.record(flow, states.get(flow), decision, Outcome(status=answer.status))
    return answer
