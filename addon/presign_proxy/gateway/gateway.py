"""The running gateway, without the program that its requests come through."""

from __future__ import annotations

import ssl
from typing import Protocol

from ..config.live import LiveConfig, Reloaded
from ..config.reload import Reloader
from ..limits.limiter import Limiter
from ..observe.audit_log import AuditLog
from .admin_listener import AdminListener
from .admission import Admission
from .apply_config import Adoption, Front
from .credential_fetch import Fetcher
from .destination import DestinationJudge
from .lifecycle import Lifecycle
from .status import Status
from .token_endpoint import HttpEndpoint


class Program(Protocol):
    """What the gateway asks of the program that it runs in."""

    def own_ports(self) -> set[int]:
        """Return the ports on which the program listens, but for the admin listener."""
        ...

    def upstream_tls(self) -> ssl.SSLContext:
        """Return what verifies the certificates of upstreams."""
        ...

    def open_clients(self) -> int:
        """Return how many client connections are open."""
        ...

    def is_listening(self) -> bool:
        """Return whether the program accepts client connections."""
        ...


class Gateway:
    """Builds the parts of a gateway, in the order of their dependence, and owns them."""

    def __init__(self, program: Program, front: Front) -> None:
        """Args: front: answers TLS for the gateway's own names."""
        self._program = program
        self.lifecycle = Lifecycle()
        self.limiter = Limiter()
        self.audit_log = AuditLog()
        self.live_config = LiveConfig()
        self.reloader = Reloader(self.live_config)
        self.destinations = DestinationJudge(self.live_config, self.limiter, program.own_ports)
        self._fetcher = Fetcher(endpoint=HttpEndpoint(self.destinations.endpoint, program.upstream_tls))
        self.admission = Admission(
            self.live_config, self.destinations, self.limiter, self._fetcher, self.audit_log, self.lifecycle
        )
        self.status = Status(
            self.lifecycle,
            self.live_config,
            self.reloader,
            self.limiter,
            self.audit_log,
            self.admission,
            self.destinations.resolver.figures,
            self._clients,
        )
        self.admin = AdminListener(self.live_config, self.status)
        self.adoption = Adoption(self.admin, self.audit_log, self.limiter, self._fetcher, front)

    def _clients(self) -> tuple[int, int]:
        most = self.live_config.max_clients if self._program.is_listening() else 0
        return self._program.open_clients(), most

    def start(self) -> None:
        """Begin to watch files and to look names up, and serve as far as nothing hinders it."""
        self.reloader.start()
        self.destinations.start()
        self.lifecycle.serve()

    def load(self, path: str, unsigned: str) -> None:
        """Load the configuration that the options ask for, unless it was loaded for these before.

        Args:
            path: the option `presign_config`.
            unsigned: the option `presign_unsigned`.

        Raises ConfigError; the configuration that was loaded before stays.
        """
        if self.live_config.load(path, unsigned, self.adoption):
            self.reloader.watch()

    async def reload(self, unsigned: str, still: float) -> Reloaded:
        """Read the configuration again; a broken one leaves the last good one in force.

        Args:
            unsigned: the option `presign_unsigned`.
            still: seconds for which the files have not changed.
        """
        outcome = await self.live_config.reload(unsigned, still, self.adoption)
        if outcome.is_in_force:
            self.reloader.watch()
        return outcome

    def request_reload(self) -> None:
        """Read the configuration again soon, and run the programs that print secrets again."""
        self.live_config.rerun_programs()
        self.reloader.asked = True

    async def reloaded(self) -> tuple[bool, str]:
        """Read the configuration again. Return whether it is in force now, and why it is not."""
        self.request_reload()
        await self.reloader.settled()
        return not self.live_config.stale, self.status.readiness()[1]

    async def stop_counting(self) -> None:
        """Give all slots back, and leave the limit store."""
        await self.limiter.close()

    def stop_reading(self) -> None:
        """End the threads that read files, run programs and look names up."""
        self.reloader.close()
        self._fetcher.close()
        self.live_config.close()
        self.destinations.close()

    def close(self) -> None:
        """Close the admin listener and, last of all, the audit log: all exchanges must have ended."""
        self.admin.close()
        self.audit_log.close()
