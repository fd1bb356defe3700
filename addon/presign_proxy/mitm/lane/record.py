"""The record of an exchange: what its line in the audit log says."""

from __future__ import annotations

import logging
import time
from typing import Any, NamedTuple

from ...core.decision import Deny, Forward
from ...observe.audit_log import AuditLog
from ...observe.audit_record import Outcome

logger = logging.getLogger(__name__)


class End(NamedTuple):
    """How an exchange ended."""

    status: int | None
    """The status that the client was sent."""
    code: str | None = None
    error: str | None = None
    """The reason, for the audit log, if it did not end as it should."""


class Record:
    """What is known of an exchange while it goes on."""

    __slots__ = ("_upstream_status", "_waited", "started", "status")

    def __init__(self) -> None:
        self.started = time.monotonic()
        self._upstream_status: int | None = None
        self._waited: float | None = None
        self.status: int | None = None
        """The status that the client has been sent."""

    def begin_answer(self, status: int) -> None:
        """Note that the head of the upstream's answer is there."""
        self._upstream_status, self._waited = status, time.monotonic() - self.started

    def write(
        self, audit_log: AuditLog, decision: Deny | Forward, peer: Any, end: End, size: tuple[int, int]
    ) -> None:
        """Write the line. Does not fail.

        Args:
            size: bytes of the request's body and of the answer's.
        """
        outcome = Outcome(
            end.status,
            self._upstream_status,
            size[0],
            size[1],
            time.monotonic() - self.started,
            end.code,
            end.error,
            self._waited,
        )
        try:
            audit_log.write(decision, outcome, peer, lane=True)
        except Exception as error:
            logger.error("presign: failed to write the audit log (%s)", type(error).__name__)
