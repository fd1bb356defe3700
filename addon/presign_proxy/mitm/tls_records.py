"""TLS records, counted before they are decrypted: few short ones in a turn of the event loop.

A record of 22 bytes may change a key (KeyUpdate: RFC 8446, 4.6.3) or hold a single byte, and costs as much as
one of 16 KiB. Its kind is unknown before it is decrypted, but its length stands in front of it.
"""

from __future__ import annotations

from typing import Final

TURN_RECORDS: Final = 64
"""Short records that are decrypted before other connections have their turn."""
SHORT: Final = 1024
"""Bytes of a record below which it is a short one."""
LONGEST: Final = 0.05
"""The most seconds that a turn counts as: it may have waited for something else."""
_HEAD: Final = 5
"""Bytes in front of a record: its type, a version, and the length of the rest (RFC 8446, 5.1)."""


class RecordGate:
    """Lets received bytes through, turn by turn. Bytes that are no TLS pass, too: OpenSSL refuses them."""

    __slots__ = ("_held", "_rest")

    def __init__(self) -> None:
        self._held = bytearray()
        self._rest = 0
        """Bytes of the last record that are still to come: a record goes through as it comes."""

    def needs_no_turn(self, data: bytes) -> bool:
        """Return whether received bytes are exactly one record, and nothing waits in front of it.

        Such bytes may pass by the gate: `add` and `take` would return them at once.
        """
        if self._rest or self._held or len(data) < _HEAD:
            return False
        return len(data) == _HEAD + (data[3] << 8 | data[4])

    def add(self, data: bytes) -> None:
        """Keep received bytes for a turn."""
        self._held += data

    @property
    def is_ready(self) -> bool:
        """True if something can go through in the next turn."""
        return len(self._held) >= _HEAD or bool(self._rest and self._held)

    def take(self) -> bytes:
        """Return the bytes of this turn. The first bytes of a record wait until its length has come."""
        held, end, short = self._held, self._rest, 0
        while len(held) >= end + _HEAD and short < TURN_RECORDS:
            length = held[end + 3] << 8 | held[end + 4]
            short += length < SHORT
            end += _HEAD + length
        return self._let_through(end)

    def take_all(self) -> bytes:
        """Return all bytes that are kept: the connection has ended."""
        return self._let_through(len(self._held))

    def _let_through(self, end: int) -> bytes:
        self._rest = max(0, end - len(self._held))
        taken = bytes(self._held[:end])
        del self._held[:end]
        return taken


class Slots:
    """The times of all connections' turns, one after the other.

    Half of a worker is left to other work, however many connections have turns, and however slow the machine.
    """

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = 0.0
        """When the next turn may begin that is not promised yet."""

    def delay(self, now: float, cost: float) -> float:
        """Return the seconds until the next turn of a connection, and promise that turn to it.

        Args:
            now: of a monotonic clock, in seconds.
            cost: seconds that its last turn has taken; the next one takes about as long.
        """
        cost = min(cost, LONGEST)
        begins = max(self._free, now + cost)
        self._free = begins + 2 * cost
        return begins - now


slots: Final = Slots()
"""The turns of this process."""
