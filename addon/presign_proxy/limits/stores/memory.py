"""Counters of one process, gone with it: for a laptop and for tests."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..counter import LEASE, Counter, forgettable_at, weigh
from ..verdict import Verdict
from .store import Lease, NoRoom

MAX_COUNTERS: Final = 1_000_000
"""Some 300 MB. Beyond it new counters are refused, not old ones forgotten: that would give uses back."""
_SWEPT: Final = 8
"""Counters looked at for each that is made: more than one, so that what is over never piles up."""


def _microseconds() -> int:
    return time.time_ns() // 1000


class MemoryStore:
    """Nothing here waits, so every step is atomic on its event loop."""

    def __init__(
        self,
        clock: Callable[[], int] = _microseconds,
        max_counters: int = MAX_COUNTERS,
        lease: int = LEASE,
    ) -> None:
        """
        Args:
            clock: Unix time in microseconds.
            lease: microseconds.
        """
        self.lease = lease
        self._clock = clock
        self._max = max_counters
        self._counters: dict[str, tuple[int, int]] = {}
        """State, and when it may be forgotten, 0 for never."""
        self._slots: dict[str, dict[str, int]] = {}
        """Holders, and when their leases end."""
        self._earliest: dict[str, int] = {}
        """No lease of the slots ends before: until then there is nothing to look for among them."""
        self._due: list[tuple[int, str]] = []

    async def admit(self, counters: Sequence[Counter], holder: str) -> Verdict:
        now = self._clock()
        states = [self._state(counter, now) for counter in counters]
        weighed = [weigh(counter, state, now) for counter, state in zip(counters, states, strict=True)]
        verdict = Verdict(tuple(weighed))
        if verdict.admitted:
            self._make_room(counters, now)
        for counter, one, state in zip(counters, weighed, states, strict=True):
            if verdict.admitted or (not one.fits and one.after != state):
                self._put(counter, one.after, holder, now)
        return verdict

    def _make_room(self, counters: Sequence[Counter], now: int) -> None:
        self._sweep(now)
        added = sum(
            counter.key not in self._counters and counter.key not in self._slots for counter in counters
        )
        if len(self._counters) + len(self._slots) + added > self._max:
            raise NoRoom(f"memory:// holds {self._max} counters, which is all it may")

    def _state(self, counter: Counter, now: int) -> int:
        if counter.kind != "slots":
            return self._counters.get(counter.key, (0, 0))[0]
        held = self._slots.get(counter.key)
        if held is None:
            return 0
        if self._earliest[counter.key] <= now:
            for lost in [one for one, ends in held.items() if ends <= now]:
                del held[lost]
            self._earliest[counter.key] = min(held.values(), default=now + self.lease)
        return len(held)

    def _hold(self, key: str, holder: str, ends: int) -> None:
        self._slots.setdefault(key, {})[holder] = ends
        self._earliest[key] = min(self._earliest.get(key, ends), ends)

    def _put(self, counter: Counter, after: int, holder: str, now: int) -> None:
        if counter.kind == "slots":
            self._hold(counter.key, holder, now + self.lease)
            return
        forget = forgettable_at(counter, after)
        if counter.key not in self._counters and forget:
            heapq.heappush(self._due, (forget, counter.key))
        self._counters[counter.key] = after, forget

    def _sweep(self, now: int) -> None:
        for _ in range(_SWEPT):
            if not self._due or self._due[0][0] > now:
                return
            _, key = heapq.heappop(self._due)
            forget = self._counters[key][1]
            if forget <= now:
                del self._counters[key]
            else:
                heapq.heappush(self._due, (forget, key))

    async def renew(self, leases: Sequence[Lease]) -> None:
        now = self._clock()
        for key, holder in leases:
            self._hold(key, holder, now + self.lease)

    async def release(self, leases: Sequence[Lease]) -> None:
        for key, holder in leases:
            held = self._slots.get(key, {})
            held.pop(holder, None)
            if not held:
                self._slots.pop(key, None)
                self._earliest.pop(key, None)

    async def warnings(self) -> list[str]:
        return ["memory:// forgets every count when the process ends, and is not shared by workers"]

    async def close(self) -> None:
        self._counters, self._slots, self._earliest, self._due = {}, {}, {}, []
