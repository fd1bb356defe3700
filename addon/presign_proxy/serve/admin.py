"""The admin listener of a gateway with workers: their figures added up, and whether any of them is ready."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from ..gateway.lifecycle import line_of
from ..observe.admin_server import AdminServer, CannotListen, bound
from ..observe.metrics import Snapshot, Totals

logger = logging.getLogger(__name__)


class Overseer:
    """Belongs to the supervisor. The workers, who alone read the configuration, tell it where to listen."""

    def __init__(self, ready: Callable[[], tuple[bool, str]]) -> None:
        self._ready = ready
        self._totals = Totals()
        self._address: tuple[str, int] | None = None
        self._server: AdminServer | None = None
        self.trouble = ""
        """Why it does not listen where it should, as a sentence; empty where it does."""

    def heard(self, worker: Hashable, report: dict[str, Any]) -> None:
        """A worker has said how it is."""
        figures = report.get("figures")
        if isinstance(figures, dict):
            self._totals.update(worker, figures)
        self.listen(report.get("admin"))

    def lost(self, worker: Hashable) -> None:
        self._totals.lost(worker)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def listen(self, place: Any) -> None:
        """Listen where a worker says: HOST and PORT, or nothing. Each report says it again.

        Where that cannot be, it stays where it was until it can.
        """
        address = (str(place[0]), int(place[1])) if place else None
        if address == self._address:
            self.trouble = ""
            return
        try:
            sockets = bound(*address) if address else []
        except CannotListen as error:
            self._fails(f"admin.listen: {error}")
            return
        self.close()
        self._address, self.trouble = address, ""
        if address is not None:
            self._server = AdminServer(sockets, address[0], self._figures, lambda: line_of(self._ready()))

    def _fails(self, why: str) -> None:
        """Told once."""
        if why != self.trouble:
            logger.warning("%s; it is tried again", why)
        self.trouble = why

    async def _figures(self) -> Snapshot:
        return self._totals.total()
