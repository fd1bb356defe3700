"""Many clients at once, each on a connection of its own, as cheaply as Python can."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Sequence

_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


def storm(asked: Sequence[tuple[int, bytes]], connections: int = 250) -> Counter[int]:
    """Send requests to ports, as many at a time as there are connections. Returns how often each status came.

    0 stands for no answer.
    """
    return asyncio.run(_storm(asked, connections))


async def _storm(asked: Sequence[tuple[int, bytes]], connections: int) -> Counter[int]:
    statuses: Counter[int] = Counter()
    shares = [asked[number::connections] for number in range(connections)]
    gun = asyncio.Event()
    ready = asyncio.Barrier(sum(bool(share) for share in shares) + 1)
    running = [asyncio.create_task(_one(share, ready, gun, statuses)) for share in shares if share]
    await ready.wait()
    gun.set()
    await asyncio.gather(*running)
    return statuses


async def _one(
    share: Sequence[tuple[int, bytes]], ready: asyncio.Barrier, gun: asyncio.Event, statuses: Counter[int]
) -> None:
    """All of a share go to the same port, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", share[0][0])
    await ready.wait()
    await gun.wait()
    for _, request in share:
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
            statuses[int(head[9:12])] += 1
        except (OSError, asyncio.IncompleteReadError):
            statuses[0] += 1
    writer.close()


class Gauge:
    """How many requests are at an upstream at this moment, and the most that ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.total = 0

    def enter(self) -> None:
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def leave(self) -> None:
        with self._lock:
            self.now -= 1
