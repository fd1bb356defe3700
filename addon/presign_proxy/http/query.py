"""Raw query strings: split, decoded and stripped. Parameters that are not ours keep every byte."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from ..errors import Malformed
from .field_names import DROPPED, fold
from .percent import decode, is_incomplete

MAX_PARAMETERS: Final = 1000
"""Most parameters of a presigned request. Each is looked up by name before anything is verified.

PHP reads as many (max_input_vars), Tomcat ten times as many. No known API has more than a hundred.
"""
# Some parsers know separators besides `&`. A name may hide behind each of them.
_VALUES: Final = re.compile(rb"=[^;#?&]*")
_INDEXES: Final = re.compile(rb"\[[^;#?&]*")


def check_parameters(query: bytes | None) -> None:
    """Check the number of parameters. Raises Malformed if there are more than `MAX_PARAMETERS`."""
    if query is not None and query.count(b"&") >= MAX_PARAMETERS:
        raise Malformed(f"the query holds more than {MAX_PARAMETERS} parameters")


def form_decode(value: bytes) -> str:
    """Decode a form value once (WHATWG URL, 5.1): `+` as a space, then `%XX`, then strict UTF-8.

    Raises Malformed.
    """
    try:
        if value.find(b"%") >= 0 or value.find(b"+") >= 0:
            value = value.replace(b"+", b" ")
            # The escapes of every list first, because this is fast. No result can become part of an escape.
            value = value.replace(b"%2F", b"/").replace(b"%2C", b",").replace(b"%2A", b"*")
            if value.find(b"%") >= 0:
                if is_incomplete(value):
                    raise Malformed("a presign parameter holds an incomplete percent-encoding")
                value = decode(value)
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed("a presign parameter is not UTF-8") from None


def _names(query: bytes) -> bytes:
    """Return all names that some parser would find in a query, folded, between separators.

    The number of searches is fixed, however many names there are. Decoding the whole text gives the same as
    decoding each name, because a separator is not part of an escape. The text is folded twice: first encoded
    separators are decoded, then the names between them once more.
    """
    return _INDEXES.sub(b"", fold(fold(_VALUES.sub(b"", query)))).replace(b".", b"-")


def hides(query: bytes, text: bytes) -> bool:
    """Return whether some parser would find a name with this folded text in a query or a piece of one.

    That includes names after `;`, after an encoded `&`, before `[]`, and with dots that a framework reads as
    underscores.
    """
    return _names(query).find(text) >= 0


def has_param(query: bytes, names: frozenset[bytes]) -> bool:
    """Return whether some parser would find one of these folded names in a query or a piece of one."""
    return bool(names) and _any_of(names).search(_names(query)) is not None


@lru_cache(maxsize=256)  # only names that are configured get here
def _any_of(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Compile a search for one of the names between separators, with or without bytes of `DROPPED` around."""
    any_name = b"|".join(re.escape(name) for name in sorted(names))
    dropped = rb"[%b]*+" % re.escape(DROPPED)
    return re.compile(rb"(?:^|[;#?&])%b(?:%b)%b(?![^;#?&])" % (dropped, any_name, dropped))


def without(query: bytes | None, names: frozenset[bytes]) -> bytes | None:
    """Return the query without the parameters that some parser would find under one of these folded names.

    All other bytes stay, in order. Returns None if no parameter is left.
    """
    if query is None or not has_param(query, names):
        return query
    kept = [piece for piece in query.split(b"&") if not has_param(piece, names)]
    return b"&".join(kept) if kept else None


def target(path: bytes, query: bytes | None) -> bytes:
    """Join path and query as in a request line."""
    return path if query is None else path + b"?" + query
