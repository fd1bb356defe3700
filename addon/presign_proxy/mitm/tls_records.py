"""Records of TLS, counted before they are decrypted: so many short ones in a turn of the event loop.

A record of 22 bytes may change a key (KeyUpdate: RFC 8446, 4.6.3) or hold a single byte, and costs as much as
one of 16 KiB. What kind it is nobody can tell before it is decrypted, but its length stands in front of it.
"""

from __future__ import annotations

from typing import Final

TURN_RECORDS: Final = 64
"""Short records that are decrypted before others have their turn."""
SHORT: Final = 1024
"""Bytes of a record below which it is a short one."""
LONGEST: Final = 0.05
"""Seconds that a turn counts at most: one may have waited for something else."""
_HEAD: Final = 5
"""Bytes in front of a record: its type, a version, and the length of the rest (RFC 8446, 5.1)."""


class RecordGate:
    """Lets what has come through, turn by turn. What is no TLS it lets through too: OpenSSL refuses that."""

    __slots__ = ("_held", "_rest")

    def __init__(self) -> None:
        self._held = bytearray()
        self._rest = 0
        """Bytes of the last record that are still to come: a record goes through as it comes."""

    def add(self, data: bytes) -> None:
        """Keep what has come."""
        self._held += data

    @property
    def is_ready(self) -> bool:
        """True if something can go through in the next turn."""
        return len(self._held) >= _HEAD or bool(self._rest and self._held)

    def take(self) -> bytes:
        """What goes through in this turn. The first bytes of a record wait until its length is there."""
        held, end, short = self._held, self._rest, 0
        while len(held) >= end + _HEAD and short < TURN_RECORDS:
            length = held[end + 3] << 8 | held[end + 4]
            short += length < SHORT
            end += _HEAD + length
        return self._let_through(end)

    def take_all(self) -> bytes:
        """All that has come: nothing comes behind it."""
        return self._let_through(len(self._held))

    def _let_through(self, end: int) -> bytes:
        self._rest = max(0, end - len(self._held))
        taken = bytes(self._held[:end])
        del self._held[:end]
        return taken


class Slots:
    """Gives the turns of all connections their times, one after the other, so that half of a worker is left
    to everybody else, however many connections have turns, and however slow the machine is.
    """

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = 0.0
        """When the next turn may begin that nobody waits for yet."""

    def delay(self, now: float, cost: float) -> float:
        """Seconds until the next turn of a connection, which is promised to it.

        Args:
            now: of a monotonic clock, in seconds.
            cost: seconds that its last turn has taken; the next one takes about as long.
        """
        cost = min(cost, LONGEST)
        begins = max(self._free, now + cost)
        self._free = begins + 2 * cost
        return begins - now


slots: Final = Slots()
"""Of this process."""
