"""Whose turn it is to cost a worker something, where clients over HTTP/2 may ask for much at a time.

One packet of a client may begin a hundred requests. Each is decided on, dialled and answered, which takes
milliseconds; those of ten clients would stand in front of everybody else for seconds. So in each turn of the
event loop a bounded number of them is gone on with, and the others stand in a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Turns:
    """Calls those who wait, so many in each turn of the event loop."""

    def __init__(
        self,
        call: Callable[[Any], None],
        each: int = 1,
        later: Callable[[Callable[[], None]], Any] | None = None,
    ) -> None:
        """
        Args:
            call: tells one of those who wait that it is his turn.
            each: how many have a turn of the event loop.
            later: calls back in the next turn of the event loop; None for the loop that runs.
        """
        self._call = call
        self._each = self._left = each
        self._later = later
        self._row: dict[Any, None] = {}
        """Those who wait, in their order."""
        self._counts = False
        """Whether the end of this turn of the event loop is waited for."""

    def take(self) -> bool:
        """Whether somebody may go on at once: nobody waits, and there is room in this turn."""
        if self._row or not self._left:
            return False
        self._left -= 1
        self._count()
        return True

    def wait(self, one: Any) -> None:
        """Take the last place in the row."""
        self._row[one] = None
        self._count()

    def leave(self, one: Any) -> None:
        """Give up a place: nothing is done for who has gone."""
        self._row.pop(one, None)

    def _count(self) -> None:
        if not self._counts:
            self._counts = True
            (self._later or asyncio.get_running_loop().call_soon)(self._next)

    def _next(self) -> None:
        self._counts, self._left = False, self._each
        while self._row and self._left:
            self._left -= 1
            first = next(iter(self._row))
            del self._row[first]
            self._call(first)
        if self._left < self._each:
            self._count()
