"""Admission: checks all limits of a granted request in one step, and handles stores that do not answer."""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from ..errors import UNCOUNTED, Denied, Limited
from .circuit_breaker import Breaker
from .counter import Counter
from .deadline import Deadline
from .slots import Admitted, Slots
from .stores.memory import MemoryStore
from .stores.open import Choice
from .stores.store import Declined, Lease, Store, StoreError
from .verdict import Verdict, granted_fields, reached, refused_fields, sentence

logger = logging.getLogger(__name__)

DEADLINE: Final = 0.25
"""Most seconds that a request waits for the store."""
_BETWEEN: Final = 60.0
"""Seconds between two log lines with the same complaint."""


class Counted(Protocol):
    """A granted request, with what the limits need of it."""

    @property
    def counters(self) -> tuple[Counter, ...]: ...

    @property
    def request_id(self) -> str: ...


class Limiter:
    """The limits of one process, counted in one store. Belongs to the event loop in which it first admits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: returns the seconds of a monotonic clock.
        """
        self._clock = clock
        self._choice: Choice | None = None
        self._store: Store = MemoryStore()
        self._breaker = Breaker()
        self._deadline = Deadline(DEADLINE)
        self._complained = float("-inf")
        self._is_failing = False
        """True from a logged failure of the store until it works again."""
        self._unchecked: Store | None = None
        """The store whose warnings could not be read yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: collections.Counter[str] = collections.Counter()
        """Numbers since the start: admitted, limited, failed, opened (passed without being counted)."""
        self._slots = Slots(clock, self._deadline, self.counts)

    def use(self, choice: Choice, *, needed: bool) -> None:
        """Count in this store from now on. Slots that are held in another store are kept and renewed there.

        Args:
            needed: whether any limit is configured. If so, the warnings of the store are logged now.

        Raises StoreError; then the previous store stays in use.
        """
        if choice.is_same(self._choice):
            return
        before, self._store = self._store, choice.open()
        self._choice, self._breaker, self._unchecked = choice, Breaker(), None
        self._is_failing, self._complained = False, float("-inf")
        self._do(self._leave(before))
        if needed:
            self._do(self._warn(self._store))

    @property
    def is_down(self) -> bool:
        """True while the circuit breaker is open, because the store failed for several requests."""
        return self._breaker.is_open

    @property
    def kind(self) -> str:
        """The kind of the store: memory, sqlite, redis or rediss."""
        return self._choice.url.partition(":")[0] if self._choice else "memory"

    @property
    def _name(self) -> str:
        return self._choice.name if self._choice else "memory"

    @property
    def address(self) -> tuple[str, int] | None:
        """The network address of the store, if it has one. No request may go there."""
        return self._choice.address if self._choice else None

    async def admit(self, forward: Counted) -> Admitted:
        """Count a request in all of its counters, or in none. Raises Limited, or Denied("unavailable")."""
        counters = forward.counters
        if not counters:
            return Admitted()
        begun, store = self._clock(), self._store
        holder = forward.request_id
        leases = tuple([(counter.key, holder) for counter in counters if counter.kind == "slots"])
        try:
            verdict = await self._ask(store, counters, holder, leases, begun)
        except StoreError as error:
            if not all(counter.fail_open for counter in counters):
                self.counts["failed"] += 1
                why = f"the limits cannot be counted: {error}"
                raise Denied("unavailable", why, sentence=UNCOUNTED) from None
            self.counts["opened"] += 1
            return Admitted()
        if not verdict.admitted:
            self.counts["limited"] += 1
            name = reached(counters, verdict).name
            raise Limited(name, refused_fields(counters, verdict), sentence(counters, verdict))
        self.counts["admitted"] += 1
        told = granted_fields(counters, verdict)
        if not leases:
            return Admitted(fields=told)
        fail_open = all(counter.fail_open for counter in counters if counter.kind == "slots")
        # The lease begins here before the store was asked. So it never ends later here than in the store.
        return Admitted(self._slots.hold(store, leases, fail_open=fail_open, begun=begun), told)

    async def _ask(
        self, store: Store, counters: Sequence[Counter], holder: str, leases: Sequence[Lease], now: float
    ) -> Verdict:
        """Ask the store. Raises StoreError, also if it does not answer within the deadline."""
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
            self._slots.give_back(store, leases)  # the store may have counted them
            raise StoreError(why) from None
        except BaseException:
            breaker.abandoned()
            self._slots.give_back(store, leases)
            raise
        self._has_worked(breaker)
        return verdict

    def _has_worked(self, breaker: Breaker) -> None:
        breaker.succeeded()
        if self._is_failing:
            self._is_failing = False
            logger.warning("presign: the limit store works again")
        if self._unchecked is not None:
            store, self._unchecked = self._unchecked, None
            self._do(self._warn(store, again=True))

    def _complain(self, why: str, now: float) -> None:
        """Log why this store refuses to count some requests, at most once a minute."""
        if now - self._complained > _BETWEEN:
            self._complained = now
            said = "presign: some limits cannot be counted, their requests are answered 503: %s: %s"
            logger.error(said, self._name, why)

    def _has_failed(self, breaker: Breaker, why: str) -> None:
        """Log the first failure, at most once a minute, or else the one that opens the breaker."""
        self.counts["store_failures"] += 1
        now = self._clock()
        opens = breaker.failed(now)
        if not self._is_failing and (opens or now - self._complained > _BETWEEN):
            self._is_failing, self._complained = True, now
            said = "presign: limits cannot be counted, their requests are answered 503: %s: %s"
            logger.error(said, self._name, why)

    # -- the store ------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _warn(self, store: Store, *, again: bool = False) -> None:
        """Log the warnings of a store: at the start, and once again when it first works."""
        try:
            async with asyncio.timeout(8 * DEADLINE):
                for warning in await store.warnings():
                    logger.warning("presign: %s", warning)
        except TimeoutError:
            self._cannot_warn(None if again else store, "it does not answer")
        except StoreError as error:
            self._cannot_warn(None if again else store, str(error))

    def _cannot_warn(self, store: Store | None, why: str) -> None:
        # A warning, not an error: mitmproxy would not start after an error, and the store may start after us.
        # The warnings are read again once, when the store first works, and not with each request.
        self._unchecked = store
        logger.warning("presign: the limit store cannot be used yet: %s: %s", self._name, why)

    async def _leave(self, store: Store) -> None:
        """Close a store when nothing needs it any more."""
        await asyncio.sleep(2 * DEADLINE)
        while self._slots.needs(store):  # noqa: ASYNC110 - it happens once in a life
            await asyncio.sleep(1)
        await store.close()

    async def close(self) -> None:
        """Free all held slots and close the store, before the process ends."""
        await self._slots.close(DEADLINE)
        await self._store.close()
