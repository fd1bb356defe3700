"""Counters in a file: durable, and shared by all processes of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ..limits.tally import LEASE, SECOND, Tally, forgettable_at, weigh
from ..limits.verdict import Verdict
from . import Lease, StoreError

BUSY: Final = 0.2
"""Seconds for which another process may keep the file locked."""
BATCH: Final = 64
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

_PUT: Final = (
    "INSERT INTO counters VALUES (?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET state = excluded.state, forget = excluded.forget"
)
_HOLD: Final = (
    "INSERT INTO slots VALUES (?, ?, ?) ON CONFLICT (key, holder) DO UPDATE SET ends = excluded.ends"
)

Work = Callable[["_File", int], Any]


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
        (application,), (version,) = (
            self.sql.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        (tables,) = self.sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
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

    def admit(self, tallies: Sequence[Tally], holder: str, now: int) -> Verdict:
        verdict = Verdict(tuple([weigh(tally, self._state(tally, now), now) for tally in tallies]))
        if verdict.admitted:
            for tally, weighed in zip(tallies, verdict.weighed, strict=True):
                if tally.kind == "slots":
                    self.sql.execute(_HOLD, (tally.key, holder, now + LEASE))
                else:
                    forget = forgettable_at(tally, weighed.after)
                    self.sql.execute(_PUT, (tally.key, weighed.after, forget))
        return verdict

    def _state(self, tally: Tally, now: int) -> int:
        if tally.kind == "slots":
            query = "SELECT count(*) FROM slots WHERE key = ? AND ends > ?"
            return int(self.sql.execute(query, (tally.key, now)).fetchone()[0])
        found = self.sql.execute("SELECT state FROM counters WHERE key = ?", (tally.key,)).fetchone()
        return int(found[0]) if found else 0

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
    """Work to be done in a transaction, and who waits for its result."""

    __slots__ = ("durable", "future", "loop", "result", "work")

    def __init__(self, work: Work, *, durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None

    def tell(self, error: StoreError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self.loop.call_soon_threadsafe(self._tell, error)

    def _tell(self, error: StoreError | None) -> None:
        if self.future.done():
            return  # nobody waits any more
        if error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(error)


class SqliteStore:
    """One thread writes. Requests that come while it waits for the disk are counted together, in order."""

    def __init__(self, path: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        """
        Args:
            path: of the file, which is made when it is first needed.
            clock: Unix time in microseconds.
        """
        self._path = path
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._file: _File | None = None

    async def admit(self, tallies: Sequence[Tally], holder: str) -> Verdict:
        # A rate or a slot is over before a machine is up again.
        durable = any(tally.kind == "count" for tally in tallies)
        verdict: Verdict = await self._do(lambda file, now: file.admit(tallies, holder, now), durable=durable)
        return verdict

    async def renew(self, leases: Sequence[Lease]) -> None:
        def work(file: _File, now: int) -> None:
            file.sql.executemany(_HOLD, [(key, holder, now + LEASE) for key, holder in leases])

        await self._do(work, durable=False)

    async def release(self, leases: Sequence[Lease]) -> None:
        def work(file: _File, _: int) -> None:
            file.sql.executemany("DELETE FROM slots WHERE key = ? AND holder = ?", leases)

        await self._do(work, durable=False)

    async def warnings(self) -> list[str]:
        await self._do(lambda *_: None, durable=False)
        return []

    async def close(self) -> None:
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join, 1.0)

    async def _do(self, work: Work, *, durable: bool) -> Any:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="presign-store", daemon=True)
            self._thread.start()
        job = _Job(work, durable=durable)
        self._jobs.put(job)
        return await job.future

    def _run(self) -> None:
        going = True
        while going:
            batch: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                # Who does not wait any more must not be counted, if that can still be helped.
                batch += () if job.future.cancelled() else (job,)
                try:
                    job = self._jobs.get_nowait() if len(batch) < BATCH else self._jobs.get(timeout=0)
                except queue.Empty:
                    break
            going = job is not None or bool(batch)
            if batch:
                self._settle(batch)
        if self._file is not None:
            self._file.sql.close()

    def _settle(self, batch: list[_Job]) -> None:
        """Do all of it in one transaction. Nobody is told of anything before it is committed."""
        failure: StoreError | None = None
        try:
            file = self._opened()
            file.be_durable(any(job.durable for job in batch))
            file.sql.execute("BEGIN IMMEDIATE")
            try:
                now = self._clock()
                for job in batch:
                    job.result = job.work(file, now)
                file.sweep(now)
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
        for job in batch:
            job.tell(failure)

    def _opened(self) -> _File:
        """The file under that name now: one that was deleted or put elsewhere is nobody else's any more."""
        if self._file is not None and _identity(self._path) != self._file.identity:
            self._file.sql.close()
            self._file = None
        if self._file is None:
            self._file = _File(self._path)
        return self._file

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
