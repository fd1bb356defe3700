"""The configuration in force, and what was revoked since it was loaded."""

from __future__ import annotations

import logging
import time

from ..core.registry import Registry
from ..core.revocations import Revocations
from .load import Loaded
from .registry_file.notice import Notice

logger = logging.getLogger(__name__)


class ActiveConfig:
    """The configuration in force in one process.

    What its files revoke applies before the rest of them is read, even if the rest can never be read.
    """

    def __init__(self) -> None:
        self._of_files = Revocations()
        self.notice: Notice | None = None
        """The last notice that could be read."""
        self.loaded: Loaded | None = None
        self.loaded_at = 0.0
        """The Unix time of `use`."""
        self.registry: Registry | None = None
        """The registry that requests are decided with; None until a good one was loaded."""

    @property
    def now(self) -> Revocations | None:
        """What was revoked with `now`: by the configuration in force, and since."""
        loaded = self.loaded.now if self.loaded is not None else None
        since = self.registry.since.now if self.registry is not None else None
        return (loaded | since) if loaded and since else (loaded or since)

    def use(self, loaded: Loaded) -> None:
        """Put a configuration in force. It already contains everything that was revoked before."""
        self.loaded, self.loaded_at = loaded, time.time()
        self.notice, self._of_files = loaded.record.notice, Revocations()
        self._put_in_force()

    def use_notice(self, notice: Notice | None) -> None:
        """Apply a notice. A missing or unreadable one (None) undoes nothing of the last one."""
        if notice is not None and notice != self.notice:
            self.notice = notice
            self._put_in_force()

    def take_back(self, found: Revocations, removed: Revocations | None, notice: Notice | None) -> None:
        """Apply what the files revoke, whether or not the rest of them can be used.

        Args:
            found: what the files revoke or disable.
            removed: what was removed from the files; None if that is unknown.
            notice: None if no notice was read.
        """
        # A file that could not be read completely may revoke more than was found. So nothing is dropped then.
        self._of_files = self._of_files | found if removed is None else found | removed
        if notice is not None:
            self.notice = notice
        self._put_in_force()

    def _put_in_force(self) -> None:
        """Replace the registry by one assignment, so that no request sees half of a change."""
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
