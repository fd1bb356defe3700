"""The audit record: one line per decision, with the request, the answer and the reason."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..core.decision import Deny, Facts, Forward
from ..http.client_address import shown
from ..units import instant_in_milliseconds

GONE: Final = "the client went away"
"""The `error` of an exchange whose client went away."""


class Outcome(NamedTuple):
    """The end of a request. Bytes count bodies only; durations are in seconds."""

    status: int | None = None
    upstream_status: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    duration: float = 0.0
    code: str | None = None
    error: str | None = None
    upstream_duration: float | None = None
    """Seconds until the head of the upstream's answer; None if there was none."""


def record(decision: Forward | Deny, outcome: Outcome, now: float) -> dict[str, Any]:
    """Return the audit record of a decision, ready for JSON.

    It contains no secret, no signature and no query value. It contains the path only if the signature was
    good or the scheme is source.
    """
    facts, waited = decision.facts, outcome.upstream_duration
    moment = round(now, 3)
    denied = decision if isinstance(decision, Deny) else None
    return {
        "time": moment,
        "at": instant_in_milliseconds(moment),
        "request_id": facts.request_id,
        "decision": "deny" if denied else "forward",
        **_who(facts),
        "code": denied.code if denied else outcome.code,
        "detail": denied.detail if denied else outcome.error,
        "status": outcome.status,
        "upstream_status": outcome.upstream_status,
        "bytes_in": outcome.bytes_in,
        "bytes_out": outcome.bytes_out,
        "duration": round(outcome.duration, 4),
        "upstream_duration": None if waited is None else round(waited, 4),
    }


def _who(facts: Facts) -> dict[str, Any]:
    return {
        "scheme": facts.scheme,
        "carrier": facts.carrier,
        "connection": facts.connection,
        "key": facts.key,
        "signature": facts.signature,
        "id": facts.id,
        "method": facts.method,
        "path": facts.path if facts.verified or facts.scheme == "source" else None,
        "client": shown(facts.client),
    }


class Throttle:
    """A limit for records without a good signature: so many a second. It counts the records that it drops.

    Without it, anyone who can send requests could fill the disk.
    """

    __slots__ = ("_left", "_limit", "_second", "_suppressed")

    def __init__(self, limit: int = 50) -> None:
        self._limit = limit
        self._second = 0
        self._left = limit
        self._suppressed = 0

    def admit(self, record: dict[str, Any], *, verified: bool, now: float) -> dict[str, Any] | None:
        if verified:
            return record
        if int(now) != self._second:
            self._second, self._left = int(now), self._limit
        if self._left <= 0:
            self._suppressed += 1
            return None
        self._left -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return {**record, "suppressed_before": suppressed} if suppressed else record
