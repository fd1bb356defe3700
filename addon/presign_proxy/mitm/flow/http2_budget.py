"""The frames that a peer over HTTP/2 may send beside its messages, in tokens.

A frame that costs more than it weighs takes tokens. A peer gets some each second, and more for what it is
sent. When it has none left, its connection is closed.
"""

from __future__ import annotations

from typing import Final

from .http2_excess import Excess

BURST: Final = 1000
"""Tokens of a peer that has not used any."""
RATE: Final = 200
"""Tokens that a peer gets each second."""
PER_ANSWER: Final = 5
"""Tokens for each answer: browsers send a PRIORITY or two for a request."""
MAX_RESETS: Final = 200
"""Requests that a client may reset before it has had an answer to others: twice as many as it can have under
way. Each answer allows one more, and each second.
"""
BYTES_PER_TOKEN: Final = 1024
"""Bytes sent to a peer for which it gets a token: Go opens two windows for each four KiB."""
MAX_TINY: Final = 1000
"""Tiny frames that are let through at once."""
TINY_RATE: Final = 500
"""Tiny frames in each second."""


class FrameBudget:
    """What a peer has left to spend."""

    __slots__ = ("_resets", "_since", "_tiny", "_tokens")

    def __init__(self) -> None:
        self._tokens = float(BURST)
        self._tiny = float(MAX_TINY)
        self._resets = 0.0
        self._since: float | None = None

    def pass_time(self, now: float) -> None:
        """Add what the time brings.

        Args:
            now: of a monotonic clock, in seconds.
        """
        if self._since is not None:
            passed = now - self._since
            self.earn(passed * RATE)
            self._resets = max(self._resets - passed, 0)
            self._tiny = min(self._tiny + passed * TINY_RATE, MAX_TINY)
        self._since = now

    def earn(self, tokens: float) -> None:
        """Add tokens for what the peer was sent."""
        self._tokens = min(self._tokens + tokens, BURST)

    def answered(self) -> None:
        """Add what a request brings that has its answer."""
        self.earn(PER_ANSWER)
        self._resets = max(self._resets - 1, 0)

    def pay(self, tokens: int) -> None:
        """Take tokens for a frame. Raises Excess."""
        self._tokens -= tokens
        if self._tokens < 0:
            raise Excess("too many frames that are no requests")

    def count_reset(self) -> None:
        """Count a request that the client has reset. Raises Excess."""
        self._resets += 1
        if self._resets > MAX_RESETS:
            raise Excess("too many requests are reset")

    def take_tiny(self) -> bool:
        """Return whether one more tiny frame may go through now, and count it if so."""
        if self._tiny < 1:
            return False
        self._tiny -= 1
        return True
