"""Slots of concurrent requests: renewed while the exchange lasts, and freed once at its end."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from weakref import finalize

from ..http.message import Fields
from .counter import SECOND
from .deadline import Deadline
from .stores.store import Lease, Store, StoreError

logger = logging.getLogger(__name__)

_AGAIN: Final = 1.0
"""Seconds between two attempts to free slots that could not be freed."""
MAX_STUCK: Final = 10_000
"""Most slots that are tried again. Further ones become free when their leases end."""
_RENEWALS: Final = 4
"""Renewals in one lease. Two may fail before a slot counts as lost."""


def _most_for(store: Store) -> float:
    """Return the most seconds that a renewal may take."""
    return store.lease / SECOND / 16


def _good_for(store: Store) -> float:
    """Return the seconds for which a slot is surely held, counted from the start of its last renewal.

    The rest of the lease is left for a renewal that has begun, or for breaking off the exchange. Only after
    the whole lease may the store give the slot to another request.
    """
    return store.lease / SECOND * 7 / 8


class Slot:
    """The slots of one request. They are released when its exchange ends, in any way."""

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
        """Return whether another request may have this slot now. Then two would run where one is allowed."""
        return not self.fail_open and now > self.good_until

    def release(self) -> None:
        """Free the slot. May be called from any thread, and more than once."""
        self._among.release(self)

    def release_now(self) -> None:
        """Free the slot before any other request is admitted: the client may have pipelined the next one.

        Must be called in the event loop.
        """
        self._among.release_now(self)


class Admitted(NamedTuple):
    """A request that its limits admit: its slot, if it takes one, and fields for its answer."""

    slot: Slot | None = None
    fields: Fields = ()


class LimitHold:
    """The state of limits for one exchange: whether it was counted, its slot, and fields for its answer.

    The slot is freed at the latest when this object is garbage-collected.
    """

    __slots__ = ("__weakref__", "counted", "fields", "slot")

    def __init__(self) -> None:
        self.counted = False
        self.slot: Slot | None = None
        self.fields: Fields = ()

    def hold(self, admitted: Admitted) -> None:
        self.counted = True
        self.slot, self.fields = admitted
        if self.slot is not None:
            finalize(self, self.slot.release)

    def let_go(self) -> None:
        """Free the slot. Must be called in the event loop."""
        if self.slot is not None:
            self.slot.release_now()

    def is_lost(self, now: float) -> bool:
        return self.slot is not None and self.slot.is_lost(now)


class Slots:
    """All slots that one process holds. Belongs to the event loop in which the first one is held."""

    def __init__(self, clock: Callable[[], float], deadline: Deadline, counts: Counter[str]) -> None:
        """
        Args:
            clock: returns the seconds of a monotonic clock.
            deadline: the time within which a store must answer.
            counts: receives the number of failures of stores.
        """
        self._clock = clock
        self._deadline = deadline
        self._counts = counts
        self._held: dict[Slot, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._stuck: dict[tuple[Store, Lease], float] = {}
        """Slots that could not be freed, with the time at which their leases end."""
        self._freeing: asyncio.Task[None] | None = None

    def hold(self, store: Store, leases: tuple[Lease, ...], *, fail_open: bool, begun: float) -> Slot:
        """Keep slots that were just taken, until they are released.

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
        """Free a slot. May be called from any thread, and more than once."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.release_now, slot)

    def release_now(self, slot: Slot) -> None:
        """Free a slot. May be called more than once, in the event loop in which the slot was taken."""
        if slot in self._held:
            del self._held[slot]
            self.give_back(slot.store, slot.leases)

    def give_back(self, store: Store, leases: Sequence[Lease]) -> None:
        """Free leases that a store holds, or may hold."""
        if not leases:
            return
        # The task starts at once, so that the store is asked to free them before the next request asks it.
        loop = asyncio.get_running_loop()
        task = asyncio.Task(self._send_back(store, leases), loop=loop, eager_start=True)
        if not task.done():
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _send_back(self, store: Store, leases: Sequence[Lease]) -> None:
        if await self._is_released(store, leases):
            return
        until = self._clock() + store.lease / SECOND
        for lease in leases[: MAX_STUCK - len(self._stuck)]:
            self._stuck[store, lease] = until
        if self._freeing is None or self._freeing.done():
            self._freeing = asyncio.get_running_loop().create_task(self._free_again())

    async def _is_released(self, store: Store, leases: Sequence[Lease]) -> bool:
        try:
            with self._deadline.wait():
                await store.release(leases)
        except (StoreError, TimeoutError):
            self._counts["store_failures"] += 1
            return False
        return True

    async def _free_again(self) -> None:
        """Try again to free slots, until the store has done it or their leases have ended."""
        while self._stuck:
            await asyncio.sleep(_AGAIN)
            for store in {store for store, _ in self._stuck}:
                now = self._clock()
                mine = {lease: until for (one, lease), until in self._stuck.items() if one is store}
                live = [lease for lease, until in mine.items() if until > now]
                gone = mine if not live or await self._is_released(store, live) else mine.keys() - live
                for lease in gone:
                    self._stuck.pop((store, lease), None)

    async def _renew(self) -> None:
        """Renew the held slots, as long as there are any."""
        while self._held:
            await asyncio.sleep(min(slot.store.lease for slot in self._held) / SECOND / _RENEWALS)
            begun = self._clock()
            # Another request may have a lost slot now. The exchange of a lost slot is about to be broken off.
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
        # Slots released meanwhile are freed again: the store may have freed them before it renewed them.
        self.give_back(store, [lease for slot in slots if slot not in self._held for lease in slot.leases])

    def needs(self, store: Store) -> bool:
        """Return whether slots are held in this store, or are still to be freed there."""
        return any(slot.store is store for slot in self._held) or any(one is store for one, _ in self._stuck)

    async def close(self, patience: float) -> None:
        """Free all held slots, before the process ends.

        Args:
            patience: most seconds that this may take.
        """
        if self._renewing is not None:
            self._renewing.cancel()
        if self._freeing is not None:
            self._freeing.cancel()
        for slot in list(self._held):
            self.release_now(slot)
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=patience)
