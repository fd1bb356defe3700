"""File descriptors: how many a process needs, and a reserve for reading files that clients cannot take."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Final

from ..limits.client_shares import streams_of

FILES: Final = 65_536
"""Enough open files for one process with any configuration; the usual limit is a thousand."""
COUNT: Final = 16
"""The size of the reserve: enough for one file at a time, or for the pipes of a program."""
SHARE: Final = 16
"""The reserve takes at most one in `SHARE` of the files a process may open: clients come first."""
FOR_EACH_CLIENT: Final = 2
"""The client connection and its upstream connection. Further HTTP/2 streams need more of the latter."""
FOR_THE_REST: Final = 256
"""Name look-ups, the limit store, logs, shared upstream connections, and the reserve."""


class Spares:
    """A reserve of descriptors. It is released while a file is read, and filled again afterwards.

    A client may take a descriptor right after the release. The caller then tries to read again later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._lent = 0
        self._count = min(COUNT, _limit() // SHARE)
        self._fill()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Release the reserve while the block runs, in any thread."""
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
        """Take as many descriptors as are free now. The next reader fills up the rest."""
        with self._lock, contextlib.suppress(OSError):
            while not self._lent and len(self._held) < self._count:
                # Sockets, because making one does not ask a file system, which could hang.
                self._held.append(socket.socket())

    def close(self) -> None:
        with self._lock:
            self._lent += 1  # so that the reserve is never filled again
            while self._held:
                self._held.pop().close()


def _limit() -> int:
    """Return how many files this process may open now."""
    import resource

    few, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES if few == resource.RLIM_INFINITY else few


def needed(max_clients: int) -> int:
    """Return how many descriptors a process needs for this number of clients."""
    return FOR_EACH_CLIENT * max_clients + streams_of(max_clients) + FOR_THE_REST


def shortage(max_clients: int, limit: int) -> str:
    """Return a warning if the limit of open files is lower than `needed`, else an empty text."""
    wanted = needed(max_clients)
    if limit >= wanted:
        return ""
    return (
        f"gateway.max_clients: {max_clients} clients take up to {wanted} open files in each worker, and "
        f"{limit} are allowed: raise the hard limit (LimitNOFILE=, ulimit -Hn), or lower max_clients"
    )


def limit_of_serve() -> int:
    """Return how many open files `presign serve` allows itself within the hard limit."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some kernels do not grant "unlimited", so we ask for a number.
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    return max(_limit(), wanted)


def raise_limit() -> None:
    """Raise the limit of this process, and of those it starts, to `limit_of_serve`."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        if few != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit_of_serve(), most))
