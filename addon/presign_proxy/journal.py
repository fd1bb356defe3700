"""The audit log while the gateway serves: one line for each decision, wherever the configuration says."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from .audit import Outcome, Throttle, record
from .decisions import Deny, Forward
from .document import ConfigError, Problem
from .schema import AuditConfig
from .sinks import AuditSink

logger = logging.getLogger(__name__)


class Journal:
    """Writes decisions down."""

    def __init__(self) -> None:
        self._throttle = Throttle()
        self._sink: AuditSink | None = None
        self._opened: tuple[AuditConfig | None, Path] | None = None

    def open(self, wanted: AuditConfig | None, path: Path) -> None:
        """Go on in the file that is wanted; where it cannot be had, the last one stays.

        Args:
            wanted: None for no audit log.
            path: of the configuration, for its errors and its directory.

        Raises ConfigError.
        """
        asked = (wanted, path.parent)
        if asked == self._opened:
            return
        try:
            sink = AuditSink(wanted.file, path.parent) if wanted else None
        except (OSError, ValueError) as error:
            why = (getattr(error, "strerror", None) or "cannot be opened").lower()
            raise ConfigError([Problem(str(path), 0, 0, "audit.file", why)]) from None
        self.close()
        self._sink, self._opened = sink, asked

    def write(self, decision: Forward | Deny, outcome: Outcome) -> None:
        now, facts = time.time(), decision.facts
        if isinstance(decision, Deny):
            logger.info("presign: %s refused: %s: %s", facts.request_id, decision.code, decision.detail)
        if self._sink is None:
            return
        admitted = self._throttle.admit(record(decision, outcome, now), verified=facts.verified, now=now)
        if admitted is not None:
            self._sink.write(admitted)

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
