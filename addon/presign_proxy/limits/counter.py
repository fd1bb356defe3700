"""One counter that a request must fit into, and how it is judged. What every store has to agree with."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["rate", "count", "slots"]

SECOND: Final = 1_000_000
"""Microseconds: the unit of every instant and interval here; whole numbers, exact in a Lua double."""

GRACE: Final = 86_400
"""Seconds for which a count is kept after its end, so that a clock set back finds it again."""

LEASE: Final = 60 * SECOND
"""A slot that is not renewed for so long is free: whoever held it was killed."""

SLOT_WAIT: Final = SECOND
"""When to try again where all slots are taken: nobody knows when one falls free."""


class Counter(NamedTuple):
    """One counter and its bound.

    Args:
        name: of the limit, for answers and logs.
        key: of the counter in the store; what stands in braces is the same for all counters of one request,
            so that a Redis cluster keeps them in one place.
        limit: rate: how many at once (the burst); count and slots: how many.
        interval: rate: microseconds in which one more falls due.
        until: count: Unix time in seconds at which it ends; 0 for never.
        window: seconds in which `quota` may be used, 0 where there is none; for answers only.
        quota: what the client is told it may use within the window.
        fail_open: whether a request may pass while the store is down.
    """

    name: str
    kind: Kind
    key: str
    limit: int
    interval: int = 0
    until: int = 0
    window: int = 0
    quota: int = 0
    fail_open: bool = False


class Weighed(NamedTuple):
    """What one counter says to one more request.

    Args:
        after: the counter's state when the request is counted; where it does not fit, what to leave there,
            which differs from what was found only where the clock was set back.
        remaining: how many more fit: after this one if it fits, else now.
        wait: microseconds until one fits again; 0 where it fits or where none ever will.
    """

    fits: bool
    after: int
    remaining: int
    wait: int


def weigh(counter: Counter, state: int, now: int) -> Weighed:
    """Judge one more request. Pure; the state is the store's: 0 for a counter that is not there.

    The state of a rate is the theoretical arrival time of GCRA (ITU-T I.371): the instant at which the bucket
    is full again. Over any stretch of time t at most `limit + t / interval` are admitted. No clock can have
    put it further ahead than a whole bucket: where it is, the clock was set back, and the bucket is empty
    from then on, which neither grants more nor locks anybody out for as long as the clock was wrong.

    Args:
        state: rate: microseconds; count: requests so far; slots: those taken.
        now: Unix time in microseconds.
    """
    if counter.kind == "rate":
        full = now + counter.limit * counter.interval
        due = min(max(state, now), full)
        room = full - due - counter.interval
        if room < 0:
            return Weighed(False, due if state > full else state, 0, -room)
        return Weighed(True, due + counter.interval, room // counter.interval, 0)
    remaining = counter.limit - state - 1
    if remaining >= 0:
        return Weighed(True, state + 1, remaining, 0)
    wait = SLOT_WAIT if counter.kind == "slots" else max(0, counter.until * SECOND - now)
    return Weighed(False, state, 0, wait)


def forgettable_at(counter: Counter, after: int) -> int:
    """The instant, in microseconds, from which a counter may be dropped unnoticed; 0 for never."""
    if counter.kind == "rate":
        return after
    if counter.kind == "slots":
        raise ValueError("slots are forgotten one by one")
    return (counter.until + GRACE) * SECOND if counter.until else 0
