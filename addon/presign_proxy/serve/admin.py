"""The admin listener of a gateway with workers: the sum of their metrics, and their common readiness."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..gateway.lifecycle import line_of
from ..observe.admin_server import AdminServer, CannotListen, bound
from ..observe.metrics import Snapshot, Totals
from .channel import Message
from .inventory import Inventory
from .worker_process import WorkerProcess

logger = logging.getLogger(__name__)


class Overseer:
    """The supervisor's admin listener. Its address comes from workers, who alone read the configuration."""

    def __init__(
        self,
        ready: Callable[[], tuple[bool, str]],
        serving: Callable[[], int],
        workers: Callable[[], Sequence[WorkerProcess]],
        wanted: int,
    ) -> None:
        """
        Args:
            serving: how many workers serve, without the one in reserve, which reports its figures too.
            workers: those that may have requests under way.
            wanted: how many workers are to serve.
        """
        self._ready = ready
        self._inventory = Inventory(workers)
        self._serving = serving
        self._wanted = wanted
        self._totals = Totals()
        self._address: tuple[str, int] | None = None
        self._server: AdminServer | None = None
        self.trouble = ""
        """Why it does not listen on the configured address, as a sentence; empty if it does."""

    def take_report(self, worker: Hashable, report: dict[str, Any]) -> None:
        """Take a worker's report."""
        figures = report.get("figures")
        if isinstance(figures, dict):
            self._totals.update(worker, figures)
        self.listen(report.get("admin"))

    def take_list(self, worker: WorkerProcess, message: Message) -> None:
        """Take a worker's list of what is under way."""
        self._inventory.take(worker, message)

    def lost(self, worker: WorkerProcess) -> None:
        """Keep the counters of a worker that has ended, and forget its gauges."""
        self._totals.lost(worker)
        self._inventory.take(worker, {})

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def listen(self, place: Any) -> None:
        """Listen on the address in a worker's report, HOST and PORT, or nowhere. Each report repeats it.

        If the new address is not available, the old one stays until it is.
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
            self._server = AdminServer(
                sockets, address[0], lambda: line_of(self._ready()), self._figures, self._inventory.listing
            )

    def _fails(self, why: str) -> None:
        """Log the reason once."""
        if why != self.trouble:
            logger.warning("%s; it is tried again", why)
        self.trouble = why

    async def _figures(self) -> Snapshot:
        workers: Snapshot = {
            "presign_workers": [[[], self._serving()]],
            "presign_workers_wanted": [[[], self._wanted]],
        }
        return self._totals.total() | workers
