"""How many more clients each worker takes, in memory that all workers of one gateway see."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Final

ROWS: Final = 1024
"""Workers that live at a time, those that are ending included."""
_BYTES: Final = 4


class RoomTable:
    """Of the supervisor: a row for each worker that lives. It is in a file that has no name."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.descriptor = _nameless()
        os.truncate(self.descriptor, ROWS * _BYTES)
        self._rows = _rows(self.descriptor)
        self._taken: set[int] = set()

    def take(self) -> int:
        """A row for a worker that is about to start. Raises OSError where there are too many."""
        row = next((one for one in range(ROWS) if one not in self._taken), None)
        if row is None:
            raise OSError(0, "there are too many workers")
        self._taken.add(row)
        self._rows[row] = 0
        return row

    def give_back(self, row: int) -> None:
        """A worker has ended: nobody waits for it to take clients."""
        self._rows[row] = 0
        self._taken.discard(row)

    def close(self) -> None:
        """No worker lives any more."""
        self._rows.release()
        os.close(self.descriptor)


class Room:
    """Of one worker: its own row, and a look at the others.

    A worker that is full leaves those who wait in the shared queue to a worker that has room. Where none has,
    somebody has to turn them away, or they would wait for nothing.
    """

    def __init__(self, descriptor: int, row: int, clients: Callable[[], tuple[int, int]]) -> None:
        """
        Args:
            descriptor: of the supervisor's table.
            clients: how many connections are open here, and may be.
        """
        self._rows = _rows(descriptor)
        self._row = row
        self._clients = clients
        self._closed = False

    def tell(self) -> None:
        """Show the others how much room there is here: whenever a client has come or gone."""
        count, most = self._clients()
        self._rows[self._row] = 0 if self._closed else max(0, most - count)

    def leaves_it_to_others(self) -> bool:
        """Whether there is no room here, and some elsewhere."""
        self.tell()
        return not self._rows[self._row] and any(self._rows)

    def close(self) -> None:
        """Take nobody any more."""
        self._closed = True
        self._rows[self._row] = 0


def _nameless() -> int:
    """A file in memory; in the directory for temporary ones where the system knows no other."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("presign-room")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _rows(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, ROWS * _BYTES)).cast("i")
