"""Raw query strings: split, decoded and stripped without re-encoding a byte of what is not ours."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ..errors import Malformed
from .field_names import DROPPED, fold
from .percent import decode, is_incomplete

MAX_PARAMETERS: Final = 1000
"""Parameters of a request of ours: PHP reads as many (max_input_vars), Tomcat ten times as many, and no API
that is known has more than a hundred. Each is looked at by name, before anything is verified.
"""
# Separators that some parsers know besides `&`, so behind which a name may hide.
_VALUES: Final = re.compile(rb"=[^;#?&]*")
_INDEXES: Final = re.compile(rb"\[[^;#?&]*")


def check_parameters(query: bytes | None) -> None:
    """Raises Malformed over `MAX_PARAMETERS`."""
    if query is not None and query.count(b"&") >= MAX_PARAMETERS:
        raise Malformed(f"the query holds more than {MAX_PARAMETERS} parameters")


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
                if is_incomplete(value):
                    raise Malformed("a presign parameter holds an incomplete percent-encoding")
                value = decode(value)
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed("a presign parameter is not UTF-8") from None


def _names(query: bytes) -> bytes:
    """All names that some parser would find in a query, folded, between separators.

    A fixed number of searches, however many names there are. A separator is no part of an escape, so what is
    decoded together is what each name decodes to. Separators that were encoded are decoded first, and what is
    between them once more.
    """
    return _INDEXES.sub(b"", fold(fold(_VALUES.sub(b"", query)))).replace(b".", b"-")


def hides(query: bytes, text: bytes) -> bool:
    """Whether a text, folded, stands in a name that some parser would find in a query or a piece of one:
    behind `;`, inside an encoded `&`, before `[]`, with dots that a framework reads as underscores.
    """
    return _names(query).find(text) >= 0


def has_param(query: bytes, names: frozenset[bytes]) -> bool:
    """Whether some parser would find one of these folded names in a query or a piece of one."""
    return bool(names) and _any_of(names).search(_names(query)) is not None


@lru_cache(maxsize=256)  # only names that are configured get here
def _any_of(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """A search for one of the names between separators, be there blanks or NUL that a framework drops."""
    any_name = b"|".join(re.escape(name) for name in sorted(names))
    dropped = rb"[%b]*+" % re.escape(DROPPED)
    return re.compile(rb"(?:^|[;#?&])%b(?:%b)%b(?![^;#?&])" % (dropped, any_name, dropped))


def without(query: bytes | None, names: frozenset[bytes]) -> bytes | None:
    """The query without every parameter that some parser would call by one of these folded names.

    All other bytes stay, in order; None where nothing but those stood there.
    """
    if query is None or not has_param(query, names):
        return query
    kept = [piece for piece in query.split(b"&") if not has_param(piece, names)]
    return b"&".join(kept) if kept else None


def target(path: bytes, query: bytes | None) -> bytes:
    """Path and query as they stand in a request line."""
    return path if query is None else path + b"?" + query
