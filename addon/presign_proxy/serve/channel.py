"""Messages between the supervisor and one worker, in both directions. If one side ends, the channel ends.

Each message is JSON on one line, of any size: thousands of problems at a start are long, and so are the
metrics of thousands of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any, Final

Message = dict[str, Any]

_BLOCK: Final = 1024 * 1024
"""The number of bytes to read at a time."""


class Channel:
    """One end of a socket pair that an event loop reads."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._read = bytearray()

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_BLOCK)
        # `sent` then waits until everything is written to the socket.
        writer.transport.set_write_buffer_limits(0)
        return cls(reader, writer)

    async def receive(self) -> Message | None:
        """Return the next message, or None once the other side has gone."""
        try:
            line = await self._line()
            found = json.loads(line) if line else None
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    async def _line(self) -> bytes:
        """Return the next line; empty if the other side has gone before its end."""
        looked_at = 0
        while (end := self._read.find(b"\n", looked_at)) < 0:
            looked_at = len(self._read)
            if not (more := await self._reader.read(_BLOCK)):
                return b""
            self._read += more
        line = bytes(self._read[:end])
        del self._read[: end + 1]
        return line

    def send(self, message: Message) -> None:
        """Send a message. Never waits and never fails: if the other side has gone, the channel ends."""
        with contextlib.suppress(OSError, RuntimeError):
            if not self._writer.is_closing():
                self._writer.write(json.dumps(message).encode() + b"\n")

    async def sent(self) -> None:
        """Wait until everything is written, or the other side has gone. Call it before this process ends."""
        with contextlib.suppress(OSError, RuntimeError):
            await self._writer.drain()

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()
