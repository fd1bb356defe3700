"""The metrics, and how the counts of several processes are added: plain values, ready for JSON.

A snapshot maps the name of a metric to its series: `[[label values, value], …]`. The value of a histogram is
`[[count of each bucket, …, count above the last bound], sum]`. Each process makes its own snapshot; processes
share no memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

Snapshot = dict[str, list[list[Any]]]

BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
"""The upper bounds of the histograms, in seconds: a model that streams its answer takes minutes."""

MAX_CONNECTIONS: Final = 1000
"""The most connections with series of their own in one process. Further ones are counted together."""
OTHER: Final = "other"


class Family(NamedTuple):
    """One metric.

    Args:
        merge: how the gauges of several processes become one.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "max", "min"] = "sum"


FAMILIES: Final[Mapping[str, Family]] = {
    "presign_requests_total": Family(
        "counter",
        "Requests that were decided on: forwarded or denied.",
        ("decision", "code", "scheme", "carrier", "status"),
    ),
    "presign_connection_requests_total": Family(
        "counter",
        "Requests with a good signature, by connection.",
        ("connection", "decision", "code"),
    ),
    "presign_passed_total": Family("counter", "Requests without a presign that were let through."),
    "presign_preflights_total": Family("counter", "Preflights of browsers that the gateway answered itself."),
    "presign_request_duration_seconds": Family(
        "histogram", "From the head of a granted request to the end of its answer."
    ),
    "presign_upstream_response_seconds": Family(
        "histogram", "From the head of a granted request to the head of the upstream's answer."
    ),
    "presign_bytes_total": Family("counter", "Bytes of the bodies of granted requests.", ("direction",)),
    "presign_in_flight": Family("gauge", "Granted requests whose answer has not ended."),
    "presign_client_connections": Family("gauge", "Client connections that are open."),
    "presign_client_connections_max": Family("gauge", "Client connections that may be open."),
    "presign_source_lookups": Family("gauge", "Names of sources that are being looked up."),
    "presign_source_lookups_refused_total": Family(
        "counter", "Requests whose source was not looked up, because too many others were."
    ),
    "presign_limits_total": Family(
        "counter", "Requests that were checked against limits, by outcome.", ("outcome",)
    ),
    "presign_limited_total": Family(
        "counter", "Requests that were refused because a limit was reached.", ("kind",)
    ),
    "presign_store_failures_total": Family("counter", "Calls of the limit store that failed."),
    "presign_store_up": Family("gauge", "Whether the limit store answers.", ("store",), "min"),
    "presign_config_reloads_total": Family(
        "counter", "Reloads of changed configurations, by result.", ("result",)
    ),
    "presign_config_last_success_timestamp_seconds": Family(
        "gauge", "When the configuration that is in force was loaded.", (), "min"
    ),
    "presign_config_stale": Family(
        "gauge", "1 while the files on disk are broken and older ones are in force.", (), "max"
    ),
    "presign_config_stale_since_timestamp_seconds": Family(
        "gauge", "Since when files on disk are newer than those in force; 0 while they are not.", (), "max"
    ),
    "presign_config_version_info": Family("gauge", "Which configuration is in force.", ("version",), "max"),
    "presign_config_files_hang": Family(
        "gauge", "1 while a file system with files of the configuration does not answer.", (), "max"
    ),
    "presign_connections_lacking_secrets": Family(
        "gauge", "Secrets that are not available; their connections are answered 503.", (), "max"
    ),
    "presign_connections": Family("gauge", "Connections of the registry.", (), "max"),
    "presign_workers": Family("gauge", "Processes that serve."),
    "presign_workers_wanted": Family("gauge", "Processes that are to serve."),
    "presign_ready": Family("gauge", "Whether presigned requests are served.", (), "min"),
    "presign_audit_lines_total": Family("counter", "Audit lines that were written."),
    "presign_audit_dropped_total": Family("counter", "Audit lines that are lost, because too many waited."),
    "presign_audit_suppressed_total": Family(
        "counter", "Refusals before a good signature that got no line, because there were too many a second."
    ),
    "presign_audit_queued": Family("gauge", "Audit lines that wait to be written."),
    "presign_audit_up": Family("gauge", "Whether the audit log can be written.", (), "min"),
    "presign_upstream_proxy_info": Family(
        "gauge", "Which proxies upstreams are reached through.", ("scheme", "proxy"), "max"
    ),
    "presign_build_info": Family("gauge", "Which release this is.", ("version", "mitmproxy"), "max"),
    "process_cpu_seconds_total": Family("counter", "Processor time, user and system."),
    "process_resident_memory_bytes": Family("gauge", "Memory in use."),
    "process_open_fds": Family("gauge", "File descriptors in use."),
    "process_max_fds": Family("gauge", "File descriptors allowed to a process.", (), "min"),
    "process_start_time_seconds": Family("gauge", "When the (oldest) process was started.", (), "min"),
}
"""All metrics. The names and labels are public: docs/observing.md."""


def add(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Add the snapshots of several processes. Unknown metrics are left out."""
    merged: dict[str, dict[tuple[str, ...], Any]] = {}
    for snapshot in snapshots:
        for name, series in snapshot.items():
            family = FAMILIES.get(name)
            if family is None:
                continue
            values = merged.setdefault(name, {})
            for labels, value in series:
                key = tuple(labels)
                values[key] = _merged(family, values[key], value) if key in values else value
    return {name: [[list(key), value] for key, value in series.items()] for name, series in merged.items()}


def _merged(family: Family, one: Any, other: Any) -> Any:
    if family.kind == "histogram":
        counts = [mine + theirs for mine, theirs in zip(one[0], other[0], strict=True)]
        return [counts, one[1] + other[1]]
    if family.kind == "counter" or family.merge == "sum":
        return one + other
    return max(one, other) if family.merge == "max" else min(one, other)


class Totals:
    """The totals of workers that come and go. Counts of an ended worker stay: a counter never goes back."""

    def __init__(self) -> None:
        self._living: dict[Hashable, Snapshot] = {}
        self._gone: Snapshot = {}
        self._named: set[str] = set()

    def update(self, worker: Hashable, snapshot: Snapshot) -> None:
        """Store the newest snapshot of a worker.

        Args:
            worker: a name that no other process has ever had.
        """
        self._living[worker] = self._folded(snapshot)

    def lost(self, worker: Hashable) -> None:
        """Keep the counters of a worker that has ended, and drop its gauges."""
        last = self._living.pop(worker, None)
        if last is not None:
            counted = {name: series for name, series in last.items() if _is_counted(name)}
            self._gone = add([self._gone, counted])

    def total(self, *more: Snapshot) -> Snapshot:
        """Return the sum of all workers, ended ones included, and of `more`."""
        return add([self._gone, *self._living.values(), *more])

    def _folded(self, last: Snapshot) -> Snapshot:
        """Return a snapshot in which connections beyond the limit are counted as `OTHER`.

        Each worker may name other connections, so `MAX_CONNECTIONS` is applied to all of them together. The
        name under which a connection counts is decided once, when it first appears. If the end of a worker
        changed it, its counter would go back.
        """
        name = "presign_connection_requests_total"
        series = []
        for (connection, *rest), value in last.get(name, ()):
            if connection not in self._named and len(self._named) >= MAX_CONNECTIONS:
                connection = OTHER
            self._named.add(connection)
            series.append([[connection, *rest], value])
        return add([{**last, name: []}, *({name: [one]} for one in series)])


def _is_counted(name: str) -> bool:
    return name in FAMILIES and FAMILIES[name].kind != "gauge"
