"""Counters in the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from presign_proxy.limits.counter import GRACE, LEASE, SECOND, Counter
from presign_proxy.limits.stores.memory import MAX_COUNTERS, MemoryStore
from presign_proxy.limits.stores.store import NoRoom

NOW = 1_800_000_000 * SECOND
SLOTS = Counter("slots", "slots", "s", 2)
USES = Counter("uses", "count", "u", 2)
RATE = Counter("rate", "rate", "r", 2, SECOND)
TODAY = Counter("quota", "count", "q", 2, until=NOW // SECOND + 60)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class Counted:
    """A store, asked by holders of its own names."""

    def __init__(self, **more: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock, **more)
        self.holders = iter(range(1_000_000))

    def fits(self, *counters: Counter, holder: str = "") -> bool:
        return run(self.store.admit(counters, holder or f"h{next(self.holders)}")).admitted

    def remaining(self, *counters: Counter) -> list[int]:
        return [one.remaining for one in run(self.store.admit(counters, f"h{next(self.holders)}")).weighed]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_it_has_room_for_a_million_and_leases_of_a_minute() -> None:
    found = MemoryStore()
    assert (MAX_COUNTERS, found._max, found.lease) == (1_000_000, 1_000_000, LEASE)
    assert abs(found._clock() - time.time() * SECOND) < 5 * SECOND


def test_uses_are_counted_up_to_their_number() -> None:
    at = Counted()
    assert [at.fits(USES) for _ in range(4)] == [True, True, False, False]
    at.clock.now += 1000 * 86_400 * SECOND
    assert not at.fits(USES)


def test_a_rate_is_counted_and_falls_due_again() -> None:
    at = Counted()
    assert [at.fits(RATE) for _ in range(3)] == [True, True, False]
    at.clock.now += SECOND
    assert [at.fits(RATE) for _ in range(2)] == [True, False]


def test_a_refused_request_uses_up_nothing_of_its_other_limits() -> None:
    at = Counted()
    assert [at.fits(USES) for _ in range(2)] == [True, True]
    for _ in range(3):
        assert not at.fits(RATE, SLOTS, USES)
    assert at.remaining(RATE, SLOTS) == [1, 1]


def test_a_slot_is_taken_until_it_is_given_back_or_its_lease_ends() -> None:
    at = Counted()
    assert at.fits(SLOTS, holder="a")
    assert at.fits(SLOTS, holder="b")
    assert not at.fits(SLOTS)
    run(at.store.release([("s", "a"), ("s", "nobody"), ("none", "a")]))
    assert at.fits(SLOTS, holder="c")
    assert not at.fits(SLOTS)
    at.clock.now += LEASE - 1
    assert not at.fits(SLOTS)
    at.clock.now += 1
    assert at.fits(SLOTS, holder="d")
    assert at.fits(SLOTS, holder="e")
    assert not at.fits(SLOTS)


def test_a_slot_that_is_renewed_is_kept_and_the_others_fall_free() -> None:
    at = Counted()
    assert at.fits(SLOTS, holder="a")
    assert at.fits(SLOTS, holder="b")
    at.clock.now += LEASE // 2
    run(at.store.renew([("s", "a")]))
    at.clock.now += LEASE // 2
    assert at.fits(SLOTS, holder="c")  # b's has ended
    assert not at.fits(SLOTS)
    at.clock.now += LEASE // 2
    assert at.fits(SLOTS, holder="d")  # a's has
    assert not at.fits(SLOTS)


def test_each_of_several_leases_ends_in_its_own_time() -> None:
    at = Counted()
    three = Counter("slots", "slots", "s", 3)
    for holder in "abc":
        assert at.fits(three, holder=holder)
        at.clock.now += 10 * SECOND
    assert not at.fits(three)
    for _ in range(3):  # those of a, b and c
        at.clock.now = min(at.store._slots["s"].values())
        at.store.lease = 1000 * SECOND
        assert at.fits(three)
        assert not at.fits(three)


def test_leases_are_as_long_as_they_are_given() -> None:
    at = Counted(lease=5 * SECOND)
    assert at.fits(SLOTS)
    assert at.fits(SLOTS)
    at.clock.now += 5 * SECOND - 1
    assert not at.fits(SLOTS)
    at.clock.now += 1
    assert at.fits(SLOTS)


def test_a_slot_whose_holder_asks_again_is_the_same_slot() -> None:
    at = Counted()
    assert at.fits(SLOTS, holder="a")
    assert at.fits(SLOTS, holder="a")
    assert len(at.store._slots["s"]) == 1


def test_the_last_slot_that_is_given_back_leaves_nothing() -> None:
    at = Counted()
    assert at.fits(SLOTS, holder="a")
    assert at.fits(SLOTS, holder="b")
    run(at.store.release([("s", "a")]))
    assert at.store._slots == {"s": {"b": NOW + LEASE}}
    run(at.store.release([("s", "b")]))
    assert (at.store._slots, at.store._earliest) == ({}, {})


def test_a_count_is_kept_for_a_day_after_its_end_and_then_forgotten() -> None:
    at = Counted()
    assert [at.fits(TODAY) for _ in range(3)] == [True, True, False]
    at.clock.now = (TODAY.until + GRACE) * SECOND - 1
    assert at.fits(Counter("x", "rate", "x1", 1, SECOND))
    assert "q" in at.store._counters
    at.clock.now += 1
    assert at.fits(Counter("x", "rate", "x2", 1, SECOND))
    assert "q" not in at.store._counters


def test_a_count_that_goes_on_is_not_forgotten_while_it_does() -> None:
    at = Counted()
    slow = Counter("rate", "rate", "slow", 3, 100 * SECOND)
    assert at.fits(slow)
    at.clock.now += 99 * SECOND
    assert at.fits(slow)  # from now on it ends at 200
    at.clock.now += 2 * SECOND
    assert at.fits(USES)
    assert "slow" in at.store._counters
    assert at.remaining(slow) == [1]
    at.clock.now = NOW + 300 * SECOND
    assert at.fits(Counter("uses", "count", "v", 2))
    assert "slow" not in at.store._counters
    assert at.store._due == []


def test_what_is_over_is_looked_at_in_bounded_steps_and_never_piles_up() -> None:
    at = Counted()
    for number in range(100):
        assert at.fits(Counter("rate", "rate", f"k{number}", 1, SECOND))
    at.clock.now += 2 * SECOND
    assert at.fits(Counter("rate", "rate", "next", 1, SECOND))
    assert len(at.store._counters) == 100 - 8 + 1


@pytest.mark.parametrize("kinds", [(USES,), (SLOTS,), (USES, SLOTS), (RATE, USES)])
def test_a_full_store_takes_no_new_counter_and_goes_on_with_the_old(kinds: tuple[Counter, ...]) -> None:
    at = Counted(max_counters=2 + len(kinds))
    assert at.fits(*kinds)
    assert at.fits(Counter("uses", "count", "other", 9), Counter("slots", "slots", "more", 9))
    with pytest.raises(NoRoom):
        at.fits(Counter("uses", "count", "one too many", 9))
    with pytest.raises(NoRoom):
        at.fits(Counter("slots", "slots", "one too many", 9))
    assert at.fits(*kinds)
    assert len(at.store._counters) + len(at.store._slots) == 2 + len(kinds)


def test_a_clock_that_was_set_back_leaves_an_empty_bucket_and_no_longer_lock() -> None:
    at = Counted()
    assert at.fits(RATE)
    at.clock.now -= 3600 * SECOND
    assert not at.fits(RATE)
    at.clock.now += SECOND
    assert at.fits(RATE)


def test_a_store_that_is_closed_has_forgotten_all() -> None:
    at = Counted()
    assert [at.fits(one) for one in (USES, USES, RATE, SLOTS)] == [True] * 4
    run(at.store.close())
    assert (at.store._counters, at.store._slots, at.store._earliest, at.store._due) == ({}, {}, {}, [])
    assert at.fits(USES)
    (warning,) = run(at.store.warnings())
    assert warning == "memory:// forgets every count when the process ends, and is not shared by workers"
