"""Where audit records go: a file that may be rotated, or standard error, off the event loop."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import sys
from pathlib import Path
from typing import Any, Final

MAX_QUEUED: Final = 10_000


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(record.msg, separators=(",", ":"), ensure_ascii=True)


class AuditSink:
    """Writes records as JSON lines from a thread of its own; a slow or full disk never stops a request."""

    def __init__(self, file: str, base: Path) -> None:
        """Args: file: a path, relative to `base`, or "-" for standard error. Raises OSError."""
        handler: logging.Handler
        if file == "-":
            handler = logging.StreamHandler(sys.stderr)
        else:
            handler = logging.handlers.WatchedFileHandler(base / file, encoding="ascii", delay=False)
            (base / file).chmod(0o600)
        handler.setFormatter(_Format())
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(MAX_QUEUED)
        self._listener = logging.handlers.QueueListener(self._queue, handler)
        self._handler = handler
        self._listener.start()
        self.lost = 0

    def write(self, record: dict[str, Any]) -> None:
        entry = logging.LogRecord("presign.audit", logging.INFO, "", 0, record, None, None)
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what is queued, then close."""
        self._listener.stop()
        self._handler.close()
