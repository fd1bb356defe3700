"""The log of `presign serve`: one line, or one JSON object, for each event."""

from __future__ import annotations

import json
import logging
from typing import Any

from ..units import instant
from .log_flood import BoundedHandler


class LogFormatter(logging.Formatter):
    """A formatter for lines like `2027-01-01T00:00:00Z warning worker 4711: …`."""

    def __init__(self, name: str, *, as_json: bool) -> None:
        super().__init__()
        self._name = name
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        at = instant(record.created)
        level, text = record.levelname.lower(), super().format(record).removeprefix("presign: ")
        client = _address_of(getattr(record, "client", None))
        if self._as_json:
            said: dict[str, Any] = {"time": at, "level": level, "process": self._name, "message": text}
            said |= {"client": client} if client else {}
            return json.dumps(said, ensure_ascii=False)
        return f"{at} {level} {self._name}: {client + ': ' if client else ''}{text}"


def _address_of(peer: Any) -> str:
    """Return HOST:PORT of the client that mitmproxy names in a record; empty if it names none."""
    if not isinstance(peer, tuple) or len(peer) < 2:
        return ""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def open_log(name: str, *, as_json: bool) -> None:
    """Log to standard error. Requests log nothing below a warning; the audit log records them.

    Args:
        name: the name of the process in each line.
    """
    handler = BoundedHandler()
    handler.setFormatter(LogFormatter(name, as_json=as_json))
    root = logging.getLogger()
    root.addHandler(handler)
    # A disabled level makes no record at all: mitmproxy would make several for each request.
    root.setLevel(logging.WARNING)
    for one in (
        "presign_proxy.serve",
        "presign_proxy.config.live",
        "presign_proxy.config.active_config",
        "presign_proxy.mitm.patches",
    ):
        logging.getLogger(one).setLevel(logging.INFO)
    # These fields are not printed, and looking them up costs more than the line.
    for one in ("logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"):
        setattr(logging, one, False)
