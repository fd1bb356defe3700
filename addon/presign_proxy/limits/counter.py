"""Counters, and the decision whether one more request fits into one. Every store must decide the same."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["rate", "count", "slots"]

SECOND: Final = 1_000_000
"""One second in microseconds, the unit of all instants and intervals here. Integers are exact in Lua too."""

GRACE: Final = 86_400
"""Seconds for which a count is kept after its end. If the clock is set back, the count is still there."""

LEASE: Final = 60 * SECOND
"""A slot that is not renewed for so long becomes free: the process that held it was killed."""

SLOT_WAIT: Final = SECOND
"""When to try again if all slots are taken: it is unknown when one becomes free."""


class Counter(NamedTuple):
    """One counter and its bound.

    Args:
        name: the name of the limit, for answers and logs.
        key: the key of the counter in the store. The part in braces is the same for all counters of one
            request, so that a Redis cluster keeps them on one node.
        limit: rate: how many requests at once (the burst); count and slots: how many requests.
        interval: rate: microseconds until one more request is allowed.
        until: count: Unix time in seconds at which it ends; 0 for never.
        window: seconds within which `quota` may be used; 0 for no window. Only shown in answers.
        quota: how much the client may use within the window. Only shown in answers.
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
    """The decision of one counter on one more request.

    Args:
        after: the state to store if the request is counted. If it does not fit: the state to leave, which
            differs from the current one only if the clock was set back.
        remaining: how many more requests fit: after this one if it fits, else now.
        wait: microseconds until one fits again; 0 if it fits now, or if none will ever fit.
    """

    fits: bool
    after: int
    remaining: int
    wait: int


def weigh(counter: Counter, state: int, now: int) -> Weighed:
    """Decide whether one more request fits. Pure: the state comes from the store.

    The state of a rate is the theoretical arrival time of GCRA (ITU-T I.371): the instant at which the bucket
    is full again. Within any time t at most `limit + t / interval` requests are admitted. A correct clock
    never puts this instant further ahead than one whole bucket. If it is further ahead, the clock was set
    back. The bucket then counts as empty from now on. So a clock that is set back grants no extra requests,
    and does not lock clients out for as long as the clock was wrong.

    Args:
        state: rate: microseconds; count: requests so far; slots: how many are taken. 0 for a new counter.
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
    """Return the instant, in microseconds, from which dropping a counter has no effect; 0 for never."""
    if counter.kind == "rate":
        return after
    if counter.kind == "slots":
        raise ValueError("slots are forgotten one by one")
    return (counter.until + GRACE) * SECOND if counter.until else 0
