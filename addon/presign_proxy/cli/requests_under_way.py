"""The requests under way in `presign status`: how long each has lasted, and the command that ends it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

from ..units import printable, span
from .colours import styled
from .hints import command
from .width import columns, commands, hanging

PATH: Final = "/under-way"
_SHOWN: Final = 10
"""How many are shown to people: those that have lasted longest. `--json` has all that the gateway lists."""
_TOLD: Final = ("since", "request_id", "connection", "key", "signature", "id", "method", "path", "client")


def read(code: int, text: str) -> dict[str, Any] | None:
    """Parse the gateway's answer; None if it is of a version that has no such list."""
    if code != 200:
        return None
    try:
        found = json.loads(text)
        oldest = [{name: one[name] for name in _TOLD} for one in found["oldest"]]
        return {"requests": int(found["requests"]), "oldest": [_checked(one) for one in oldest]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with texts that no terminal obeys. Raises ValueError, TypeError."""
    texts = {name: None if entry[name] is None else printable(str(entry[name])) for name in _TOLD[1:]}
    return {"since": float(entry["since"])} | texts


def lines_of(found: dict[str, Any] | None) -> Iterator[str]:
    """Yield the lines for people; none where nothing is under way."""
    if not found or not found["oldest"]:
        return
    shown = found["oldest"][:_SHOWN]
    lasted = [span(max(0, int(time.time() - one["since"]))) for one in shown]
    room = max(map(len, lasted))
    yield ""
    yield styled("Under way, the longest first, and what ends each:", "heading")
    for one, long in zip(shown, lasted, strict=True):
        yield from hanging([f"  {long.rjust(room)}  {_request(one)}"], columns())
        yield from commands(_end(one), columns(), room + 4)
    if (more := found["requests"] - len(shown)) > 0:
        yield f"  and {more} more"


def _request(one: dict[str, Any]) -> str:
    between = "" if (one["path"] or "").startswith("/") else " "
    known = ", ".join(f"{name} {one[name]}" for name in ("key", "id") if one[name])
    whom = f" ({known})" if known else ""
    return f"{one['method']} {one['connection']}{between}{one['path'] or ''}{whom}, from {one['client']}"


def _end(one: dict[str, Any]) -> str:
    if one["signature"]:
        return command("revoke", one["signature"], "--now")
    return command("revoke", "--connection", one["connection"] or "", "--now")
