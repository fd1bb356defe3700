"""Methods as people type them: in upper or lower case, and with typing errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from re import fullmatch
from typing import Final

import click

from ..signing.grammar import METHOD
from .values import listed

_USUAL: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"),
)
"""Common methods, for which a similar name is likely a typing error. An API may have others."""


def methods_of(given: Iterable[str], name: str) -> list[str]:
    """Return the methods of an option, or of a key, in the form that is signed. Raises UsageError."""
    return listed((text.upper() for text in given), name)


def check_methods(name: str, methods: Iterable[str], given: Iterable[str], own: Collection[str] = ()) -> None:
    """Refuse a method that looks like a misspelt common one. Raises UsageError.

    Args:
        name: of the option, or of the key.
        methods: what is about to be signed or allowed.
        given: the values as they were typed. A method that stands there twice is intended.
        own: methods that the connection lists, which are intended.
    """
    typed = Counter(item for text in given for item in text.upper().split(","))
    for method in methods:
        if method in _USUAL or method in own or typed[method] > 1 or not fullmatch(METHOD, method):
            continue
        from ..similar_names import misspelt, question  # imported late: few starts need it

        if near := misspelt(method, _USUAL):
            own_one = f"If the method is called {method}, write it twice: {method},{method}"
            raise click.UsageError(f"{name} {method}: {question(near)} {own_one}")
