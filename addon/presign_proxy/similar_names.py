"""Which name somebody meant who wrote another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 64
"""Characters of a name that is compared; the work grows with their square."""
_LONG: Final = 8
"""Characters from which on a name may hold two slips; in a shorter one, they make another word of it."""
_PART: Final = 4
"""Characters of a name that is recognised in a longer one, as `openai` in `conn_openai`."""
_MOST: Final = 2
"""Names that are told. Where more are as near, none is what was meant."""


def alike(name: str, known: Iterable[str]) -> list[str]:
    """The names that `name` may have been meant for, nearest first; at most two, and none for a guess."""
    if len(name) > _LONGEST:
        return []
    known = [other for other in known if other != name]  # that one is meant, in another place
    near = _slipped(name, known, 2 if len(name) >= _LONG else 1)
    if not near and len(name) >= _PART:
        near = [other for other in known if name.lower() in other.lower() or _within(other, name)]
    return near if len(near) <= _MOST else []


def misspelt(name: str, known: Iterable[str]) -> list[str]:
    """The names from which `name` differs by one slip, where any other name may be meant as it stands."""
    return _slipped(name, known, 1) if len(name) <= _LONGEST else []


def _slipped(name: str, known: Iterable[str], allowed: int) -> list[str]:
    """Names from which `name` differs by so many slips at most, all equally near.

    A slip is a character that is wrong, missing or too many, or two that changed places, in any case.
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
    """A question, such as `did you mean serve or server?`; empty where nothing is alike."""
    return question(alike(name, known))


def question(near: list[str]) -> str:
    """The same of names that were found alike."""
    return f"did you mean {' or '.join(near)}?" if near else ""


def _within(other: str, name: str) -> bool:
    return len(other) >= _PART and other.lower() in name.lower()


def _slips(one: str, other: str) -> int:
    """Optimal string alignment: single edits, and neighbours that changed places."""
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
