"""Short forms of sizes, times and texts, for lines that people read."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

MAX_TEXT: Final = 200
"""Characters of one printed value. A head may be 64 KiB long."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WORDS: Final = ((86400, "day"), (3600, "hour"), (60, "min"), (1, "second"))
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def size(count: int) -> str:
    """Format a number of bytes: `0b`, `1.2k`, `5.0m`."""
    if count < 1024:
        return f"{count}b"
    value = float(count)
    for suffix in "kmgt":
        value /= 1024
        if value < 1023.95 or suffix == "t":
            break
    return f"{value:.1f}{suffix}"


def size_in_words(count: int) -> str:
    """Format a number of bytes for a sentence: "1 byte", "1.2 KiB", "199 MiB"."""
    if count < 1024:
        return f"{count} byte{'' if count == 1 else 's'}"
    value, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.{1 if value < 9.95 else 0}f} {units[0]}"


def duration(seconds: float) -> str:
    """Format how long something took: `85ms`, `1.25s`, `130s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.2f}s" if seconds < 100 else f"{seconds:.0f}s"


def span(seconds: int) -> str:
    """Format a length of time, rounded down: `45s`, `59m`, `1h59m`, `6d23h`, `30d`."""
    for number, (unit, name) in enumerate(_SPANS):
        count, rest = divmod(seconds, unit)
        if not count:
            continue
        if count < 10 and number + 1 < len(_SPANS):
            smaller, letter = _SPANS[number + 1]
            if rest >= smaller:
                return f"{count}{name}{rest // smaller}{letter}"
        return f"{count}{name}"
    return "0s"


def in_words(seconds: int) -> str:
    """Format a length of time in its two largest units: "3 days 4 hours", "42 min", "1 second"."""
    parts: list[str] = []
    rest = seconds
    for size, name in _WORDS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 and name != 'min' else ''}")
        elif parts:
            break
        if len(parts) == 2 or (parts and count >= 10):
            break
    return " ".join(parts) or "0 seconds"


def instant(unix: float) -> str:
    """Format a Unix time as `2026-11-28T15:59:00Z`; beyond the years 1 to 9999, as a number."""
    try:
        return f"{_second(int(unix))}Z"
    except (ValueError, OverflowError, OSError):
        return f"Unix time {int(unix)}"


def local_instant(unix: float) -> str:
    """Format a Unix time in the zone of this machine: `2026-11-28T16:59:00+01:00`."""
    return datetime.fromtimestamp(int(unix)).astimezone().isoformat().replace("+00:00", "Z")


def instant_in_milliseconds(unix: float) -> str:
    """Format a Unix time as `2026-11-28T15:59:00.123Z` (RFC 3339). The texts sort by time."""
    second, thousandths = divmod(round(unix * 1000), 1000)
    return f"{_second(second)}.{thousandths:03d}Z"


@lru_cache(maxsize=4)  # every line of the audit log asks for the present second
def _second(unix: int) -> str:
    # Not strftime: it writes the year 1 as "1".
    return datetime.fromtimestamp(unix, UTC).replace(tzinfo=None).isoformat()


def printable(text: str) -> str:
    """Return the text in ASCII, without control characters, and cut if it is long.

    Terminals obey control characters. Some also obey those of ISO 8859 (0x80 to 0x9f).
    """
    cut = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
    plain = cut if cut.isascii() else cut.encode("ascii", "backslashreplace").decode("ascii")
    return plain if plain.isprintable() else _CONTROL.sub(_escaped, plain)


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
