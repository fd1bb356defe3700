"""The configuration that is in force, and what was taken back of it since."""

from __future__ import annotations

import logging
import time

from ..core.registry import Registry
from ..core.revocations import Revocations
from .load import Loaded
from .registry_file.notice import Notice

logger = logging.getLogger(__name__)


class InForce:
    """Of one process. What its files take back holds before the rest of them is read, and if it never is."""

    def __init__(self) -> None:
        self._of_files = Revocations()
        self.notice: Notice | None = None
        """The last one that could be read."""
        self.loaded: Loaded | None = None
        self.loaded_at = 0.0
        """Unix time."""
        self.registry: Registry | None = None
        """None until there was a good one."""

    def use(self, loaded: Loaded) -> None:
        """This is in force from now on; all that was taken back before is in it."""
        self.loaded, self.loaded_at = loaded, time.time()
        self.notice, self._of_files = loaded.record.notice, Revocations()
        self._put_in_force()

    def heed(self, notice: Notice | None) -> None:
        """A notice was read. One that is not there, or not readable, takes nothing back of the last one."""
        if notice is not None and notice != self.notice:
            self.notice = notice
            self._put_in_force()

    def take_back(self, found: Revocations, removed: Revocations | None, notice: Notice | None) -> None:
        """What the files take back holds from now on, whether or not the rest of them can be used.

        Args:
            removed: None where that cannot be known.
            notice: None where none was read.
        """
        # Of a file that cannot be read nobody knows that it takes less back than before.
        self._of_files = self._of_files | found if removed is None else found | removed
        if notice is not None:
            self.notice = notice
        self._put_in_force()

    def _put_in_force(self) -> None:
        """At once: one object for another."""
        if self.loaded is None:
            return
        since, notice = self._of_files, self.notice
        if notice is not None and notice.of != self.loaded.record.digest:
            since = since | notice.taken_back
        before = self.registry.since if self.registry is not None else None
        registry = self.loaded.registry
        if (
            since == before
            and self.registry is not None
            and self.registry.connections is registry.connections
        ):
            return
        self.registry = registry.under(since) if since else registry
        if since:
            logger.info("presign: what was revoked, disabled or removed is in force before the rest is read")
