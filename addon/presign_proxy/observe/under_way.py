"""What is under way: the granted requests that have not ended, for an operator who looks.

It says what the audit line of each will say, and no more: no secret, no signature, no query value. It is
made only when somebody asks, so a request costs nothing for it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

from ..core.decision import Facts
from ..http.client_address import shown

MOST: Final = 200
"""How many requests are listed, of each process and in all: those that have lasted longest."""
Listing = dict[str, Any]
"""`requests`: how many there are; `oldest`: a list of objects."""
List = Callable[[], Awaitable[Listing]]


class Running(NamedTuple):
    """A granted request that has not ended. `began` is of the monotonic clock."""

    facts: Facts
    began: float


def listing(found: Iterable[Running]) -> Listing:
    """List the requests that this process has under way."""
    known = list(found)
    clock, now = time.monotonic(), time.time()
    oldest = heapq.nsmallest(MOST, known, key=lambda one: one.began)
    return {
        "requests": len(known),
        "oldest": [_entry(one.facts, now - (clock - one.began)) for one in oldest],
    }


def joined(parts: Iterable[Listing]) -> Listing:
    """Join the lists of several processes."""
    known = list(parts)
    entries = [entry for part in known for entry in part["oldest"]]
    oldest = heapq.nsmallest(MOST, entries, key=lambda entry: entry["since"])
    return {"requests": sum(part["requests"] for part in known), "oldest": oldest}


def _entry(facts: Facts, since: float) -> dict[str, Any]:
    return {
        "since": round(since, 3),
        "request_id": facts.request_id,
        "connection": facts.connection,
        "key": facts.key,
        "signature": facts.signature,
        "id": facts.id,
        "method": facts.method,
        "path": facts.path,
        "client": shown(facts.client),
    }
