"""The back-off for replacing lost workers: at once at first, later and later if the new ones die too."""

from __future__ import annotations

from typing import Final

_MAX_PAUSE: Final = 30.0
"""The longest pause between two starts, in seconds, while workers keep dying."""
_MAX_PAUSE_OF_ALL: Final = 5.0
"""The longest pause while no worker serves."""


class Pace:
    """The back-off of one gateway. All instants are of one monotonic clock."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self.failures = 0
        self._last_failure = 0.0
        self.not_before = 0.0
        """The instant from which the next worker may start."""

    def pause(self, now: float) -> float:
        """Return the seconds until the next worker may start."""
        return max(0.0, self.not_before - now)

    def lost(self, now: float, *, some_serve: bool) -> None:
        """Take note of a lost worker.

        Args:
            some_serve: whether other workers serve.
        """
        self.not_before = max(self.not_before, self._next_start(now, some_serve=some_serve))

    def reset(self) -> None:
        """Forget past failures, because their cause may have been removed."""
        self.failures, self.not_before = 0, 0.0

    def _next_start(self, now: float, *, some_serve: bool) -> float:
        if now < self.not_before:
            return now  # workers that start together may all fail: that counts as one failure
        if now - self._last_failure > 2 * _MAX_PAUSE:
            self.failures = 0
        self.failures, self._last_failure = self.failures + 1, now
        # One accident may have killed every worker and the spare: that is not yet a series.
        over = self.failures - self._workers - 1
        longest = _MAX_PAUSE if some_serve else _MAX_PAUSE_OF_ALL
        return now + (min(longest, 0.5 * 2.0 ** min(over, 16)) if over > 0 else 0.0)
