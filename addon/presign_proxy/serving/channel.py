"""Small messages between the supervisor and one worker, both ways; its end tells of the other's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any, Final

Message = dict[str, Any]

MAX_MESSAGE: Final = 1024 * 1024
"""Bytes of one, as JSON in a line; a longer one ends the channel."""


class Channel:
    """One end of a socket pair that an event loop reads."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_MESSAGE)
        return cls(reader, writer)

    async def receive(self) -> Message | None:
        """The next message; None once the other side has gone."""
        try:
            line = await self._reader.readline()
            found = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def send(self, message: Message) -> None:
        """Never waits, and never fails: where nobody reads any more, the end of the channel says so."""
        with contextlib.suppress(OSError, RuntimeError):
            if not self._writer.is_closing():
                self._writer.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()
