"""Admission: every limit of a granted request in one step, and what happens where they cannot be counted."""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from ..errors import Denied, Limited
from .circuit_breaker import Breaker
from .counter import Counter
from .deadline import Deadline
from .slots import Slot, Slots
from .stores.memory import MemoryStore
from .stores.open import Choice
from .stores.store import Declined, Lease, Store, StoreError
from .verdict import Verdict, fields, reached

logger = logging.getLogger(__name__)

DEADLINE: Final = 0.25
"""Seconds that a request waits for the store at most."""
_BETWEEN: Final = 60.0
"""Seconds between two complaints of the same kind."""


class Counted(Protocol):
    """A granted request, as far as limits ask about it."""

    @property
    def counters(self) -> tuple[Counter, ...]: ...

    @property
    def request_id(self) -> str: ...


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
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: collections.Counter[str] = collections.Counter()
        """What happened since the start: admitted, limited, failed, opened (passed without being counted)."""
        self._slots = Slots(clock, self._deadline, self.counts)

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
        counters = forward.counters
        if not counters:
            return None
        begun, store = self._clock(), self._store
        holder = forward.request_id
        leases = tuple([(counter.key, holder) for counter in counters if counter.kind == "slots"])
        try:
            verdict = await self._ask(store, counters, holder, leases, begun)
        except StoreError as error:
            if not all(counter.fail_open for counter in counters):
                self.counts["failed"] += 1
                raise Denied("unavailable", f"the limits cannot be counted: {error}") from None
            self.counts["opened"] += 1
            return None
        if not verdict.admitted:
            self.counts["limited"] += 1
            raise Limited(reached(counters, verdict).name, fields(counters, verdict))
        self.counts["admitted"] += 1
        if not leases:
            return None
        fail_open = all(counter.fail_open for counter in counters if counter.kind == "slots")
        # Counted from before the store was asked, and so never longer than the store counts it.
        return self._slots.hold(store, leases, fail_open=fail_open, begun=begun)

    async def _ask(
        self, store: Store, counters: Sequence[Counter], holder: str, leases: Sequence[Lease], now: float
    ) -> Verdict:
        """Raises StoreError, and within the deadline."""
        breaker = self._breaker
        if not breaker.allows(now):
            raise StoreError("the store has failed several times and is left alone for a moment")
        try:
            with self._deadline.wait():
                verdict = await store.admit(counters, holder)
        except Declined as error:
            self._has_worked(breaker)
            self._complain(str(error), now)
            raise
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {DEADLINE:g} s"
            self._has_failed(breaker, why)
            self._slots.give_back(store, leases)  # it may have taken them all the same
            raise StoreError(why) from None
        except BaseException:
            breaker.abandoned()
            self._slots.give_back(store, leases)
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
        while self._slots.needs(store):  # noqa: ASYNC110 - it happens once in a life
            await asyncio.sleep(1)
        await store.close()

    async def close(self) -> None:
        """The process is about to end: give back what is held."""
        await self._slots.close(DEADLINE)
        await self._store.close()
