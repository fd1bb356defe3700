"""Canonical paths and the patterns that are matched against them.

A path is refused unless every decoder an upstream may run, none, one or two rounds of percent-decoding,
`;parameters` dropped, `\\` read as `/`, full-width forms folded, finds the same segments in it. What is
matched is what is forwarded: the canonical form, never the one received.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from string import hexdigits
from typing import Final, NamedTuple

from . import grammar
from .errors import Denied
from .percent import decode, is_incomplete

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# RFC 3986, 3.3: neither a pchar nor a slash, so not legal in a path.
_ILLEGAL = re.compile(rb"[^A-Za-z0-9._~!$&'()*+,;=:@/%-]")
# Nothing to decode, no ";", no segment that is empty or starts with a dot: canonical as it stands.
_PLAIN = re.compile(rb"(?=/)(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*/?")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
# Of each octet, what stands for it. No call for each: a path of 64 KiB may hold nothing that is legal.
_LEGAL: Final = [
    b"%%%02X" % octet if _ILLEGAL.fullmatch(bytes((octet,))) else bytes((octet,)) for octet in range(256)
]
_CANONICAL: Final = {
    (a + b).encode(): bytes((octet,)) if (octet := int(a + b, 16)) in _UNRESERVED else b"%%%02X" % octet
    for a in hexdigits
    for b in hexdigits
}
_UNIT = re.compile(rb"%([0-9A-Fa-f]{2})|([^%])|(%)", re.DOTALL)
_DOUBLE_ENCODED = re.compile(rb"%25(?:[0-9A-Fa-f]{2}|[uU])")
_ESCAPED_AGAIN = re.compile(r"%[0-9A-Fa-f]{2}")
_CUT = re.compile(r"[;?#]")
_CONTROL = re.compile(grammar.CONTROL)
# Read as a dot, a slash or a backslash once a decoder folds compatibility forms or "best fit" code pages.
_FOLDED = re.compile("[\u2024\u2025\u2044\u2215\u2216\u29f8\u29f9\ufe52\ufe68\uff0e\uff0f\uff3c\uff05]")


def canonical_path(raw: bytes, *, allow_encoded_slash: bool = False) -> bytes:
    """The one spelling of a path (RFC 3986, 6.2.2): unreserved decoded, other escapes upper-case.

    Args:
        raw: a path that begins with `/`, as received.

    Raises Denied("path_not_allowed") for what two parsers could read in two ways.
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
    if b"%5C" in path or (b"%2F" in path and not allow_encoded_slash):
        raise _refused("it holds an encoded slash or backslash")
    _check_segments(decode(raw))  # as of the path itself: it is encoded once
    return path


def _encode(raw: bytes) -> bytes:
    """Decode unreserved escapes, upper-case the rest, encode what may not stand in a path."""
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
        # One character at a time: runs of combining marks make normalising a whole text quadratic.
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
    """A segment without `;parameters`; an encoded `?` or `#` ends the path for whoever parses it once more
    after decoding.
    """
    return _CUT.split(segment)[0]


def _is_dots(segment: str) -> bool:
    """Dots, also with the spaces that Windows drops, with or without `;parameters`."""
    name = _name(segment)
    return "." in name and not name.strip(" .")


def _refused(why: str) -> Denied:
    return Denied("path_not_allowed", f"the path is refused: {why}")


def units(path: bytes) -> str:
    """One character per unit of a canonical path: an escape is one unit, and equals no plain character.

    Patterns are matched on units so that `*A9` does not match the second half of `%C3%A9`.
    """
    if path.find(b"%") < 0:
        return path.decode("ascii")
    return "".join(
        chr(0x100 + int(escape, 16)) if escape else (plain or percent).decode("ascii")
        for escape, plain, percent in _UNIT.findall(path)
    )


class Pattern(NamedTuple):
    """A path pattern: literals between which `*` stands for any run of characters, `/` included."""

    text: str
    literals: tuple[str, ...]

    def matches(self, path: str) -> bool:
        """Whether it matches the units of a canonical path without its leading slash; in linear time."""
        literals = self.literals
        first, last = literals[0], literals[-1]
        if len(literals) == 1:
            return path == first
        end = len(path) - len(last)
        if end < len(first) or not path.startswith(first) or not path.endswith(last):
            return False
        start = len(first)
        # Taking the leftmost occurrence of each literal is never worse, so there is no backtracking.
        for literal in literals[1:-1]:
            found = path.find(literal, start, end)
            if found < 0:
                return False
            start = found + len(literal)
        return True


@lru_cache(maxsize=4096)  # only patterns that were signed or configured get here
def pattern(text: str) -> Pattern:
    """Compile a pattern. One leading slash is ignored; literals are canonicalised as paths are."""
    literals = text.removeprefix("/").split("*")
    return Pattern(text, tuple(units(_encode(literal.encode("utf-8"))) for literal in literals))
