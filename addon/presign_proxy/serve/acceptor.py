"""Accepting on a socket that several workers share."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from .capacity import Room
from .listeners import BACKLOG

logger = logging.getLogger(__name__)

_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE: Final = 0.2
_LOOK: Final = 0.05
"""Seconds between two looks for whether somebody has room."""
_BETWEEN: Final = 60.0
"""Seconds between two complaints."""

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Acceptor:
    """One connection at a time, and back to the event loop: asyncio would take all that wait, and leave
    nothing to the other workers.

    It is to mitmproxy what an `asyncio.Server` is: it has `sockets`, and can be closed.
    """

    def __init__(self, sock: socket.socket, handle: Handle, room: Room) -> None:
        self.sockets = (sock,)
        self._sock = sock
        self._handle = handle
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._arriving: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = float("-inf")
        self._closed = False
        sock.listen(BACKLOG)
        self._watch()

    def close(self) -> None:
        """Accept nothing more. The socket itself goes on listening where others hold it."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    @property
    def arriving(self) -> int:
        """How many connections were accepted that nobody handles yet."""
        return len(self._arriving)

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        if self._room.leaves_it_to_others():
            self._rest(_LOOK)
            return
        try:
            connection, _ = self._sock.accept()
        except OSError as error:  # another worker was faster, the client has gone, or:
            if error.errno in _EXHAUSTED:
                self._rest(_PAUSE)
                self._complain(error)
            return
        connection.setblocking(False)
        self._arriving.add(connection)
        task = self._loop.create_task(self._arrive(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _rest(self, seconds: float) -> None:
        """Let the others accept, and what is here end."""
        self._loop.remove_reader(self._sock.fileno())
        self._loop.call_later(seconds, self._watch)

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained > _BETWEEN:
            self._complained = time.monotonic()
            logger.error("no client can be accepted at the moment: %s", (error.strerror or "").lower())

    async def _arrive(self, connection: socket.socket) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # It is registered before anything is waited for: at every moment it is counted once.
            self._arriving.discard(connection)
            await self._handle(reader, writer)

        reader = asyncio.StreamReader(loop=self._loop)
        protocol: Any = asyncio.StreamReaderProtocol(reader, handle, loop=self._loop)
        try:
            with contextlib.suppress(OSError):  # it has gone already
                await self._loop.connect_accepted_socket(lambda: protocol, connection)
        finally:
            self._arriving.discard(connection)
