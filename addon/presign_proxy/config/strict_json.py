"""Strict JSON, read one member at a time, so that other threads run between two members."""

from __future__ import annotations

import json
from collections.abc import Callable
from json.decoder import JSONDecodeError
from typing import Any

from ..regexes import late

_SPACE = late(r"[ \t\r\n]*")

_PLAIN_KEY = late(r'"([A-Za-z0-9_-]+)"[ \t\r\n]*:[ \t\r\n]*')
_NEXT = late(r"[ \t\r\n]*([,}])[ \t\r\n]*")

Take = Callable[[str, int], int]


def _strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_strict, parse_constant=_no_constant)


def value(text: str, at: int) -> tuple[Any, int]:
    """Return the value that begins at an offset, and the offset behind it. Raises ValueError."""
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise JSONDecodeError("it is nested too deeply", text, at) from None


def each(text: str, at: int, take: Take) -> int:
    """Call `take(key, offset of the value)` for each member of the object at an offset.

    `take` returns the offset behind the value. Return the offset behind the object. Raises ValueError for
    text that is not JSON, and for a key that is given twice.
    """
    at = _expect(text, at, "{")
    seen: set[str] = set()
    if text.startswith("}", at):
        return at + 1
    while True:
        start = at
        key, at = _key(text, at)
        if key in seen:
            raise JSONDecodeError("a key is given twice", text, start)
        seen.add(key)
        found = _NEXT.match(text, take(key, at))
        if found is None:
            raise JSONDecodeError("',' or '}' is expected", text, at)
        at = found.end()
        if found[1] == "}":
            return found.end(1)


def _key(text: str, at: int) -> tuple[str, int]:
    """Return a key, and the offset of its value."""
    plain = _PLAIN_KEY.match(text, at)
    if plain is not None:
        return plain[1], plain.end()
    if not text.startswith('"', at):
        raise JSONDecodeError("a key is expected", text, at)
    key, at = value(text, at)
    return key, _expect(text, at, ":")


def end(text: str, at: int) -> None:
    """Check that only space follows. Raises ValueError."""
    if _space(text, at) != len(text):
        raise JSONDecodeError("something follows the end", text, at)


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, char: str) -> int:
    """Return the offset behind a character and the space around it."""
    at = _space(text, at)
    if not text.startswith(char, at):
        raise JSONDecodeError(f"{char!r} is expected", text, at)
    return _space(text, at + 1)
