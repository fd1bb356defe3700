"""When a store is left alone: a request must not wait for what has just failed several times."""

from __future__ import annotations

from typing import Final

THRESHOLD: Final = 4
"""Failures in a row after which it is left alone."""
PAUSE: Final = 1.0
"""Seconds for which it is; then one request tries."""


class Breaker:
    """Closed: ask. Open: do not ask until the pause is over, then let one request try."""

    __slots__ = ("_failures", "_retry_at", "_trying")

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._failures >= THRESHOLD

    def allows(self, now: float) -> bool:
        """Whether to ask the store; whoever asks then tells how it went.

        Args:
            now: seconds of a clock that is never set.
        """
        if not self.is_open:
            return True
        if self._trying or now < self._retry_at:
            return False
        self._trying = True
        return True

    def abandoned(self) -> None:
        """Whoever asked has gone before there was an answer: nothing is known."""
        self._trying = False

    def succeeded(self) -> bool:
        """Returns whether it had been left alone."""
        was_open, self._failures, self._trying = self.is_open, 0, False
        return was_open

    def failed(self, now: float) -> bool:
        """Returns whether it is left alone from now on, and was not before."""
        was_open, self._failures, self._trying = self.is_open, self._failures + 1, False
        self._retry_at = now + PAUSE
        return self.is_open and not was_open
