"""A timeout for answers of a store that ignores time during which our own event loop was blocked."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

_PARTS: Final = 25
"""Ticks in one timeout: far more turns of the loop than an answer takes from its socket to its task."""


class Deadline:
    """A timeout that all waiting tasks share. One timer serves them all and ticks `_PARTS` times in it.

    Each tick starts the timer for the next one. A thousand requests at once, or a reload, can block the loop
    for longer than the timeout. A single timer for the whole time would then fire in the same loop iteration
    that reads the answer, and win. With ticks, a blocked loop costs one tick only.
    """

    def __init__(self, seconds: float) -> None:
        self._part = seconds / _PARTS
        self._ticks = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop in which the timer is set."""
        self._waiting: dict[Wait, None] = {}
        """In the order in which they expire."""

    def wait(self) -> Wait:
        """Return a context manager that limits the time of what is awaited inside it.

        The limit is the timeout of this deadline, or up to one tick less.
        """
        return Wait(self)

    def begin(self, wait: Wait) -> int:
        """Add a wait. Returns the tick at which it expires."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._waiting.clear()
            self._set(loop)
        self._waiting[wait] = None
        return self._ticks + _PARTS

    def end(self, wait: Wait) -> None:
        self._waiting.pop(wait, None)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(self._part, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        self._ticks += 1
        if not self._waiting:
            self._loop = None
            return
        self._set(loop)  # first, so that the timer goes on for the other waits if something fails below
        while self._waiting and (first := next(iter(self._waiting))).due <= self._ticks:
            del self._waiting[first]
            first.expire()


class Wait:
    """The wait of one task. It works like `asyncio.timeout`, without a timer of its own."""

    __slots__ = ("_cancelling", "_deadline", "_over", "_task", "due")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can wait")
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self._over = False
        self.due = self._deadline.begin(self)

    def expire(self) -> None:
        self._over = True
        self._task.cancel()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        """Raises TimeoutError if the wait has expired."""
        self._deadline.end(self)
        # If the task was also cancelled for another reason, it stays cancelled.
        if self._over and self._task.uncancel() <= self._cancelling:
            if isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error
