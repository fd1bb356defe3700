"""Methods as people type them: in upper or lower case, and with typing errors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from .values import listed

_USUAL: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"),
)
"""Common methods, for which a similar name is likely a typing error. An API may have others."""


def methods_of(given: Iterable[str]) -> list[str]:
    """Return the values of `--methods` in the form that is signed."""
    return listed(tuple(text.upper() for text in given))


def slips(methods: Iterable[str], own: Collection[str] = ()) -> Iterator[str]:
    """Yield a question for each method that looks like a misspelt common one.

    Args:
        own: methods that the connection lists, which are intended.
    """
    for method in methods:
        if method in _USUAL or method in own:
            continue
        from ..similar_names import misspelt, question  # imported late: few starts need it

        if near := misspelt(method, _USUAL):
            yield f"{method}: {question(near)}"
