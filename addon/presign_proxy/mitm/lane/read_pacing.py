"""When an upstream connection is read: by turns with all others, and not while its client has enough."""

from __future__ import annotations

from typing import Final

from ...core.response_body import TURN
from .upstream_socket import UpstreamSocket

_FULL: Final = 128 * 1024
"""Bytes of a segment as long as can be, behind which uvloop reads on, up to 32 times in one turn."""


class ReadPacing:
    """Stops reading for three reasons, and reads on once none of them holds.

    Its client has enough (`hold`). More has come than was read in this turn (`defer`). The turn is used up
    (`pause`).
    """

    __slots__ = ("_held", "_late", "_paused", "_run", "_socket", "ending", "lags")

    def __init__(self, socket: UpstreamSocket) -> None:
        self._socket = socket
        self._held = self._paused = False
        self._run = 0
        """Bytes that came in long segments, one after the other."""
        self.lags = False
        """True if what has come is read on in the next turn."""
        self._late: list[bytes] = []
        """What came while that turn was waited for."""
        self.ending = False
        """True if the connection was lost meanwhile."""

    def hold(self) -> None:
        """Stop until `release`."""
        self._held = True
        self._socket.stop_reading()

    def release(self) -> None:
        """End what `hold` began."""
        self._held = False
        self.read_on()

    def read_on(self) -> None:
        """Read on, unless one of the reasons still holds."""
        if not (self._held or self.lags or self._paused):
            self._socket.read_on()

    # -- more has come than was read ------------------------------------------------------------------

    def defer(self) -> None:
        """Read nothing new before the next turn, in which `catch_up` is called."""
        self.lags = True
        self._socket.stop_reading()

    def keep(self, data: bytes) -> None:
        """Keep what TLS had taken off the socket before reading stopped."""
        self._late.append(data)

    def catch_up(self) -> bytes:
        """Return what was kept; the turn has come."""
        self.lags = False
        late, self._late = b"".join(self._late), []
        return late

    # -- the turn is used up --------------------------------------------------------------------------

    def is_used_up(self, size: int) -> bool:
        """Count a segment. Return whether other connections should have a turn before more is read.

        They should behind a mebibyte; and over TLS behind each segment, because its records may hold a byte
        each, which cannot be seen from here.
        """
        self._run = self._run + size if size >= _FULL else 0
        return self._socket.secure or self._run >= TURN

    def pause(self) -> bool:
        """Stop until `end_pause`. Return whether that is to be called: not where reading has stopped already.

        A connection may be used again after this, other than after `hold`. An answer that is not over ends
        with a later segment, which comes once TLS has delivered all that it had taken.
        """
        if self.lags or self._paused or not self._socket.is_open:
            return False
        self._run, self._paused = 0, True
        self._socket.stop_reading()
        return True

    def end_pause(self) -> None:
        """Read on in the next turn."""
        self._paused = False
        self.read_on()
