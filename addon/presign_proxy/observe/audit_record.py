"""The audit record: one line per decision, with the request, the answer and the reason."""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Final, NamedTuple

from ..core.decision import Deny, Forward
from ..http.client_address import shown
from ..http.message import Origin
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


def line(decision: Forward | Deny, outcome: Outcome, now: float, suppressed_before: int = 0) -> str:
    """Return the audit record of a decision: a JSON object in ASCII, without a line end.

    It contains no secret, no signature and no query value. It contains the path only if the signature was
    good or the scheme is source. `docs/audit.schema.json` describes the fields.

    It is written as text, because every request pays for it: a dictionary and a general encoder take twice
    the time. All text in it goes through `_text`, so that no value can add a field or end the line.
    """
    facts = decision.facts
    kind, code, detail = "forward", outcome.code, outcome.error
    if isinstance(decision, Deny):
        kind, code, detail = "deny", decision.code, decision.detail
    upstream = "null" if isinstance(decision, Deny) else _origin(decision.origin)
    at = instant_in_milliseconds(now)
    path = facts.path if facts.verified or facts.scheme == "source" else None
    waited = outcome.upstream_duration
    suppressed = f',"suppressed_before":{suppressed_before}' if suppressed_before else ""
    return (
        f'{{"time":{round(now, 3)},"at":"{at}","request_id":{_text(facts.request_id)},"decision":"{kind}",'
        f'"scheme":{_text(facts.scheme)},"carrier":{_text(facts.carrier)},'
        f'"connection":{_text(facts.connection)},"key":{_text(facts.key)},'
        f'"signature":{_text(facts.signature)},"id":{_text(facts.id)},'
        f'"method":{_text(facts.method)},"path":{_text(path)},"upstream":{upstream},'
        f'"client":{_text(shown(facts.client))},'
        f'"code":{_text(code)},"detail":{_text(detail)},'
        f'"status":{_number(outcome.status)},"upstream_status":{_number(outcome.upstream_status)},'
        f'"bytes_in":{outcome.bytes_in},"bytes_out":{outcome.bytes_out},'
        f'"duration":{round(outcome.duration, 4)},'
        f'"upstream_duration":{"null" if waited is None else round(waited, 4)}{suppressed}}}'
    )


@lru_cache(maxsize=256)
def _origin(origin: Origin) -> str:
    return _text(str(origin))


def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring_ascii(value)


def _number(value: int | None) -> str:
    return "null" if value is None else str(int(value))


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

    def admit(self, *, verified: bool, now: float) -> int | None:
        """Return how many records were dropped before this one; None if this one is dropped too."""
        if verified:
            return 0
        if int(now) != self._second:
            self._second, self._left = int(now), self._limit
        if self._left <= 0:
            self._suppressed += 1
            return None
        self._left -= 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
