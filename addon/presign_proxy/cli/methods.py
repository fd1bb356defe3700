"""Methods as somebody types them: in any case, and with slips."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from .values import listed

_USUAL: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"),
)
"""Those that are typed often enough to be mistyped. An API may have others: any name is a method."""


def methods_of(given: Iterable[str]) -> list[str]:
    """What was said with `--methods`, as it is signed."""
    return listed(tuple(text.upper() for text in given))


def slips(methods: Iterable[str], own: Collection[str] = ()) -> Iterator[str]:
    """A question for each method that is all but one of the usual ones.

    Args:
        own: methods that the connection lists, which are meant as they stand.
    """
    for method in methods:
        if method in _USUAL or method in own:
            continue
        from ..similar_names import misspelt, question  # every start would wait for what few need

        if near := misspelt(method, _USUAL):
            yield f"{method}: {question(near)}"
