"""Render a snapshot as the text that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .metrics import BUCKETS, FAMILIES, Family, Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS: Final = (*map(str, BUCKETS), "+Inf")


def render(snapshot: Snapshot) -> bytes:
    """Return a snapshot in the text exposition format. Unknown metrics are left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Taken(snapshot))
    return generate_latest(registry)


class _Taken(Collector):
    """A collector of one snapshot, for a registry that lives for one answer."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for name, family in FAMILIES.items():
            series = self._snapshot.get(name)
            if series is not None:
                yield _metric(name, family, series)


def _metric(name: str, family: Family, series: list[list[Any]]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        for labels, (counts, total) in series:
            buckets = list(zip(_BOUNDS, map(float, accumulate(counts)), strict=True))
            histogram.add_metric(labels, buckets, total)
        return histogram
    plain: CounterMetricFamily | GaugeMetricFamily
    if family.kind == "counter":
        plain = CounterMetricFamily(name, family.help, labels=family.labels)
    else:
        plain = GaugeMetricFamily(name, family.help, labels=family.labels)
    for labels, value in series:
        plain.add_metric(labels, value)
    return plain
