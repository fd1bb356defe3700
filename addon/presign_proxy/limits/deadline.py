"""A deadline for others, in which time does not count while nobody here could have noticed their answer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

_TURNS: Final = 5
"""More turns of the loop than an answer needs from its socket to whoever waits for it."""


class Deadline:
    """`asyncio.timeout` in equal parts, each of which begins when the loop has noticed the end of the last.

    A thousand requests at once, or a reload, keep the loop busy for longer than a store may take. One alarm
    would ring in the very turn in which the answer is read, and be heard before it.
    """

    def __init__(self, seconds: float) -> None:
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._part = seconds / _TURNS
        self._left = _TURNS

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises TimeoutError where it is over."""
        self._alarm.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _wait(self) -> None:
        self._alarm = self._loop.call_later(self._part, self._ring)

    def _ring(self) -> None:
        self._left -= 1
        if self._left:
            self._wait()
        else:
            self._timeout.reschedule(self._loop.time())
