"""Where audit records go: a file that may be rotated, or standard error, off the event loop."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import os
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 10_000
"""Records that wait to be written; more are counted and dropped."""
INTERVAL: Final = 0.2
"""Seconds between writes: waking a thread for each record would cost more than the record."""


class _File(logging.handlers.WatchedFileHandler):
    """A file that its owner alone can read, opened again when somebody has moved it away."""

    def _open(self) -> io.TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return open(descriptor, "a", encoding="ascii")  # noqa: PTH123 - of a descriptor


class AuditSink:
    """Writes records as JSON lines from a thread of its own; a slow or full disk never stops a request."""

    def __init__(self, file: str, base: Path) -> None:
        """Args: file: a path, relative to `base`, or "-" for standard error. Raises OSError, ValueError."""
        self._handler: logging.Handler
        self._handler = logging.StreamHandler(sys.stderr) if file == "-" else _File(base / file)
        self._queue: deque[dict[str, Any]] = deque()
        self._stopped = threading.Event()
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="presign-audit", daemon=True)
        self._thread.start()

    def write(self, record: dict[str, Any]) -> None:
        if len(self._queue) < MAX_QUEUED:
            self._queue.append(record)
        else:
            self._lost += 1

    def close(self) -> None:
        """Write what is queued, then close."""
        self._stopped.set()
        self._thread.join(timeout=5)
        self._handler.close()

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        """Write what there is; what cannot be written is counted, told of, and does not end the thread."""
        records = [self._queue.popleft() for _ in range(len(self._queue))]
        if records and self._lost:
            records[0] = {**records[0], "lost_before": self._lost}
        text = "\n".join(json.dumps(record, separators=(",", ":")) for record in records)
        if not records:
            return
        try:
            self._handler.emit(logging.LogRecord("presign.audit", logging.INFO, "", 0, text, None, None))
        except OSError as error:
            if not self._lost:
                logger.error("presign: the audit log cannot be written (%s)", error.strerror)
            self._lost += len(records)
        else:
            self._lost = 0
