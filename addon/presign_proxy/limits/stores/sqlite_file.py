"""The file in which counters stand: its tables, and what is done with them in one thread."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ..counter import SECOND, Counter, forgettable_at, weigh
from ..verdict import Verdict
from .sqlite_batches import Asked
from .store import Lease, StoreError

BUSY: Final = 0.2
"""Seconds for which another process may keep the file locked."""
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
# One statement for a whole batch, its rows as JSON: each gives up the interpreter's lock several times, and
# while the event loop is busy it takes milliseconds to get it back. The one that counts reads, judges (in
# Python, once) and writes, and has the file's lock for writing from its beginning to its end.
_COUNT: Final = """
INSERT INTO counters
SELECT key, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(judged((
  SELECT json_group_object(key, state) FROM counters WHERE key IN (SELECT value FROM json_each(?))
))) WHERE true
ON CONFLICT (key) DO UPDATE SET state = excluded.state, forget = excluded.forget
"""
_TAKEN: Final = (
    "SELECT json_group_object(key, taken) FROM (SELECT key, count(*) AS taken FROM slots"
    " WHERE key IN (SELECT value FROM json_each(?)) AND ends > ? GROUP BY key)"
)
_HOLD: Final = (
    "INSERT INTO slots SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?"
    " FROM json_each(?) WHERE true ON CONFLICT (key, holder) DO UPDATE SET ends = excluded.ends"
)
_FREE: Final = (
    "DELETE FROM slots WHERE (key, holder) IN"
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)


class _Judging:
    """Requests, each judged after the other, on what is read once and written once."""

    def __init__(self, asked: Sequence[Asked], held: dict[str, int], clock: Callable[[], int]) -> None:
        """
        Args:
            held: slots that are taken, by key.
        """
        self._asked = asked
        self._states = held
        self._clock = clock
        self.now = 0
        self.verdicts: list[Verdict] = []
        self.taken: list[Lease] = []

    def judge(self, found: dict[str, int]) -> dict[str, tuple[int, int]]:
        """Returns the counters to be written: their states, and when to forget them.

        Args:
            found: the states of those that are there.

        Raises LookupError where it has been done: what was judged once is counted once.
        """
        if self.verdicts:
            raise LookupError("it has been judged")
        now = self.now = self._clock()  # the file is ours by now: nobody else counts at an earlier instant
        states = self._states
        states |= found
        changed: dict[str, Counter] = {}
        for counters, holder in self._asked:
            verdict = Verdict(
                tuple([weigh(counter, states.get(counter.key, 0), now) for counter in counters])
            )
            self.verdicts.append(verdict)
            admitted = verdict.admitted
            for counter, one in zip(counters, verdict.weighed, strict=True):
                if not admitted and (one.fits or one.after == states.get(counter.key, 0)):
                    continue
                states[counter.key] = one.after
                if counter.kind == "slots":
                    self.taken.append((counter.key, holder))
                else:
                    changed[counter.key] = counter
        return {key: (states[key], forgettable_at(counter, states[key])) for key, counter in changed.items()}


def made(path: Path) -> int:
    """Raises OSError."""
    # Made here, so that nobody else can ever read who used what. SQLite's own two files copy its mode.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


class CounterFile:
    """The open database. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, sqlite3.Error, StoreError."""
        os.close(made(path))
        self.identity = identity(path)
        self.sql = sqlite3.connect(path, timeout=BUSY, isolation_level=None, cached_statements=32)
        self._judging = _Judging((), {}, lambda: 0)
        try:
            self._set_up()
            self.sql.create_function("judged", 1, self._judged)
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

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing, and nobody else writes meanwhile."""
        self.sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.sql.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.sql.execute("ROLLBACK")
            raise

    def hold(self, leases: Sequence[Lease], ends: int) -> None:
        if leases:
            self.sql.execute(_HOLD, (ends, json.dumps(leases)))

    def free(self, leases: Sequence[Lease]) -> None:
        if leases:
            self.sql.execute(_FREE, (json.dumps(leases),))

    def admit(self, asked: Sequence[Asked], clock: Callable[[], int], lease: int) -> list[Verdict]:
        """Count requests. Where one of them takes a slot, within a transaction."""
        keys = {counter.key: counter.kind == "slots" for counters, _ in asked for counter in counters}
        slots = [key for key, is_slots in keys.items() if is_slots]
        held = self._read(_TAKEN, (json.dumps(slots), clock())) if slots else {}
        judging = self._judging = _Judging(asked, held, clock)
        self.sql.execute(_COUNT, (json.dumps([key for key, is_slots in keys.items() if not is_slots]),))
        if len(judging.verdicts) != len(asked):
            raise StoreError("the store has not judged")
        self.hold(judging.taken, judging.now + lease)
        return judging.verdicts

    def _judged(self, states: str) -> str:
        return json.dumps(self._judging.judge(json.loads(states)))

    def _read(self, query: str, arguments: tuple[str | int, ...]) -> dict[str, int]:
        (answer,) = self.sql.execute(query, arguments).fetchone()
        return dict(json.loads(answer))

    def is_to_be_swept(self, now: int) -> bool:
        """Once a second."""
        return not 0 <= now - self._swept < SECOND

    def sweep(self, now: int) -> None:
        """Forget some of what is over."""
        self._swept = now
        self.sql.execute(
            "DELETE FROM counters WHERE key IN"
            " (SELECT key FROM counters WHERE forget > 0 AND forget <= ? LIMIT ?)",
            (now, _SWEPT),
        )
        self.sql.execute("DELETE FROM slots WHERE ends <= ?", (now,))


def identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
