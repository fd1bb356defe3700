"""Count decisions: a few additions for each request, with any adapter."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

from ..core.decision import Deny, Forward
from .audit_record import Outcome
from .metrics import BUCKETS, MAX_CONNECTIONS, OTHER, Snapshot

LIMITS: Final = ("rate", "quota", "concurrency", "uses")
_CLASSES: Final = ("", "1xx", "2xx", "3xx", "4xx", "5xx")


class Histogram:
    """The number of observations in each of `BUCKETS`, and their sum."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(BUCKETS, value)] += 1
        self._sum += value

    @property
    def value(self) -> list[Any]:
        return [list(self._counts), self._sum]


class Meter:
    """The counts of one process.

    All labels have fixed sets of values, except the connection. At most `MAX_CONNECTIONS` of those are named,
    and only a request that was verified or granted can add one.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str, str, str], int] = {}
        self._connections: dict[tuple[str, str, str], int] = {}
        self._named: set[str] = set()
        self._limited = dict.fromkeys((*LIMITS, OTHER), 0)
        self._durations = Histogram()
        self._responses = Histogram()
        self._bytes_in = self._bytes_out = 0
        self.passed = 0
        """Requests without a presign that were let through."""
        self.preflights = 0
        """Preflights of browsers that the gateway answered itself."""
        self.suppressed = 0
        """Audit lines that were not written, because there were too many in a second."""

    def count(self, decision: Forward | Deny, outcome: Outcome) -> None:
        """Count a request that has ended."""
        facts = decision.facts
        if isinstance(decision, Deny):
            kind, code = "deny", decision.code
            if decision.limit is not None:
                self._count_limit(decision.limit)
        else:
            kind, code = "forward", outcome.code or ""
            self._durations.observe(outcome.duration)
            if outcome.upstream_duration is not None:
                self._responses.observe(outcome.upstream_duration)
            self._bytes_in += outcome.bytes_in
            self._bytes_out += outcome.bytes_out
        status = (outcome.status or 0) // 100
        name = _CLASSES[status] if status < 6 else OTHER
        key = (kind, code, facts.scheme or "", facts.carrier or "", name)
        self._requests[key] = self._requests.get(key, 0) + 1
        connection = facts.connection
        if connection is not None and (facts.verified or kind == "forward"):
            mine = (self._name(connection), kind, code)
            self._connections[mine] = self._connections.get(mine, 0) + 1

    def _count_limit(self, name: str) -> None:
        kind = name.partition("-")[0]
        self._limited[kind if kind in self._limited else OTHER] += 1

    def _name(self, connection: str) -> str:
        if connection in self._named:
            return connection
        if len(self._named) >= MAX_CONNECTIONS:
            return OTHER
        self._named.add(connection)
        return connection

    def snapshot(self) -> Snapshot:
        return {
            "presign_requests_total": _series(self._requests),
            "presign_connection_requests_total": _series(self._connections),
            "presign_passed_total": [[[], self.passed]],
            "presign_preflights_total": [[[], self.preflights]],
            "presign_request_duration_seconds": [[[], self._durations.value]],
            "presign_upstream_response_seconds": [[[], self._responses.value]],
            "presign_bytes_total": [[["in"], self._bytes_in], [["out"], self._bytes_out]],
            "presign_limited_total": [[[kind], count] for kind, count in self._limited.items()],
            "presign_audit_suppressed_total": [[[], self.suppressed]],
        }


def _series(counts: dict[Any, int]) -> list[list[Any]]:
    return [[list(labels), count] for labels, count in counts.items()]
