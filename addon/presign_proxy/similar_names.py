"""Suggestions for a misspelled name: the known names that are most similar to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 64
"""Longest name that is compared, in characters. The work grows with the square of the length."""
_LONG: Final = 8
"""Length from which a name may contain two typing errors. In a shorter name, two errors make another word."""
_PART: Final = 4
"""Shortest name that is recognised inside a longer one, as `openai` in `conn_openai`."""
_MOST: Final = 2
"""Most names that are suggested. If more names are equally similar, a suggestion would be a guess."""


def alike(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that are most similar to `name`: at most two, none if that would be a guess."""
    if len(name) > _LONGEST:
        return []
    known = [other for other in known if other != name]  # an equal name is known, but wrong in this place
    near = _slipped(name, known, 2 if len(name) >= _LONG else 1)
    if not near and len(name) >= _PART:
        near = [other for other in known if name.lower() in other.lower() or _within(other, name)]
    return near if len(near) <= _MOST else []


def misspelt(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that differ from `name` by one typing error.

    For places where an unknown name may also be correct.
    """
    return _slipped(name, known, 1) if len(name) <= _LONGEST else []


def _slipped(name: str, known: Iterable[str], allowed: int) -> list[str]:
    """Return the names with the fewest typing errors between them and `name`, at most `allowed`.

    A typing error is a wrong, missing or extra character, or two swapped characters. Case is ignored.
    """
    found: dict[str, int] = {}
    for other in known:
        if abs(len(other) - len(name)) <= allowed and other != name:
            slips = _slips(name.lower(), other.lower())
            if slips <= min(allowed, len(name) - 1):
                found[other] = slips
    best = min(found.values(), default=0)
    return [other for other, slips in found.items() if slips == best]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question such as `did you mean serve or server?`; empty if no known name is similar."""
    return question(alike(name, known))


def question(near: list[str]) -> str:
    """Return the question of `did_you_mean` for names that were already found."""
    return f"did you mean {' or '.join(near)}?" if near else ""


def _within(other: str, name: str) -> bool:
    return len(other) >= _PART and other.lower() in name.lower()


def _slips(one: str, other: str) -> int:
    """Return the optimal string alignment distance: single edits and swapped neighbours."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, char in enumerate(one, 1):
        last, before, row = before, row, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (char != wanted))
            if at > 1 < to and char == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, last[to - 2] + 1)
            row.append(cost)
    return row[-1]
