"""What the gateway says of a source whose host is an address: known offline, because no resolver is asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.decision import Decision, Forward, denial
from ..errors import Denied
from ..http.hosts import parse_address
from ..http.networks import Network, judge


def judged(decision: Decision) -> Decision:
    """Return the decision; a denial if the gateway grants the source, and then refuses its address.

    A source with a name is resolved by the gateway alone, when it is asked for.
    """
    if not isinstance(decision, Forward) or decision.resolve is None:
        return decision
    denied = refusal_of(decision.origin.host, decision.resolve)
    return decision if denied is None else denial(denied, decision.style, decision.facts)


def refusal_of(host: str, allowed: Sequence[Network]) -> Denied | None:
    """Return why the gateway refuses a source at this host; None if it does not, or if the host is a name."""
    address = parse_address(host.strip("[]"))
    if address is None:
        return None
    try:
        judge((address.compressed,), allowed)
    except Denied as denied:
        return denied
    return None
