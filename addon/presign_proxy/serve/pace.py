"""How soon a worker that was lost is replaced: at once, and ever later where none of them lives."""

from __future__ import annotations

from typing import Final

_MAX_PAUSE: Final = 30.0
"""Seconds between two starts at most, where workers do not live."""
_MAX_PAUSE_OF_ALL: Final = 5.0
"""The same, while nobody serves."""


class Pace:
    """Of one gateway. All instants are those of one clock that is never set."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.failures = 0
        self._last_failure = 0.0
        self.not_before = 0.0
        """When the next worker may start."""

    def pause(self, now: float) -> float:
        """Seconds until the next worker may start."""
        return max(0.0, self.not_before - now)

    def lost(self, now: float, *, some_serve: bool) -> None:
        """A worker was lost.

        Args:
            some_serve: whether others do.
        """
        self.not_before = max(self.not_before, self._next_start(now, some_serve=some_serve))

    def reset(self) -> None:
        """Whatever failed before may work now."""
        self.failures, self.not_before = 0, 0.0

    def _next_start(self, now: float, *, some_serve: bool) -> float:
        if now < self.not_before:
            return now  # of those that start together, all may fail: that is one failure
        if now - self._last_failure > 2 * _MAX_PAUSE:
            self.failures = 0
        self.failures, self._last_failure = self.failures + 1, now
        # Each may have been hit by the same accident, and the spare with them.
        over = self.failures - self._workers - 1
        longest = _MAX_PAUSE if some_serve else _MAX_PAUSE_OF_ALL
        return now + (min(longest, 0.5 * 2.0 ** min(over, 16)) if over > 0 else 0.0)
