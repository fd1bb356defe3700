"""What must happen in time, whether or not somebody sends something: deadlines and reloads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakSet

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.events import ConnectionClosed

from ..observe.audit_record import GONE, Outcome
from .flow.state import Entry, Ledger
from .flow.waits import Overdue, Stalled
from .half_closed import has_gone, is_quiet
from .sockets import cut, handler_of, hang_up, is_taken, keep_awake

logger = logging.getLogger(__name__)

TICK: Final = 0.5
HEAD_DEADLINE: Final = 10.0
"""Seconds in which a client must have sent the head of its request."""


class Housekeeper:
    """Ticks twice a second: ends what is overdue, and has a changed configuration read again."""

    def __init__(
        self,
        ledger: Ledger,
        reload: Callable[[float], None],
        tick: Callable[[float], None],
        end: Callable[[Entry, Outcome], object],
    ) -> None:
        """Args: end: writes down how a granted exchange has ended."""
        self._ledger = ledger
        self._end = end
        self._task: asyncio.Task[None] | None = None
        self._lost: WeakSet[Entry] = WeakSet()
        # What is revoked comes first, and none of them waits for what another one fails at.
        self._steps: tuple[Callable[[float], Awaitable[None] | None], ...] = (
            reload,
            self._end_gone,
            self._end_overdue,
            tick,
            self._wake_overdue,
            self._ask_mute,
            self._end_stalled,
            self._tell_of_lost,
        )

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def make_room(self) -> bool:
        """Close one connection that serves nobody, lest whoever keeps them all shuts the others out."""
        stranger = self._ledger.idle_stranger()
        if stranger is None:
            return False
        self._ledger.forget(stranger)
        cut(stranger, stranger)
        return True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for step in self._steps:
                try:
                    waited_for = step(time.monotonic())
                    if waited_for is not None:
                        await waited_for
                except Exception as error:
                    logger.error("presign: housekeeping failed (%s)", type(error).__name__)

    async def _tell_of_lost(self, _: float) -> None:
        """End exchanges whose upstream connection has ended without anybody's being told.

        Where writing to a connection fails, mitmproxy cancels its task, also while that waits for its turn to
        tell of the end: the client would wait for ever, because there is nothing left that could be cut.
        """
        lost = [entry for entry in self._ledger.live() if _is_lost(entry)]
        for entry in lost:
            handler, ended = handler_of(entry.client), entry.server
            if entry in self._lost and handler is not None:  # half a second ago too: nobody is about to tell
                entry.server = None
                ended.state = ConnectionState.CLOSED
                await handler.server_event(ConnectionClosed(ended))
        self._lost = WeakSet(lost)

    def _end_gone(self, _: float) -> None:
        """End clients that have closed their connections, where nobody would be told of that."""
        for client in self._ledger.unheard():
            layer, mute = self._ledger.layers.get(client), client in self._ledger.mute
            answering = layer is not None and layer.is_answering()
            if has_gone(client) or (mute and answering and is_quiet(client)):
                self._ledger.mute.discard(client)
                self._ledger.deaf.discard(client)
                self._ledger.gone.add(client)
                try:
                    if layer is not None:
                        layer.give_up()
                finally:
                    if client in self._ledger.raw:
                        hang_up(client)  # what waits for the other end of its tunnel would keep that open
                    cut(client, client)

    async def _ask_mute(self, now: float) -> None:
        """Ask those again that wait for an answer: one may have closed its connection since."""
        for client in self._ledger.mute.all():
            handler, layer = handler_of(client), self._ledger.layers.get(client)
            if handler is None or layer is None or not self._ledger.mute.is_due(client, now):
                continue
            if (asks := layer.ask()) is not None:
                await handler.server_event(asks)

    def _end_overdue(self, now: float) -> None:
        for client, since in list(self._ledger.heads.items()):
            if now - since > HEAD_DEADLINE:
                self._ledger.paid_head(client)
                cut(client, client)
        for entry in self._ledger.live():
            if handler_of(entry.client) is None:
                self._end(entry, entry.outcome(None, GONE))  # and nobody said so
                continue
            if self._ledger.is_waiting(entry):
                keep_awake(entry.client)
            if _is_overdue(entry, now):
                entry.timed_out = True
                cut(entry.client, entry.server)
            elif entry.seat.is_lost(now):
                cut(entry.client, entry.server or entry.client)

    async def _wake_overdue(self, now: float) -> None:
        """Have those answered that wait too long for their connection: for a hook, a name, TCP or TLS."""
        for entry in self._ledger.live():
            handler = handler_of(entry.client)
            if handler is not None and entry.stream is not None and _connects_for_too_long(entry, now):
                entry.timed_out = True
                await handler.server_event(Overdue(entry.stream))

    async def _end_stalled(self, now: float) -> None:
        """Have those answered whose bodies stand still: no more is sent, or no more is taken."""
        for entry in self._ledger.uploads():
            handler, stream = handler_of(entry.client), entry.stream
            if handler is None or stream is None or entry.stage not in _MOVING:
                continue
            held = stream.is_held or not (entry.server is None or is_taken(entry.client, entry.server))
            if entry.held is not held:
                entry.held, entry.moved = held, now  # until now it was the other's turn
            if now - max(entry.since, entry.moved) <= entry.patience[held]:
                continue
            entry.moved = now  # told once
            if held:
                entry.timed_out = True
                cut(entry.client, entry.server or entry.client)
            else:
                await handler.server_event(Stalled(stream))


_MOVING: Final = ("sending", "receiving", "done")
"""Stages in which the body of a request is passed on."""


def _is_lost(entry: Entry) -> bool:
    handler = handler_of(entry.client)
    if handler is None or entry.server is None:
        return False
    io = handler.transports.get(entry.server)
    return io is None or (io.handler is not None and io.handler.done())


def _is_overdue(entry: Entry, now: float) -> bool:
    if entry.grant is None or entry.timed_out or entry.stage != "waiting" or entry.server is None:
        return False
    return now - entry.since > entry.grant.connection.conduct.response_timeout


def _connects_for_too_long(entry: Entry, now: float) -> bool:
    if entry.grant is None or entry.timed_out or entry.stage != "connecting":
        return False
    return now - entry.since > entry.grant.connection.conduct.connect_timeout
