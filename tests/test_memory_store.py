"""Counters in the process, and which store a configuration asks for."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.limits.counter import GRACE, LEASE, SECOND, Tally
from presign_proxy.limits.stores.memory import MAX_COUNTERS, MemoryStore
from presign_proxy.limits.stores.open import Choice, problem_of
from presign_proxy.limits.stores.redis import RedisStore
from presign_proxy.limits.stores.sqlite import SqliteStore
from presign_proxy.limits.stores.store import NoRoom
from presign_proxy.signing.secret import Secret

BASE = Path("/srv/presign")
NOW = 1_800_000_000 * SECOND
SLOTS = Tally("slots", "slots", "s", 2)
USES = Tally("uses", "count", "u", 2)
RATE = Tally("rate", "rate", "r", 2, SECOND)
TODAY = Tally("quota", "count", "q", 2, until=NOW // SECOND + 60)


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

    def fits(self, *tallies: Tally, holder: str = "") -> bool:
        return run(self.store.admit(tallies, holder or f"h{next(self.holders)}")).admitted

    def remaining(self, *tallies: Tally) -> list[int]:
        return [one.remaining for one in run(self.store.admit(tallies, f"h{next(self.holders)}")).weighed]


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
    three = Tally("slots", "slots", "s", 3)
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
    assert at.fits(Tally("x", "rate", "x1", 1, SECOND))
    assert "q" in at.store._counters
    at.clock.now += 1
    assert at.fits(Tally("x", "rate", "x2", 1, SECOND))
    assert "q" not in at.store._counters


def test_a_count_that_goes_on_is_not_forgotten_while_it_does() -> None:
    at = Counted()
    slow = Tally("rate", "rate", "slow", 3, 100 * SECOND)
    assert at.fits(slow)
    at.clock.now += 99 * SECOND
    assert at.fits(slow)  # from now on it ends at 200
    at.clock.now += 2 * SECOND
    assert at.fits(USES)
    assert "slow" in at.store._counters
    assert at.remaining(slow) == [1]
    at.clock.now = NOW + 300 * SECOND
    assert at.fits(Tally("uses", "count", "v", 2))
    assert "slow" not in at.store._counters
    assert at.store._due == []


def test_what_is_over_is_looked_at_in_bounded_steps_and_never_piles_up() -> None:
    at = Counted()
    for number in range(100):
        assert at.fits(Tally("rate", "rate", f"k{number}", 1, SECOND))
    at.clock.now += 2 * SECOND
    assert at.fits(Tally("rate", "rate", "next", 1, SECOND))
    assert len(at.store._counters) == 100 - 8 + 1


@pytest.mark.parametrize("kinds", [(USES,), (SLOTS,), (USES, SLOTS), (RATE, USES)])
def test_a_full_store_takes_no_new_counter_and_goes_on_with_the_old(kinds: tuple[Tally, ...]) -> None:
    at = Counted(max_counters=2 + len(kinds))
    assert at.fits(*kinds)
    assert at.fits(Tally("uses", "count", "other", 9), Tally("slots", "slots", "more", 9))
    with pytest.raises(NoRoom):
        at.fits(Tally("uses", "count", "one too many", 9))
    with pytest.raises(NoRoom):
        at.fits(Tally("slots", "slots", "one too many", 9))
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


# -- which store ------------------------------------------------------------------------------------------


def test_each_url_opens_its_own_store(tmp_path: Path) -> None:
    memory, file, redis = (
        Choice(url, tmp_path) for url in ("memory://", "sqlite:///counts.db", "redis://u@redis.test:7000/3")
    )
    assert isinstance(memory.open(), MemoryStore)
    assert (memory.is_private, memory.path, memory.address, memory.obstacle) == (True, None, None, "")
    opened = file.open()
    assert isinstance(opened, SqliteStore)
    assert (file.is_private, file.path, file.address) == (False, tmp_path / "counts.db", None)
    assert Choice("sqlite:////var/x.db", tmp_path).path == Path("/var/x.db")
    asked = redis.open()
    assert isinstance(asked, RedisStore)
    assert (redis.is_private, redis.path, redis.address) == (False, None, ("redis.test", 7000))
    assert redis.obstacle == ""


@pytest.mark.parametrize(("url", "address"), [
    ("redis://", ("localhost", 6379)), ("redis://h", ("h", 6379)), ("rediss://h:1/0", ("h", 1)),
    ("redis://[::1]:2", ("::1", 2)),
])  # fmt: skip
def test_where_redis_listens_is_known_so_that_no_request_leads_there(
    url: str, address: tuple[str, int]
) -> None:
    assert Choice(url, BASE).address == address


def test_a_file_that_cannot_be_counted_in_is_warned_of(tmp_path: Path) -> None:
    assert Choice("sqlite:///counts.db", tmp_path).obstacle == ""
    assert Choice("sqlite:///no/such/counts.db", tmp_path).obstacle != ""


def test_the_same_store_is_one_that_is_led_to_in_the_same_way() -> None:
    one = Choice("redis://h", BASE, Secret("p" * 9), "ca.pem")
    assert one.is_same(Choice("redis://h", BASE, Secret("p" * 9), "ca.pem"))
    assert Choice("memory://", BASE).is_same(Choice("memory://", BASE))
    for other in (
        None,
        Choice("redis://g", BASE, Secret("p" * 9), "ca.pem"),
        Choice("redis://h", BASE / "x", Secret("p" * 9), "ca.pem"),
        Choice("redis://h", BASE, Secret("q" * 9), "ca.pem"),
        Choice("redis://h", BASE, None, "ca.pem"),
        Choice("redis://h", BASE, Secret("p" * 9), None),
    ):
        assert one.is_same(other) is False
        assert other is None or other.is_same(one) is False


@pytest.mark.parametrize(("url", "said"), [
    ("redis://h:notaport", "is not a URL as in redis://127.0.0.1:6379/0"),
    ("redis://h:99999", "is not a URL as in redis://127.0.0.1:6379/0"),
    ("redis://[::1", "is not a URL as in redis://127.0.0.1:6379/0"),
    ("redis://u:hunter2@h", "holds a password: URLs end up in logs; write limits.password"),
    ("redis://:@h", "holds a password: URLs end up in logs; write limits.password"),
    ("redis://h/0?x=1", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h/0#x", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h:0", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h/x", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
    ("redis://h/1/2", "is not redis://[USER@]HOST[:PORT][/DATABASE]"),
])  # fmt: skip
def test_a_url_of_redis_that_cannot_be_meant_so_is_told_without_its_password(url: str, said: str) -> None:
    assert problem_of(Choice(url, BASE)) == said


def test_a_url_that_can_be_meant_so_has_no_problem(tmp_path: Path, ca_pem: Path) -> None:
    for url in ("memory://", "sqlite:///x.db", "redis://", "redis://h", "redis://u@h:1/15", "rediss://h/"):
        assert problem_of(Choice(url, tmp_path)) is None
    assert problem_of(Choice("rediss://h", tmp_path, None, str(ca_pem))) is None
    assert (
        problem_of(Choice("redis://h", tmp_path, None, str(ca_pem))) == "has a ca, which only rediss:// needs"
    )


def test_a_redis_whose_library_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("presign_proxy.limits.stores.redis.ConnectionPool", None)
    assert problem_of(Choice("redis://h", BASE)) == (
        "redis:// needs an extra: pip install 'presign-proxy[redis]'"
    )


def test_a_redis_is_asked_with_the_password_that_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        store = Choice(f"redis://someone@127.0.0.1:{port}", BASE, Secret("hunter2-hunter2")).open()
        server.settimeout(5)

        async def ask() -> bytes:
            asking = asyncio.ensure_future(store.admit([USES], "h"))
            wire = (await asyncio.to_thread(server.accept))[0]
            with wire:
                wire.settimeout(5)
                said = await asyncio.to_thread(wire.recv, 4096)
            asking.cancel()
            await asyncio.wait([asking])
            await store.close()
            return said

        said = run(ask())
    assert b"hunter2-hunter2" in said
    assert b"someone" in said
