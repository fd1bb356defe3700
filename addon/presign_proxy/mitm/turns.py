"""Whose turn it is to cost a worker something, where clients over HTTP/2 may ask for much at a time.

One packet of a client may begin a hundred requests. Each is decided on, dialled and answered, which takes
milliseconds; those of ten clients would stand in front of everybody else for seconds. So in each turn of the
event loop a bounded number of them is gone on with, and the others stand in two rows: those who have nothing
yet in one, those who have something in the other. The rows are served by turns, so that neither waits for the
end of the other.
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
        self._new: dict[Any, None] = {}
        """Those who wait and have nothing yet, in their order."""
        self._others: dict[Any, None] = {}
        self._prefers_new = True
        """Whose row is served next, where somebody stands in both."""
        self._counts = False
        """Whether the end of this turn of the event loop is waited for."""

    def take(self) -> bool:
        """Whether somebody may go on at once: nobody waits, and there is room in this turn."""
        if self._new or self._others or not self._left:
            return False
        self._left -= 1
        self._count()
        return True

    def wait(self, one: Any, *, new: bool) -> None:
        """Take the last place in a row.

        Args:
            new: whether it has nothing yet, and so waits for those alone who have nothing either, and for as
                many of the others.
        """
        (self._new if new else self._others)[one] = None
        self._count()

    def leave(self, one: Any) -> None:
        """Give up a place: nothing is done for who has gone."""
        self._new.pop(one, None)
        self._others.pop(one, None)

    def _count(self) -> None:
        if not self._counts:
            self._counts = True
            (self._later or asyncio.get_running_loop().call_soon)(self._next)

    def _next(self) -> None:
        self._counts, self._left = False, self._each
        while self._left and (row := self._served()):
            self._left -= 1
            first = next(iter(row))
            del row[first]
            self._prefers_new = row is self._others
            self._call(first)
        if self._left < self._each:
            self._count()

    def _served(self) -> dict[Any, None]:
        """The row whose first is called next."""
        if self._prefers_new:
            return self._new or self._others
        return self._others or self._new
