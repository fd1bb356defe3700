"""The grammar of what is signed, in one place: what signs, what verifies and what configures must agree."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

from ..errors import Malformed
from ..regexes import late

CONNECTION_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""Of a connection or a project."""
KEY_ID: Final = r"[A-Za-z0-9_.-]{1,64}"
"""Of a signing key, within its connection."""
PRESIGN_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""The name that a signer gives a presign, within its connection."""
METHOD: Final = r"[A-Z][A-Z0-9_-]{0,31}"
UNIX_TIME: Final = r"(?:0|[1-9][0-9]{0,11})"
"""Seconds; one spelling for each."""
NUMBER: Final = r"[1-9][0-9]{0,11}"
"""From 1 on; every parser of JSON and every shell can hold it."""
SIGNATURE: Final = r"[0-9a-f]{64}"
EXTENSION: Final = r"[A-Za-z0-9]{1,16}"
"""The format of a source URL."""

ANY: Final = ("*",)
"""The list, of methods or of paths, that holds nothing but the wildcard."""
MAX_ITEMS: Final = 64
"""Of a list."""

_METHOD = late(METHOD)
_ONLY_STARS = late(r"/?\*+")


@lru_cache(maxsize=4096)  # only lists that were signed get here
def parse_list(text: str, what: str) -> tuple[str, ...]:
    """The items of a signed list. Raises Malformed.

    Sorted, unique, no empty item; one that matches everything stands alone, so that a signer that embeds
    somebody's `a,*` grants nothing at all rather than everything.
    """
    items = tuple(text.split(","))
    if len(items) > MAX_ITEMS:
        raise Malformed(f"{what} holds more than {MAX_ITEMS} items")
    if "" in items:
        raise Malformed(f"{what} holds an empty item")
    if any(a >= b for a, b in pairwise(items)):
        raise Malformed(f"{what} is not sorted by code point, or holds an item twice")
    if len(items) > 1 and any(_ONLY_STARS.fullmatch(item) for item in items):
        raise Malformed(f"{what} holds a wildcard beside other items")
    if what == "methods" and items != ANY and not all(_METHOD.fullmatch(item) for item in items):
        raise Malformed("methods holds something that is not an upper-case method")
    return items
