"""The audit log: counts each decision, and writes it to the file that the configuration names."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from ..config_problems import ConfigError, Problem
from ..core.decision import Deny, Forward
from ..file_access import why_not
from .audit_file import AuditSink, LineCounts, try_out
from .audit_record import Outcome, Throttle, line
from .meter import Meter
from .metrics import Snapshot
from .request_line import Peer
from .terminal import Terminal


class AuditSettings(Protocol):
    """The section `audit` of a configuration."""

    @property
    def file(self) -> str: ...

    @property
    def required(self) -> bool: ...


class Opened(NamedTuple):
    """An opened audit file, for `AuditLog.use`. `sink` is None without a log, or if it is open already."""

    place: tuple[str | None, Path]
    sink: AuditSink | None
    is_new: bool
    is_required: bool

    def discard(self) -> None:
        """Close the file: it is not used after all."""
        if self.sink is not None:
            self.sink.stop()


class AuditLog:
    """The log that every adapter writes each ended request to, once."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.terminal = Terminal()
        self._throttle = Throttle()
        self._sink: AuditSink | None = None
        self._required = False
        self._opened: tuple[str | None, Path] | None = None
        self._lines = LineCounts()

    def opened(self, wanted: AuditSettings | None, path: Path) -> Opened:
        """Open the configured file, unless it is open already. Any thread may call this.

        Args:
            wanted: None for no audit log.
            path: of the configuration, for errors and for its directory.

        Raises ConfigError.
        """
        place = (wanted.file if wanted else None, path.parent)
        is_new, sink = place != self._opened, None
        if is_new and wanted is not None:
            with _naming(wanted, path):
                sink = AuditSink(wanted.file, path.parent, self._lines)
        return Opened(place, sink, is_new=is_new, is_required=wanted is not None and wanted.required)

    def use(self, opened: Opened) -> None:
        """Write to the opened file from now on."""
        if opened.is_new:
            if self._sink is not None:
                self._sink.stop()  # without waiting: its disk may be the reason for the change
            self._sink, self._opened = opened.sink, opened.place
        self._required = opened.is_required

    @property
    def obstacle(self) -> str:
        """The reason why nothing may be granted now, because it could not be recorded; empty if it may."""
        if not self._required or self._sink is None:
            return ""
        trouble = self._sink.trouble
        return f"the audit log cannot be written: {trouble}" if trouble else ""

    def write(
        self, decision: Forward | Deny, outcome: Outcome, peer: Peer = None, *, lane: bool = False
    ) -> None:
        """Count, print and record a request that has ended.

        Args:
            peer: address and port of the client.
            lane: whether the request was served without a flow.
        """
        self.meter.count(decision, outcome)
        now, facts = time.time(), decision.facts
        self.terminal.tell(decision, outcome, peer, now, lane=lane)
        if self._sink is None:
            return
        suppressed = self._throttle.admit(verified=facts.verified, now=now)
        if suppressed is None:
            self.meter.suppressed += 1
            return
        text = line(decision, outcome, now, suppressed)
        self._sink.write(text, granted=isinstance(decision, Forward))

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


def try_file(wanted: AuditSettings | None, path: Path) -> None:
    """Check that `AuditLog.opened` would succeed, and leave nothing behind. Raises the same ConfigError."""
    if wanted is not None and wanted.file != "-":
        with _naming(wanted, path):
            try_out(path.parent / wanted.file)


@contextlib.contextmanager
def _naming(wanted: AuditSettings | None, path: Path) -> Iterator[None]:
    """Turn errors of opening the file into a ConfigError that names the configuration."""
    try:
        yield
    except OSError as error:
        why = why_not(path.parent / (wanted.file if wanted else ""), error)
    except ValueError:
        why = "is not a path"
    else:
        return
    raise ConfigError([Problem(str(path), 0, 0, "audit.file", why)])
