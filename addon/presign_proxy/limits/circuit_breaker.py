"""The circuit breaker of a store. A request must not wait for a store that has just failed several times."""

from __future__ import annotations

from typing import Final

THRESHOLD: Final = 4
"""Failures in a row that open the breaker."""
PAUSE: Final = 1.0
"""Seconds for which it stays open. Then one request tries the store."""


class Breaker:
    """A circuit breaker. Closed: requests ask the store. Open: after each pause one request tries it."""

    __slots__ = ("_failures", "_retry_at", "_trying")

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at = 0.0
        self._trying = False

    @property
    def is_open(self) -> bool:
        return self._failures >= THRESHOLD

    def allows(self, now: float) -> bool:
        """Return whether to ask the store. The caller then reports the result with one of the methods below.

        Args:
            now: seconds of a monotonic clock.
        """
        if not self.is_open:
            return True
        if self._trying or now < self._retry_at:
            return False
        self._trying = True
        return True

    def abandoned(self) -> None:
        """Record that the request ended before the store answered. The state of the store stays unknown."""
        self._trying = False

    def succeeded(self) -> None:
        """Record a success and close the breaker."""
        self._failures, self._trying = 0, False

    def failed(self, now: float) -> bool:
        """Record a failure. Returns whether this failure opened the breaker."""
        was_open, self._failures, self._trying = self.is_open, self._failures + 1, False
        self._retry_at = now + PAUSE
        return self.is_open and not was_open
