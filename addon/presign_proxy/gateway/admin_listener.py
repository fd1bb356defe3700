"""The admin listener of one process, which moves with the configuration."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ..config.live import LiveConfig
from ..config.schema.config import AdminConfig, HostPort
from ..config_problems import ConfigError, Problem
from ..observe.admin_server import PORT_PATIENCE, AdminServer, CannotListen, bound
from ..observe.metrics import Snapshot
from ..observe.under_way import Listing
from .status import Status

logger = logging.getLogger(__name__)


class AdminListener:
    """Serves the status of a gateway where its configuration says."""

    def __init__(self, live_config: LiveConfig, status: Status) -> None:
        self._live_config = live_config
        self._status = status
        self._listening: tuple[HostPort, AdminServer] | None = None
        self.is_here = True
        """True if this process has the listener. A worker of `presign serve` has none: its parent has it."""

    @contextlib.contextmanager
    def moving(self, wanted: AdminConfig | None, path: Path) -> Iterator[None]:
        """Listen where a new configuration says, unless the block fails: then all stays as it was.

        Args:
            path: of the configuration, for its errors.

        Raises ConfigError.
        """
        address = wanted.listen if wanted and self.is_here else None
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
            server = AdminServer(sockets, address.host, self._status.ready, self._figures, self._under_way)
            self._listening = address, server

    async def _figures(self) -> Snapshot:
        return self._status.figures()

    async def _under_way(self) -> Listing:
        return self._status.under_way()

    def _bound(self, address: HostPort) -> list[socket.socket]:
        """Bind the address. Raises CannotListen.

        At the start, a gateway that is ending may still have the port: it is waited for. A reload is tried
        again anyway.
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
            time.sleep(0.1)  # no client is served yet

    def close(self) -> None:
        if self._listening is not None:
            self._listening[1].close()
            self._listening = None
