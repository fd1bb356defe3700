"""The health and figures of one process, and its admin listener if it has one."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..config.live import LiveConfig
from ..config.reload import Reloader
from ..config.schema.config import AdminConfig, HostPort
from ..config_problems import ConfigError, Problem
from ..limits.limiter import Limiter
from ..observe.admin_server import PORT_PATIENCE, AdminServer, CannotListen, bound
from ..observe.audit_log import AuditLog
from ..observe.metrics import Snapshot
from ..observe.process import process_figures
from .admission import Admission
from .lifecycle import Lifecycle, line_of

logger = logging.getLogger(__name__)


class Observer:
    """Reads the state of all parts of a gateway on request, and changes none of them."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        live_config: LiveConfig,
        limiter: Limiter,
        audit_log: AuditLog,
        in_flight: Callable[[], int],
        clients: Callable[[], tuple[int, int]],
        lookups: Callable[[], Snapshot],
        hangs: Callable[[], str],
    ) -> None:
        """
        Args:
            in_flight: returns how many granted requests of all adapters have not ended.
            clients: returns how many client connections are open, and how many may be.
            lookups: returns the figures of the look-ups of sources.
            hangs: returns which watched files do not answer; empty if all do.
        """
        self._lifecycle = lifecycle
        self._live_config = live_config
        self._limiter = limiter
        self._audit_log = audit_log
        self._in_flight = in_flight
        self.clients = clients
        self._lookups = lookups
        self._hangs = hangs
        self._listening: tuple[HostPort, AdminServer] | None = None
        self._build = [_version("presign-proxy"), _version("mitmproxy")]
        self.listens = True
        """True if this process has the admin listener. A worker has none: its parent has it."""

    @property
    def port(self) -> int | None:
        """The port of the admin listener, in whatever process it is: no request may lead there."""
        address = self.address
        return address.port if address else None

    @property
    def address(self) -> HostPort | None:
        """The address of the admin listener in the configuration in force."""
        loaded = self._live_config.loaded
        admin = loaded.config.admin if loaded else None
        return admin.listen if admin else None

    # -- health ---------------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Return whether presigned requests are served, and a line about it."""
        return line_of(self._lifecycle.ready())

    # -- figures --------------------------------------------------------------------------------------

    def figures(self) -> Snapshot:
        """Return the counts and the state of this process."""
        live_config, limiter = self._live_config, self._limiter
        counts = limiter.counts
        outcomes = ("admitted", "limited", "failed", "opened")
        registry = live_config.registry
        clients, max_clients = self.clients()
        found: Snapshot = {
            "presign_in_flight": [[[], self._in_flight()]],
            "presign_client_connections": [[[], clients]],
            "presign_client_connections_max": [[[], max_clients]],
            "presign_limits_total": [[[outcome], counts[outcome]] for outcome in outcomes],
            "presign_store_failures_total": [[[], counts["store_failures"]]],
            "presign_store_up": [[[limiter.kind], 0 if limiter.is_down else 1]],
            "presign_config_reloads_total": [
                [[result], count] for result, count in live_config.reloads.items()
            ],
            "presign_config_last_success_timestamp_seconds": [[[], live_config.loaded_at]],
            "presign_config_stale": [[[], int(live_config.stale)]],
            "presign_config_stale_since_timestamp_seconds": [
                [[], live_config.newer.since if live_config.newer else 0]
            ],
            "presign_config_version_info": [[[live_config.loaded.record.version], 1]]
            if live_config.loaded
            else [],
            "presign_config_files_hang": [[[], int(bool(self._hangs()))]],
            "presign_connections_lacking_secrets": [[[], len(live_config.lacking)]],
            "presign_connections": [[[], len(registry.connections) if registry else 0]],
            "presign_ready": [[[], int(self.ready()[0])]],
            "presign_build_info": [[self._build, 1]],
        }
        return found | self._lookups() | self._audit_log.figures() | process_figures()

    async def _figures(self) -> Snapshot:
        return self.figures()

    # -- the listener -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def moving(self, wanted: AdminConfig | None, path: Path) -> Iterator[None]:
        """Listen on the address of a new configuration, unless the block fails: then nothing changes.

        Args:
            path: of the configuration, for its errors.

        Raises ConfigError.
        """
        address = wanted.listen if wanted and self.listens else None
        if address == (self._listening[0] if self._listening else None):
            yield
            return
        try:
            sockets = self._bound(address) if address else []
        except CannotListen as error:
            raise ConfigError([Problem(str(path), 0, 0, "admin.listen", str(error))]) from None
        try:
            yield
        except BaseException:
            for one in sockets:
                one.close()
            raise
        self.close()
        if address is not None:
            server = AdminServer(sockets, address.host, self._figures, self.ready)
            self._listening = address, server

    def _bound(self, address: HostPort) -> list[socket.socket]:
        """Bind an address. Raises CannotListen.

        At the start it waits, because the last owner of the port may be ending. A failed reload is repeated.
        """
        until = time.monotonic() + (0 if self._live_config.loaded else PORT_PATIENCE)
        told = False
        while True:
            try:
                return bound(*address)
            except CannotListen as error:
                if not error.is_taken or time.monotonic() > until:
                    raise
                if not told:
                    logger.warning("presign: admin.listen: %s; it is tried again", error)
                told = True
            time.sleep(0.1)  # no client is served yet that would have to wait

    def close(self) -> None:
        if self._listening is not None:
            self._listening[1].close()
            self._listening = None


def obstacle(admission: Admission, live_config: LiveConfig, audit_log: AuditLog) -> str:
    """Return why presigned requests are not served; empty if they are."""
    if live_config.registry is None:
        return "no usable configuration"
    return admission.obstacle or audit_log.obstacle


def hints(live_config: LiveConfig, limiter: Limiter, reloader: Reloader) -> str:
    """Return what the operator should repair although requests are served.

    A broken change is only a hint here: the last good configuration stays in force, and the gateway stays in
    rotation. Every gateway reads the same broken file, and a balancer that removed all of them would end the
    service.
    """
    now = time.monotonic()
    found = [live_config.trouble(now), reloader.trouble(now), "limit store down" if limiter.is_down else ""]
    return ", ".join(filter(None, found))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""  # it runs from a checkout
