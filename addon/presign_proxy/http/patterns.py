"""Path patterns, and how they are matched against canonical paths.

To a pattern, an escaped sub-delimiter, `:` or `@` (`v1%3A0`, `a%40b.c`) equals the plain character. It is
forwarded as it was received, because libraries differ in which of them they escape. For two characters this
holds in one direction only, see `_ONE_WAY`. An `@` at the beginning is another exception, see `compared`.

A canonical path may contain `;`, and encoded `;`, `?` and `#`. Some upstreams end the path there, others drop
the parameters of each segment. A pattern matches such a path only if it matches every reading of it, see
`Pattern.matches`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from ..regexes import late
from .paths import encode, units

# Characters that an upstream may take for `;`, `?` or `#` if it decodes the path and folds compatibility
# forms. A test compares the lists with Unicode.
SEMICOLONS: Final = "\u037e\ufe14\ufe54\uff1b"
QUESTION_MARKS: Final = "\u2047\u2048\u2049\ufe16\ufe56\uff1f"
HASHES: Final = "\ufe5f\uff03"
_MAX_READ: Final = 8 * 1024
"""Most units of a path that has several readings. Signed lists of patterns have the same limit."""


def _any_of(octet: str, folded: str) -> str:
    """Return a pattern for one ASCII character in units: its escape, or a character that folds to it."""
    return "|".join(units(encode(char.encode("utf-8"))) for char in (f"%{ord(octet):02X}", *folded))


class _Reader:
    """The characters at which upstreams of one kind, that decode or also fold, end a path or a segment."""

    def __init__(self, semicolons: str = "", question_marks: str = "", hashes: str = "") -> None:
        """Args: the characters that the upstream folds to `;`, to `?` and to `#`."""
        semicolon = f"(?:;|{_any_of(';', semicolons)})"
        self.cuts = late(_any_of("?", question_marks)), late(_any_of("#", hashes))
        self.ends = (late(";"), late(semicolon), *self.cuts)
        # RFC 3986, 3.3. Servlet containers drop parameters before decoding; others after, so %2F ends them.
        dropped = (";[^/]*", f"{semicolon}[^/]*", f"{semicolon}[^/{units(b'%2F')}]*")
        self.parameters = tuple([late(one) for one in dropped])
        self.mark = late("|".join((semicolon, *(cut.pattern for cut in self.cuts))))

    def readings(self, path: str) -> set[str]:
        """Return a bounded number of readings: cut at a mark, without parameters, or both."""
        whole = {path, *_cut_at(self.cuts, path)}
        bare = {parameters.sub("", one) for one in whole for parameters in self.parameters}
        both = {cut for one in bare for cut in _cut_at(self.cuts, one)}
        return {*_cut_at(self.ends, path), *bare, *both}


_DECODES: Final = _Reader()
_FOLDS: Final = _Reader(SEMICOLONS, QUESTION_MARKS, HASHES)
_FOLDED_MARK: Final = late("|".join(units(encode(c.encode())) for c in SEMICOLONS + QUESTION_MARKS + HASHES))


def _readings(path: str) -> set[str]:
    """Return all readings of these units of a path. If no character folds, both kinds of upstream agree."""
    found = _FOLDS.readings(path)
    return found | _DECODES.readings(path) if _FOLDED_MARK.search(path) else found


def _cut_at(marks: Iterable[re.Pattern[str]], path: str) -> set[str]:
    """Return, for each of these marks, the path up to its first occurrence."""
    return {mark.split(path, maxsplit=1)[0] for mark in marks}


_ONE_WAY: Final = {";": units(b"%3B"), "+": units(b"%2B")}
"""Characters that match their escape if the pattern has the plain character. An escape in a pattern does not
match the plain character: upstreams may read a plain `;` as the end of a segment and a plain `+` as a blank,
but not the escapes."""
_READ_AS: Final[dict[str, dict[int, str]]] = {
    plains: {ord(_ONE_WAY[plain]): plain for plain in plains} for plains in ("", ";", "+", ";+")
}
"""Tables for `str.translate`, for each set of characters whose escapes count as plain."""


UPSTREAM_NAME: Final = r"[a-z][a-z0-9-]{0,30}"
"""The name of an upstream besides the default one. In a path, it is the first segment, after an `@`."""
_NAMED = late(rf"@({UPSTREAM_NAME})/")
_OTHER: Final = "\ue000"
_ESCAPED_AT: Final = "\ue001"


def compared(path: bytes, *, several: bool) -> str:
    """Return a canonical path of a connection as patterns compare it: units, without the leading slash.

    Args:
        several: whether the connection has several upstreams. Then `/@name/…` is a path of the upstream of
            that name, and `/%40…` one of the default upstream. The first unit says which of them it is. So a
            pattern that does not begin with `@name/` matches no path of another upstream.
    """
    found = units(path).removeprefix("/")
    if several and found.startswith("@"):
        return (_OTHER if path.startswith(b"/@") else _ESCAPED_AT) + found[1:]
    return found


def unmarked(path: str) -> str:
    """Return the units of a path without what `compared` says of its upstream."""
    return path if path < _OTHER else "@" + path[1:]


class Pattern(NamedTuple):
    """A path pattern: literals, with a `*` between them for any run of characters, `/` included.

    `plains` are those of `;` and `+` whose escapes in a path are read as the plain character. `upstream` is
    the name of the upstream that it begins with, as in `@uploads/*`. `at` is True if it begins with `@`.
    """

    text: str
    literals: tuple[str, ...]
    plains: str = ""
    upstream: str = ""
    at: bool = False

    def matches(self, path: str) -> bool:
        """Return whether it matches a path as `compared` returns it; in linear time."""
        if path >= _OTHER:
            if not self.reaches(path):
                return False
            path = unmarked(path)
        if self._matches(path, _READ_AS[""]):
            return True
        return bool(self.plains) and not path.isascii() and self._matches(path, _READ_AS[self.plains])

    def _matches(self, path: str, table: dict[int, str]) -> bool:
        """Match with the escapes in `table` read as plain characters.

        The signer wrote everything before the first `*`, `;` and `%23` included. After it the holder chooses
        the path. There, every reading of the path must match too.
        """
        read = path.translate(table) if table else path  # one unit for one unit, so positions do not change
        first = self.literals[0]
        if len(self.literals) == 1:
            return read == first
        if not read.startswith(first):
            return False
        if self.literals[1:] == ("",):
            return True  # the pattern ends in its only `*`, so it matches every reading of the rest
        if not self._matches_rest(read[len(first) :]):
            return False
        rest = path[len(first) :]
        # Escapes are not ASCII in units, so most paths need no search.
        if (rest.isascii() and ";" not in rest) or not _FOLDS.mark.search(rest):
            return True
        return len(rest) <= _MAX_READ and all(
            self._matches_rest(one.translate(table)) for one in _readings(rest)
        )

    def reaches(self, path: str) -> bool:
        """Return whether it is for the upstream of a path, if the first unit says which that is."""
        if path < _OTHER:
            return True
        return bool(self.upstream) if path[0] == _OTHER else not self.at

    def matches_as_sent(self, path: str) -> bool:
        """Return whether the pattern matches if the upstream neither cuts the path nor drops parameters."""
        if not self.reaches(path):
            return False
        path = unmarked(path)
        first, *others = self.literals
        return path.startswith(first) and self._matches_rest(path[len(first) :]) if others else path == first

    def _matches_rest(self, rest: str) -> bool:
        """Return whether all literals after the first match the rest of the path."""
        last = self.literals[-1]
        end = len(rest) - len(last)
        if end < 0 or not rest.endswith(last):
            return False
        start = 0
        # The leftmost occurrence of each literal is never a worse choice, so no backtracking is needed.
        for literal in self.literals[1:-1]:
            found = rest.find(literal, start, end)
            if found < 0:
                return False
            start = found + len(literal)
        return start <= end


@lru_cache(maxsize=4096)  # only patterns that were signed or configured get here
def pattern(text: str) -> Pattern:
    """Compile a pattern. One leading slash is ignored. Literals get the canonical spelling of paths."""
    bare = text.removeprefix("/")
    literals = tuple(units(encode(one.encode("utf-8"))) for one in bare.split("*"))
    whole = "".join(literals)
    # If a pattern contains both an escape and its plain character, its author means two different characters.
    plains = "".join(plain for plain, escape in _ONE_WAY.items() if plain in whole and escape not in whole)
    named = _NAMED.match(bare)
    return Pattern(text, literals, plains, named[1] if named else "", bare.startswith("@"))


def meets(one: Pattern, other: Pattern, *, several: bool = False) -> bool:
    """Return whether some path matches both patterns, in quadratic time. For a signer's own patterns only.

    Args:
        several: whether the connection has several upstreams.
    """
    if several and (one.upstream != other.upstream or any(p.at and not p.upstream for p in (one, other))):
        return False
    left, right = ("*".join(pattern.literals) for pattern in (one, other))
    # Dynamic programming from the end: `below[at]` is True if the rests of both patterns can match one text.
    below = [False] * len(right) + [True]
    for at in range(len(right) - 1, -1, -1):
        below[at] = right[at] == "*" and below[at + 1]
    for char in reversed(left):
        row = [False] * len(right) + [char == "*" and below[-1]]
        for at in range(len(right) - 1, -1, -1):
            if "*" in (char, right[at]):
                row[at] = below[at] or row[at + 1]
            else:
                row[at] = char == right[at] and below[at + 1]
        below = row
    return below[0]
