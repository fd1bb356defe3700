"""Stores: where counters are kept. Each counts all that one request is held against in one atomic step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..counter import Counter
from ..verdict import Verdict


class StoreError(Exception):
    """The store is down, slow, full or damaged. Its text is for the operator, and holds no secret."""


class Declined(StoreError):
    """It works, but does not count this. No reason to leave it alone: it may count for others."""


class NoRoom(Declined):
    """It begins no new counter."""


Lease = tuple[str, str]
"""The key of slots, and who holds one of them."""


class Store(Protocol):
    """Every method raises StoreError, and nothing else; none is waited for without a deadline.

    What is asked of it first is done first, also where nobody has waited for it.
    """

    lease: int
    """Microseconds for which a slot is held that is not renewed."""

    async def admit(self, counters: Sequence[Counter], holder: str) -> Verdict:
        """Count one request: in all of its counters, or where one has no room left, in none.

        Args:
            counters: with keys that differ.
            holder: unique; takes a slot wherever a counter is of slots.
        """

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Keep these slots for another lease, also those that were lost meanwhile."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Free these slots; those that are free already stay so."""

    async def warnings(self) -> list[str]:
        """What of its set-up might lose counts, as sentences."""

    async def close(self) -> None:
        """Let go of it. Never raises."""
