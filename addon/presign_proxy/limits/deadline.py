"""A deadline for others, in which time does not count while nobody here could have noticed their answer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

_PARTS: Final = 25
"""Far more turns of the loop than an answer needs from its socket to whoever waits for it."""


class Deadline:
    """The same for all who wait: one alarm rings for them, in parts of the time, each of which begins when
    the loop has noticed the end of the last.

    A thousand requests at once, or a reload, keep the loop busy for longer than a store may take. One alarm
    for the whole time would ring in the very turn in which the answer is read, and be heard before it.
    """

    def __init__(self, seconds: float) -> None:
        self._part = seconds / _PARTS
        self._rung = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """In which the alarm is set."""
        self._waiting: dict[Wait, None] = {}
        """In the order in which their time is over."""

    def wait(self) -> Wait:
        """For `with`, around what is awaited: no longer than the time, and a part shorter at most."""
        return Wait(self)

    def begin(self, wait: Wait) -> int:
        """Returns at which ring it is over."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._waiting.clear()
            self._set(loop)
        self._waiting[wait] = None
        return self._rung + _PARTS

    def end(self, wait: Wait) -> None:
        self._waiting.pop(wait, None)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_later(self._part, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        self._rung += 1
        if not self._waiting:
            self._loop = None
            return
        self._set(loop)  # before anything else: whatever happens here, it rings for the others
        while self._waiting and (first := next(iter(self._waiting))).due <= self._rung:
            del self._waiting[first]
            first.ring()


class Wait:
    """One who waits. As `asyncio.timeout` does it, without a timer of its own."""

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

    def ring(self) -> None:
        self._over = True
        self._task.cancel()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        """Raises TimeoutError where it is over."""
        self._deadline.end(self)
        # Where somebody else has cancelled it too, it is cancelled.
        if self._over and self._task.uncancel() <= self._cancelling:
            if isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error
