"""The resources that this process uses."""

from __future__ import annotations

from prometheus_client.process_collector import ProcessCollector

from .metrics import FAMILIES, Snapshot

_COLLECTOR = ProcessCollector(registry=None)


def process_figures() -> Snapshot:
    """Return the figures of this process; empty on systems without `/proc`."""
    found: Snapshot = {}
    for metric in _COLLECTOR.collect():
        for sample in metric.samples:
            if sample.name in FAMILIES:
                found[sample.name] = [[[], sample.value]]
    return found
