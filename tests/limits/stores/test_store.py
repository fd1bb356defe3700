"""The stores: against a model, against each other, and against everything that can go wrong with one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presign_proxy.errors import Denied, Limited
from presign_proxy.limits.counter import LEASE, SECOND, SLOT_WAIT, Counter
from presign_proxy.limits.deadline import Deadline
from presign_proxy.limits.limiter import DEADLINE, Limiter
from presign_proxy.limits.slots import Admitted
from presign_proxy.limits.stores.memory import MemoryStore
from presign_proxy.limits.stores.open import Choice
from presign_proxy.limits.stores.redis import RedisStore
from presign_proxy.limits.stores.sqlite import SqliteStore
from presign_proxy.limits.stores.sqlite_batches import Job
from presign_proxy.limits.stores.sqlite_file import _Judging
from presign_proxy.limits.stores.store import NoRoom, Store, StoreError
from presign_proxy.signing.secret import Secret
from support.deciding import NOW
from support.redis import RedisServer

SLACK = 0.35
"""Seconds by which a shared machine may be late."""

needs_redis = pytest.mark.needs("redis-server")
STORES = ["memory", "sqlite", pytest.param("redis", marks=needs_redis)]
SHARED = STORES[1:]
_numbers = itertools.count()


class Clock:
    """Unix time in microseconds, as it is told."""

    def __init__(self) -> None:
        self.now = NOW * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Durable; the tests here do not change it."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """One to be maltreated."""
    started: list[RedisServer] = []

    def make(**options: Any) -> RedisServer:
        started.append(RedisServer(tmp_path / f"redis{len(started)}", **options).start())
        return started[-1]

    yield make
    for server in started:
        server.stop()


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """A store of a kind; those that are shared lead to the same counters each time."""

    def make(kind: str, clock: Clock | None = None, lease: int = LEASE) -> Store:
        given: dict[str, Any] = {"clock": clock} if clock else {}
        if kind == "memory":
            return MemoryStore(lease=lease, **given)
        if kind == "sqlite":
            return SqliteStore(tmp_path / "presign.db", lease=lease, **given)
        server = request.getfixturevalue("redis_server")
        return RedisStore(server.url, now=clock.now if clock else 0, lease=lease)

    return make


def fresh(*kinds: str, limit: int = 10, fail_open: bool = False) -> list[Counter]:
    """Tallies with counters that nobody has used."""
    tag = f"presign:{{t{os.getpid()}_{next(_numbers)}}}"
    shapes = {
        "uses": Counter("uses", "count", f"{tag}:uses", limit, until=0),
        "quota": Counter("quota", "count", f"{tag}:quota", limit, until=NOW + 86_400, fail_open=fail_open),
        "rate": Counter("rate", "rate", f"{tag}:rate", limit, 3600 * SECOND, fail_open=fail_open),
        "slots": Counter("slots", "slots", f"{tag}:slots", limit, fail_open=fail_open),
    }
    return [shapes[kind] for kind in kinds]


def asked(counters: list[Counter], name: str = "") -> Any:
    """As much of a forward as a limiter looks at."""
    return SimpleNamespace(counters=tuple(counters), request_id=name or f"req_{next(_numbers)}")


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def settled() -> Any:
        try:
            return await main
        finally:
            # Nothing is left behind, and nothing has failed where nobody looks.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    return asyncio.run(settled())


# -- the model ----------------------------------------------------------------------------------------


class Model:
    """What a store has to say, from nothing but the list of all that was admitted."""

    def __init__(self) -> None:
        self.admitted: dict[str, list[int]] = {}
        self.held: dict[str, dict[str, int]] = {}

    def admit(self, counters: list[Counter], holder: str, now: int) -> list[tuple[bool, int, int]]:
        said = [self._judge(counter, now) for counter in counters]
        if all(fits for fits, _, _ in said):
            for counter in counters:
                self.admitted.setdefault(counter.key, []).append(now)
                if counter.kind == "slots":
                    self.held.setdefault(counter.key, {})[holder] = now + LEASE
        return said

    def _judge(self, counter: Counter, now: int) -> tuple[bool, int, int]:
        log = self.admitted.get(counter.key, [])
        if counter.kind == "rate":
            full = level = counter.limit * counter.interval
            for before, instant in itertools.pairwise([NOW * SECOND, *log, now]):
                level = min(full, level + instant - before) - counter.interval
            level += counter.interval  # the last of these is the one that is judged
            if level >= counter.interval:
                return True, level // counter.interval - 1, 0
            return False, 0, counter.interval - level
        if counter.kind == "slots":
            taken, wait = sum(ends > now for ends in self.held.get(counter.key, {}).values()), SLOT_WAIT
        else:
            taken, wait = len(log), max(0, counter.until * SECOND - now)
        return (True, counter.limit - taken - 1, 0) if taken < counter.limit else (False, 0, wait)


steps = st.tuples(
    st.integers(0, 40 * SECOND),
    st.sampled_from(["admit"] * 6 + ["release", "renew"]),
    st.sets(st.integers(0, 5), min_size=1),
    st.integers(0, 200),
)


@needs_redis
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=25))
def test_all_stores_say_what_the_model_says(
    redis_server: RedisServer, tmp_path: Path, program: list[Any]
) -> None:
    """Whatever is asked, in whatever order, with however many limits: all of them are counted, or none is."""
    tag = f"presign:{{m{next(_numbers)}}}"
    all_tallies = [
        Counter("rate", "rate", f"{tag}:r", 3, 20 * SECOND),
        Counter("odd rate", "rate", f"{tag}:o", 2, 7_777_777),
        Counter("uses", "count", f"{tag}:u", 4),
        Counter("quota", "count", f"{tag}:q", 6, until=NOW + 40),
        Counter("slots", "slots", f"{tag}:s", 2),
        Counter("more slots", "slots", f"{tag}:t", 3),
    ]
    clock, model = Clock(), Model()

    async def play() -> None:
        stores: list[Any] = [
            MemoryStore(clock),
            SqliteStore(tmp_path / f"{next(_numbers)}.db", clock),
            RedisStore(redis_server.url, now=1),
        ]
        taken: list[tuple[str, str]] = []
        for number, (passed, what, chosen, pick) in enumerate(program):
            clock.now += passed
            stores[2].now = clock.now
            holder = f"req_{number}"
            leases = taken[pick % len(taken) :][:2] if taken else []
            if what == "admit":
                counters = [all_tallies[index] for index in sorted(chosen)]
                wanted = model.admit(counters, holder, clock.now)
                for store in stores:
                    verdict = await store.admit(counters, holder)
                    said = [(one.fits, one.remaining, one.wait) for one in verdict.weighed]
                    assert said == wanted, type(store).__name__
                if all(fits for fits, _, _ in wanted):
                    taken += [(counter.key, holder) for counter in counters if counter.kind == "slots"]
            elif what == "release" and leases:
                for key, who in leases:
                    model.held[key].pop(who, None)
                for store in stores:
                    await store.release(leases)
                taken = [lease for lease in taken if lease not in leases]
            elif leases:
                for key, who in leases:
                    model.held[key][who] = clock.now + LEASE
                for store in stores:
                    await store.renew(leases)
        for store in stores:
            await store.close()

    run(play())


@pytest.mark.parametrize("kind", STORES)
def test_a_clock_that_is_set_back_is_forgiven_after_one_bucket(kind: str, make_store: MakeStore) -> None:
    counter = Counter("rate", "rate", f"presign:{{b{next(_numbers)}}}:r", 5, SECOND)
    clock = Clock()

    async def main() -> int:
        store: Any = make_store(kind, clock)
        for _ in range(6):
            await store.admit([counter], "h")
        clock.now -= 3600 * SECOND
        admitted = 0
        for _ in range(20):
            store.now = clock.now
            admitted += (await store.admit([counter], "h")).admitted
            clock.now += SECOND // 2
        await store.close()
        return admitted

    assert run(main()) == 9


@needs_redis
def test_a_gateway_whose_clock_is_years_behind_is_counted_all_the_same(redis_server: RedisServer) -> None:
    """Its day has long ended by the clock of Redis, where a key with a past end is no key."""
    counter = fresh("quota")[0]._replace(until=86_400, limit=2)

    async def main() -> list[bool]:
        store = RedisStore(redis_server.url)
        return [(await store.admit([counter], "h")).admitted for _ in range(5)]

    assert run(main()) == [True, True, False, False, False]


# -- at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("what", ["uses", "quota", "rate", "slots"])
def test_a_thousand_at_once_are_exactly_ten(kind: str, what: str, make_store: MakeStore) -> None:
    counters = fresh(what)

    async def main() -> int:
        store = make_store(kind)
        verdicts = await asyncio.gather(*[store.admit(counters, f"h{n}") for n in range(1000)])
        await store.close()
        return sum(verdict.admitted for verdict in verdicts)

    assert run(main()) == 10


@pytest.mark.parametrize("kind", STORES)
def test_of_several_limits_a_refused_request_uses_up_none(kind: str, make_store: MakeStore) -> None:
    rate, slots, uses = fresh("rate", "slots", "uses")
    narrow = fresh("uses", limit=3)[0]

    async def main() -> list[int]:
        store = make_store(kind)
        together = [[rate, slots, uses, narrow]] * 200
        await asyncio.gather(*[store.admit(counters, f"h{n}") for n, counters in enumerate(together)])
        found = [
            (await store.admit([counter], "last")).weighed[0].remaining for counter in (rate, slots, uses)
        ]
        await store.close()
        return found

    assert run(main()) == [6, 6, 6]


@pytest.mark.parametrize("kind", SHARED)
def test_three_processes_with_four_hundred_each_are_exactly_ten(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/presign.db"
    if kind == "redis":
        url = request.getfixturevalue("redis_server").url
    counter = fresh("uses")[0]
    child = f"""
import asyncio, sys
from pathlib import Path
from presign_proxy.limits.counter import Counter
from presign_proxy.limits.stores.store import StoreError
from presign_proxy.limits.stores.open import Choice
async def one(store, number, key={counter.key!r}):
    for _ in range(50):  # somebody else may hold the lock of the file for longer than a request may wait
        try:
            return (await store.admit([Counter("u", "count", key, 10)], f"h{{number}}")).admitted
        except StoreError:
            pass
async def main():
    store = Choice({url!r}, Path("/")).open()
    await one(store, -1, "another counter")
    print("ready", flush=True)
    sys.stdin.readline()
    said = await asyncio.gather(*[one(store, number) for number in range(400)])
    print(said.count(True), said.count(None), flush=True)
    await store.close()
asyncio.run(main())
"""
    children = [python(child, stdin=subprocess.PIPE) for _ in range(3)]
    for one in children:
        assert one.stdout.readline() == "ready\n"
    for one in children:
        one.stdin.write("\n")
        one.stdin.flush()
    told = [one.communicate(timeout=20)[0].split() for one in children]
    assert sum(int(admitted) for admitted, _ in told) == 10
    assert [failed for _, failed in told] == ["0"] * 3


def python(code: str, **options: Any) -> Any:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.mark.parametrize("kind", STORES)
def test_a_slot_that_is_given_back_is_free_for_the_next_request(kind: str, make_store: MakeStore) -> None:
    """Nobody waits for the giving back, and yet it comes first."""
    counters = fresh("slots", limit=1)

    async def main() -> None:
        limiter = Limiter()
        limiter._store = make_store(kind)
        for _ in range(100):
            slot = (await limiter.admit(asked(counters))).slot
            assert slot is not None
            with pytest.raises(Limited):
                await limiter.admit(asked(counters))
            slot.release()
            slot.release()
            await asyncio.sleep(0)
        assert limiter.counts == {"admitted": 100, "limited": 100}
        await limiter.close()

    run(main())


@pytest.mark.parametrize("kind", STORES)
def test_an_admission_that_nobody_waits_for_any_more_keeps_no_slot(kind: str, make_store: MakeStore) -> None:
    counters = fresh("slots", limit=1)

    async def main() -> None:
        limiter = Limiter()
        limiter._store = make_store(kind)
        await limiter._store.warnings()
        for turns in range(12):
            task = asyncio.create_task(limiter.admit(asked(counters)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if slot := (await task).slot:
                    slot.release()
            await asyncio.sleep(0.03)
            held = (await limiter.admit(asked(counters))).slot
            assert held is not None
            held.release()
            await asyncio.sleep(0)
        assert not limiter._breaker.is_open
        await limiter.close()

    run(main())


# -- leases -------------------------------------------------------------------------------------------

SHORT = 400_000


@pytest.mark.parametrize("kind", STORES)
def test_a_stream_longer_than_the_lease_keeps_its_slot(kind: str, make_store: MakeStore) -> None:
    counters = fresh("slots", limit=1)

    async def main() -> None:
        limiter = Limiter()
        limiter._store = make_store(kind, lease=SHORT)
        slot = (await limiter.admit(asked(counters))).slot
        assert slot is not None
        for _ in range(15):
            await asyncio.sleep(0.08)
            assert not slot.is_lost(time.monotonic())
            with pytest.raises(Limited):
                await limiter.admit(asked(counters))
        slot.release()
        await asyncio.sleep(0)
        assert (await limiter.admit(asked(counters))).slot is not None
        await limiter.close()

    run(main())


@pytest.mark.parametrize("kind", SHARED)
def test_the_slot_of_a_killed_worker_is_free_after_its_lease_and_not_before(
    kind: str, make_store: MakeStore
) -> None:
    counters = fresh("slots", limit=1)

    async def main() -> tuple[float, bool]:
        killed, other = Limiter(), Limiter()
        killed._store, other._store = make_store(kind, lease=SHORT), make_store(kind, lease=SHORT)
        await other._store.warnings()
        slot = (await killed.admit(asked(counters))).slot
        begun = time.monotonic()
        assert slot is not None
        assert killed._slots._renewing is not None
        killed._slots._renewing.cancel()
        while True:
            lost_before = slot.is_lost(time.monotonic())
            with contextlib.suppress(Limited):
                await other.admit(asked(counters))
                break
            await asyncio.sleep(0.01)
        took = time.monotonic() - begun
        # A worker that lives on, but could not renew it, knows in time that it is not his any more.
        await killed.close()
        await other.close()
        return took, lost_before

    took, lost_before = run(main())
    assert SHORT / SECOND - 0.05 <= took < SHORT / SECOND + SLACK
    assert lost_before


@pytest.mark.parametrize("kind", SHARED)
def test_a_slot_that_was_lost_is_not_taken_back_from_its_new_holder(kind: str, make_store: MakeStore) -> None:
    """A worker that slept through its lease, and wakes up."""
    counters = fresh("slots", limit=1)

    async def main() -> None:
        late = 0.0
        sleeper, other = Limiter(lambda: time.monotonic() + late), Limiter()
        sleeper._store, other._store = make_store(kind, lease=SHORT), make_store(kind, lease=SHORT)
        slot = (await sleeper.admit(asked(counters))).slot
        assert slot is not None
        sleeper._slots._renewing.cancel()  # type: ignore[union-attr]
        await asyncio.sleep(SHORT / SECOND + 0.05)
        mine = (await other.admit(asked(counters))).slot
        assert mine is not None
        renewing = asyncio.create_task(sleeper._slots._renew())
        await asyncio.sleep(SHORT / SECOND)
        assert slot.is_lost(time.monotonic())
        renewing.cancel()
        mine.release()
        await asyncio.sleep(0)
        assert (await other.admit(asked(counters))).slot is not None
        await sleeper.close()
        await other.close()

    run(main())


def test_slots_stay_where_they_were_taken_when_the_store_is_changed(tmp_path: Path) -> None:
    counters = fresh("slots", limit=1)
    first, second = (Choice(f"sqlite:///{name}.db", tmp_path) for name in ("first", "second"))

    async def main() -> None:
        limiter, looking = Limiter(), Limiter()
        limiter.use(first, needed=True)
        looking.use(first, needed=True)
        slot = (await limiter.admit(asked(counters))).slot
        assert slot is not None
        limiter.use(second, needed=True)
        assert (await limiter.admit(asked(counters))).slot is not None
        with pytest.raises(Limited):
            await looking.admit(asked(counters))
        slot.release()
        await asyncio.sleep(0.1)
        assert (await looking.admit(asked(counters))).slot is not None
        await limiter.close()
        await looking.close()

    run(main())


def test_a_store_is_closed_while_it_is_asked(tmp_path: Path) -> None:
    async def main() -> bool:
        store = SqliteStore(tmp_path / "presign.db")
        await store.warnings()
        asking = [asyncio.create_task(store.admit(fresh("uses"), "h")) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*asking)
        assert store._thread is not None
        return store._thread.is_alive()

    assert not run(main())


# -- time ---------------------------------------------------------------------------------------------


class Slow(MemoryStore):
    """Answers when it is told."""

    def __init__(self, wait: Callable[[], Awaitable[Any]]) -> None:
        super().__init__()
        self._wait = wait

    async def admit(self, counters: Any, holder: str) -> Any:
        await self._wait()
        return await super().admit(counters, holder)


def test_nobody_waits_longer_than_a_quarter_of_a_second() -> None:
    async def main() -> float:
        limiter = Limiter()
        limiter._store = Slow(lambda: asyncio.sleep(60))
        begun = time.monotonic()
        with pytest.raises(Denied, match="unavailable"):
            await limiter.admit(asked(fresh("uses")))
        return time.monotonic() - begun

    assert DEADLINE <= run(main()) < DEADLINE + SLACK


def test_of_many_who_wait_each_has_a_quarter_of_a_second_of_its_own() -> None:
    """One alarm rings for all of them, whenever they came."""

    async def main() -> list[float]:
        deadline = Deadline(DEADLINE)

        async def waits(after: float) -> float:
            await asyncio.sleep(after)
            begun = time.monotonic()
            with pytest.raises(TimeoutError), deadline.wait():
                await asyncio.sleep(60)
            return time.monotonic() - begun

        # The last one comes when nobody has waited for a while.
        return await asyncio.gather(*[waits(after) for after in (0, 0.013, 0.1, 0.101, 0.24, 0.9)])

    for waited in run(main()):
        assert DEADLINE * 0.95 <= waited < DEADLINE + SLACK


def test_who_goes_away_while_the_time_runs_out_is_gone_and_no_store_has_failed() -> None:
    async def main() -> None:
        limiter = Limiter()
        limiter._store = Slow(lambda: asyncio.sleep(60))
        for early in (0.0, 0.001, 0.1):
            task = asyncio.create_task(limiter.admit(asked(fresh("uses"))))
            await asyncio.sleep(early)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(DEADLINE + 0.05)
        assert limiter.counts["store_failures"] == 0
        assert not limiter._deadline._waiting

    run(main())


@pytest.mark.parametrize("kind", SHARED)
def test_a_gateway_that_is_busy_does_not_blame_its_store(kind: str, make_store: MakeStore) -> None:
    """The answer is there, and nobody had the time to look."""

    async def main() -> None:
        limiter = Limiter()
        limiter._store = make_store(kind)
        await limiter._store.warnings()
        for _ in range(2):
            admitting = [asyncio.create_task(limiter.admit(asked(fresh("uses")))) for _ in range(20)]
            await asyncio.sleep(0)
            time.sleep(0.6)  # noqa: ASYNC251 - that is the point
            await asyncio.gather(*admitting)
        assert limiter.counts["store_failures"] == 0
        await limiter.close()

    run(main())


# -- on_store_failure ---------------------------------------------------------------------------------


class Broken(MemoryStore):
    async def admit(self, counters: Any, holder: str) -> Any:
        raise StoreError("it is broken")


@pytest.mark.parametrize(
    ("counters", "passes"),
    [
        (fresh("rate", "quota", "slots", fail_open=True), True),
        (fresh("rate"), False),
        ([*fresh("rate", "slots", fail_open=True), *fresh("quota")], False),
        ([*fresh("rate", fail_open=True), *fresh("uses")], False),
        (fresh("uses", fail_open=True), False),
    ],
)
def test_what_cannot_be_counted_passes_only_where_every_limit_says_so(
    counters: list[Counter], passes: bool
) -> None:
    async def main() -> None:
        limiter = Limiter()
        limiter._store = Broken()
        for _ in range(8):  # also while the store is left alone
            if passes:
                assert await limiter.admit(asked(counters)) == Admitted()
            else:
                with pytest.raises(Denied, match="unavailable"):
                    await limiter.admit(asked(counters))

    run(main())


def test_a_full_memory_store_refuses_new_counters_and_goes_on_with_the_old() -> None:
    """Whoever can fill it must not shut out those who are counted already."""

    async def main() -> None:
        limiter = Limiter()
        store = limiter._store = MemoryStore(max_counters=100)
        old = fresh("uses", limit=1000)
        await limiter.admit(asked(old))
        for number in range(300):
            if number < 99:
                await limiter.admit(asked(fresh("uses")))
                continue
            with pytest.raises(Denied):
                await limiter.admit(asked(fresh("uses")))
        await limiter.admit(asked(old))
        assert len(store._counters) == 100
        with pytest.raises(NoRoom):
            await store.admit(fresh("uses"), "h")

    run(main())


def test_many_streams_do_not_make_the_next_admission_dear() -> None:
    """With the streams of a busy day open, each request went through all of them."""
    slots = fresh("slots", limit=100_000)

    async def main() -> list[float]:
        store, costs = MemoryStore(), []
        for number in range(20_000):
            begun = time.perf_counter()
            await store.admit(slots, f"h{number}")
            costs.append(time.perf_counter() - begun)
        return costs

    costs = run(main())
    first, last = sorted(costs[:2000])[1000], sorted(costs[-2000:])[1000]
    assert last < 5 * first


def test_a_memory_store_forgets_what_is_over() -> None:
    clock = Clock()

    async def main() -> None:
        store = MemoryStore(clock, max_counters=1000)
        for number in range(20_000):
            rate = Counter("r", "rate", f"k{number}", 5, SECOND)
            slots = Counter("s", "slots", f"s{number}", 5)
            assert (await store.admit([rate, slots], "h")).admitted
            await store.release([(slots.key, "h")])
            clock.now += SECOND // 100
        assert len(store._counters) <= 200
        assert len(store._due) <= 200
        assert not store._slots
        assert not store._earliest

    run(main())


# -- Redis --------------------------------------------------------------------------------------------

Ask = Callable[[], Awaitable[bool | None]]


async def admitted(limiter: Limiter, counters: list[Counter]) -> bool | None:
    """None where it could not be counted; in any case soon."""
    begun = time.monotonic()
    try:
        return (await limiter.admit(asked(counters))).slot is None
    except Limited:
        return False
    except Denied:
        return None
    finally:
        assert time.monotonic() - begun < DEADLINE + SLACK


async def soon(ask: Ask, patience: float = 4.0) -> bool | None:
    """What is said as soon as something is said."""
    deadline = time.monotonic() + patience
    while (said := await ask()) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - a poll
        await asyncio.sleep(0.05)
    return said


def limiter_of(url: str, password: str | None = None, ca: str | None = None) -> Limiter:
    limiter = Limiter()
    limiter.use(Choice(url, Path("/"), Secret(password) if password else None, ca), needed=False)
    return limiter


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().partition(":")[2].strip() for record in caplog.records]


def stopped(server: RedisServer) -> None:
    server.kill()


def frozen(server: RedisServer) -> None:
    server.freeze()


def read_only(server: RedisServer) -> None:
    server.client().replicaof("127.0.0.1", "1")


def full(server: RedisServer) -> None:
    server.client().config_set("maxmemory", "1")


def unwritable(server: RedisServer) -> None:
    server.client().acl_setuser("default", enabled=True, categories=["-@write"])


MENDING: dict[Callable[[RedisServer], None], Callable[[RedisServer], Any]] = {
    stopped: lambda server: server.start(),
    frozen: lambda server: server.thaw(),
    read_only: lambda server: server.client().replicaof("NO", "ONE"),
    full: lambda server: server.client().config_set("maxmemory", "0"),
    unwritable: lambda server: server.client().acl_setuser("default", enabled=True, categories=["+@all"]),
}


@needs_redis
@pytest.mark.parametrize("breaking", MENDING, ids=lambda one: one.__name__)
def test_a_redis_that_breaks_refuses_at_once_and_is_used_again_without_a_restart(
    breaking: Callable[[RedisServer], None],
    make_redis: Callable[..., RedisServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = make_redis()
    counters = fresh("uses", limit=30)
    caplog.set_level(logging.WARNING, "presign_proxy")

    async def main() -> None:
        limiter = limiter_of(server.url)
        assert [await admitted(limiter, counters) for _ in range(5)] == [True] * 5
        breaking(server)
        said = await asyncio.gather(*[admitted(limiter, counters) for _ in range(20)])
        assert said == [None] * 20
        begun = time.monotonic()
        assert [await admitted(limiter, counters) for _ in range(20)] == [None] * 20
        assert time.monotonic() - begun < 0.1  # left alone
        assert len(lines(caplog)) == 1
        MENDING[breaking](server)
        assert await soon(lambda: admitted(limiter, counters)) is not None
        rest = [await admitted(limiter, counters) for _ in range(40)]
        assert None not in rest
        # What was not answered may have been counted; nothing was counted less than it was told.
        assert rest.count(True) <= 24
        if breaking is not frozen:
            assert rest.count(True) == 24
        assert lines(caplog)[1:] == ["the limit store works again"]
        await limiter.close()

    run(main())


@needs_redis
def test_a_redis_that_is_killed_while_it_counts_never_gives_a_use_back(
    make_redis: Callable[..., RedisServer],
) -> None:
    server = make_redis()
    counters = fresh("uses", limit=300)

    async def main() -> int:
        limiter = limiter_of(server.url)
        told = 0
        for kills in range(3):
            asking = [asyncio.create_task(admitted(limiter, counters)) for _ in range(80)]
            await asyncio.sleep(0.002 + 0.004 * kills)
            await asyncio.to_thread(server.kill)
            told += (await asyncio.gather(*asking)).count(True)
            await asyncio.to_thread(server.start)
            assert await soon(lambda: admitted(limiter, fresh("uses"))) is not None
        counted = int(server.client().get(counters[0].key) or 0)
        assert counted >= told
        while await admitted(limiter, counters):
            told += 1
        await limiter.close()
        return told

    assert 0 < run(main()) <= 300


@needs_redis
def test_a_redis_that_forgets_its_scripts_counts_on(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()
    counters = fresh("uses", limit=100)

    async def main() -> list[bool | None]:
        limiter = limiter_of(server.url)
        said = []
        for number in range(20):
            if number % 3 == 2:
                server.client().script_flush()
            said += await asyncio.gather(*[admitted(limiter, counters) for _ in range(6)])
        await limiter.close()
        return said

    said = run(main())
    assert (said.count(True), said.count(False)) == (100, 20)


@needs_redis
def test_a_wrong_password_refuses_and_is_told_nowhere(
    make_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = make_redis(requirepass="the-right-password")
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        for password, wanted in (("a-wrong-password", None), (None, None), ("the-right-password", True)):
            limiter = limiter_of(server.url, password)
            assert [await admitted(limiter, fresh("uses")) for _ in range(6)] == [wanted] * 6
            with contextlib.suppress(StoreError):
                await limiter._store.warnings()
            await limiter.close()

    run(main())
    assert "a-wrong-password" not in caplog.text
    assert "the-right-password" not in caplog.text


@needs_redis
def test_a_redis_behind_tls_is_used_with_its_authority_and_with_no_other(
    make_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    ca, other = trustme.CA(), trustme.CA()
    cert = ca.issue_cert("127.0.0.1")
    for name, blob in (("cert", cert.cert_chain_pems[0]), ("key", cert.private_key_pem), ("ca", ca.cert_pem)):
        blob.write_to_path(str(tmp_path / f"{name}.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    files = {f"tls_{name}_file": str(tmp_path / f"{name}.pem") for name in ("cert", "key")}
    try:
        server = make_redis(tls=True, tls_auth_clients="no", **files)
    except RuntimeError as error:
        pytest.skip(f"this redis-server speaks no TLS: {error}")

    async def main() -> None:
        for authority, wanted in (
            (str(tmp_path / "ca.pem"), True),
            (str(tmp_path / "other.pem"), None),
            (None, None),
        ):
            limiter = limiter_of(server.url, ca=authority)
            patience = 20.0 if wanted else 1.0  # beside much other work, a handshake takes its time
            assert await soon(lambda: admitted(limiter, fresh("uses")), patience) is wanted  # noqa: B023
            await limiter.close()

    run(main())


SOMETHING_ELSE = {
    "closes": None,
    "says nothing": b"",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "OK to everything": b"+OK\r\n" * 20,
    "yes to everything": b":1\r\n" * 20,
    "an admission without being asked": b"*3\r\n:1\r\n:9\r\n:0\r\n" * 20,
    "junk": bytes(range(256)),
}


@needs_redis
@pytest.mark.parametrize("says", SOMETHING_ELSE)
def test_something_else_at_the_port_of_redis_admits_nobody(says: str) -> None:
    words = SOMETHING_ELSE[says]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    if words is None:
                        client.close()
                        continue
                    kept.append(client)
                    client.recv(1000)
                    client.sendall(words)

        threading.Thread(target=serve, daemon=True).start()

        async def main() -> list[bool | None]:
            limiter = limiter_of(f"redis://127.0.0.1:{listener.getsockname()[1]}")
            said = [await admitted(limiter, fresh("quota", "rate")) for _ in range(6)]
            await limiter.close()
            return said

        assert run(main()) == [None] * 6
        for client in kept:
            client.close()


@needs_redis
def test_an_answer_that_comes_too_late_reaches_nobody_else(make_redis: Callable[..., RedisServer]) -> None:
    """Somebody stops waiting; the next one must not be given what was said to the first."""
    server = make_redis()
    spent, free = fresh("uses", limit=1), fresh("uses", limit=1000)

    async def main() -> None:
        store = RedisStore(server.url)
        await store.admit(spent, "h")
        for turns in range(12):
            lost = asyncio.create_task(store.admit(free, "h"))
            for _ in range(turns):
                await asyncio.sleep(0)
            lost.cancel()
            said = await asyncio.gather(*[store.admit(spent, "h"), store.admit(free, "h")])
            assert [verdict.admitted for verdict in said] == [False, True]
        await store.close()

    run(main())


@needs_redis
@pytest.mark.parametrize(
    ("settings_", "found"),
    [
        ({}, []),
        ({"appendonly": "no"}, ["appendonly no"]),
        ({"appendfsync": "everysec"}, ["appendfsync everysec"]),
        ({"maxmemory-policy": "allkeys-lru"}, ["maxmemory-policy allkeys-lru"]),
    ],
)
def test_a_redis_that_may_lose_counts_is_warned_of(
    make_redis: Callable[..., RedisServer], settings_: dict[str, str], found: list[str]
) -> None:
    server = make_redis(**settings_)

    async def main() -> None:
        store = RedisStore(server.url)
        warnings = await store.warnings()
        assert [any(one in warning for warning in warnings) for one in found] == [True] * len(found)
        assert len(warnings) == len(found)
        server.client().acl_setuser("default", enabled=True, commands=["-config"])
        assert await store.warnings() == ["the store does not tell its configuration: it may lose counts"]
        await store.close()

    run(main())


@needs_redis
def test_what_is_kept_in_redis_ends_by_itself(redis_server: RedisServer) -> None:
    now = int(time.time())
    rate = fresh("rate")[0]._replace(interval=SECOND)
    quota = fresh("quota")[0]._replace(until=now + 100)
    slots, uses = fresh("slots", "uses")

    async def main() -> None:
        store = RedisStore(redis_server.url)
        await store.admit([rate, quota, slots, uses], "h")
        await store.close()

    run(main())
    client = redis_server.client()
    assert 0 < client.pttl(rate.key) <= 1001
    assert 86_400 < client.ttl(quota.key) <= 86_501
    assert 59_000 < client.pttl(slots.key) <= 60_000
    assert client.ttl(uses.key) == -1


# -- SQLite -------------------------------------------------------------------------------------------


def sqlite_limiter(path: Path) -> Limiter:
    return limiter_of(f"sqlite:///{path}")


def test_a_locked_file_refuses_and_is_used_again(tmp_path: Path) -> None:
    path, counters = tmp_path / "presign.db", fresh("uses", limit=5)

    async def main() -> None:
        limiter = sqlite_limiter(path)
        assert await admitted(limiter, counters)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert await asyncio.gather(*[admitted(limiter, counters) for _ in range(20)]) == [None] * 20
        other.execute("ROLLBACK")
        other.close()
        assert await soon(lambda: admitted(limiter, counters))
        assert [await admitted(limiter, counters) for _ in range(6)].count(True) == 3
        await limiter.close()

    run(main())


def test_a_damaged_file_refuses_and_is_not_begun_anew(tmp_path: Path) -> None:
    path, counters = tmp_path / "presign.db", fresh("uses", limit=5)

    async def main() -> None:
        limiter = sqlite_limiter(path)
        for _ in range(300):
            await admitted(limiter, fresh("uses"))
        await limiter.close()
        damaged = bytearray(path.read_bytes())
        damaged[100:] = os.urandom(len(damaged) - 100)
        path.write_bytes(damaged)
        limiter = sqlite_limiter(path)
        assert [await admitted(limiter, counters) for _ in range(6)] == [None] * 6
        await limiter.close()
        assert path.read_bytes()[100:2000] == damaged[100:2000]

    run(main())


@pytest.mark.parametrize("content", [b"", b"not a database at all, but somebody's text\n" * 100])
def test_a_file_that_is_no_database(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "presign.db"
    path.write_bytes(content)
    path.chmod(0o600)

    async def main() -> bool | None:
        limiter = sqlite_limiter(path)
        try:
            return await admitted(limiter, fresh("uses"))
        finally:
            await limiter.close()

    assert run(main()) is (None if content else True)
    assert not content or path.read_bytes() == content


def test_the_database_of_another_application_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "presign.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE counters (mine TEXT)")
        other.commit()
    before = path.read_bytes()

    async def main() -> bool | None:
        limiter = sqlite_limiter(path)
        try:
            return await admitted(limiter, fresh("uses"))
        finally:
            await limiter.close()

    assert run(main()) is None
    assert path.read_bytes() == before


def test_a_file_that_is_deleted_while_it_is_used_is_made_again_for_all(tmp_path: Path) -> None:
    """Its owner wants to begin anew: two gateways must not go on with two files then."""
    path, counters = tmp_path / "presign.db", fresh("uses", limit=4)

    async def main() -> None:
        one, other = sqlite_limiter(path), sqlite_limiter(path)
        assert [await admitted(one, counters), await admitted(other, counters)] == [True, True]
        for left in ("presign.db", "presign.db-wal", "presign.db-shm"):
            os.unlink(tmp_path / left)  # noqa: PTH108 - a moment, in a test
        said = [await admitted(limiter, counters) for limiter in (one, other) * 4]
        assert said.count(True) == 4
        assert None not in said
        await one.close()
        await other.close()

    run(main())


STARTING = """
import os, sys, time
from pathlib import Path
from presign_proxy.limits.stores.sqlite import SqliteStore
directory, failed = Path(DIRECTORY), 0
for number in range(15):
    gun = time.monotonic() + 0.02
    children = []
    for _ in range(6):
        if not (child := os.fork()):
            while time.monotonic() < gun:
                pass
            try:
                SqliteStore(directory / f"{number}.db")._opened()
            except BaseException as error:
                print(type(error).__name__, error, file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(child)
    failed += sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
print(failed)
"""


def test_workers_that_start_at_once_make_one_file(tmp_path: Path) -> None:
    child = python(STARTING.replace("DIRECTORY", repr(str(tmp_path))))
    assert child.communicate(timeout=30)[0] == "0\n"


def test_a_directory_that_is_gone_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        limiter = sqlite_limiter(tmp_path / "gone" / "presign.db")
        assert [await admitted(limiter, fresh("uses")) for _ in range(6)] == [None] * 6
        (tmp_path / "gone").mkdir()
        assert await soon(lambda: admitted(limiter, fresh("uses")))
        await limiter.close()

    run(main())


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async def main() -> None:
        limiter = sqlite_limiter(tmp_path / "presign.db")
        await admitted(limiter, fresh("uses"))
        with os.scandir(tmp_path) as found:
            modes = [one.stat().st_mode & 0o777 for one in found]
        assert modes == [0o600] * 3
        await limiter.close()

    before = os.umask(0)
    try:
        run(main())
    finally:
        os.umask(before)


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from presign_proxy.limits.counter import Counter
from presign_proxy.limits.stores.store import StoreError
from presign_proxy.limits.stores.sqlite import SqliteStore
async def main():
    store = SqliteStore(Path(sys.argv[1]))
    uses = Counter("u", "count", "the one that counts", 1000)
    told = failed = 0
    async def one(*counters):
        try:
            return (await store.admit(counters, "h")).admitted
        except StoreError as error:
            return None
    assert await one(uses)
    told += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    for number in range(400):
        said = await one(uses, Counter("f", "count", f"filling {number} " + "x" * 500, 1))
        told += said is True
        failed += said is None
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for number in range(20):
        assert await one(uses)
        told += 1
    left = (await store.admit([uses], "h")).weighed[0].remaining
    print(told + 1, failed, 1000 - left)
    await store.close()
asyncio.run(main())
"""


def test_a_full_disk_refuses_and_loses_no_count(tmp_path: Path) -> None:
    child = python(FULL_DISK.replace("sys.argv[1]", repr(str(tmp_path / "presign.db"))))
    told, failed, counted = map(int, child.communicate(timeout=30)[0].split())
    assert failed > 10
    assert told == counted


KILLED = """
import asyncio, json, os, signal, sys
from pathlib import Path
from presign_proxy.limits.counter import Counter
from presign_proxy.limits.stores import sqlite
COUNTERS = [Counter("u", "count", "uses", 6), Counter("r", "rate", "rate", 6, 3600_000_000)]
if WITH_SLOTS:
    COUNTERS.append(Counter("s", "slots", "slots", 50))
async def some(path, tell, limit):
    store = sqlite.SqliteStore(path)
    for number in range(limit):
        verdict = await store.admit(COUNTERS, f"h{number}")
        tell(verdict.admitted)
    await store.close()
def victim(path, fatal, pipe):
    seen = 0
    def count(*_):
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    set_up, judged = sqlite.CounterFile._set_up, sqlite.CounterFile._judged
    def traced(self):
        self.sql.set_trace_callback(count)
        set_up(self)
    def fatally_judged(self, states):
        said = judged(self, states)
        count()
        return said
    sqlite.CounterFile._set_up, sqlite.CounterFile._judged = traced, fatally_judged
    settle = sqlite.SqliteStore._commit
    def settled(self, batch):
        settle(self, batch)
        count()
    sqlite.SqliteStore._commit = settled
    asyncio.run(some(path, lambda said: os.write(pipe, b"1" if said else b"0"), 3))
directory = Path(DIRECTORY)
for fatal in range(1, 200):
    path = directory / f"{fatal}.db"
    mine, theirs = os.pipe()
    child = os.fork()
    if not child:
        victim(path, fatal, theirs)
        os._exit(0)
    os.close(theirs)
    told = os.read(mine, 100).count(b"1")
    while more := os.read(mine, 100):
        told += more.count(b"1")
    os.close(mine)
    _, status = os.waitpid(child, 0)
    rest = []
    asyncio.run(some(path, rest.append, 10))
    print(fatal, os.WIFSIGNALED(status), told, rest.count(True), flush=True)
    if not os.WIFSIGNALED(status):
        break
"""


@pytest.mark.parametrize("slots", [False, True])
def test_a_gateway_that_is_killed_between_any_two_statements_gives_no_use_back(
    slots: bool, tmp_path: Path
) -> None:
    """And within the one that counts, and between what is written and who is told."""
    code = KILLED.replace("DIRECTORY", repr(str(tmp_path))).replace("WITH_SLOTS", str(slots))
    child = python(code)
    rows = [line.split() for line in child.communicate(timeout=60)[0].splitlines()]
    assert child.returncode == 0
    assert len(rows) > 20
    for fatal, killed, told, rest in rows:
        # At most the one that was under way is counted and was never told.
        assert int(told) + int(rest) in (5, 6), (fatal, killed, told, rest)
    assert rows[-1][1:] == ["False", "3", "3"]


def test_what_comes_at_once_is_written_at_once(tmp_path: Path) -> None:
    counters, batches = fresh("uses", "rate", limit=150), []

    class Watched(SqliteStore):
        def _commit(self, batch: list[Job]) -> None:
            batches.append(len(batch))
            super()._commit(batch)

    async def main() -> None:
        store = Watched(tmp_path / "presign.db")
        await store.warnings()
        said = await asyncio.gather(*[store.admit(counters, f"h{number}") for number in range(200)])
        assert [verdict.admitted for verdict in said] == [True] * 150 + [False] * 50
        assert batches == [1, 200]
        await store.close()

    run(main())


def test_an_error_while_it_judges_counts_nobody_and_the_next_request_is_counted(tmp_path: Path) -> None:
    counters, now = fresh("uses", "rate", limit=2), [None, NOW * SECOND]

    def clock() -> Any:
        if (found := now[0]) is None:
            raise ArithmeticError
        return found

    async def main() -> None:
        store = SqliteStore(tmp_path / "presign.db")
        assert (await store.admit(counters, "a")).admitted
        store._clock = clock
        with pytest.raises(StoreError):
            await store.admit(counters, "b")
        now.pop(0)
        assert [(await store.admit(counters, name)).admitted for name in "cd"] == [True, False]
        await store.close()

    run(main())


def test_a_batch_is_judged_once_whatever_sqlite_asks_for() -> None:
    judging = _Judging([(fresh("uses"), "h")], {}, Clock())
    judging.judge({})
    with pytest.raises(LookupError):
        judging.judge({})


def test_a_store_goes_on_in_another_loop_than_the_one_that_has_ended(tmp_path: Path) -> None:
    store, counters = SqliteStore(tmp_path / "presign.db"), fresh("uses", limit=3)

    async def leaves() -> None:
        await store.warnings()
        asking = asyncio.ensure_future(store.admit(counters, "h"))
        await asyncio.sleep(0)
        asking.cancel()

    async def stays() -> list[bool]:
        said = [(await store.admit(counters, "h")).admitted for _ in range(4)]
        await store.close()
        return said

    asyncio.run(leaves())
    assert run(stays()) == [True, True, True, False]


@pytest.mark.parametrize("kind", STORES)
def test_leases_end_one_by_one(kind: str, make_store: MakeStore) -> None:
    slots, clock = fresh("slots", limit=3), Clock()

    async def main() -> None:
        store: Any = make_store(kind, clock)

        async def at(second: int, holder: str) -> bool:
            clock.now = store.now = (NOW + second) * SECOND
            return (await store.admit(slots, holder)).admitted

        assert [await at(0, "a"), await at(20, "b"), await at(40, "c"), await at(59, "d")] == [True] * 3 + [
            False
        ]
        assert [await at(60, "d"), await at(61, "e"), await at(79, "e")] == [True, False, False]
        await store.renew([(slots[0].key, "b")])
        assert [await at(80, "e"), await at(99, "e"), await at(100, "e"), await at(101, "f")] == [
            False,
            False,
            True,
            False,
        ]
        await store.close()

    run(main())


def test_a_slot_that_is_asked_for_and_given_up_in_one_moment_is_free(tmp_path: Path) -> None:
    """In one transaction: the giving up came last."""
    slots = fresh("slots", limit=1)

    def slow() -> int:
        time.sleep(0.1)
        return time.time_ns() // 1000

    async def main() -> None:
        store = SqliteStore(tmp_path / "presign.db", slow)
        first = asyncio.create_task(store.warnings())
        await asyncio.sleep(0.05)
        await asyncio.gather(first, store.admit(slots, "h"), store.release([(slots[0].key, "h")]))
        assert (await store.admit(slots, "other")).admitted
        await store.close()

    run(main())


@pytest.mark.parametrize("kind", STORES)
def test_a_slot_held_by_nobody_else_than_its_holder_cannot_be_freed_by_another(
    kind: str, make_store: MakeStore
) -> None:
    counters = fresh("slots", limit=1)

    async def main() -> None:
        store = make_store(kind)
        assert (await store.admit(counters, "mine")).admitted
        await store.release([(counters[0].key, "somebody's")])
        assert not (await store.admit(counters, "other")).admitted
        await store.release([(counters[0].key, "mine")])
        await store.release([(counters[0].key, "mine")])
        assert (await store.admit(counters, "other")).admitted
        await store.close()

    run(main())
