"""Slots of concurrent requests: how each is kept while its exchange goes on, and given back once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final
from weakref import finalize

from .counter import SECOND
from .deadline import Deadline
from .stores.store import Lease, Store, StoreError

logger = logging.getLogger(__name__)

_AGAIN: Final = 1.0
"""Seconds between two attempts to free what could not be freed."""
MAX_OWED: Final = 10_000
"""Slots for which that is tried; further ones are free when their leases end."""
_RENEWALS: Final = 4
"""In a lease: two may fail before a slot counts as lost."""


def _most_for(store: Store) -> float:
    """Seconds that a renewal may take."""
    return store.lease / SECOND / 16


def _good_for(store: Store) -> float:
    """Seconds for which a slot is surely held: with a renewal that begins in them, or the end of an exchange
    whose slot was not renewed, before the store gives the slot to somebody else.
    """
    return store.lease / SECOND * 7 / 8


class Slot:
    """The slots of one request, to be released when its exchange has ended, whichever way."""

    __slots__ = ("_among", "fail_open", "good_until", "leases", "store")

    def __init__(
        self, among: Slots, store: Store, leases: tuple[Lease, ...], *, fail_open: bool, good_until: float
    ) -> None:
        self._among = among
        self.store = store
        self.leases = leases
        self.fail_open = fail_open
        self.good_until = good_until

    def is_lost(self, now: float) -> bool:
        """Whether somebody else may have it by now: then two would be served where one is allowed."""
        return not self.fail_open and now > self.good_until

    def release(self) -> None:
        """Free it; from any thread, and once, however often it is called."""
        self._among.release(self)

    def release_now(self) -> None:
        """Free it before anything else is admitted: what a client has sent ahead comes next. In the loop."""
        self._among.release_now(self)


class LimitHold:
    """Of one exchange: whether it was counted, and its slot. Freed with it at the latest."""

    __slots__ = ("__weakref__", "counted", "slot")

    def __init__(self) -> None:
        self.counted = False
        self.slot: Slot | None = None

    def hold(self, slot: Slot | None) -> None:
        self.counted, self.slot = True, slot
        if slot is not None:
            finalize(self, slot.release)

    def let_go(self) -> None:
        """Free its slot. In the event loop."""
        if self.slot is not None:
            self.slot.release_now()

    def is_lost(self, now: float) -> bool:
        return self.slot is not None and self.slot.is_lost(now)


class Slots:
    """All that one process holds, each in its store. Belongs to the event loop in which it first holds."""

    def __init__(self, clock: Callable[[], float], deadline: Deadline, counts: Counter[str]) -> None:
        """
        Args:
            clock: seconds, of a clock that is never set.
            deadline: within which a store has to answer.
            counts: gets the failures of stores.
        """
        self._clock = clock
        self._deadline = deadline
        self._counts = counts
        self._held: dict[Slot, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._owed: dict[tuple[Store, Lease], float] = {}
        """Slots that could not be freed, and until when they are held at most."""
        self._repaying: asyncio.Task[None] | None = None

    def hold(self, store: Store, leases: tuple[Lease, ...], *, fail_open: bool, begun: float) -> Slot:
        """Keep what was just taken until it is released.

        Args:
            begun: when the store was asked.
        """
        slot = Slot(self, store, leases, fail_open=fail_open, good_until=begun + _good_for(store))
        self._loop = asyncio.get_running_loop()
        self._held[slot] = None
        if self._renewing is None or self._renewing.done():
            self._renewing = self._loop.create_task(self._renew())
        return slot

    def release(self, slot: Slot) -> None:
        """Free a slot; from any thread, and once, however often it is called."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.release_now, slot)

    def release_now(self, slot: Slot) -> None:
        """Free a slot, once, however often it is called; where the loop runs in which it was taken."""
        if slot in self._held:
            del self._held[slot]
            self.give_back(slot.store, slot.leases)

    def give_back(self, store: Store, leases: Sequence[Lease]) -> None:
        """Free leases that a store holds, or may hold."""
        if not leases:
            return
        # Begun at once, so that the store hears of it before it is asked for the next request.
        loop = asyncio.get_running_loop()
        task = asyncio.Task(self._send_back(store, leases), loop=loop, eager_start=True)
        if not task.done():
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _send_back(self, store: Store, leases: Sequence[Lease]) -> None:
        if await self._is_released(store, leases):
            return
        until = self._clock() + store.lease / SECOND
        for lease in leases[: MAX_OWED - len(self._owed)]:
            self._owed[store, lease] = until
        if self._repaying is None or self._repaying.done():
            self._repaying = asyncio.get_running_loop().create_task(self._repay())

    async def _is_released(self, store: Store, leases: Sequence[Lease]) -> bool:
        try:
            with self._deadline.wait():
                await store.release(leases)
        except (StoreError, TimeoutError):
            self._counts["store_failures"] += 1
            return False
        return True

    async def _repay(self) -> None:
        """Free what could not be freed, until the store does it, or the leases end by themselves."""
        while self._owed:
            await asyncio.sleep(_AGAIN)
            for store in {store for store, _ in self._owed}:
                now = self._clock()
                mine = {lease: until for (one, lease), until in self._owed.items() if one is store}
                live = [lease for lease, until in mine.items() if until > now]
                gone = mine if not live or await self._is_released(store, live) else mine.keys() - live
                for lease in gone:
                    self._owed.pop((store, lease), None)

    async def _renew(self) -> None:
        """Keep what is held, as long as anything is."""
        while self._held:
            await asyncio.sleep(min(slot.store.lease for slot in self._held) / SECOND / _RENEWALS)
            begun = self._clock()
            # What is lost may be somebody else's by now: its exchange is about to be broken off.
            kept = [slot for slot in self._held if not slot.is_lost(begun)]
            for store in {slot.store for slot in kept}:
                await self._renew_in(store, [slot for slot in kept if slot.store is store], begun)

    async def _renew_in(self, store: Store, slots: list[Slot], begun: float) -> None:
        try:
            async with asyncio.timeout(_most_for(store)):
                await store.renew([lease for slot in slots for lease in slot.leases])
        except (StoreError, TimeoutError) as error:
            self._counts["store_failures"] += 1
            logger.warning("presign: slots could not be renewed: %s", str(error) or "no answer")
            return
        for slot in slots:
            slot.good_until = begun + _good_for(store)
        # Released while they were being renewed, perhaps before: free them again.
        self.give_back(store, [lease for slot in slots if slot not in self._held for lease in slot.leases])

    def needs(self, store: Store) -> bool:
        """Whether something is held there, or still to be freed."""
        return any(slot.store is store for slot in self._held) or any(one is store for one, _ in self._owed)

    async def close(self, patience: float) -> None:
        """Give back what is held; the process is about to end.

        Args:
            patience: seconds that this may take.
        """
        if self._renewing is not None:
            self._renewing.cancel()
        if self._repaying is not None:
            self._repaying.cancel()
        for slot in list(self._held):
            self.release_now(slot)
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=patience)
