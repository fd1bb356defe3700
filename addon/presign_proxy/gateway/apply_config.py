"""Adopt a new configuration: open what it needs, then switch all parts of the gateway, or none."""

from __future__ import annotations

import logging
from typing import NamedTuple, Protocol

from ..config import load as config
from ..config.tls_certificate import Certificate
from ..config_problems import ConfigError, Problem
from ..limits.limiter import Limiter
from ..observe.audit_log import AuditLog, Opened
from . import unsafe_options
from .admin_listener import AdminListener
from .credential_fetch import Fetcher

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """The files that were opened for a new configuration, and its warnings."""

    opened: Opened
    told: list[str]

    def discard(self) -> None:
        """Close the files: the configuration is not used after all."""
        self.opened.discard()


class Front(Protocol):
    """The TLS front, which answers for the gateway's own names."""

    def use(self, certificate: Certificate | None, hosts: frozenset[str]) -> None: ...


class Adoption:
    """The parts of a gateway that a configuration changes."""

    def __init__(
        self, admin: AdminListener, audit_log: AuditLog, limiter: Limiter, fetcher: Fetcher, front: Front
    ) -> None:
        self._admin = admin
        self._audit_log = audit_log
        self._limiter = limiter
        self._fetcher = fetcher
        self._front = front
        self.alone = True
        """True if no other process serves the same clients."""

    def prepare(self, loaded: config.Loaded) -> Prepared:
        """Do everything that uses a file system, which may hang; in any thread. Raises ConfigError."""
        told = loaded.told  # looks for the command `presign` on the disk
        return Prepared(self._audit_log.opened(loaded.config.audit, loaded.path), told)

    def adopt(self, loaded: config.Loaded, prepared: Prepared) -> None:
        """Switch to the configuration without touching a file. Raises ConfigError; then nothing changes."""
        try:
            if loaded.limited and loaded.store.is_private and not self.alone:
                why = "counts in each worker by itself: choose sqlite:///FILE or redis://HOST"
                raise ConfigError([Problem(str(loaded.path), 0, 0, "limits.store", why)])
            with self._admin.moving(loaded.config.admin, loaded.path):
                self._audit_log.use(prepared.opened)
        except BaseException:
            prepared.discard()
            raise
        for name in unsafe_options.keylogs():
            logger.warning("presign: $%s is set: the keys of all TLS sessions are recorded", name)
        for warning in prepared.told:
            logger.warning("presign: %s", warning)
        self._limiter.use(loaded.store, needed=loaded.limited)
        self._fetcher.forget(loaded.path.parent)
        self._front.use(loaded.front, loaded.registry.hosts)
