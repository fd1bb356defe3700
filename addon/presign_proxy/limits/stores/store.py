"""The protocol of a store of counters. A store counts all counters of a request in one atomic step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..counter import Counter
from ..verdict import Verdict


class StoreError(Exception):
    """The store is down, slow, full or damaged. The text is for the operator and contains no secret."""


class Declined(StoreError):
    """The store works, but refuses to count this request. It may still count others, so keep asking it."""


class NoRoom(Declined):
    """The store has no room for a new counter."""


Lease = tuple[str, str]
"""The key of a counter of slots, and the holder of one of its slots."""


class Store(Protocol):
    """A store of counters. Every method raises StoreError and nothing else; callers set a deadline.

    Calls are carried out in the order in which they are made, also if the caller stops waiting.
    """

    lease: int
    """Microseconds after which a slot that is not renewed becomes free."""

    async def admit(self, counters: Sequence[Counter], holder: str) -> Verdict:
        """Count one request in all of its counters, or in none if one of them has no room left.

        Args:
            counters: no two with the same key.
            holder: unique; it takes a slot in every counter of slots.
        """

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew these slots for another lease. Takes those again that were lost meanwhile."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Free these slots. Those that are already free stay free."""

    async def warnings(self) -> list[str]:
        """Return sentences about its set-up that might make it lose counts."""

    async def close(self) -> None:
        """Close the store. Never raises."""
