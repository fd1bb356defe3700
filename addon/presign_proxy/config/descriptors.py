"""Descriptors: how many are needed, and those kept for reading files, which no client can take."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

from ..limits.client_shares import streams_of

FILES: Final = 65_536
"""Open files of a process that are enough for all that can be configured; the usual limit is a thousand."""
COUNT: Final = 16
"""A file at a time, or the pipes of a program."""
SHARE: Final = 16
"""Of what a process may open, one in so many is kept at most: a small limit is for clients first."""
FOR_EACH_CLIENT: Final = 2
"""Its connection, and that to its upstream. Further streams over HTTP/2 have more of these."""
FOR_THE_REST: Final = 256
"""Look-ups of names, the limit store, logs, shared upstream connections, and those that are kept."""


class Spares:
    """Holds descriptors that serve nobody, and lets go of them while somebody reads.

    Between the two, a client may take one: reading is then tried again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._lent = 0
        self._count = min(COUNT, _limit() // SHARE)
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let go of them for as long as the block runs, in any thread."""
        with self._lock:
            self._lent += 1
            while self._held:
                self._held.pop().close()
        try:
            yield
        finally:
            with self._lock:
                self._lent -= 1
            self._fill()

    def _fill(self) -> None:
        """As many as there are now; the others when somebody has read again."""
        with self._lock, contextlib.suppress(OSError):
            while not self._lent and len(self._held) < self._count:
                # Sockets, because no file system is asked for one.
                self._held.append(socket.socket())

    def close(self) -> None:
        with self._lock:
            self._lent += 1  # for good
            while self._held:
                self._held.pop().close()


def _limit() -> int:
    """How many files this process may open now."""
    import resource

    few, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES if few == resource.RLIM_INFINITY else few


def needed(max_clients: int) -> int:
    """Descriptors that a process needs for so many clients."""
    return FOR_EACH_CLIENT * max_clients + streams_of(max_clients) + FOR_THE_REST


def shortage(max_clients: int, limit: int) -> str:
    """What to say where a limit of open files is below that; else nothing."""
    wanted = needed(max_clients)
    if limit >= wanted:
        return ""
    return (
        f"gateway.max_clients: {max_clients} clients take up to {wanted} open files in each worker, and "
        f"{limit} are allowed: raise the hard limit (LimitNOFILE=, ulimit -Hn), or lower max_clients"
    )


def limit_of_serve() -> int:
    """How many open files `presign serve` allows itself, as far as it may."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # "Without limit" is more than some kernels give.
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    return max(_limit(), wanted)


def raise_limit() -> None:
    """Allow this process, and those that it starts, what `limit_of_serve` says."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if few != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit_of_serve(), most))
