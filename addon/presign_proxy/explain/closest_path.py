"""The search for the path pattern that comes closest to a path, and where it stops matching."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

from ..http.patterns import Pattern

_SHOWN = 60


class Near(NamedTuple):
    """How much of a path a pattern matches.

    `matched` is the part that agrees. `wanted` is the literal that the pattern requires next, empty if the
    pattern ends there. `found` is what the path has instead.
    """

    pattern: str
    matched: str
    wanted: str
    found: str

    def __str__(self) -> str:
        upto = f'agrees as far as "{_cut(self.matched)}"' if self.matched else "disagrees from the start"
        wants = f'wants "{_cut(self.wanted)}"' if self.wanted else "ends there"
        has = f'the path goes on with "{_cut(self.found)}"' if self.found else "the path ends there"
        return f'"{_cut(self.pattern)}" {upto}, where it {wants} and {has}'


def closest(patterns: Iterable[Pattern], path: str) -> Near | None:
    """Return the pattern that matches the longest beginning of a path; None if there are no patterns.

    Args:
        path: units of a canonical path without its leading slash; no pattern matches it.
    """
    return max((near(one, path) for one in patterns), key=lambda near: len(near.matched), default=None)


def near(pattern: Pattern, path: str) -> Near:
    """Return where a pattern, which does not match a path, stops matching it."""
    first, *rest = pattern.literals
    at = _common(first, path)
    if at < len(first) or not rest:
        return _near(pattern, path, at, first[at:])
    for literal in rest[:-1]:
        found = path.find(literal, at)
        if found < 0:
            return _near(pattern, path, at, literal)
        at = found + len(literal)
    return _near(pattern, path, at, rest[-1])


def _near(pattern: Pattern, path: str, at: int, wanted: str) -> Near:
    return Near(pattern.text, spelled(path[:at]), spelled(wanted), spelled(path[at:]))


def _common(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def spelled(units: str) -> str:
    """Convert units (see `paths.units`) back to a path."""
    return "".join(f"%{ord(unit) - 0x100:02X}" if ord(unit) > 0xFF else unit for unit in units)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
