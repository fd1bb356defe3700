"""An explanation on a terminal: lines that fit, and colours by meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .colours import styled
from .width import columns, hanging

_MARKS: Final = {"  ok  ": "granted", "  !!  ": "refused", "  --  ": "warning"}


def lines_of(lines: Iterable[str], meaning: str) -> list[str]:
    """Return the lines for a person.

    Args:
        lines: the first says the result; the others are rows, and lists below a title.
        meaning: of the result.
    """
    headline, *rest = lines
    shown = [styled(line, meaning) for line in hanging([headline], columns())]
    return shown + [_styled(line) for line in hanging(rest, columns())]


def _styled(line: str) -> str:
    if line.endswith(":") and not line.startswith(" "):
        return styled(line, "heading")
    mark = _MARKS.get(line[:6])
    return line if mark is None else f"  {styled(line[2:4], mark)}  {line[6:]}"
