"""Batches of jobs that an event loop gives to the writing thread, and the way of their answers back."""

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
"""Most jobs in one bundle."""
_GATHERING: Final = 0.002
"""Most seconds that a job waits while more jobs arrive: about as long as a write to the disk."""

Asked = tuple[Sequence[Counter], str]
"""The counters of one request, and the holder of its slots."""
Jobs = list["Job"]


class Job:
    """A job for the thread: a request to count, slots to keep and slots to free. `future` gets the answer."""

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
    """Jobs of one loop. The thread does them, and then reports all answers at once."""

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
            continue  # the caller no longer waits
        if isinstance(job.answer, StoreError):
            job.future.set_exception(job.answer)
        else:
            job.future.set_result(job.answer)


class Batcher:
    """A collector of the jobs of one loop. It collects as long as each turn of the loop brings more.

    Whenever the thread wakes up, it competes with the loop for the interpreter's lock, and with every write
    it waits for the disk. Sixteen requests one by one cost five times as much as sixteen at once.
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
        """Check for new jobs, once in each turn of the loop after the first job."""
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
