"""The audit log of a gateway that goes on writing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def audit_lines(path: Path) -> list[dict[str, Any]]:
    """All lines that are whole: who reads while a line is written may see half of it."""
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
