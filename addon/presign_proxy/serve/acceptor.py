"""A listener that accepts clients on a socket shared by several workers."""

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
"""Seconds until a full worker checks again whether another one has room."""
_BETWEEN: Final = 60.0
"""Seconds between two log lines about failed accepts."""

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Acceptor:
    """A listener that accepts one connection in each turn of the event loop.

    asyncio would accept all waiting connections at once, and leave none to the other workers. mitmproxy uses
    this object like an `asyncio.Server`: it has `sockets`, and can be closed.
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
        """Stop accepting. The socket itself keeps listening while other processes hold it."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    @property
    def arriving(self) -> int:
        """The number of accepted connections that have no handler yet."""
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
        """Stop accepting for a while, so that other workers accept and connections here can end."""
        self._loop.remove_reader(self._sock.fileno())
        self._loop.call_later(seconds, self._watch)

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained > _BETWEEN:
            self._complained = time.monotonic()
            logger.error("no client can be accepted at the moment: %s", (error.strerror or "").lower())

    async def _arrive(self, connection: socket.socket) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # mitmproxy registers it before its first await, so it is counted exactly once at any time.
            self._arriving.discard(connection)
            await self._handle(reader, writer)

        reader = asyncio.StreamReader(loop=self._loop)
        protocol: Any = asyncio.StreamReaderProtocol(reader, handle, loop=self._loop)
        try:
            with contextlib.suppress(OSError):  # the client has already gone
                await self._loop.connect_accepted_socket(lambda: protocol, connection)
        finally:
            self._arriving.discard(connection)
