"""Reading the counts of a connection without counting: nothing in the store is written or created."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from .open import Choice
from .sqlite_file import BUSY
from .store import StoreError

MAX_KEYS: Final = 100_000
"""Most counters of a connection that are read."""
_COUNTERS: Final = "SELECT key, state FROM counters WHERE key >= ? AND key < ? LIMIT ?"
_SLOTS: Final = "SELECT key, count(*) FROM slots WHERE key >= ? AND key < ? AND ends > ? GROUP BY key LIMIT ?"
_PATIENCE: Final = 5.0
"""Seconds for each step with Redis."""


class Counts(NamedTuple):
    """The state of each counter by its key, as in the store, and the time of the store in microseconds.

    A counter of slots has the number of those that are taken. `is_cut` is True if there are more than
    `MAX_KEYS`.
    """

    states: dict[str, int]
    now: int
    is_cut: bool = False


def counts_of(choice: Choice, prefixes: Iterable[str]) -> Iterator[Counts]:
    """Yield for each prefix all counters whose key begins with it. Raises StoreError.

    The store is opened once for all of them.

    Args:
        choice: of a store outside of this process.
        prefixes: each the beginning of the keys of one connection, in plain letters, digits and `:{}_-`.
    """
    return _from_sqlite(choice.path, prefixes) if choice.path is not None else _from_redis(choice, prefixes)


def _from_sqlite(path: Path, prefixes: Iterable[str]) -> Iterator[Counts]:
    if not path.exists():
        yield from (Counts({}, time.time_ns() // 1000) for _ in prefixes)
        return
    try:
        with _opened(path) as sql:
            for prefix in prefixes:
                yield _of_prefix(sql, prefix)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path.name}: {_why(error)}") from None


def _of_prefix(sql: sqlite3.Connection, prefix: str) -> Counts:
    now, span = time.time_ns() // 1000, (prefix, f"{prefix[:-1]}{chr(ord(prefix[-1]) + 1)}")
    rows = sql.execute(_COUNTERS, (*span, MAX_KEYS + 1)).fetchall()
    rows += sql.execute(_SLOTS, (*span, now, MAX_KEYS + 1)).fetchall()
    return Counts(dict(rows), now, len(rows) > MAX_KEYS)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file for reading. SQLite itself would create the files beside it that it works with.

    Without a write-ahead log nobody uses the file, and it is whole by itself. With one, and with the index
    of a process that uses it, SQLite creates nothing. A log that a killed process left is read in a copy.
    """
    beside = [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm")]
    is_logged, is_used = (one.exists() for one in beside)
    with tempfile.TemporaryDirectory() as directory:
        how = "mode=ro" if is_logged and is_used else "mode=ro&immutable=1"
        if is_logged and not is_used:
            for one in (path, beside[0]):
                shutil.copyfile(one, Path(directory, one.name))
            path, how = Path(directory, path.name), "mode=rw"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY)) as sql:
            yield sql


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be read").lower()
    return str(error)


def _from_redis(choice: Choice, prefixes: Iterable[str]) -> Iterator[Counts]:
    from .redis import failures, looking  # an extra, and a second to import

    ca = choice.base / choice.ca if choice.ca else None
    with failures(), looking(choice.url, choice.password, ca, _PATIENCE) as client:
        for prefix in prefixes:
            yield _read(client, prefix)


def _read(client: Any, prefix: str) -> Counts:
    seconds, rest = client.time()
    now = int(seconds) * 1_000_000 + int(rest)
    keys: list[bytes] = []
    for key in client.scan_iter(match=f"{prefix}*", count=1000):
        keys.append(key)
        if len(keys) > MAX_KEYS:
            break
    found: dict[str, int] = {}
    for at in range(0, len(keys), 500):
        with client.pipeline(transaction=False) as asked:
            for key in keys[at : at + 500]:
                if key.startswith(f"{prefix}slots:".encode()):
                    asked.zcount(key, f"({now}", "+inf")
                else:
                    asked.get(key)
            answers = asked.execute()
        pairs = zip(keys[at : at + 500], answers, strict=True)
        found |= {key.decode(): int(state) for key, state in pairs if state is not None}
    return Counts(found, now, len(keys) > MAX_KEYS)
