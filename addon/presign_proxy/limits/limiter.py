"""Admission: every limit of a granted request in one step, and what happens where they cannot be counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol
from weakref import finalize

from ..errors import Denied, Limited
from .circuit_breaker import Breaker
from .counter import SECOND, Tally
from .deadline import Deadline
from .stores.memory import MemoryStore
from .stores.open import Choice
from .stores.store import Declined, Lease, Store, StoreError
from .verdict import Verdict, fields, reached

logger = logging.getLogger(__name__)

DEADLINE: Final = 0.25
"""Seconds that a request waits for the store at most."""
_BETWEEN: Final = 60.0
"""Seconds between two complaints of the same kind."""
_AGAIN: Final = 1.0
"""Seconds between two attempts to free what could not be freed."""
MAX_OWED: Final = 10_000
"""Slots for which that is tried; further ones are free when their leases end."""
_RENEWALS: Final = 4
"""In a lease: two may fail before a slot counts as lost."""


class Counted(Protocol):
    """A granted request, as far as limits ask about it."""

    @property
    def tallies(self) -> tuple[Tally, ...]: ...

    @property
    def request_id(self) -> str: ...


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

    __slots__ = ("_limiter", "fail_open", "good_until", "leases", "store")

    def __init__(
        self, limiter: Limiter, store: Store, leases: tuple[Lease, ...], *, fail_open: bool, good_until: float
    ) -> None:
        self._limiter = limiter
        self.store = store
        self.leases = leases
        self.fail_open = fail_open
        self.good_until = good_until

    def is_lost(self, now: float) -> bool:
        """Whether somebody else may have it by now: then two would be served where one is allowed."""
        return not self.fail_open and now > self.good_until

    def release(self) -> None:
        """Free it; from any thread, and once, however often it is called."""
        self._limiter.release(self)

    def release_now(self) -> None:
        """Free it before anything else is admitted: what a client has sent ahead comes next. In the loop."""
        self._limiter.release_now(self)


class Seat:
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


class Limiter:
    """Asks one store, for one process. Belongs to the event loop in which it first admits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: seconds, of a clock that is never set.
        """
        self._clock = clock
        self._choice: Choice | None = None
        self._store: Store = MemoryStore()
        self._breaker = Breaker()
        self._deadline = Deadline(DEADLINE)
        self._complained = float("-inf")
        self._untold: Store | None = None
        """What is wrong with it could not be looked at yet."""
        self._held: dict[Slot, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._releasing: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._owed: dict[tuple[Store, Lease], float] = {}
        """Slots that could not be freed, and until when they are held at most."""
        self._repaying: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()
        """What happened since the start: admitted, limited, failed, opened (passed without being counted)."""

    def use(self, choice: Choice, *, needed: bool) -> None:
        """Count in this store from now on; what holds a slot of another one keeps and renews it there.

        Args:
            needed: whether something is limited, so that what is wrong with the store has to be told now.

        Raises StoreError; then the last one stays.
        """
        if choice.is_same(self._choice):
            return
        before, self._store = self._store, choice.open()
        self._choice, self._breaker, self._untold = choice, Breaker(), None
        self._do(self._leave(before))
        if needed:
            self._do(self._tell(self._store))

    @property
    def is_down(self) -> bool:
        """Whether the store is left alone because it has failed, as far as requests have found out."""
        return self._breaker.is_open

    @property
    def kind(self) -> str:
        """Of the store: memory, sqlite, redis, rediss."""
        return self._choice.url.partition(":")[0] if self._choice else "memory"

    @property
    def address(self) -> tuple[str, int] | None:
        """Of the store, where it has one: no request may lead there."""
        return self._choice.address if self._choice else None

    async def admit(self, forward: Counted) -> Slot | None:
        """Count a request in all of its counters, or in none.

        Returns its slot, where it takes one. Raises Limited, or Denied("unavailable").
        """
        tallies = forward.tallies
        if not tallies:
            return None
        begun, store = self._clock(), self._store
        holder = forward.request_id
        leases = tuple([(tally.key, holder) for tally in tallies if tally.kind == "slots"])
        try:
            verdict = await self._ask(store, tallies, holder, leases, begun)
        except StoreError as error:
            if not all(tally.fail_open for tally in tallies):
                self.counts["failed"] += 1
                raise Denied("unavailable", f"the limits cannot be counted: {error}") from None
            self.counts["opened"] += 1
            return None
        if not verdict.admitted:
            self.counts["limited"] += 1
            raise Limited(reached(tallies, verdict).name, fields(tallies, verdict))
        self.counts["admitted"] += 1
        if not leases:
            return None
        fail_open = all(tally.fail_open for tally in tallies if tally.kind == "slots")
        # Counted from before the store was asked, and so never longer than the store counts it.
        return self._hold(Slot(self, store, leases, fail_open=fail_open, good_until=begun + _good_for(store)))

    async def _ask(
        self, store: Store, tallies: Sequence[Tally], holder: str, leases: Sequence[Lease], now: float
    ) -> Verdict:
        """Raises StoreError, and within the deadline."""
        breaker = self._breaker
        if not breaker.allows(now):
            raise StoreError("the store has failed several times and is left alone for a moment")
        try:
            with self._deadline.wait():
                verdict = await store.admit(tallies, holder)
        except Declined as error:
            self._has_worked(breaker)
            self._complain(str(error), now)
            raise
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {DEADLINE:g} s"
            self._has_failed(breaker, why)
            self._give_back(store, leases)  # it may have taken them all the same
            raise StoreError(why) from None
        except BaseException:
            breaker.abandoned()
            self._give_back(store, leases)
            raise
        self._has_worked(breaker)
        return verdict

    def _has_worked(self, breaker: Breaker) -> None:
        if breaker.succeeded():
            logger.warning("presign: the limit store works again")
        if self._untold is not None:
            store, self._untold = self._untold, None
            self._do(self._tell(store, again=True))

    def _complain(self, why: str, now: float) -> None:
        """Say why some requests are refused that could be counted elsewhere: once a minute, not for each."""
        if now - self._complained > _BETWEEN:
            self._complained = now
            logger.error("presign: some limits cannot be counted, their requests are answered 503: %s", why)

    def _has_failed(self, breaker: Breaker, why: str) -> None:
        self.counts["store_failures"] += 1
        if breaker.failed(self._clock()):
            logger.error("presign: limits cannot be counted, their requests are answered 503: %s", why)

    # -- slots ----------------------------------------------------------------------------------------

    def _hold(self, slot: Slot) -> Slot:
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
            self._give_back(slot.store, slot.leases)

    def _give_back(self, store: Store, leases: Sequence[Lease]) -> None:
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
            self.counts["store_failures"] += 1
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
            self.counts["store_failures"] += 1
            logger.warning("presign: slots could not be renewed: %s", str(error) or "no answer")
            return
        for slot in slots:
            slot.good_until = begun + _good_for(store)
        # Released while they were being renewed, perhaps before: free them again.
        self._give_back(store, [lease for slot in slots if slot not in self._held for lease in slot.leases])

    # -- the store ------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, store: Store, *, again: bool = False) -> None:
        """Log what is wrong with a store: at the start, and once again when it first works."""
        try:
            async with asyncio.timeout(8 * DEADLINE):
                for warning in await store.warnings():
                    logger.warning("presign: %s", warning)
        except TimeoutError:
            self._fails_to_tell(None if again else store, "it does not answer")
        except StoreError as error:
            self._fails_to_tell(None if again else store, str(error))

    def _fails_to_tell(self, store: Store | None, why: str) -> None:
        # No error: mitmproxy would not start where there is one, and the store may come up after us.
        # Looked at again once, and not with each request that it counts.
        self._untold = store
        logger.warning("presign: the limit store cannot be used yet: %s", why)

    async def _leave(self, store: Store) -> None:
        """Close a store when nothing needs it any more."""
        await asyncio.sleep(2 * DEADLINE)
        while self._needs(store):  # noqa: ASYNC110 - it happens once in a life
            await asyncio.sleep(1)
        await store.close()

    def _needs(self, store: Store) -> bool:
        """Whether something is held there, or still to be freed."""
        return any(slot.store is store for slot in self._held) or any(one is store for one, _ in self._owed)

    async def close(self) -> None:
        """The process is about to end: give back what is held."""
        if self._renewing is not None:
            self._renewing.cancel()
        if self._repaying is not None:
            self._repaying.cancel()
        for slot in list(self._held):
            self.release_now(slot)
        if self._releasing:
            await asyncio.wait(self._releasing, timeout=DEADLINE)
        await self._store.close()
