"""Canonical paths, and the patterns that are matched against them.

Upstreams decode paths differently: no, one or two rounds of percent-decoding, `;parameters` dropped, `\\`
read as `/`, full-width forms folded. A path is refused unless all of these decoders find the same segments.
The canonical form is matched and forwarded, never the form that was received.

To a pattern, an escaped sub-delimiter, `:` or `@` (`v1%3A0`, `a%40b.c`) equals the plain character. It is
forwarded as it was received, because libraries differ in which of them they escape. For two characters this
holds in one direction only, see `_ONE_WAY`.

A canonical path may contain `;`, and encoded `;`, `?` and `#`. Some upstreams end the path there, others drop
the parameters of each segment. A pattern matches such a path only if it matches every reading of it, see
`Pattern.matches`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import MESSAGE, Denied
from ..regexes import late
from .percent import CONTROL, HEX_DIGITS, decode, is_incomplete

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# RFC 3986, 3.3: neither a pchar nor a slash, so not legal in a path.
_ILLEGAL = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]")
# Nothing to decode, no ";", no segment that is empty or starts with a dot: already canonical.
_PLAIN = late(rb"(?=/)(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*/?")
_ESCAPE = late(rb"%([0-9A-Fa-f]{2})")
# The spelling of each octet. A table, not a call each: all octets of a path of 64 KiB may be illegal.
_LEGAL: Final = [
    b"%%%02X" % octet if _ILLEGAL.fullmatch(bytes((octet,))) else bytes((octet,)) for octet in range(256)
]
_CANONICAL: Final = {
    (a + b).encode(): bytes((octet,)) if (octet := int(a + b, 16)) in _UNRESERVED else b"%%%02X" % octet
    for a in HEX_DIGITS
    for b in HEX_DIGITS
}
_COMPARED_AS_ONE: Final = frozenset(b"!$&'()*,=:@")
"""Characters that mean the same plain and escaped (RFC 3986, 3.3: sub-delims, `:`, `@`)."""
_UNIT = late(rb"%([0-9A-Fa-f]{2})|([^%])|(%)", re.DOTALL)
_DOUBLE_ENCODED = late(rb"%25(?:[0-9A-Fa-f]{2}|[uU])")
_ESCAPED_AGAIN = late(r"%[0-9A-Fa-f]{2}")
_CUT = late(r"[;?#]")
_CONTROL = late(CONTROL)
# They become `.`, `/`, `\` or `%` if a decoder folds compatibility forms or uses "best fit" code pages.
_FOLDED = late("[\u2024\u2025\u2044\u2215\u2216\u29f8\u29f9\ufe52\ufe68\uff0e\uff0f\uff3c\uff05]")

# Characters that an upstream may take for `;`, `?` or `#` if it decodes the path and folds compatibility
# forms. A test compares the lists with Unicode.
SEMICOLONS: Final = "\u037e\ufe14\ufe54\uff1b"
QUESTION_MARKS: Final = "\u2047\u2048\u2049\ufe16\ufe56\uff1f"
HASHES: Final = "\ufe5f\uff03"
_REFUSED: Final = "the path is refused: "
_OWNER: Final = "It holds %2F: the connection's owner would have to set allow_encoded_slash."
_SLASH: Final = f"{MESSAGE['path_not_allowed']} {_OWNER}"
_MAX_READ: Final = 8 * 1024
"""Most units of a path that has several readings. Signed lists of patterns have the same limit."""


def canonical_path(raw: bytes, *, allow_encoded_slash: bool = False) -> bytes:
    """Return the canonical path (RFC 3986, 6.2.2): unreserved decoded, other escapes upper-case.

    Args:
        raw: a path that begins with `/`, as received.

    Raises Denied("path_not_allowed") if two parsers could read the path in two ways.
    """
    if _PLAIN.fullmatch(raw):
        return raw
    if not raw.startswith(b"/"):
        raise _refused("it does not begin with a slash")
    if b"\\" in raw or b"#" in raw or b"?" in raw:
        raise _refused("it holds a backslash, '#' or '?'")
    if is_incomplete(raw):
        raise _refused("it holds an incomplete percent-encoding")
    path = _encode(raw)
    if _DOUBLE_ENCODED.search(path):
        raise _refused("it is percent-encoded twice")
    if b"%5C" in path:
        raise _refused("it holds an encoded backslash")
    _check_segments(decode(raw))  # the same as decode(path): it is encoded only once
    if b"%2F" in path and not allow_encoded_slash:
        why = f"{_REFUSED}it holds an encoded slash, and the connection does not set allow_encoded_slash"
        raise Denied("path_not_allowed", why, sentence=_SLASH)
    return path


def _encode(raw: bytes) -> bytes:
    """Decode unreserved escapes, upper-case the others, and encode characters that are illegal in a path."""
    parts = _ESCAPE.split(raw)
    if len(parts) > 1:
        parts[1::2] = map(_CANONICAL.__getitem__, parts[1::2])
        raw = b"".join(parts)
    return b"".join(map(_LEGAL.__getitem__, raw)) if _ILLEGAL.search(raw) else raw


def _check_segments(decoded: bytes) -> None:
    try:
        text = decoded.decode("utf-8")  # strict: refuses overlong forms and surrogates
    except UnicodeDecodeError:
        raise _refused("it is not UTF-8") from None
    if _CONTROL.search(text):
        raise _refused("it holds a control character")
    if not text.isascii():
        if _FOLDED.search(text):
            raise _refused("it holds a character that folds to a dot or a slash")
        # One character at a time: normalising a whole text is quadratic in runs of combining marks.
        text = text.translate({ord(char): unicodedata.normalize("NFKC", char) for char in set(text)})
        if _ESCAPED_AGAIN.search(text):
            raise _refused("it folds to something percent-encoded")
    *inner, last = text.split("/")[1:]
    for segment in inner:
        if _is_dots(segment) or not _name(segment):
            raise _refused("it holds an empty or a dot segment")
    # One trailing slash is an empty last segment; "/;x" is not.
    if _is_dots(last) or (last and not _name(last)):
        raise _refused("it ends in an empty or a dot segment")


def _name(segment: str) -> str:
    """Return a segment up to `;`, or up to a `?` or `#`, where a parser that runs after decoding ends it."""
    return _CUT.split(segment)[0]


def _is_dots(segment: str) -> bool:
    """Return whether a segment is dots, also with the spaces that Windows drops, or with `;parameters`."""
    name = _name(segment)
    return "." in name and not name.strip(" .")


def _refused(why: str) -> Denied:
    return Denied("path_not_allowed", f"{_REFUSED}{why}")


def units(path: bytes) -> str:
    """Return a canonical path as units: one character for each plain character and for each escape.

    The unit of an escape differs from every plain character, except for the escapes of `_COMPARED_AS_ONE`.
    Patterns are matched on units, so that `*A9` does not match the second half of `%C3%A9`.
    """
    if path.find(b"%") < 0:
        return path.decode("ascii")
    return "".join(
        _UNIT_OF[escape] if escape else (plain or percent).decode("ascii")
        for escape, plain, percent in _UNIT.findall(path)
    )


_UNIT_OF: Final = {
    (a + b).encode(): chr(octet) if (octet := int(a + b, 16)) in _COMPARED_AS_ONE else chr(0x100 + octet)
    for a in HEX_DIGITS
    for b in HEX_DIGITS
}


def _any_of(octet: str, folded: str) -> str:
    """Return a pattern for one ASCII character in units: its escape, or a character that folds to it."""
    return "|".join(units(_encode(char.encode("utf-8"))) for char in (f"%{ord(octet):02X}", *folded))


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
_FOLDED_MARK: Final = late("|".join(units(_encode(c.encode())) for c in SEMICOLONS + QUESTION_MARKS + HASHES))


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


class Pattern(NamedTuple):
    """A path pattern: literals, with a `*` between them for any run of characters, `/` included.

    `plains` are those of `;` and `+` whose escapes in a path are read as the plain character.
    """

    text: str
    literals: tuple[str, ...]
    plains: str = ""

    def matches(self, path: str) -> bool:
        """Return whether it matches a canonical path, as units without the leading slash; in linear time."""
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

    def matches_as_sent(self, path: str) -> bool:
        """Return whether the pattern matches if the upstream neither cuts the path nor drops parameters."""
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
    literals = tuple(units(_encode(one.encode("utf-8"))) for one in text.removeprefix("/").split("*"))
    whole = "".join(literals)
    # If a pattern contains both an escape and its plain character, its author means two different characters.
    plains = "".join(plain for plain, escape in _ONE_WAY.items() if plain in whole and escape not in whole)
    return Pattern(text, literals, plains)


def meets(one: Pattern, other: Pattern) -> bool:
    """Return whether some text matches both patterns, in quadratic time. For a signer's own patterns only."""
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
