"""Back-pressure where mitmproxy has none: a peer is not read from while too much of its data waits here.

mitmproxy reads on and queues: a body whose upstream is still being dialled, and what an HTTP/2 client's
closed window keeps from being sent. A gate stops reading a socket that serves one exchange, never one that
serves several: an HTTP/2 client is held back stream by stream, by its windows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from .client_connection import ClientConnection
from .http2_turns import Turns
from .small_reads import hold_less, sip
from .sockets import handler_of
from .tcp import keep_asking
from .waker import PAUSE, Waker

MAX_HELD: Final = 1024 * 1024
"""Bytes held of what one client sent, before no more is read from it."""
MAX_BACKLOG: Final = 4 * 1024 * 1024
"""Bytes of one answer that wait for a client to take them, before no more of it is read."""
MAX_BACKLOGS: Final = 16 * 1024 * 1024
"""Bytes of all answers together that wait for one client. Beyond it each of them has room for SHARE."""
SHARE: Final = 16 * 1024
"""Bytes of one answer that are read however many others wait. One that is not taken never stops another."""
_LONGEST_PAUSE: Final = 4 * PAUSE


def is_too_much(waiting: int, together: int, room: int = MAX_BACKLOGS) -> bool:
    """Return whether no more of an answer is to be read.

    Args:
        waiting: bytes of this answer that wait.
        together: bytes of all answers to its client that wait.
        room: bytes that may wait for one client now, in view of what waits for others.
    """
    return waiting > MAX_BACKLOG or (waiting > SHARE and together > min(MAX_BACKLOGS, room))


class OneOfMany:
    """An upstream connection of a client that may have a hundred: it is read in small pieces, by turns, and
    its gate is not asked again and again.
    """

    def __init__(self, connection: Any, layer: Callable[[], ClientConnection | None], turns: Turns) -> None:
        """
        Args:
            layer: returns what serves its client now; None if the client has gone.
            turns: in which what was read is passed on.
        """
        self._connection = connection
        self._layer = layer
        self.turns = turns

    def is_shut(self) -> bool:
        """Return whether its client does not take what came from it."""
        layer = self._layer()
        return layer is not None and layer.is_shut(self._connection)

    def is_new(self) -> bool:
        """Return whether nothing of its answer was passed on yet."""
        layer = self._layer()
        return layer is not None and layer.is_unanswered(self._connection)

    @property
    def waker(self) -> Waker | None:
        """The waker that wakes when the gate may have been opened."""
        layer = self._layer()
        return layer.waker if layer is not None else None


class GatedReader:
    """A stream reader that waits while its gate is shut."""

    def __init__(self, reader: Any, is_shut: Callable[[], bool], among: OneOfMany | None = None) -> None:
        """Args: among: the connection as one of many, if it is one."""
        self._reader = reader
        self._is_shut = is_shut
        self._among = among
        self._held: asyncio.Future[None] | None = None
        self._holders: set[object] = set()
        self._reading = False

    @property
    def is_waiting(self) -> bool:
        """True if all that was read was passed on, and nothing more is here."""
        return self._reading and not self._reader._buffer and not self._reader.at_eof()

    def hold(self, on: bool, by: object) -> None:
        """Read no more, or go on: for a caller who knows when.

        Args:
            by: the holder; reading goes on once there is none.
        """
        (self._holders.add if on else self._holders.discard)(by)
        if self._holders and self._held is None:
            self._held = asyncio.get_running_loop().create_future()
        elif not self._holders and self._held is not None:
            held, self._held = self._held, None
            if not held.done():
                held.set_result(None)

    async def read(self, n: int) -> bytes:
        try:
            await self._pass_gate()
            if self._held is not None:
                await self._held
            self._reading = True
            data: bytes = await self._reader.read(n)
            self._reading = False
            if self._among is not None and not self._among.turns.take():
                await self._stand_in_row(self._among)
            return data
        except Exception as error:
            # mitmproxy closes a connection that fails with OSError; after any other error it would stay,
            # unread. It cannot close it before it has noted its reading task, which it does when we first
            # wait.
            await asyncio.sleep(0)
            raise OSError(f"reading failed ({type(error).__name__})") from None
        finally:
            self._reading = False

    async def _pass_gate(self) -> None:
        if self._among is not None and (waker := self._among.waker) is not None:
            await waker.wait(self._is_shut)
            return
        # Asked again and again: what opens the gate is a count in a queue of mitmproxy's.
        pause = PAUSE
        while self._is_shut():
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _stand_in_row(self, among: OneOfMany) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        among.turns.wait(called, new=among.is_new())
        try:
            await called
        finally:
            among.turns.leave(called)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def gate(client: Any, connection: Any, is_shut: Callable[[], bool], among: OneOfMany | None = None) -> None:
    """Put a gate before a connection of a client's handler, before its read loop begins, and watch for its
    peer.

    Args:
        among: the connection as one of many that the client may have, if it is one.
    """
    handler = handler_of(client)
    io = handler.transports.get(connection) if handler is not None else None
    if io is not None and io.reader is not None and connection.transport_protocol == "tcp":
        if among is not None:
            sip(io.writer, io.reader)
        else:
            hold_less(io.writer, io.reader)
        io.reader = GatedReader(io.reader, is_shut, among)
        if (transport := getattr(io.writer, "transport", None)) is not None:
            keep_asking(transport.get_extra_info("socket"))
