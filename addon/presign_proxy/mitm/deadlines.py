"""What must happen in time, whether or not anything is sent: deadlines and reloads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakSet

from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy.events import ConnectionClosed

from ..observe.audit_record import GONE, Outcome
from .flow.state import FlowState, FlowStates
from .flow.stream_events import Expired, Overdue, Stalled
from .half_closed import has_gone, is_quiet, says_no_more
from .room import Room
from .sockets import cut, handler_of, hang_up, is_taken, keep_awake

logger = logging.getLogger(__name__)

TICK: Final = 0.5
HEAD_DEADLINE: Final = 10.0
"""Seconds in which a client must have sent the head of its request."""


class Deadlines:
    """A clock that ticks twice a second, ends what is overdue, and has a changed configuration read again."""

    def __init__(
        self,
        states: FlowStates,
        reload: Callable[[float], None],
        end_revoked: Callable[[float], Awaitable[None]],
        end_lapsed: Callable[[float], Awaitable[None]],
        tick: Callable[[float], None],
        end: Callable[[FlowState, Outcome], object],
    ) -> None:
        """
        Args:
            end_revoked: ends what is under way and was revoked with `now`.
            end_lapsed: refuses what is not granted any more while its body is read.
            end: writes down how a granted exchange has ended.
        """
        self._states = states
        self._clients = states.clients
        self._room = Room(states.clients)
        self._end = end
        self._task: asyncio.Task[None] | None = None
        self._lost: WeakSet[FlowState] = WeakSet()
        # Revocations come first. A step that fails does not keep the others from running.
        self._steps: tuple[Callable[[float], Awaitable[None] | None], ...] = (
            reload,
            end_revoked,
            end_lapsed,
            self._end_gone,
            self._end_overdue,
            tick,
            self._wake_overdue,
            self._ask_half_closed,
            self._end_stalled,
            self._report_lost,
        )

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def make_room(self, newcomer: Client) -> bool:
        """Close the connection that is missed least, so that a client that keeps them all shuts no other out.

        Return whether there was one. No request that is under way has to go.
        """
        client = self._room.least_missed(time.monotonic(), newcomer)
        if client is None:
            return False
        self._clients.forget(client)
        cut(client, client)
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

    async def _report_lost(self, _: float) -> None:
        """End exchanges whose upstream connection has ended without a report of it.

        Where writing to a connection fails, mitmproxy cancels its task, also while that waits for its turn to
        report the end: the client would wait for ever, because there is nothing left that could be cut.
        """
        lost = [flow_state for flow_state in self._states.live() if _is_lost(flow_state)]
        for flow_state in lost:
            handler, ended = handler_of(flow_state.client), flow_state.progress.server
            # Lost at the last look too, half a second ago: so its end is not just being reported.
            if flow_state in self._lost and handler is not None and ended is not None:
                flow_state.progress.leave_server()
                ended.state = ConnectionState.CLOSED
                await handler.server_event(ConnectionClosed(ended))
        self._lost = WeakSet(lost)

    def _end_gone(self, _: float) -> None:
        """End clients that have closed their connections, where mitmproxy would not notice."""
        clients = self._clients
        for client in filter(says_no_more, list(clients.paused)):
            clients.half_closed.add_unread(client)
        for client in {*clients.silent(), *(one.client for one in self._states.uploads())}:
            layer, half_closed = clients.layer_of(client), client in clients.half_closed
            answering = layer is not None and layer.is_answering()
            if has_gone(client) or (half_closed and answering and is_quiet(client)):
                clients.note_gone(client)
                try:
                    if layer is not None:
                        layer.give_up()
                finally:
                    if client in clients.raw_tunnels:
                        hang_up(client)  # what waits for the other end of its tunnel would keep it open
                    cut(client, client)

    async def _ask_half_closed(self, now: float) -> None:
        """Ask half-closed clients that wait for an answer: one may have closed its connection since."""
        for client in self._clients.half_closed.all():
            handler, layer = handler_of(client), self._clients.layer_of(client)
            if handler is None or layer is None or not self._clients.half_closed.is_due(client, now):
                continue
            if (asks := layer.ask()) is not None:
                await handler.server_event(asks)

    def _end_overdue(self, now: float) -> None:
        """End what takes too long, and what has lost the slot that it counts under."""
        for client in self._clients.awaited_longer_than(HEAD_DEADLINE, now):
            self._clients.head_came(client)
            cut(client, client)
        for flow_state in self._states.live():
            progress = flow_state.progress
            if handler_of(flow_state.client) is None:
                self._end(flow_state, progress.outcome(None, GONE))  # no hook has reported the end
                continue
            if self._states.is_waiting(flow_state):
                keep_awake(flow_state.client)
            if progress.server is not None and _is_overdue(flow_state, now):
                progress.time_out()
                cut(flow_state.client, progress.server)
            elif flow_state.limit_hold.is_lost(now):
                cut(flow_state.client, progress.server or flow_state.client)

    async def _wake_overdue(self, now: float) -> None:
        """Answer requests that wait too long for their connection: for a hook, a name, TCP or TLS. End
        WebSockets that have lasted for too long.
        """
        for flow_state in self._states.live():
            handler, stream = handler_of(flow_state.client), flow_state.stream
            if handler is not None and stream is not None and 0 < flow_state.progress.response.until < now:
                await handler.server_event(Expired(stream))
            if handler is not None and stream is not None and _connects_for_too_long(flow_state, now):
                flow_state.progress.time_out()
                await handler.server_event(Overdue(stream))

    async def _end_stalled(self, now: float) -> None:
        """Answer requests whose bodies stand still: the client sends no more, or the upstream takes none."""
        for flow_state in self._states.uploads():
            handler, stream, progress = handler_of(flow_state.client), flow_state.stream, flow_state.progress
            granted = flow_state.granted
            if handler is None or stream is None or granted is None or progress.stage not in _MOVING:
                continue
            server = progress.server
            held = stream.is_held or not (server is None or is_taken(flow_state.client, server))
            if not progress.upload.has_stalled(now, progress.since, granted.patience, held=held):
                continue
            if held:
                progress.time_out()
                cut(flow_state.client, server or flow_state.client)
            else:
                await handler.server_event(Stalled(stream))


_MOVING: Final = ("reading", "sending", "receiving", "done")
"""Stages in which the body of a request is read."""


def _is_lost(flow_state: FlowState) -> bool:
    handler, server = handler_of(flow_state.client), flow_state.progress.server
    if handler is None or server is None:
        return False
    io = handler.transports.get(server)
    return io is None or (io.handler is not None and io.handler.done())


def _is_overdue(flow_state: FlowState, now: float) -> bool:
    grant, progress = flow_state.grant, flow_state.progress
    if grant is None or progress.timed_out or progress.stage != "waiting" or progress.server is None:
        return False
    return now - progress.since > grant.connection.conduct.response_timeout


def _connects_for_too_long(flow_state: FlowState, now: float) -> bool:
    grant, progress = flow_state.grant, flow_state.progress
    if grant is None or progress.timed_out or progress.stage != "connecting":
        return False
    return now - progress.since > grant.connection.conduct.connect_timeout
