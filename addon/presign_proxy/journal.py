"""What was decided while the gateway serves: counted, and written down wherever the configuration says."""

from __future__ import annotations

import time
from pathlib import Path

from .audit import Outcome, Throttle, record
from .decisions import Deny, Forward
from .observing.figures import Snapshot
from .observing.meter import Meter
from .observing.request_line import Peer
from .observing.terminal import Terminal
from .problems import ConfigError, Problem
from .schema import AuditConfig
from .sinks import AuditSink, Lines


class Journal:
    """Every adapter tells it how each request ended, once."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.terminal = Terminal()
        self._throttle = Throttle()
        self._sink: AuditSink | None = None
        self._required = False
        self._opened: tuple[str | None, Path] | None = None
        self._lines = Lines()

    def open(self, wanted: AuditConfig | None, path: Path) -> None:
        """Go on in the file that is wanted; where it cannot be had, the last one stays.

        Args:
            wanted: None for no audit log.
            path: of the configuration, for its errors and its directory.

        Raises ConfigError.
        """
        asked = (wanted.file if wanted else None, path.parent)
        if asked != self._opened:
            try:
                sink = AuditSink(wanted.file, path.parent, self._lines) if wanted else None
            except (OSError, ValueError) as error:
                why = (getattr(error, "strerror", None) or "cannot be opened").lower()
                raise ConfigError([Problem(str(path), 0, 0, "audit.file", why)]) from None
            if self._sink is not None:
                self._sink.stop()  # not waited for: its disk may be what is wrong
            self._sink, self._opened = sink, asked
        self._required = wanted is not None and wanted.required

    @property
    def obstacle(self) -> str:
        """Why nothing may be granted now, because it could not be written down; empty where it may."""
        if not self._required or self._sink is None:
            return ""
        trouble = self._sink.trouble
        return f"the audit log cannot be written: {trouble}" if trouble else ""

    def write(
        self, decision: Forward | Deny, outcome: Outcome, peer: Peer = None, *, lane: bool = False
    ) -> None:
        """
        Args:
            peer: the client's end of its connection.
            lane: whether the request was served without a flow.
        """
        self.meter.count(decision, outcome)
        now, facts = time.time(), decision.facts
        self.terminal.tell(decision, outcome, peer, now, lane=lane)
        if self._sink is None:
            return
        admitted = self._throttle.admit(record(decision, outcome, now), verified=facts.verified, now=now)
        if admitted is not None:
            self._sink.write(admitted)
        else:
            self.meter.suppressed += 1

    def figures(self) -> Snapshot:
        sink = self._sink
        found = self.meter.snapshot()
        found["presign_audit_lines_total"] = [[[], self._lines.written]]
        found["presign_audit_dropped_total"] = [[[], self._lines.dropped]]
        if sink is not None:
            found["presign_audit_queued"] = [[[], sink.queued]]
            found["presign_audit_up"] = [[[], 0 if sink.trouble else 1]]
        return found

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()
