"""Turns in which clients over HTTP/2 use a worker, because each of them may ask for much at a time.

One packet of a client may begin a hundred requests. Each is decided on, dialled and answered, which takes
milliseconds; the requests of ten clients would keep all others waiting for seconds. So each turn of the event
loop goes on with a bounded number of them. The others stand in two rows: one for those that have nothing yet,
one for those that have something. The rows are served alternately, so that neither waits for the end of the
other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Turns:
    """Two rows of waiting parties, of which so many are called in each turn of the event loop."""

    def __init__(
        self,
        call: Callable[[Any], None],
        each: int = 1,
        later: Callable[[Callable[[], None]], Any] | None = None,
    ) -> None:
        """
        Args:
            call: lets one of those that wait go on.
            each: how many have a turn of the event loop.
            later: calls back in the next turn of the event loop; None for the running loop.
        """
        self._call = call
        self._each = self._left = each
        self._later = later
        self._new: dict[Any, None] = {}
        """Those that wait and have nothing yet, in their order."""
        self._others: dict[Any, None] = {}
        self._prefers_new = True
        """Which row is served next, if neither is empty."""
        self._counts = False
        """True if the end of this turn of the event loop is awaited."""

    def take(self) -> bool:
        """Return whether one may go on at once: none waits, and there is room in this turn."""
        if self._new or self._others or not self._left:
            return False
        self._left -= 1
        self._count()
        return True

    def wait(self, one: Any, *, new: bool) -> None:
        """Take the last place in a row.

        Args:
            new: whether it has nothing yet, and so waits only for those that have nothing either, and for as
                many of the others.
        """
        (self._new if new else self._others)[one] = None
        self._count()

    def leave(self, one: Any) -> None:
        """Give up a place: nothing is done for a client that has gone."""
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
        """Return the row whose first is called next."""
        if self._prefers_new:
            return self._new or self._others
        return self._others or self._new
