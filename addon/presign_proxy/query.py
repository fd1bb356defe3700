"""Raw query strings: split, decoded and stripped without re-encoding a byte of what is not ours."""

from __future__ import annotations

import re
from string import hexdigits
from typing import Final

from .errors import Malformed
from .names import fold, param_key

_OCTETS: Final = {(a + b).encode(): bytes.fromhex(a + b) for a in hexdigits for b in hexdigits}
_HIDING: Final = re.compile(rb"[;#?]")
"""Separators that some parsers know besides `&`, so behind which a name may hide."""
_INNER: Final = re.compile(rb"[;#?&]")


def form_decode(value: bytes) -> str:
    """One round of form decoding (WHATWG URL, 5.1): `+` is a space, then `%XX`, then strict UTF-8.

    Raises Malformed.
    """
    try:
        if value.find(b"%") >= 0 or value.find(b"+") >= 0:
            value = value.replace(b"+", b" ")
            # What stands in every list first: none of it can be a part of another escape afterwards.
            value = value.replace(b"%2F", b"/").replace(b"%2C", b",").replace(b"%2A", b"*")
            if value.find(b"%") >= 0:
                head, *rest = value.split(b"%")
                value = head + b"".join([_OCTETS[part[:2]] + part[2:] for part in rest])
        return value.decode()
    except KeyError:
        raise Malformed("a presign parameter holds an incomplete percent-encoding") from None
    except UnicodeDecodeError:
        raise Malformed("a presign parameter is not UTF-8") from None


def hidden_names(piece: bytes) -> list[bytes]:
    """Folded names that some parser would find in one `&`-separated piece of a query: behind `;`, inside an
    encoded `&`, before `[]`, with dots, blanks or NUL that a framework drops.
    """
    found: list[bytes] = []
    for part in _HIDING.split(piece):
        found += [param_key(one) for one in _INNER.split(fold(part.partition(b"=")[0]))]
    return found


def without(query: bytes | None, names: frozenset[bytes]) -> bytes | None:
    """The query without every parameter that some parser would call by one of these folded names.

    All other bytes stay, in order; None where nothing but those stood there.
    """
    if query is None:
        return None
    kept = [piece for piece in query.split(b"&") if not names.intersection(hidden_names(piece))]
    return b"&".join(kept) if kept else None


def target(path: bytes, query: bytes | None) -> bytes:
    """Path and query as they stand in a request line."""
    return path if query is None else path + b"?" + query
