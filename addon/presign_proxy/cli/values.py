"""Values in the form that the command accepts and writes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

YEAR_10000: Final = 253_402_300_800
"""Unix time of the year 10000. Later instants have no text form."""


def instant(now: float | None = None) -> str:
    """Return a Unix time, by default the present, as an RFC 3339 text in UTC."""
    return datetime.fromtimestamp(int(now or time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(given: tuple[str, ...]) -> list[str]:
    """Return the sorted items of an option that may be repeated and may hold commas."""
    return sorted({item for text in given for item in text.split(",") if item})
