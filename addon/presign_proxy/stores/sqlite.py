"""Counters in a file: durable, and shared by all processes of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ..limits.tally import LEASE, SECOND, Tally, forgettable_at, weigh
from ..limits.verdict import Verdict
from . import Lease, StoreError

BUSY: Final = 0.2
"""Seconds for which another process may keep the file locked."""
BATCH: Final = 256
"""Requests that are counted in one transaction: they share the wait for the disk."""
_APPLICATION: Final = 0x70733031
_VERSION: Final = 1
_SWEPT: Final = 1000

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS counters (
  key TEXT PRIMARY KEY, state INTEGER NOT NULL, forget INTEGER NOT NULL  -- microseconds; 0 for never
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (
  key TEXT NOT NULL, holder TEXT NOT NULL, ends INTEGER NOT NULL, PRIMARY KEY (key, holder)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS forgettable ON counters (forget) WHERE forget > 0;
CREATE INDEX IF NOT EXISTS ended ON slots (ends);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

# One statement for a whole batch, its rows as JSON: each gives up the interpreter's lock, and while the event
# loop is busy it takes milliseconds to get it back.
_STATES: Final = (
    "SELECT json_group_object(key, state) FROM counters WHERE key IN (SELECT value FROM json_each(?))"
)
_TAKEN: Final = (
    "SELECT json_group_object(key, taken) FROM (SELECT key, count(*) AS taken FROM slots"
    " WHERE key IN (SELECT value FROM json_each(?)) AND ends > ? GROUP BY key)"
)
_PUT: Final = (
    "INSERT INTO counters SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),"
    " json_extract(value, '$[2]') FROM json_each(?) WHERE true"
    " ON CONFLICT (key) DO UPDATE SET state = excluded.state, forget = excluded.forget"
)
_HOLD: Final = (
    "INSERT INTO slots SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?"
    " FROM json_each(?) WHERE true ON CONFLICT (key, holder) DO UPDATE SET ends = excluded.ends"
)
_FREE: Final = (
    "DELETE FROM slots WHERE (key, holder) IN"
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)

_Asked = tuple[Sequence[Tally], str]
"""What one request is held against, and who takes its slots."""


class _File:
    """The open database. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, sqlite3.Error, StoreError."""
        # Made here, so that nobody else can ever read who used what. SQLite's own two files copy its mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.identity = _identity(path)
        self.sql = sqlite3.connect(path, timeout=BUSY, isolation_level=None, cached_statements=32)
        try:
            self._set_up()
        except BaseException:
            self.sql.close()
            raise
        self._durable = True
        self._swept = 0

    def _set_up(self) -> None:
        # In this order: another worker may be making them, which it does in one step.
        (tables,) = self.sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,), (version,) = (
            self.sql.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        if (application, version) != (_APPLICATION, _VERSION):
            if tables or application:
                raise StoreError("the store is a database of something else, or of another version")
            self.sql.execute("PRAGMA journal_mode = WAL")
            self.sql.executescript(_SCHEMA)
        self.sql.execute("PRAGMA synchronous = FULL")

    def be_durable(self, durable: bool) -> None:
        """Whether the next transaction has to survive a power cut; all survive the death of the process."""
        if durable != self._durable:
            self.sql.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def hold(self, leases: Sequence[Lease], ends: int) -> None:
        if leases:
            self.sql.execute(_HOLD, (ends, json.dumps(leases)))

    def free(self, leases: Sequence[Lease]) -> None:
        if leases:
            self.sql.execute(_FREE, (json.dumps(leases),))

    def admit(self, asked: Sequence[_Asked], now: int, lease: int) -> list[Verdict]:
        """Each after the other, on what was read once and is written once."""
        states = self._states([tally for tallies, _ in asked for tally in tallies], now)
        changed: dict[str, int] = {}
        taken: list[Lease] = []
        verdicts = []
        for tallies, holder in asked:
            weighed = tuple([weigh(tally, states.get(tally.key, 0), now) for tally in tallies])
            verdict = Verdict(weighed)
            verdicts.append(verdict)
            for tally, one in zip(tallies, weighed, strict=True):
                if not verdict.admitted and (one.fits or one.after == states.get(tally.key, 0)):
                    continue
                states[tally.key] = one.after
                if tally.kind == "slots":
                    taken.append((tally.key, holder))
                else:
                    changed[tally.key] = forgettable_at(tally, one.after)
        self.hold(taken, now + lease)
        if changed:
            rows = [(key, states[key], forget) for key, forget in changed.items()]
            self.sql.execute(_PUT, (json.dumps(rows),))
        return verdicts

    def _states(self, tallies: Sequence[Tally], now: int) -> dict[str, int]:
        slots = {tally.key for tally in tallies if tally.kind == "slots"}
        counters = {tally.key for tally in tallies} - slots
        found: dict[str, int] = {}
        if counters:
            found |= self._read(_STATES, (json.dumps(list(counters)),))
        if slots:
            found |= self._read(_TAKEN, (json.dumps(list(slots)), now))
        return found

    def _read(self, query: str, arguments: tuple[str | int, ...]) -> dict[str, int]:
        (answer,) = self.sql.execute(query, arguments).fetchone()
        return dict(json.loads(answer))

    def sweep(self, now: int) -> None:
        """Once a second, forget some of what is over."""
        if 0 <= now - self._swept < SECOND:
            return
        self._swept = now
        self.sql.execute(
            "DELETE FROM counters WHERE key IN"
            " (SELECT key FROM counters WHERE forget > 0 AND forget <= ? LIMIT ?)",
            (now, _SWEPT),
        )
        self.sql.execute("DELETE FROM slots WHERE ends <= ?", (now,))


class _Job:
    """What one caller wants done, and where it waits: a request counted, slots kept, slots freed."""

    __slots__ = ("asked", "freed", "future", "kept", "loop")

    def __init__(
        self, asked: Sequence[_Asked] = (), kept: Sequence[Lease] = (), freed: Sequence[Lease] = ()
    ) -> None:
        self.asked = asked
        self.kept = kept
        self.freed = freed
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Verdict | None] = self.loop.create_future()

    def tell(self, result: Verdict | StoreError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self.loop.call_soon_threadsafe(self._tell, result)

    def _tell(self, result: Verdict | StoreError | None) -> None:
        if self.future.done():
            return  # nobody waits any more
        if isinstance(result, StoreError):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class SqliteStore:
    """One thread writes. Requests that come while it waits for the disk are counted together, in order."""

    def __init__(
        self, path: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000, lease: int = LEASE
    ) -> None:
        """
        Args:
            path: of the file, which is made when it is first needed.
            clock: Unix time in microseconds.
            lease: microseconds.
        """
        self._path = path
        self._clock = clock
        self.lease = lease
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._file: _File | None = None

    async def admit(self, tallies: Sequence[Tally], holder: str) -> Verdict:
        verdict = await self._do(_Job(asked=[(tallies, holder)]))
        if verdict is None:
            raise StoreError("the store has not judged")
        return verdict

    async def renew(self, leases: Sequence[Lease]) -> None:
        await self._do(_Job(kept=leases))

    async def release(self, leases: Sequence[Lease]) -> None:
        await self._do(_Job(freed=leases))

    async def warnings(self) -> list[str]:
        await self._do(_Job())
        return []

    async def close(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join, 1.0)

    async def _do(self, job: _Job) -> Verdict | None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="presign-store", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return await job.future

    def _run(self) -> None:
        going = True
        while going:
            jobs = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(jobs) < BATCH:
                    jobs.append(self._jobs.get_nowait())
            going = None not in jobs
            # Who does not wait any more must not be counted, if that can still be helped.
            batch = [job for job in jobs if job is not None and not job.future.cancelled()]
            if batch:
                self._settle(batch)
        if self._file is not None:
            self._file.sql.close()

    def _settle(self, batch: list[_Job]) -> None:
        """Do all of it in one transaction. Nobody is told of anything before it is committed."""
        failure: StoreError | None = None
        verdicts: list[Verdict] = []
        asked = [one for job in batch for one in job.asked]
        try:
            file = self._opened()
            # A rate or a slot is over before a machine is up again.
            file.be_durable(any(tally.kind == "count" for tallies, _ in asked for tally in tallies))
            file.sql.execute("BEGIN IMMEDIATE")
            try:
                verdicts = self._write(file, batch, asked)
                file.sql.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    file.sql.execute("ROLLBACK")
                raise
        except StoreError as error:
            failure = error
        except Exception as error:
            failure = StoreError(f"{self._path.name}: {_told(error)}")
            self._let_go(error)
        said = iter(verdicts)
        for job in batch:
            job.tell(failure or (next(said) if job.asked else None))

    def _write(self, file: _File, batch: list[_Job], asked: list[_Asked]) -> list[Verdict]:
        now = self._clock()
        file.hold([lease for job in batch for lease in job.kept], now + self.lease)
        freed = [lease for job in batch for lease in job.freed]
        file.free(freed)
        verdicts = file.admit(asked, now, self.lease) if asked else []
        # What was asked for and given up in the same moment.
        holders = {holder for _, holder in asked}
        file.free([lease for lease in freed if lease[1] in holders])
        file.sweep(now)
        return verdicts

    def _opened(self) -> _File:
        """The file under that name now: one that was deleted or put elsewhere is nobody else's any more."""
        if self._file is not None and _identity(self._path) != self._file.identity:
            self._file.sql.close()
            self._file = None
        if self._file is None:
            self._file = self._open()
        return self._file

    def _open(self) -> _File:
        """SQLite does not wait for others where the first of them makes the file."""
        until = time.monotonic() + BUSY
        while True:
            try:
                return _File(self._path)
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _let_go(self, error: Exception) -> None:
        """Open it anew next time, unless it was merely locked."""
        name = getattr(error, "sqlite_errorname", "")
        if self._file is not None and name not in ("SQLITE_BUSY", "SQLITE_FULL"):
            with contextlib.suppress(sqlite3.Error):
                self._file.sql.close()
            self._file = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
