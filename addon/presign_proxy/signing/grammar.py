"""The grammar of everything that is signed. Signer, verifier and configuration all use this one."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final

from ..errors import Malformed
from ..regexes import late

CONNECTION_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""The id of a connection or a project."""
KEY_ID: Final = r"[A-Za-z0-9_.-]{1,64}"
"""The id of a signing key, unique within its connection."""
PRESIGN_ID: Final = r"[A-Za-z0-9_-]{1,64}"
"""The name that a signer gives a presign, within its connection."""
METHOD: Final = r"[A-Z][A-Z0-9_-]{0,31}"
UNIX_TIME: Final = r"(?:0|[1-9][0-9]{0,11})"
"""Seconds, with exactly one spelling for each number."""
NUMBER: Final = r"[1-9][0-9]{0,11}"
"""A whole number from 1 on, small enough for every JSON parser and every shell."""
SIGNATURE: Final = r"[0-9a-f]{64}"
SIGNATURE_ID: Final = r"[0-9a-f]{32}"
"""The name of a signature, which reveals nothing of it (`keys.signature_id`)."""
EXTENSION: Final = r"[A-Za-z0-9]{1,16}"
"""The format of a source URL."""

ANY: Final = ("*",)
"""A list, of methods or of paths, that contains only the wildcard."""
MAX_ITEMS: Final = 64
"""Most items of a list."""

_METHOD = late(METHOD)
_ONLY_STARS = late(r"/?\*+")


@lru_cache(maxsize=4096)  # only lists that were signed get here
def parse_list(text: str, what: str) -> tuple[str, ...]:
    """Split a signed list into its items. Raises Malformed.

    Items must be sorted and unique, and none may be empty. A wildcard that matches everything must be the
    only item. So a signer that embeds a text such as `a,*` from a user grants nothing, and not everything.
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
