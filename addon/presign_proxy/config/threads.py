"""Threads for work that may hang. Their number is bounded, and the process ends without waiting for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final


class Threads:
    """A pool that starts its threads when they are needed, and keeps them.

    A `ThreadPoolExecutor` does the same, but Python waits for its threads before the process ends: a look-up
    that hangs would keep a stopped gateway alive for half a minute. These threads are daemons.
    """

    def __init__(self, most: int, name: str) -> None:
        """Args: most: the highest number of threads; further work waits for a free one."""
        self._most: Final = most
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def run[Result](self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Run `work` in a thread. Call this from one thread only. Raises RuntimeError if no thread starts."""
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            self._start()
        future: Future[Result] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(*arguments))
                except BaseException as error:
                    future.set_exception(error)

        self._work.put(do)
        return future

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if self._started == 0:
                raise
        else:
            self._started += 1

    def _serve(self) -> None:
        while (do := self._work.get()) is not None:
            do()
            # The finished work may hold much memory, and the next may come much later.
            del do
            self._idle.release()

    def close(self) -> None:
        """End each thread when it becomes free. Work that is already queued is still done."""
        for _ in range(self._started):
            self._work.put(None)
