"""Where an event loop hands in what a thread is to do, and hears what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import Sequence
from typing import Final

from ..counter import Counter
from ..verdict import Verdict
from .store import Lease, StoreError

BATCH: Final = 256
"""Jobs that are handed over in one piece, at most."""
_GATHERING: Final = 0.002
"""Seconds for which a job waits for others that keep coming, at most: about as long as for the disk."""

Asked = tuple[Sequence[Counter], str]
"""What one request is held against, and who takes its slots."""
Jobs = list["Job"]


class Job:
    """What one caller wants done, and where it waits: a request counted, slots kept, slots freed."""

    __slots__ = ("answer", "asked", "freed", "future", "kept")

    def __init__(
        self,
        future: asyncio.Future[Verdict | None],
        asked: Asked | None = None,
        kept: Sequence[Lease] = (),
        freed: Sequence[Lease] = (),
    ) -> None:
        self.future = future
        self.asked = asked
        self.kept = kept
        self.freed = freed
        self.answer: Verdict | StoreError | None = None


class Bundle:
    """Jobs of one loop. The thread does them, and then tells all of them at once."""

    __slots__ = ("_loop", "jobs")

    def __init__(self, loop: asyncio.AbstractEventLoop, jobs: Jobs) -> None:
        self._loop = loop
        self.jobs = jobs

    def tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(_tell, self.jobs)


def _tell(jobs: Jobs) -> None:
    for job in jobs:
        if job.future.done():
            continue  # nobody waits any more
        if isinstance(job.answer, StoreError):
            job.future.set_exception(job.answer)
        else:
            job.future.set_result(job.answer)


class Batcher:
    """Gathers the jobs of a loop as long as each of its turns brings more.

    Every time the thread is woken the two fight for the interpreter's lock, and every time it writes it waits
    for the disk: sixteen requests that come one by one cost five times as much as all at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bundles: queue.SimpleQueue[Bundle | None]) -> None:
        self.loop = loop
        self._bundles = bundles
        self._jobs: Jobs = []
        self._seen = 0
        self._since = 0.0

    def put(self, job: Job) -> None:
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._seen, self._since = 0, time.monotonic()
            self.loop.call_soon(self._look)

    def _look(self) -> None:
        """Once a turn, from the first job on."""
        count = len(self._jobs)
        if self._seen < count < BATCH and time.monotonic() - self._since < _GATHERING:
            self._seen = count
            self.loop.call_soon(self._look)
        else:
            self.hand_over()

    def hand_over(self) -> None:
        jobs, self._jobs = self._jobs, []
        for first in range(0, len(jobs), BATCH):
            self._bundles.put(Bundle(self.loop, jobs[first : first + BATCH]))
