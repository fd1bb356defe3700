"""The admin listener of a gateway with workers: their figures added up, and whether any of them is ready."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from ..lifecycle import line_of
from ..observing.admin import AdminServer, bound
from ..observing.figures import Snapshot, Totals

logger = logging.getLogger(__name__)


class Overseer:
    """Belongs to the supervisor. The workers, who alone read the configuration, tell it where to listen."""

    def __init__(self, ready: Callable[[], tuple[bool, str]]) -> None:
        self._ready = ready
        self._totals = Totals()
        self._asked: tuple[str, int] | None = None
        self._server: AdminServer | None = None

    def heard(self, worker: Hashable, report: dict[str, Any]) -> None:
        """A worker has said how it is."""
        figures = report.get("figures")
        if isinstance(figures, dict):
            self._totals.update(worker, figures)
        address = report.get("admin")
        self._listen((str(address[0]), int(address[1])) if address else None)

    def lost(self, worker: Hashable) -> None:
        self._totals.lost(worker)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _listen(self, address: tuple[str, int] | None) -> None:
        if address == self._asked:
            return
        self._asked = address
        try:
            sockets = bound(*address) if address else []
        except (OSError, UnicodeError) as error:
            why = (getattr(error, "strerror", None) or "cannot be listened on").lower()
            logger.error("admin.listen: %s; the gateway serves without it", why)
            return
        self.close()
        if address is not None:
            self._server = AdminServer(sockets, address[0], self._figures, lambda: line_of(self._ready()))

    async def _figures(self) -> Snapshot:
        return self._totals.total()
