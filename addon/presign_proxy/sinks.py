"""Where audit records go: a file that may be rotated, or standard error, off the event loop."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any, Final

MAX_QUEUED: Final = 10_000
"""Records that wait to be written; more are counted and dropped."""
INTERVAL: Final = 0.2
"""Seconds between writes: waking a thread for each record would cost more than the record."""


class AuditSink:
    """Writes records as JSON lines from a thread of its own; a slow or full disk never stops a request."""

    def __init__(self, file: str, base: Path) -> None:
        """Args: file: a path, relative to `base`, or "-" for standard error. Raises OSError."""
        self._handler: logging.Handler
        if file == "-":
            self._handler = logging.StreamHandler(sys.stderr)
        else:
            # Opens the file again when somebody has moved it away.
            self._handler = logging.handlers.WatchedFileHandler(base / file, encoding="ascii")
            (base / file).chmod(0o600)
        self._queue: deque[dict[str, Any]] = deque()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presign-audit", daemon=True)
        self._thread.start()
        self.lost = 0

    def write(self, record: dict[str, Any]) -> None:
        if len(self._queue) < MAX_QUEUED:
            self._queue.append(record)
        else:
            self.lost += 1

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
        lines = []
        while self._queue:
            lines.append(json.dumps(self._queue.popleft(), separators=(",", ":")))
        if lines:
            text = "\n".join(lines)
            self._handler.handle(logging.LogRecord("presign.audit", logging.INFO, "", 0, text, None, None))
