"""Values in the form that the command accepts and writes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import click

from ..units import instant

YEAR_10000: Final = 253_402_300_800
"""Unix time of the year 10000. Later instants have no text form."""


def present() -> str:
    """Return the present as the registry writes it: RFC 3339, in UTC."""
    return instant(time.time())


def listed(given: Iterable[str], name: str) -> list[str]:
    """Return the sorted items of an option that may be repeated and may hold commas.

    A blank beside a comma is nearly always a slip of the keyboard, and a signed pattern would hold it.

    Args:
        name: the option, or the key, for the message. Raises UsageError.
    """
    items = sorted({item for text in given for item in text.split(",") if item})
    if any(item != item.strip() for item in items):
        raise click.UsageError(
            f"{name} has a blank before or behind an item: put a comma alone between items"
            " (in a path, write %20 for a blank that is meant)"
        )
    return items
