"""Audit logs: what a running gateway has written, what one line says, and lines of a test's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from presign_proxy.core.decision import Deny, Forward
from presign_proxy.observe.audit_file import AuditSink
from presign_proxy.observe.audit_record import Outcome, line


def audit_lines(path: Path) -> list[dict[str, Any]]:
    """All lines that are whole: who reads while a line is written may see half of it."""
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def json_of(decision: Forward | Deny, outcome: Outcome, now: float, suppressed: int = 0) -> dict[str, Any]:
    """What the line of a decision says."""
    return json.loads(line(decision, outcome, now, suppressed))


def write(sink: AuditSink, record: dict[str, Any]) -> None:
    """Write a line of the test's own; `decision` says whether it is one of a granted request."""
    text = json.dumps(record, separators=(",", ":"))
    sink.write(text, granted=record.get("decision") == "forward")
