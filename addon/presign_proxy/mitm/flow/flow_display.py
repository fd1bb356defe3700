"""What people see of a flow in a UI, a dump or another addon: nothing usable, and what was decided."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from mitmproxy import http

from ...core.decision import Decision, Deny, Forward
from ...core.redact import Redacted, redact
from ...observe.audit_record import Outcome
from ...observe.request_line import comment_of_grant, comment_of_refusal
from ...signing.disclosure import discloses
from .raw_message import headers_of
from .shown_bodies import MAX_SHOWN, ShownBodies


def hide(flow: http.HTTPFlow) -> None:
    """Take everything usable off a refused request before other addons see it."""
    data = flow.request.data
    hidden = Redacted(b"/[redacted]", ())
    with contextlib.suppress(Exception):
        hidden = redact(data.path, data.headers.fields)
    data.path, data.headers = hidden.target, headers_of(hidden.fields)
    # A token in the wrong place was meant for another place, where it may be good.
    if discloses(data.method):
        data.method = b"[redacted]"
    if discloses(data.authority) or discloses(data.host.encode("utf-8", "replace")):
        data.authority, data.host = b"", "redacted"


def mark_grant(flow: http.HTTPFlow, forward: Forward) -> None:
    flow.comment, flow.marked = comment_of_grant(forward, int(time.time())), ":lock:"


def mark_refusal(flow: http.HTTPFlow, deny: Deny) -> None:
    flow.comment, flow.marked = comment_of_refusal(deny, int(time.time())), ":no_entry:"


def mark_preflight(flow: http.HTTPFlow) -> None:
    flow.comment, flow.marked = "presign: the gateway answered this preflight itself", ":question:"


def mark_end(
    flow: http.HTTPFlow, decision: Decision | None, outcome: Outcome, bodies: ShownBodies | None
) -> None:
    """Put what an exchange has come to on its flow: its bodies, and in the comment what they are not.

    Args:
        decision: a refusal where what was granted was refused after all.
        bodies: None if there is no UI to show them.
    """
    if isinstance(decision, Deny):
        mark_refusal(flow, decision)
    why = [outcome.code, outcome.error] if isinstance(decision, Forward) else []
    notes = [": ".join(filter(None, why)), *(_show_bodies(flow, bodies) if bodies is not None else ())]
    flow.comment = "; ".join(filter(None, [flow.comment, *notes]))


def _show_bodies(flow: http.HTTPFlow, bodies: ShownBodies) -> Iterator[str]:
    """Put bodies on the messages that went through without being kept; yield what is missing of them."""
    for name, message, body in (
        ("request", flow.request, bodies.request),
        ("response", flow.response, bodies.response),
    ):
        if message is None or message.data.content is not None:
            continue
        if not body.is_cut:
            message.data.content = body.content()
        elif b"content-encoding" in [field.lower() for field, _ in message.data.headers.fields]:
            # Half of what is compressed cannot be read.
            yield f"the {name} body of {body.size} bytes is compressed, and too long to be shown"
        else:
            message.data.content = body.content()
            yield f"of the {name} body of {body.size} bytes the first {MAX_SHOWN} are shown"
