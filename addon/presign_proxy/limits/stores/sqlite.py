"""Counters in a file: durable, and shared by all processes of one machine."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...file_access import tried, why_not
from ..counter import LEASE, Counter
from ..verdict import Verdict
from .sqlite_batches import BATCH, Asked, Batcher, Bundle, Job
from .sqlite_file import BUSY, CounterFile, identity, made
from .store import Lease, StoreError


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
        self._bundles: queue.SimpleQueue[Bundle | None] = queue.SimpleQueue()
        self._batcher: Batcher | None = None
        self._thread: threading.Thread | None = None
        self._file: CounterFile | None = None

    async def admit(self, counters: Sequence[Counter], holder: str) -> Verdict:
        verdict = await self._do((counters, holder))
        if verdict is None:
            raise StoreError("the store has not judged")
        return verdict

    async def renew(self, leases: Sequence[Lease]) -> None:
        await self._do(kept=leases)

    async def release(self, leases: Sequence[Lease]) -> None:
        await self._do(freed=leases)

    async def warnings(self) -> list[str]:
        await self._do()
        return []

    async def close(self) -> None:
        if self._thread is not None:
            if self._batcher is not None:
                self._batcher.hand_over()
            self._bundles.put(None)
            await asyncio.to_thread(self._thread.join, 1.0)

    def _do(
        self, asked: Asked | None = None, kept: Sequence[Lease] = (), freed: Sequence[Lease] = ()
    ) -> asyncio.Future[Verdict | None]:
        loop = asyncio.get_running_loop()
        batcher = self._batcher
        if batcher is None or batcher.loop is not loop:
            batcher = self._batcher = Batcher(loop, self._bundles)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="presign-store", daemon=True)
            self._thread.start()
        future: asyncio.Future[Verdict | None] = loop.create_future()
        batcher.put(Job(future, asked, kept, freed))
        return future

    def _run(self) -> None:
        going = True
        while going:
            bundles, going = self._next()
            # Who does not wait any more must not be counted, if that can still be helped.
            batch = [job for one in bundles for job in one.jobs if not job.future.cancelled()]
            if batch:
                self._settle(batch)
            for one in bundles:
                one.tell()
        if self._file is not None:
            self._file.sql.close()

    def _next(self) -> tuple[list[Bundle], bool]:
        """What has come, also while the last of it was written; and whether more will come."""
        bundles: list[Bundle] = []
        while not bundles or not (self._bundles.empty() or sum(len(one.jobs) for one in bundles) >= BATCH):
            bundle = self._bundles.get()
            if bundle is None:
                return bundles, False
            bundles.append(bundle)
        return bundles, True

    def _settle(self, batch: list[Job]) -> None:
        """Do all of it in one transaction. Nobody is told of anything before it is committed."""
        failure: StoreError | None = None
        verdicts: list[Verdict] = []
        asked = [job.asked for job in batch if job.asked is not None]
        try:
            file = self._opened()
            # A rate or a slot is over before a machine is up again.
            kinds = {counter.kind for counters, _ in asked for counter in counters}
            file.be_durable("count" in kinds)
            verdicts = self._write(file, batch, asked, slots="slots" in kinds)
        except StoreError as error:
            failure = error
        except Exception as error:
            failure = StoreError(self._told(error))
            self._let_go(error)
        said = iter(verdicts)
        for job in batch:
            job.answer = failure or (None if job.asked is None else next(said))

    def _write(
        self, file: CounterFile, batch: list[Job], asked: list[Asked], *, slots: bool
    ) -> list[Verdict]:
        kept = [lease for job in batch for lease in job.kept]
        freed = [lease for job in batch for lease in job.freed]
        if asked and not (kept or freed or slots or file.is_to_be_swept(self._clock())):
            return file.admit(asked, self._clock, self.lease)  # one statement: a transaction of its own
        with file.transaction():
            now = self._clock()
            file.hold(kept, now + self.lease)
            file.free(freed)
            verdicts = file.admit(asked, self._clock, self.lease) if asked else []
            # What was asked for and given up in the same moment.
            holders = {holder for _, holder in asked}
            file.free([lease for lease in freed if lease[1] in holders])
            if file.is_to_be_swept(now):
                file.sweep(now)
        return verdicts

    def _opened(self) -> CounterFile:
        """The file under that name now: one that was deleted or put elsewhere is nobody else's any more."""
        if self._file is not None and identity(self._path) != self._file.identity:
            self._file.sql.close()
            self._file = None
        if self._file is None:
            self._file = self._open()
        return self._file

    def _open(self) -> CounterFile:
        """SQLite does not wait for others where the first of them makes the file."""
        until = time.monotonic() + BUSY
        while True:
            try:
                return CounterFile(self._path)
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def obstacle(self) -> str:
        """Why it cannot be used, as requests would be told; empty where it can. No file is made."""
        try:
            tried(self._path, made)
            if self._path.exists():
                self._open().sql.close()
        except Exception as error:
            return str(error) if isinstance(error, StoreError) else self._told(error)
        return ""

    def _told(self, error: Exception) -> str:
        why = why_not(self._path, error) if isinstance(error, OSError) else _told(error)
        return f"{self._path.name}: {why}"

    def _let_go(self, error: Exception) -> None:
        """Open it anew next time, unless it was merely locked."""
        name = getattr(error, "sqlite_errorname", "")
        if self._file is not None and name not in ("SQLITE_BUSY", "SQLITE_FULL"):
            with contextlib.suppress(sqlite3.Error):
                self._file.sql.close()
            self._file = None


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
