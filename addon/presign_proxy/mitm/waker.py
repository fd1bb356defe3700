"""Wake the tasks that wait at shut gates, once a client has taken something or a stream has ended.

A client over HTTP/2 may leave a hundred answers untaken, and each of them has a gate. Asked twenty times a
second, those of nine clients took a quarter of a processor for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PAUSE: Final = 0.05
"""Seconds until a gate is looked at without a call: room that other clients leave may open it."""
LONGEST_PAUSE: Final = 2.0
"""Seconds between two looks at most, as they double."""


class Waker:
    """Looks at the gates of one client again, at most once in a turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        """For each who waits, what wakes it, and whether its gate is shut."""
        self._is_due = False

    def wake(self) -> None:
        """Look at the gates soon: something has happened that may open them."""
        if self._waiting and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._look)

    async def wait(self, is_shut: Callable[[], bool]) -> None:
        """Wait until a gate is open."""
        loop, pause = asyncio.get_running_loop(), PAUSE
        while is_shut():
            called: asyncio.Future[None] = loop.create_future()
            self._waiting[called] = is_shut
            timer = loop.call_later(pause, call, called)
            try:
                await called
            finally:
                timer.cancel()
                del self._waiting[called]
            pause = min(2 * pause, LONGEST_PAUSE)

    def _look(self) -> None:
        """Wake only those whose gates are open: a client that takes one answer leaves ninety-nine."""
        self._is_due = False
        for called, is_shut in self._waiting.items():
            if _may_be_open(is_shut):
                call(called)


def call(waiting: asyncio.Future[None]) -> None:
    """Let one who waits go on."""
    if not waiting.done():
        waiting.set_result(None)


def _may_be_open(is_shut: Callable[[], bool]) -> bool:
    """Return whether a gate may be open. If asking fails, it may be: the waiting task then fails alone."""
    try:
        return not is_shut()
    except Exception:
        return True
