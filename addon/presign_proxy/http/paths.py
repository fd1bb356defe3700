"""Canonical paths.

Upstreams decode paths differently: no, one or two rounds of percent-decoding, `;parameters` dropped, `\\`
read as `/`, full-width forms folded. A path is refused unless all of these decoders find the same segments.
The canonical form is matched and forwarded, never the form that was received.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

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

_REFUSED: Final = "the path is refused: "
_OWNER: Final = "It holds %2F: the connection's owner would have to set allow_encoded_slash."
_SLASH: Final = f"{MESSAGE['path_not_allowed']} {_OWNER}"


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
    path = encode(raw)
    if _DOUBLE_ENCODED.search(path):
        raise _refused("it is percent-encoded twice")
    if b"%5C" in path:
        raise _refused("it holds an encoded backslash")
    _check_segments(decode(raw))  # the same as decode(path): it is encoded only once
    if b"%2F" in path and not allow_encoded_slash:
        why = f"{_REFUSED}it holds an encoded slash, and the connection does not set allow_encoded_slash"
        raise Denied("path_not_allowed", why, sentence=_SLASH)
    return path


def encode(raw: bytes) -> bytes:
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
