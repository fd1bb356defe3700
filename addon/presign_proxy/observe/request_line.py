"""The texts about one request for people: the line in mitmdump's output, and the comment on a flow.

Neither contains a secret, a signature or a query value. The path is in the line only if the signature was
good or the scheme is source.
"""

from __future__ import annotations

from typing import Any

from ..core.decision import Deny, Facts, Forward
from ..http.client_address import shown
from ..units import duration, instant, printable, size, span
from .audit_record import Outcome

Peer = tuple[Any, ...] | None
"""Address and port of a client, from its socket; None for a request that came without a socket."""


def line_of_grant(forward: Forward, outcome: Outcome, peer: Peer, now: int) -> str:
    """`127.0.0.1:51234: GET conn_openai/v1/models 200 1.2k 85ms (key k1, query, expires in 59m)`.

    If the request failed, the line ends with the code and the reason. Without an answer, the status is `-`.
    """
    facts = forward.facts
    status = outcome.status or "-"
    took = f"{size(outcome.bytes_out)} {duration(outcome.duration)}"
    reasons = [printable(why) for why in (outcome.code, outcome.error) if why]
    return ": ".join(
        [f"{_place(peer)}: {_asked(facts)} {status} {took} ({_grant(facts, now)})", *reasons],
    )


def line_of_refusal(deny: Deny, outcome: Outcome, peer: Peer, now: int, suppressed: int) -> str:
    """`127.0.0.1:51234: GET conn_openai/v1/models 403 refused: expired: expired 12 s ago (…, req_…)`.

    Args:
        suppressed: the number of refusals before this one that got no line.
    """
    facts = deny.facts
    known = ", ".join([*filter(None, [_grant(facts, now)]), facts.request_id])
    more = f" [{suppressed} refusals before it are not shown]" if suppressed else ""
    status = outcome.status or "-"
    return f"{_place(peer)}: {_asked(facts)} {status} refused: {_reason(deny)} ({known}){more}"


def comment_of_grant(forward: Forward, now: int) -> str:
    facts = forward.facts
    text = f"presign: granted by {forward.connection.id} ({_grant(facts, now)}"
    return f"{text}, at {instant(facts.expires)})" if facts.expires else f"{text})"


def comment_of_refusal(deny: Deny, now: int) -> str:
    facts = deny.facts
    known = [facts.connection, _grant(facts, now), facts.request_id]
    return f"presign: refused: {_reason(deny)} ({', '.join(filter(None, known))})"


def _reason(deny: Deny) -> str:
    return f"{deny.code}: {printable(deny.detail)}"


def _place(peer: Peer) -> str:
    if peer is None:
        return "-"
    host = printable(shown(str(peer[0])))
    return f"[{host}]:{peer[1]}" if ":" in host else f"{host}:{peer[1]}"


def _asked(facts: Facts) -> str:
    """Return method, connection and path."""
    method, path = printable(facts.method), printable(facts.path or "") if facts.verified else ""
    if facts.scheme == "source":
        path = printable(facts.path or "")
        return " ".join(filter(None, [method, facts.connection, path]))
    where = f"{facts.connection or ''}{path}"
    return f"{method} {where}" if where else method


def _grant(facts: Facts, now: int) -> str:
    """Return key, id, carrier and expiry; before verification, only the key and the carrier."""
    found = [f"key {facts.key}"] if facts.key else []
    found += [f"id {facts.id}"] if facts.id and facts.verified else []
    found += [facts.carrier] if facts.carrier else []
    if facts.verified and facts.expires is not None:
        found.append(_expiry(facts.expires, now))
    return ", ".join(found)


def _expiry(expires: int, now: int) -> str:
    if not expires:
        return "never expires"
    return f"expires in {span(expires - now)}" if expires >= now else f"expired {span(now - expires)} ago"
