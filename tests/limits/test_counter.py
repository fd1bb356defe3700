"""How one counter is judged: rates, counts, and clocks that are set."""

from __future__ import annotations

import limits
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presign_proxy.limits.counter import GRACE, SECOND, Counter, Weighed, forgettable_at, weigh
from presign_proxy.limits.rules import Rate, Requester
from support.deciding import NOW

WHO = Requester("conn", "0" * 32, "192.0.2.1", NOW + 60)


def play(counter: Counter, steps: list[int], start: int = NOW * SECOND) -> tuple[list[int], list[Weighed]]:
    """The instants of those admitted, and everything that was said. A step is microseconds, forth or back."""
    now, state, admitted, said = start, 0, [], []
    for step in steps:
        now += step
        weighed = weigh(counter, state, now)
        said.append(weighed)
        state = weighed.after
        if weighed.fits:
            admitted.append(now)
    return admitted, said


rates = st.tuples(st.integers(1, 50), st.integers(1, 3_000_000)).map(
    lambda it: Counter("r", "rate", "k", it[0], it[1])
)
forth = st.lists(st.integers(0, 4_000_000), max_size=60)
both = st.lists(st.integers(-9_000_000, 4_000_000), max_size=60)


@given(rates, forth)
def test_a_rate_is_a_bucket_that_fills(counter: Counter, steps: list[int]) -> None:
    """The other way to say it: a level that rises with the clock, but never above a whole bucket."""
    _, said = play(counter, steps)
    full = counter.limit * counter.interval
    level = full
    for step, weighed in zip(steps, said, strict=True):
        level = min(full, level + step)
        fits = level >= counter.interval
        assert weighed.fits == fits
        if fits:
            level -= counter.interval
            assert weighed.remaining == level // counter.interval
        else:
            assert weighed.wait == counter.interval - level
            assert weighed.remaining == 0


@given(rates, forth)
def test_no_stretch_of_time_holds_more_than_the_burst_and_what_has_fallen_due(
    counter: Counter, steps: list[int]
) -> None:
    admitted, _ = play(counter, steps)
    for first, begun in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= counter.limit + (admitted[last] - begun) // counter.interval


@given(rates, both)
def test_a_clock_that_is_set_grants_no_more_than_a_burst_each_time(
    counter: Counter, steps: list[int]
) -> None:
    admitted, _ = play(counter, steps)
    set_back, passed = sum(step < 0 for step in steps), sum(step for step in steps if step > 0)
    assert len(admitted) <= counter.limit * (1 + set_back) + passed // counter.interval


@given(rates, both)
def test_who_waits_as_long_as_he_was_told_is_admitted(counter: Counter, steps: list[int]) -> None:
    now, state = NOW * SECOND, 0
    for step in steps:
        now += step
        weighed = weigh(counter, state, now)
        if not weighed.fits:
            assert not weigh(counter, weighed.after, now + weighed.wait - 1).fits
            now += weighed.wait
            weighed = weigh(counter, weighed.after, now)
            assert weighed.fits
        state = weighed.after


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(0, 20_000_000), max_size=60))
def test_the_limits_library_finds_no_window_that_is_too_full(
    count: int, burst: int, steps: list[int]
) -> None:
    """Its moving window of burst + count in a period is what a rate stays below, in whatever window."""
    counter = Rate(count, 60, burst).counter(WHO, NOW)
    admitted, said = play(counter, steps)
    storage = limits.storage.MemoryStorage()
    oracle = limits.strategies.MovingWindowRateLimiter(storage)
    item = limits.RateLimitItemPerMinute(burst + count)
    clock = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limits.storage.memory.time.time", lambda: clock)
        for instant in admitted:
            clock = instant / SECOND
            assert oracle.hit(item, "k")
    assert all(one.fits for one in said[:burst])


@pytest.mark.parametrize("back", [1, 60, 3600, 86_400 * 400])
def test_a_clock_that_is_set_back_locks_nobody_out_for_the_time_that_was_undone(back: int) -> None:
    """Refused until one falls due in an empty bucket, and so on: not for an hour."""
    counter = Rate(1, 1, 5).counter(WHO, NOW)
    admitted, _ = play(counter, [0] * 6 + [-back * SECOND] + [SECOND // 2] * 20)
    after = [instant for instant in admitted if instant < NOW * SECOND - back * SECOND + 11 * SECOND]
    assert len(admitted) <= 5 + 11 + 5
    assert len(after) >= 9


def test_a_clock_that_jumps_ahead_fills_the_bucket_once() -> None:
    counter = Rate(1, 60, 5).counter(WHO, NOW)
    admitted, _ = play(counter, [0] * 6 + [86_400 * 400 * SECOND] + [0] * 9)
    assert len(admitted) == 10


@given(st.integers(1, 30), st.integers(0, 60))
def test_a_count_is_a_count(limit: int, asked: int) -> None:
    counter = Counter("q", "count", "k", limit, until=NOW + 10)
    admitted, said = play(counter, [0] * asked)
    assert len(admitted) == min(limit, asked)
    assert [one.remaining for one in said] == [max(0, limit - 1 - number) for number in range(asked)]
    assert all(one.fits or one.wait == 10 * SECOND for one in said)


@pytest.mark.parametrize("text", ["1/day", "7/hour", "59/minute", "10000/second", "3/second"])
def test_a_rate_is_never_rounded_up(text: str) -> None:
    count, _, unit = text.partition("/")
    period = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}[unit]
    counter = Rate(int(count), period, int(count)).counter(WHO, NOW)
    assert counter.interval * int(count) >= period * SECOND


def test_nothing_is_forgotten_while_it_counts() -> None:
    rate = Counter("r", "rate", "k", 5, SECOND)
    admitted = weigh(rate, 0, NOW * SECOND)
    # The next instant at which it says the same as a counter that is not there.
    at = forgettable_at(rate, admitted.after)
    assert weigh(rate, admitted.after, at) == weigh(rate, 0, at)
    assert weigh(rate, admitted.after, at - 1) != weigh(rate, 0, at - 1)
    assert forgettable_at(Counter("q", "count", "k", 5, until=NOW), 3) == (NOW + GRACE) * SECOND
    assert forgettable_at(Counter("q", "count", "k", 5), 3) == 0
    with pytest.raises(ValueError, match="one by one"):
        forgettable_at(Counter("s", "slots", "k", 5), 3)
