"""Values in the form that the command accepts and writes."""

from __future__ import annotations

import time
from typing import Final

from ..units import instant

YEAR_10000: Final = 253_402_300_800
"""Unix time of the year 10000. Later instants have no text form."""


def present() -> str:
    """Return the present as the registry writes it: RFC 3339, in UTC."""
    return instant(time.time())


def listed(given: tuple[str, ...]) -> list[str]:
    """Return the sorted items of an option that may be repeated and may hold commas."""
    return sorted({item for text in given for item in text.split(",") if item})
