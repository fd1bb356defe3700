"""What must happen in time, whether or not somebody sends something: deadlines and reloads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from weakref import WeakSet

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.events import ConnectionClosed

from .handlers import cut, handler_of, has_gone
from .ledger import Entry, Ledger
from .waits import Overdue
from .watching import Version, version_of

logger = logging.getLogger(__name__)

TICK: Final = 0.5
_LOOK: Final = 0.05
HEAD_DEADLINE: Final = 10.0
"""Seconds in which a client must have sent the head of its request."""


class Housekeeper:
    """Ticks twice a second: ends what is overdue, and has a changed configuration read again."""

    def __init__(
        self, ledger: Ledger, reload: Callable[[], Awaitable[None]], tick: Callable[[float], None]
    ) -> None:
        self._ledger = ledger
        self._reload = reload
        self._tick = tick
        self._task: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._lost: WeakSet[Entry] = WeakSet()
        self.asked = False
        self.files: tuple[Path, ...] = ()
        self.seen: Version | None = None

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        for task in (self._task, self._reloading):
            if task is not None:
                task.cancel()

    def watch(self, files: tuple[Path, ...], version: Version | None) -> None:
        """The files from which on a change is one, and as what they were read; no files: as before."""
        if files:
            self.files, self.seen = files, version

    async def settled(self) -> None:
        """Wait until what was asked for has been read."""
        # What ends it is a tick.
        while self.asked or (self._reloading is not None and not self._reloading.done()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

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
            try:
                self._end_gone()
                self._end_overdue(time.monotonic())
                self._tick(time.monotonic())
                await self._wake_overdue(time.monotonic())
                await self._tell_of_lost()
                self._look_at_files()
            except Exception as error:
                logger.error("presign: housekeeping failed (%s)", type(error).__name__)

    def _look_at_files(self) -> None:
        """One reload at a time; it may wait for programs, and no deadline waits for it."""
        if self._reloading is not None and not self._reloading.done():
            return
        version = version_of(self.files)
        if self.files and (self.asked or version != self.seen):
            self.seen, self.asked = version, False
            self._reloading = asyncio.get_running_loop().create_task(self._reload_once())

    async def _reload_once(self) -> None:
        try:
            await self._reload()
        except Exception as error:
            logger.error("presign: the reload failed (%s)", type(error).__name__)

    async def _tell_of_lost(self) -> None:
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

    def _end_gone(self) -> None:
        """End clients that have closed their connections, where it was only known that they say no more."""
        for client in list(self._ledger.mute):
            if has_gone(client):
                self._ledger.mute.discard(client)
                self._ledger.gone.add(client)
                try:
                    if (layer := self._ledger.layers.get(client)) is not None:
                        layer.give_up()
                finally:
                    cut(client, client)

    def _end_overdue(self, now: float) -> None:
        for client, since in list(self._ledger.heads.items()):
            if now - since > HEAD_DEADLINE:
                self._ledger.paid_head(client)
                cut(client, client)
        for entry in self._ledger.live():
            if handler_of(entry.client) is None:
                self._ledger.retire(entry)  # its client is gone, and nobody said so
            elif _is_overdue(entry, now):
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
