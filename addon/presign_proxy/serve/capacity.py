"""The free capacity of each worker, in memory that all workers of one gateway share."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from typing import Final

ROWS: Final = 1024
"""The maximum number of live workers, including those that are ending."""
_BYTES: Final = 4


class RoomTable:
    """The supervisor's table, with a row for each live worker, in a file without a name."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.descriptor = _nameless()
        os.truncate(self.descriptor, ROWS * _BYTES)
        self._rows = _rows(self.descriptor)
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a row for a worker that is about to start. Raises OSError if there are too many workers."""
        row = next((one for one in range(ROWS) if one not in self._taken), None)
        if row is None:
            raise OSError(0, "there are too many workers")
        self._taken.add(row)
        self._rows[row] = 0
        return row

    def give_back(self, row: int) -> None:
        """Free the row of a worker that has ended, so that no other worker leaves clients to it."""
        self._rows[row] = 0
        self._taken.discard(row)

    def close(self) -> None:
        """Close the table after the last worker has ended."""
        self._rows.release()
        os.close(self.descriptor)


class Room:
    """The table as one worker uses it: it writes its own row and reads the others.

    A full worker leaves the clients in the shared queue to a worker that has room. If no worker has room, a
    worker must turn them away, or they would wait in vain.
    """

    def __init__(self, descriptor: int, row: int, clients: Callable[[], tuple[int, int]]) -> None:
        """
        Args:
            descriptor: of the supervisor's table.
            clients: returns how many connections are open here, and the maximum.
        """
        self._rows = _rows(descriptor)
        self._row = row
        self._clients = clients
        self._closed = False

    def tell(self) -> None:
        """Publish the free capacity of this worker. Call it whenever a client has come or gone."""
        count, most = self._clients()
        self._rows[self._row] = 0 if self._closed else max(0, most - count)

    def leaves_it_to_others(self) -> bool:
        """Return whether this worker is full and another one has room."""
        self.tell()
        return not self._rows[self._row] and any(self._rows)

    def close(self) -> None:
        """Publish that this worker takes no more clients."""
        self._closed = True
        self._rows[self._row] = 0


def _nameless() -> int:
    """Return the descriptor of a file in memory, or of a deleted temporary file on other systems."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("presign-room")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _rows(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, ROWS * _BYTES)).cast("i")
