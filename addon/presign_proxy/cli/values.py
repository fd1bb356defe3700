"""Values as the command takes and writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

YEAR_10000: Final = 253_402_300_800
"""Unix time; a moment from then on cannot be written down."""


def instant(now: float | None = None) -> str:
    return datetime.fromtimestamp(int(now or time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(given: tuple[str, ...]) -> list[str]:
    """What was given several times, or with commas, or both."""
    return sorted({item for text in given for item in text.split(",") if item})
