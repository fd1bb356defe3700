"""Lines that fit into the terminal. In a pipe, a line is as long as its content, for other programs.

Nothing is cut off: what is too long goes on in the next line.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .colours import styled

NARROWEST: Final = 20
_GAP: Final = "  "
_MOST: Final = 20
"""The longest word that a table does not break. If no room is left for it, each row becomes a paragraph."""
_NAME: Final = re.compile(r" *(?:(?! )(?:\S+ )*\S+ {2,}){0,2}")
"""The beginning of a row: its mark and its name, each with two blanks behind it."""
_JOINTS: Final = "/.-_?&,"
"""Characters behind which a long word, such as a URL, may be broken."""


def columns() -> int | None:
    """Return the width to keep to: $COLUMNS, or that of the terminal; None in a pipe."""
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and len(said) < 5 and int(said):
        return max(int(said), NARROWEST)
    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns, NARROWEST)
    except (OSError, ValueError, AttributeError):  # no terminal, no stream
        return None


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Return one line as lines of at most `width` characters; further lines are indented.

    A word that is longer than a line goes on in the next one. Blanks at the beginning stay.
    """
    lines: list[str] = []
    head = text[: len(text) - len(text.lstrip(" "))]
    line, empty = head, True
    for word in text.split(" ")[len(head) :]:
        if not empty and len(line) + 1 + len(word) > width:
            lines.append(line.rstrip(" "))
            line, empty = " " * indent, True
        line += word if empty else f" {word}"
        empty = False
        while len(line) > width:
            end = max(map(line[:width].rfind, _JOINTS)) + 1
            end = end if end > (indent + width) // 2 else width
            lines.append(line[:end])
            line = " " * indent + line[end:]
    return [*lines, line.rstrip(" ")]


def hanging(lines: Iterable[str], width: int | None) -> list[str]:
    """Return lines that fit. What goes on in the next line begins behind the name of its row."""
    if width is None:
        return list(lines)
    found = []
    for line in lines:
        match = _NAME.match(line)
        indent = match.end() if match else 0
        # An id that is broken cannot be copied.
        fits = indent <= width // 2 and indent + max(map(len, line[indent:].split(" "))) <= width
        found += wrapped(line, width, indent if fits else 4)
    return found


def commands(line: str, width: int | None, indent: int = 0) -> list[str]:
    """Return a shell command as lines that can still be pasted: each but the last ends with a backslash."""
    if width is None or indent + len(line) <= width:
        return [" " * indent + line]
    lines = [""]
    for word in _with_values(_words(line)):
        if lines[-1] and indent + len(lines[-1]) + len(word) + 3 > width:
            lines.append("  ")
        lines[-1] += word if not lines[-1].strip() else f" {word}"
    return [" " * indent + one + (" \\" if at < len(lines) - 1 else "") for at, one in enumerate(lines)]


def _with_values(words: Iterable[str]) -> Iterator[str]:
    """Yield the words, each option together with the value behind it."""
    option = ""
    for word in words:
        if option and word.startswith("-"):
            yield option
            option = ""
        if word.startswith("--") and "=" not in word and word != "--":
            option = word
            continue
        yield f"{option} {word}" if option else word
        option = ""
    if option:
        yield option


def _words(line: str) -> Iterator[str]:
    """Yield the words of a shell command as they are written, quotes included."""
    word, quote = "", ""
    for char in line:
        if char == " " and not quote:
            yield word
            word = ""
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        word += char
    yield word


def fitted(rows: list[list[str]], width: int | None) -> list[str]:
    """Return a table as lines, the head first: in aligned columns, or each row as a paragraph."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        least = [max(min(_longest_word(column), _MOST), len(column[0])) for column in zip(*rows, strict=True)]
        over = sum(least) + len(_GAP) * (len(widths) - 1) - width
        if over > 0:
            return _paragraphs(rows, width)
        widths = _shrunk(widths, least, width - len(_GAP) * (len(widths) - 1))
    head, *rest = [_row(row, widths) for row in rows]
    return [*(styled(line, "heading") for line in head), *(line for row in rest for line in row)]


def _longest_word(cells: Sequence[str]) -> int:
    return max(len(word) for cell in cells for word in cell.split(" "))


def _shrunk(widths: list[int], least: Sequence[int], room: int) -> list[int]:
    """Return narrower columns: the widest gives first."""
    found = list(widths)
    while sum(found) > room:
        at = max((at for at in range(len(found)) if found[at] > least[at]), key=lambda at: found[at])
        found[at] -= 1
    return found


def _row(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    height = max(map(len, cells))
    return [
        _GAP.join(
            (cell[at] if at < len(cell) else "").ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        ).rstrip()
        for at in range(height)
    ]


def _paragraphs(rows: list[list[str]], width: int) -> list[str]:
    """Return each row as its first cell, with the others below it, each behind the name of its column."""
    head, *rest = rows
    lines = []
    for row in rest:
        lines += [styled(line, "heading") for line in wrapped(row[0], width, 2)]
        for name, cell in zip(head[1:], row[1:], strict=True):
            lines += wrapped(f"  {name.lower()}: {cell}", width, 4)
    return lines
