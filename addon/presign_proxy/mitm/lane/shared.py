"""What all lanes of a process share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ...core.decision import Deny, Forward
from ...core.under_way import CODE, WHY, Basis, basis_of
from ...gateway.admission import Admission
from ...gateway.destination import DestinationJudge
from ...gateway.lifecycle import Lifecycle
from ...gateway.outward import announce
from ...limits.slots import LimitHold
from ...observe.audit_log import AuditLog
from ...observe.under_way import Running
from ..client_state import ClientStates
from ..sockets import upstream_tls
from . import availability
from .grant_cache import GrantCache
from .granted_request import GrantedRequest
from .record import Record
from .upstream_pool import Pool, PoolKey
from .write_batch import WriteBatch


class Underway(Protocol):
    """An exchange that was granted and has not ended."""

    @property
    def limit_hold(self) -> LimitHold: ...

    @property
    def granted(self) -> GrantedRequest: ...

    @property
    def record(self) -> Record: ...

    @property
    def stage(self) -> str: ...

    def deny(self, why: Deny) -> None: ...

    def fail(self, why: str, code: str) -> None: ...

    def collapse(self, error: Exception) -> None: ...

    def lose(self, why: str) -> None: ...

    def check_time(self, now: float) -> None: ...

    def abandon(self, why: str) -> None: ...


class LaneShared:
    """What lanes use of the gateway, and have in common. They are open while nothing needs flows."""

    def __init__(
        self,
        admission: Admission,
        judge: DestinationJudge,
        audit_log: AuditLog,
        clients: ClientStates,
        lifecycle: Lifecycle,
    ) -> None:
        self.admission = admission
        self.audit_log = audit_log
        self.clients = clients
        self._judge = judge
        self._lifecycle = lifecycle
        self.write_batch = WriteBatch()
        self.pool = Pool(upstream_tls, time.monotonic, self.write_batch)
        self.grants = GrantCache()
        self.exchanges: set[Underway] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = False
        """True if requests may take the lane."""

    @property
    def in_flight(self) -> int:
        """How many granted requests have not ended."""
        return len(self.exchanges)

    def running(self) -> list[Running]:
        """Return what is under way, for an operator."""
        return [Running(one.granted.forward.facts, one.record.started) for one in self.exchanges]

    @property
    def draining(self) -> bool:
        """True if each answer is to be the last one on its connection."""
        return self._lifecycle.draining

    def set_out(self, master: Any) -> None:
        """Open or shut the lane, as the options say now. What is on it goes on."""
        self.open = availability.is_open(master, master.options.presign_lane)
        self.pool.reset()
        self._judge.refresh()

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it in a task, which is kept: the event loop alone would let go of it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def place_at_once(self, client: Any, forward: Forward) -> PoolKey | None:
        """Return where a grant leads, if its address needs no check; else None."""
        origin = forward.origin
        if forward.resolve is not None or self._judge.may_be_ours(origin.port):
            return None
        return _place(client, forward, origin.host)

    async def place(self, client: Any, forward: Forward) -> PoolKey:
        """Return where a grant leads, and announce how a connection to there is opened.

        Raises Denied("upstream") where that is not allowed.
        """
        outward = await self._judge.outward(client, forward)
        address = outward.addresses[0] if outward.addresses else outward.host
        announce(outward._replace(host=address))
        return _place(client, forward, address)

    def tick(self, now: float) -> None:
        """End what has lost its slot or waits for too long, and close what is idle. Called twice a second.

        Args:
            now: of the monotonic clock.
        """
        for exchange in list(self.exchanges):
            if exchange.limit_hold.is_lost(now):
                exchange.lose("its slot was lost")
            else:
                exchange.check_time(now)
        self.pool.sweep()
        self.grants.forget_before(self.admission.registry, int(time.time()))
        self._judge.refresh()

    def end_revoked(self, is_ended: Callable[[Basis], bool]) -> None:
        """End the exchanges that rest on what was revoked with `now`."""
        for exchange in list(self.exchanges):
            try:
                if is_ended(basis_of(exchange.granted.forward.facts)):
                    exchange.fail(WHY, CODE)
            except Exception as error:
                exchange.collapse(error)

    def close(self) -> None:
        """End all exchanges, and close all connections: the gateway stops."""
        for exchange in list(self.exchanges):
            exchange.abandon("the gateway was stopped")
        self.pool.reset()
        for task in self._tasks:
            task.cancel()


def _place(client: Any, forward: Forward, address: str) -> PoolKey:
    connection = forward.connection
    shared = connection.conduct.pool
    return PoolKey(connection.id, forward.origin, address, None if shared else client.id, connection.tls)
