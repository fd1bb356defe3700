"""Threads for work that may hang: a bounded number, and the end of the process waits for none of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final


class Threads:
    """Runs work in threads that are started when they are needed, and kept.

    A `ThreadPoolExecutor` would do the same, but Python waits for its threads before it ends: a look-up that
    hangs would keep a stopped gateway alive for half a minute. These are daemons.
    """

    def __init__(self, most: int, name: str) -> None:
        """Args: most: threads at a time; further work waits for one."""
        self._most: Final = most
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0

    def run[Result](self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Do it in a thread. Only one thread may call this. Raises RuntimeError where none can be started."""
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
            # What was done may hold much, and the next one may be long in coming.
            del do
            self._idle.release()

    def close(self) -> None:
        """End the threads as they come free. What has not begun is still done."""
        for _ in range(self._started):
            self._work.put(None)
