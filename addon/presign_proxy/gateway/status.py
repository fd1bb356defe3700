"""Readiness and metrics of one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from ..config.live import LiveConfig
from ..config.reload import Reloader
from ..core.way_out import WayOut
from ..limits.limiter import Limiter
from ..observe.audit_log import AuditLog
from ..observe.metrics import Snapshot
from ..observe.process import process_figures
from ..observe.under_way import Listing, Running, listing
from .admission import Admission
from .lifecycle import SERVING, Lifecycle, line_of


class Adapter(Protocol):
    """A way for requests through the gateway."""

    @property
    def in_flight(self) -> int:
        """How many granted requests have not ended."""
        ...

    def running(self) -> list[Running]:
        """Return them, for an operator."""
        ...


class Status:
    """Reads the state of a gateway's parts on request; it changes none of them."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        live_config: LiveConfig,
        reloader: Reloader,
        limiter: Limiter,
        audit_log: AuditLog,
        admission: Admission,
        lookups: Callable[[], Snapshot],
        clients: Callable[[], tuple[int, int]],
    ) -> None:
        """
        Args:
            lookups: the metrics of the resolver.
            clients: how many client connections are open, and how many may be.
        """
        self._lifecycle = lifecycle
        self._live_config = live_config
        self._reloader = reloader
        self._limiter = limiter
        self._audit_log = audit_log
        self._admission = admission
        self._lookups = lookups
        self.clients = clients
        self.adapters: list[Adapter] = []
        self._build = [_version("presign-proxy"), _version("mitmproxy")]

    # -- readiness ------------------------------------------------------------------------------------

    def readiness(self) -> tuple[bool, str]:
        """Return whether requests should be sent here, and why, in words that hold no secret."""
        if self._lifecycle.stage != "serving":
            return False, self._lifecycle.stage
        if obstacle := self._obstacle():
            return False, obstacle
        return True, self._hints() or SERVING

    def ready(self) -> tuple[bool, str]:
        """Return whether presigned requests are served, and a line about it for a balancer or a person."""
        return line_of(self.readiness())

    def _obstacle(self) -> str:
        """Return why presigned requests are refused; empty while they are served."""
        if self._live_config.registry is None:
            return "no usable configuration"
        return self._admission.obstacle or self._audit_log.obstacle

    def _hints(self) -> str:
        """Return what to mend though requests are served.

        A broken change keeps the last good configuration in force, and so the gateway in rotation: every
        gateway reads the same broken file, and a balancer that took them all out would end the service.
        """
        now = time.monotonic()
        found = [self._live_config.trouble(now), self._reloader.trouble(now)]
        return ", ".join(filter(None, [*found, "limit store down" if self._limiter.is_down else ""]))

    def under_way(self) -> Listing:
        """List the granted requests that have not ended."""
        return listing(one for adapter in self.adapters for one in adapter.running())

    # -- metrics --------------------------------------------------------------------------------------

    def figures(self) -> Snapshot:
        """Return the metrics of this process."""
        return (
            self._figures_of_requests()
            | self._figures_of_the_configuration()
            | {"presign_ready": [[[], int(self.readiness()[0])]], "presign_build_info": [[self._build, 1]]}
            | {"presign_workers": [[[], 1]], "presign_workers_wanted": [[[], 1]]}
            | self._lookups()
            | self._audit_log.figures()
            | process_figures()
        )

    def _figures_of_requests(self) -> Snapshot:
        clients, max_clients = self.clients()
        limiter = self._limiter
        outcomes = ("admitted", "limited", "failed", "opened")
        return {
            "presign_in_flight": [[[], sum(one.in_flight for one in self.adapters)]],
            "presign_client_connections": [[[], clients]],
            "presign_client_connections_max": [[[], max_clients]],
            "presign_limits_total": [[[outcome], limiter.counts[outcome]] for outcome in outcomes],
            "presign_store_failures_total": [[[], limiter.counts["store_failures"]]],
            "presign_store_up": [[[limiter.kind], 0 if limiter.is_down else 1]],
        }

    def _figures_of_the_configuration(self) -> Snapshot:
        live_config = self._live_config
        registry, loaded, newer = live_config.registry, live_config.loaded, live_config.newer
        return {
            "presign_config_reloads_total": [
                [[result], count] for result, count in live_config.reloads.items()
            ],
            "presign_config_last_success_timestamp_seconds": [[[], live_config.loaded_at]],
            "presign_config_stale": [[[], int(live_config.stale)]],
            "presign_config_stale_since_timestamp_seconds": [[[], newer.since if newer else 0]],
            "presign_config_version_info": [[[loaded.record.version], 1]] if loaded else [],
            "presign_config_files_hang": [[[], int(bool(self._reloader.trouble(time.monotonic())))]],
            "presign_connections_lacking_secrets": [[[], len(live_config.lacking)]],
            "presign_connections": [[[], len(registry.connections) if registry else 0]],
            "presign_upstream_proxy_info": _proxies(registry.destinations.way_out) if registry else [],
        }


def _proxies(way_out: WayOut) -> list[list[Any]]:
    found = (("https", way_out.https), ("http", way_out.http))
    return [[[scheme, str(proxy)], 1] for scheme, proxy in found if proxy is not None]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""  # it runs from a checkout
