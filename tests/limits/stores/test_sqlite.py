"""The file of counters, from inside: two processes, a power cut, a sweep, a locked file."""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from presign_proxy.limits.counter import GRACE, LEASE, SECOND, Counter
from presign_proxy.limits.stores import sqlite, sqlite_batches, sqlite_file
from presign_proxy.limits.stores.sqlite import SqliteStore
from presign_proxy.limits.stores.sqlite_batches import Batcher, Bundle, Job
from presign_proxy.limits.stores.sqlite_file import CounterFile, _Judging
from presign_proxy.limits.stores.store import StoreError
from support.deciding import NOW
from support.descriptors import descriptors

USES = Counter("uses", "count", "uses", 3)
QUOTA = Counter("quota", "count", "quota", 3, until=NOW + 100)
RATE = Counter("rate", "rate", "rate", 3, 10 * SECOND)
SLOTS = Counter("slots", "slots", "slots", 2)


class Clock:
    def __init__(self) -> None:
        self.now = NOW * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "presign.db"


@pytest.fixture
def file(path: Path) -> Iterator[CounterFile]:
    found = CounterFile(path)
    yield found
    found.sql.close()


def admit(file: CounterFile, clock: Clock, *counters: Counter, holder: str = "h") -> bool:
    (verdict,) = file.admit([(counters, holder)], clock, LEASE)
    return verdict.admitted


def rows(file: CounterFile | Path, query: str) -> list[Any]:
    if isinstance(file, CounterFile):
        return file.sql.execute(query).fetchall()
    connection = sqlite3.connect(file)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def counters(file: CounterFile | Path) -> dict[str, tuple[int, int]]:
    return {key: (state, forget) for key, state, forget in rows(file, "SELECT * FROM counters")}


def slots(file: CounterFile | Path) -> set[tuple[str, str, int]]:
    return set(rows(file, "SELECT * FROM slots"))


# -- between two processes ----------------------------------------------------------------------------


def test_nobody_counts_between_what_is_read_and_what_is_written(path: Path) -> None:
    """`BEGIN IMMEDIATE`: with a plain `BEGIN`, another process would take a slot in between, and then either
    both have it or the first one is refused though there was room.
    """
    mine, other, clock = CounterFile(path), CounterFile(path), Clock()
    said: list[str] = []

    def rival(statement: str) -> None:
        if statement.lstrip().startswith("INSERT INTO counters") and not said:
            said.append("began")
            try:
                with other.transaction():
                    admit(other, clock, SLOTS, USES, holder="theirs")
            except sqlite3.OperationalError as error:
                said.append(error.sqlite_errorname)

    other.sql.execute("PRAGMA busy_timeout = 0")
    mine.sql.set_trace_callback(rival)
    with mine.transaction():
        assert admit(mine, clock, SLOTS, USES, holder="mine")
    mine.sql.set_trace_callback(None)
    assert said == ["began", "SQLITE_BUSY"]
    assert slots(mine) == {("slots", "mine", clock.now + LEASE)}
    assert counters(mine)["uses"][0] == 1
    mine.sql.close()
    other.sql.close()


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_begins(file: CounterFile) -> None:
    clock = Clock()
    with pytest.raises(ZeroDivisionError), file.transaction():
        file.hold([("slots", "h")], 5)
        raise ZeroDivisionError
    assert slots(file) == set()
    with file.transaction():
        assert admit(file, clock, USES)
    assert not file.sql.in_transaction
    assert counters(file)["uses"][0] == 1


def test_a_transaction_that_cannot_be_rolled_back_tells_what_was_wrong_before(file: CounterFile) -> None:
    with pytest.raises(ZeroDivisionError), file.transaction():
        file.sql.execute("ROLLBACK")
        raise ZeroDivisionError


# -- the file -----------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        file = CounterFile(path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()} == {0o600}
    file.sql.close()


def test_a_file_that_is_opened_leaves_one_descriptor_more_at_its_end(path: Path) -> None:
    before = descriptors()
    CounterFile(path).sql.close()
    path.with_name("other").write_bytes(b"not a database at all, but somebody's text\n" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        CounterFile(path.with_name("other"))
    assert descriptors() == before


def test_what_has_to_survive_a_power_cut_does(file: CounterFile) -> None:
    """2 is FULL, 1 NORMAL: a rate or a slot is over before a machine is up again."""

    def level() -> int:
        ((found,),) = rows(file, "PRAGMA synchronous")
        return found

    assert level() == 2
    assert rows(file, "PRAGMA journal_mode") == [("wal",)]
    file.be_durable(False)
    assert level() == 1
    file.be_durable(False)
    assert level() == 1
    file.be_durable(True)
    assert level() == 2


def test_durability_is_asked_for_where_it_changes_only(file: CounterFile) -> None:
    asked: list[str] = []
    file.sql.set_trace_callback(asked.append)
    for durable in (True, True, False, False, True):
        file.be_durable(durable)
    file.sql.set_trace_callback(None)
    assert asked == ["PRAGMA synchronous = NORMAL", "PRAGMA synchronous = FULL"]


def test_a_database_is_known_by_its_mark(path: Path, file: CounterFile) -> None:
    assert rows(file, "PRAGMA application_id") == [(0x70733031,)]
    assert rows(file, "PRAGMA user_version") == [(1,)]
    admit(file, Clock(), USES)
    again = CounterFile(path)
    assert counters(again)["uses"][0] == 1
    again.sql.close()


@pytest.mark.parametrize(
    "statement",
    ["PRAGMA user_version = 2", "PRAGMA application_id = 7", "PRAGMA user_version = 0"],
)
def test_a_database_of_another_version_or_application_is_refused(statement: str, path: Path) -> None:
    CounterFile(path).sql.close()
    other = sqlite3.connect(path)
    other.execute(statement)
    other.close()
    with pytest.raises(StoreError, match="is a database of something else, or of another version"):
        CounterFile(path)


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (a)", "PRAGMA application_id = 7"])
def test_a_database_that_is_somebody_elses_gets_no_tables(statement: str, path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute(statement)
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError):
        CounterFile(path)
    assert path.read_bytes() == before


def test_what_has_to_be_found_fast_has_an_index(file: CounterFile) -> None:
    admit(file, Clock(), USES)

    def plan(query: str) -> str:
        return " ".join(row[3] for row in rows(file, f"EXPLAIN QUERY PLAN {query}"))

    assert "forgettable" in plan("SELECT key FROM counters WHERE forget > 0 AND forget <= 5")
    assert "ended" in plan("DELETE FROM slots WHERE ends <= 5")
    assert "PRIMARY KEY" in plan("SELECT state FROM counters WHERE key = 'a'")
    assert "PRIMARY KEY" in plan("SELECT ends FROM slots WHERE key = 'a' AND holder = 'b'")


def test_a_file_waits_for_others_for_a_fifth_of_a_second(file: CounterFile) -> None:
    assert rows(file, "PRAGMA busy_timeout") == [(200,)]
    assert sqlite.BUSY == 0.2


# -- counting -----------------------------------------------------------------------------------------


def test_a_count_a_rate_and_slots_are_taken_together_or_not_at_all(file: CounterFile) -> None:
    clock = Clock()
    with file.transaction():
        assert admit(file, clock, QUOTA, RATE, SLOTS, holder="a")
        assert admit(file, clock, QUOTA, RATE, SLOTS, holder="b")
        assert not admit(file, clock, QUOTA, RATE, SLOTS, holder="c")
    assert counters(file) == {
        "quota": (2, (NOW + 100 + GRACE) * SECOND),
        "rate": ((NOW + 20) * SECOND, (NOW + 20) * SECOND),
    }
    assert slots(file) == {("slots", one, clock.now + LEASE) for one in "ab"}


def test_of_requests_that_are_counted_together_each_finds_those_before_it(file: CounterFile) -> None:
    clock, asked = Clock(), [((USES, SLOTS), name) for name in "abcd"]
    with file.transaction():
        verdicts = file.admit(asked, clock, LEASE)
    assert [one.admitted for one in verdicts] == [True, True, False, False]
    assert [[w.remaining for w in one.weighed] for one in verdicts] == [[2, 1], [1, 0], [0, 0], [0, 0]]
    assert {holder for _, holder, _ in slots(file)} == {"a", "b"}
    assert counters(file)["uses"][0] == 2
    with file.transaction():
        (verdict,) = file.admit([((USES,), "e")], clock, LEASE)
    assert verdict.admitted
    assert counters(file)["uses"][0] == 3


def test_a_refused_request_changes_nothing(file: CounterFile) -> None:
    clock = Clock()
    full = Counter("full", "count", "full", 0)
    assert not admit(file, clock, USES, RATE, full)
    assert counters(file) == {}


def test_a_rate_whose_clock_was_set_back_is_set_right_though_it_refuses(file: CounterFile) -> None:
    clock = Clock()
    for _ in range(3):
        assert admit(file, clock, RATE)
    clock.now -= 1000 * SECOND
    assert not admit(file, clock, USES, RATE)
    assert counters(file) == {"rate": ((NOW - 970) * SECOND, (NOW - 970) * SECOND)}


def test_a_slot_ends_with_its_lease_and_not_before(file: CounterFile) -> None:
    clock, one = Clock(), SLOTS._replace(limit=1)
    with file.transaction():
        assert admit(file, clock, one, holder="a")
        clock.now += LEASE - 1
        assert not admit(file, clock, one, holder="b")
        clock.now += 1
        assert admit(file, clock, one, holder="b")


def test_a_slot_that_is_held_again_is_one_slot_until_its_new_end(file: CounterFile) -> None:
    file.hold([("slots", "a"), ("slots", "b")], 5)
    file.hold([("slots", "a")], 9)
    file.hold([], 11)
    assert slots(file) == {("slots", "a", 9), ("slots", "b", 5)}
    file.free([])
    file.free([("slots", "b"), ("slots", "nobody"), ("others", "a")])
    assert slots(file) == {("slots", "a", 9)}


def test_slots_of_one_key_are_not_those_of_another(file: CounterFile) -> None:
    clock = Clock()
    file.hold([("others", one) for one in "abcdef"], clock.now + 5)
    with file.transaction():
        assert admit(file, clock, SLOTS)


def test_nothing_of_slots_is_read_where_no_slot_is_asked_for(file: CounterFile) -> None:
    asked: list[str] = []
    file.sql.set_trace_callback(asked.append)
    admit(file, Clock(), USES)
    file.sql.set_trace_callback(None)
    assert len(asked) == 1
    assert "slots" not in asked[0].partition("json_each")[0]


def test_a_file_that_does_not_judge_admits_nobody(file: CounterFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_COUNT", "SELECT 1 WHERE ? = ''")
    with pytest.raises(StoreError, match="has not judged"):
        admit(file, Clock(), USES)


def test_what_was_judged_once_is_counted_once() -> None:
    judging = _Judging([((USES,), "h")], {}, Clock())
    assert judging.judge({"uses": 1}) == {"uses": (2, 0)}
    assert judging.now == NOW * SECOND
    with pytest.raises(LookupError):
        judging.judge({"uses": 1})


# -- forgetting ---------------------------------------------------------------------------------------


def test_once_a_second_what_is_over_is_forgotten(file: CounterFile) -> None:
    clock = Clock()
    assert file.is_to_be_swept(clock.now)
    file.sweep(clock.now)
    assert not file.is_to_be_swept(clock.now)
    assert not file.is_to_be_swept(clock.now + SECOND - 1)
    assert file.is_to_be_swept(clock.now + SECOND)
    assert file.is_to_be_swept(clock.now - 1), "a clock that was set back"


def test_what_has_no_end_is_never_forgotten(file: CounterFile) -> None:
    clock = Clock()
    admit(file, clock, USES, RATE, QUOTA)
    file.hold([("slots", "a")], 5)
    file.hold([("slots", "b")], 6)
    file.sweep(5)
    assert set(counters(file)) == {"uses", "rate", "quota"}
    assert slots(file) == {("slots", "b", 6)}
    file.sweep((NOW + 10) * SECOND - 1)
    assert set(counters(file)) == {"uses", "rate", "quota"}
    file.sweep((NOW + 10) * SECOND)
    assert set(counters(file)) == {"uses", "quota"}
    file.sweep((NOW + 100 + GRACE) * SECOND)
    assert set(counters(file)) == {"uses"}


def test_a_thousand_at_a_time_are_forgotten(file: CounterFile) -> None:
    many = [(f"k{number}", 1, 1) for number in range(1500)]
    with file.transaction():
        file.sql.executemany("INSERT INTO counters VALUES (?, ?, ?)", many)
    file.sweep(5)
    assert len(counters(file)) == 500


# -- the store ----------------------------------------------------------------------------------------


def run(work: Callable[[SqliteStore], Coroutine[Any, Any, Any]], path: Path, clock: Any = None) -> Any:
    async def main() -> Any:
        store = SqliteStore(path, clock or Clock())
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def test_a_store_counts_and_slots_are_renewed_and_released(path: Path) -> None:
    clock = Clock()

    async def work(store: SqliteStore) -> None:
        one = SLOTS._replace(limit=1)
        assert (await store.admit([one, USES], "a")).admitted
        clock.now += LEASE - 1
        await store.renew([("slots", "a")])
        clock.now += LEASE - 1
        assert not (await store.admit([one, USES], "b")).admitted
        await store.release([("slots", "a")])
        assert (await store.admit([one, USES], "b")).admitted
        assert await store.warnings() == []
        assert store.lease == LEASE

    run(work, path, clock)
    assert counters(path)["uses"][0] == 2
    assert slots(path) == {("slots", "b", clock.now + LEASE)}


@pytest.fixture
def held(path: Path) -> Iterator[tuple[SqliteStore, Clock]]:
    """A store without a loop, whose jobs a test settles itself."""
    store, clock = SqliteStore(path, Clock()), Clock()
    store._clock = clock
    yield store, clock
    if store._file is not None:
        store._file.sql.close()


def job(*counters: Counter, holder: str = "h", **more: Any) -> Job:
    return Job(None, (counters, holder) if counters else None, **more)  # type: ignore[arg-type]


def test_a_request_without_a_slot_is_one_statement_and_all_else_is_a_transaction(
    held: tuple[SqliteStore, Clock],
) -> None:
    store, _ = held
    store._settle([job(USES)])
    file, found = store._file, []
    assert file is not None
    for one in (job(USES), job(SLOTS), job(freed=[("slots", "h")]), job(kept=[("slots", "h")])):
        asked: list[str] = []
        file.sql.set_trace_callback(asked.append)
        store._settle([one])
        file.sql.set_trace_callback(None)
        found.append([one.split()[0] for one in asked if not one.startswith("PRAGMA")])
    alone, *within = found
    assert "BEGIN" not in alone
    assert [(one[0], one[-1]) for one in within] == [("BEGIN", "COMMIT")] * 3


def test_a_count_is_on_the_disk_before_it_is_told_and_a_rate_need_not_be(
    held: tuple[SqliteStore, Clock],
) -> None:
    store, found = held[0], []
    for counter in (RATE, USES, SLOTS, QUOTA):
        store._settle([job(counter)])
        assert store._file is not None
        found += [level for (level,) in rows(store._file, "PRAGMA synchronous")]
    assert found == [1, 2, 1, 2]


def test_each_job_of_a_batch_gets_its_own_answer(held: tuple[SqliteStore, Clock]) -> None:
    store, _ = held
    batch = [job(USES), job(kept=[("slots", "a")]), job(USES), job(SLOTS, holder="b"), job(USES), job(USES)]
    store._settle(batch)
    said = [one.answer for one in batch]
    assert [getattr(one, "admitted", None) for one in said] == [True, None, True, True, True, False]
    assert said[1] is None
    assert store._file is not None
    assert {holder for _, holder, _ in slots(store._file)} == {"a", "b"}


def test_a_slot_freed_in_the_batch_is_free_for_a_request_of_it(held: tuple[SqliteStore, Clock]) -> None:
    store, _ = held
    one = SLOTS._replace(limit=1)
    store._settle([job(one, holder="a")])
    batch = [job(one, holder="b"), job(freed=[("slots", "a")])]
    store._settle(batch)
    assert batch[0].answer.admitted  # type: ignore[union-attr]
    assert store._file is not None
    assert {holder for _, holder, _ in slots(store._file)} == {"b"}


def test_slots_are_kept_and_freed_beside_requests_that_take_none(
    held: tuple[SqliteStore, Clock],
) -> None:
    store, clock = held
    store._settle([job(USES)])
    assert store._file is not None
    store._settle([job(USES), job(kept=[("slots", "a"), ("slots", "b")])])
    assert slots(store._file) == {("slots", one, clock.now + LEASE) for one in "ab"}
    store._settle([job(USES), job(freed=[("slots", "a")])])
    assert {holder for _, holder, _ in slots(store._file)} == {"b"}
    assert counters(store._file)["uses"][0] == 3


def test_a_slot_that_is_asked_for_and_given_up_in_one_moment_is_free(
    held: tuple[SqliteStore, Clock],
) -> None:
    store, _ = held
    store._settle([job(SLOTS, holder="a"), job(SLOTS, holder="b"), job(freed=[("slots", "a")])])
    assert store._file is not None
    assert {holder for _, holder, _ in slots(store._file)} == {"b"}


def test_a_file_that_failed_while_it_was_written_is_opened_anew(
    held: tuple[SqliteStore, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = held
    store._settle([job(USES)])
    before = store._file

    def fail(*_: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patched:
        patched.setattr(CounterFile, "admit", fail)
        one = job(USES)
        store._settle([one])
    assert str(one.answer) == "presign.db: database disk image is malformed"
    assert store._file is None
    store._settle([two := job(USES)])
    assert two.answer.admitted  # type: ignore[union-attr]
    assert store._file is not before


def test_what_is_over_is_forgotten_while_others_ask(held: tuple[SqliteStore, Clock]) -> None:
    store, clock = held
    store._settle([job(RATE)])
    clock.now += 20 * SECOND
    store._settle([job(USES)])
    assert store._file is not None
    assert set(counters(store._file)) == {"uses"}


def test_whatever_goes_wrong_is_told_without_its_arguments(
    held: tuple[SqliteStore, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = held

    def told(error: BaseException) -> str:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(store, "_opened", fail)
        one, other = job(USES), job(kept=[("a", "b")])
        store._settle([one, other])
        assert isinstance(one.answer, StoreError)
        assert other.answer is one.answer
        return str(one.answer)

    assert told(StoreError("as it says")) == "as it says"
    assert told(OSError(13, "Permission denied")).endswith("cannot be written: permission denied")
    assert told(PermissionError()) == "presign.db: it failed"
    assert told(sqlite3.OperationalError("disk I/O error")) == "presign.db: disk I/O error"
    assert told(ValueError("sk-SECRET")) == "presign.db: ValueError"


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [("SQLITE_BUSY", True), ("SQLITE_FULL", True), ("SQLITE_IOERR", False), ("", False)],
)
def test_a_file_that_failed_is_opened_anew_unless_it_was_merely_locked_or_full(
    name: str, is_kept: bool, held: tuple[SqliteStore, Clock]
) -> None:
    store, _ = held
    store._settle([job(USES)])
    before, error = store._file, sqlite3.OperationalError("x")
    assert before is not None
    if name:
        error.sqlite_errorname = name
    store._let_go(error)
    assert store._file is (before if is_kept else None)
    if not is_kept:
        with pytest.raises(sqlite3.ProgrammingError):
            before.sql.execute("SELECT 1")
    store._let_go(error)
    one = job(USES)
    store._settle([one])
    assert one.answer.admitted  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
def test_a_file_that_is_another_one_now_is_opened_anew(
    how: str, path: Path, held: tuple[SqliteStore, Clock]
) -> None:
    store, _ = held
    store._settle([job(USES)])
    before = store._file
    assert before is not None
    assert store._opened() is before
    if how == "moved":
        path.rename(path.with_name("old.db"))
    else:
        path.unlink()
    for left in ("-wal", "-shm"):
        path.with_name(path.name + left).unlink(missing_ok=True)
    if how == "replaced":
        CounterFile(path).sql.close()
    one = job(USES._replace(limit=1))
    store._settle([one])
    assert one.answer.admitted  # type: ignore[union-attr]
    assert store._file is not before
    assert counters(path)["uses"][0] == 1
    with pytest.raises(sqlite3.ProgrammingError):
        before.sql.execute("SELECT 1")


class Failing:
    """`CounterFile`, which fails so many times before it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
        self.tries, self.slept = 0, []
        self._now = itertools.count(1000, 0.05)
        original = sqlite.CounterFile

        def opened(path: Path) -> CounterFile:
            self.tries += 1
            if self.tries <= times:
                error = sqlite3.OperationalError("x")
                error.sqlite_errorname = name
                raise error
            return original(path)

        monkeypatch.setattr(sqlite, "CounterFile", opened)
        monkeypatch.setattr(sqlite.time, "monotonic", lambda: next(self._now))
        monkeypatch.setattr(sqlite.time, "sleep", self.slept.append)


@pytest.mark.parametrize("name", ["SQLITE_BUSY", "SQLITE_BUSY_RECOVERY"])
def test_a_file_that_another_process_makes_is_waited_for(
    name: str, held: tuple[SqliteStore, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, name, 3)
    one = job(USES)
    held[0]._settle([one])
    assert one.answer.admitted  # type: ignore[union-attr]
    assert (failing.tries, failing.slept) == (4, [0.01] * 3)


@pytest.mark.parametrize(("name", "tries"), [("SQLITE_BUSY", 5), ("SQLITE_CANTOPEN", 1)])
def test_a_file_is_not_waited_for_longer_than_another_process_may_keep_it(
    name: str, tries: int, held: tuple[SqliteStore, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(monkeypatch, name, 100)
    one = job(USES)
    held[0]._settle([one])
    assert isinstance(one.answer, StoreError)
    assert abs(failing.tries - tries) <= (tries > 1)


def test_who_waits_no_more_is_not_counted(path: Path) -> None:
    opened = threading.Event()

    async def work(store: SqliteStore) -> None:
        open_ = store._opened

        def slow() -> CounterFile:
            assert opened.wait(20)
            return open_()

        store._opened = slow  # type: ignore[method-assign]
        first = asyncio.ensure_future(store.admit([USES], "a"))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(store.admit([USES], "b"))
        third = asyncio.ensure_future(store.admit([USES], "c"))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        opened.set()
        assert (await first).weighed[0].remaining == 2
        assert (await third).weighed[0].remaining == 1

    run(work, path)


def test_what_comes_at_once_is_written_at_once_up_to_a_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    many = USES._replace(limit=1000)

    async def work(store: SqliteStore) -> list[bool]:
        settle = store._settle

        def counted(batch: list[Job]) -> None:
            sizes.append(len(batch))
            settle(batch)

        store._settle = counted  # type: ignore[method-assign]
        said = await asyncio.gather(*[store.admit([many], f"h{number}") for number in range(600)])
        return [one.admitted for one in said]

    assert run(work, path) == [True] * 600
    assert sum(sizes) == 600
    assert max(sizes) <= 2 * 256
    assert len(sizes) <= 4


def test_small_pieces_that_come_while_it_writes_are_written_together(path: Path) -> None:
    opened, sizes = threading.Event(), []

    async def work(store: SqliteStore) -> None:
        settle = store._settle

        def slow(batch: list[Job]) -> None:
            sizes.append(len(batch))
            assert opened.wait(20)
            settle(batch)

        store._settle = slow  # type: ignore[method-assign]
        asked = []
        for name in "abcd":
            asked.append(asyncio.ensure_future(store.admit([USES], name)))
            while store._batcher is None or store._batcher._jobs:  # noqa: ASYNC110 - it is handed over in turns
                await asyncio.sleep(0.001)
            while not sizes:  # noqa: ASYNC110 - the thread takes it
                await asyncio.sleep(0.001)
        opened.set()
        await asyncio.gather(*asked)

    run(work, path)
    assert sizes == [1, 3]


def test_a_thread_without_anything_to_do_waits_and_takes_what_comes(path: Path) -> None:
    store, found = SqliteStore(path), []
    bundle = Bundle(None, [])  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: found.append(store._next()), daemon=True)
    thread.start()
    thread.join(0.1)
    assert found == []
    store._bundles.put(bundle)
    thread.join(20)
    assert found == [([bundle], True)]
    store._bundles.put(bundle)
    store._bundles.put(None)
    assert store._next() == ([bundle], False)


def test_a_store_that_cannot_be_opened_says_so_when_it_is_asked_for_warnings(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match=r"presign.db: there is no directory "):
            await store.warnings()
        with pytest.raises(StoreError):
            await store.renew([("slots", "h")])
        with pytest.raises(StoreError):
            await store.release([("slots", "h")])

    run(work, tmp_path / "gone" / "presign.db")


def test_closing_writes_what_was_asked_for_and_ends_the_thread(path: Path) -> None:
    before = len(descriptors())

    async def main() -> SqliteStore:
        store = SqliteStore(path, Clock())
        asked = [asyncio.ensure_future(store.admit([USES], name)) for name in "ab"]
        await asyncio.sleep(0)
        await store.close()
        for one in asked:
            one.cancel()
        return store

    store = asyncio.run(main())
    assert store._thread is not None
    store._thread.join(20)
    assert not store._thread.is_alive()
    assert store._thread.daemon
    assert store._file is not None
    assert len(descriptors()) == before
    assert counters(path)["uses"][0] == 2


def test_a_store_that_was_never_asked_closes(path: Path) -> None:
    asyncio.run(SqliteStore(path).close())
    assert not path.exists()


class Turns:
    """An event loop whose turns the test takes, and the clock that the desk looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.now = 100.0
        monkeypatch.setattr(sqlite_batches, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.bundles: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.batcher = Batcher(self, self.bundles)  # type: ignore[arg-type]

    def call_soon(self, what: Callable[[], None]) -> None:
        self.waiting.append(what)

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.batcher.put(job(USES))

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for what in waiting:
            what()

    def sizes(self) -> list[int]:
        return [len(self.bundles.get().jobs) for _ in range(self.bundles.qsize())]


def test_jobs_are_gathered_as_long_as_each_turn_brings_more(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    for _ in range(3):
        turns.put()
        turns.turn()
        assert turns.sizes() == []
        assert len(turns.waiting) == 1, "it looks once a turn"
    turns.turn()
    assert turns.sizes() == [3]
    assert turns.waiting == []
    turns.put()
    turns.turn()
    turns.turn()
    assert turns.sizes() == [1]


@pytest.mark.parametrize(("late", "is_over"), [(0.0019, False), (0.002, True), (0.0021, True), (-5.0, False)])
def test_jobs_are_gathered_no_longer_than_the_disk_takes(
    late: float, is_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns(monkeypatch)
    assert sqlite_batches._GATHERING == 0.002
    turns.now = 0.0
    turns.put()
    turns.now += late
    turns.turn()
    assert turns.sizes() == ([1] if is_over else [])


@pytest.mark.parametrize("before", [100.0, 5000.0])
def test_the_time_of_a_job_begins_when_it_comes(before: float, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    turns.now = before
    turns.put()
    turns.now += 0.001
    turns.put()
    turns.turn()
    assert turns.sizes() == []


def test_what_is_enough_for_one_piece_is_handed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    assert sqlite_batches.BATCH == 256
    turns.put(255)
    turns.turn()
    assert turns.sizes() == []
    turns.put(1)
    turns.turn()
    assert turns.sizes() == [256]
    turns.put(600)
    turns.turn()
    assert turns.sizes() == [256, 256, 88]


def test_instants_are_unix_time_in_microseconds(path: Path) -> None:
    assert abs(SqliteStore(path)._clock() - time.time() * 1e6) < 60e6
