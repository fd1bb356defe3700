"""What is used and what is left of limits, from the counts of a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from .counter import SECOND, Counter, weigh
from .rules import PREFIX, Limit, Requester, tallies_of

_SOMEBODY: Final = "0" * 32
"""Stands in for a signature id, which ends a key."""


class Usage(NamedTuple):
    """One counter: what of its limit is used now.

    Args:
        limit: the name of the limit, as in answers and metrics.
        per: connection, url or client.
        party: the signature id or the client that is counted; empty for the whole connection.
        most: the bound; None if only the signature has it (`max_uses` of a grant).
        used: how much of it is used. For a rate: how much of the burst.
        left: how many more requests fit now; None if the bound is unknown.
        back: seconds until all is there again; 0 if nothing is used; None if nothing comes back by itself.
    """

    limit: str
    per: str
    party: str
    most: int | None
    used: int
    left: int | None
    back: int | None


def prefix_of(connection: str) -> str:
    """Return how all keys of a connection begin."""
    return f"{PREFIX}:{{{connection}}}:"


def usage_of(
    connection: str,
    limits: Sequence[Limit],
    max_uses: int | None,
    states: Mapping[str, int],
    now: int,
) -> Iterator[Usage]:
    """Yield what is used of each limit, for each party that was counted.

    Args:
        states: of the store, by key.
        now: Unix time in microseconds.
    """
    who = Requester(connection, _SOMEBODY, "", 0)
    for limit in limits:
        yield from _parties(limit.counter(who, now // SECOND), limit.per, states, now)
    # Also without `max_uses`: a grant may have a number of its own.
    (uses,) = tallies_of((), max_uses or 1, who, now // SECOND)
    for usage in _parties(uses, "url", states, now):
        yield usage if max_uses is not None else usage._replace(most=None, left=None)


def _parties(counter: Counter, per: str, states: Mapping[str, int], now: int) -> Iterator[Usage]:
    if per == "connection":
        yield _usage(counter, per, "", states.get(counter.key, 0), now)
        return
    begin = counter.key.removesuffix(_SOMEBODY)
    for key, state in sorted(states.items()):
        if key.startswith(begin):
            yield _usage(counter, per, key[len(begin) :], state, now)


def _usage(counter: Counter, per: str, party: str, state: int, now: int) -> Usage:
    weighed = weigh(counter, state, now)
    left = weighed.remaining + weighed.fits
    used = counter.limit - left if counter.kind == "rate" else state
    back: int | None = 0
    if used and counter.kind == "rate":
        full = min(state, now + counter.limit * counter.interval)
        back = max(0, -(-(full - now) // SECOND))
    elif used:
        back = counter.until - now // SECOND if counter.until else None
    return Usage(counter.name, per, party, counter.limit, used, left, back)
