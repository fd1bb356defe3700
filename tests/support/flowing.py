"""An upstream whose exchanges take long: events, a large download, an upload; it counts those under way."""

import asyncio
import re

from support.holding import Holding

DOWNLOAD = 200_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Flowing(Holding):
    """Answers `events` with ten events a second without an end, `download` with two hundred megabytes, and
    `upload` once the body has come; `both` sends events while it reads the body.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uploaded = 0
        """Bodies that have come in full."""

    async def _hold(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(b" ", 2)[1]
        if b"/events" in path or b"/both" in path:
            writer.write(HEAD)
            await self._events(reader, writer)
        elif b"/download" in path:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DOWNLOAD)
            for _ in range(DOWNLOAD // 50_000):
                writer.write(b"." * 50_000)
                await writer.drain()
        else:
            await self._read_body(head, reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    @staticmethod
    async def _events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.ensure_future(_end(reader))
        try:
            while not gone.done():
                writer.write(b"9\r\ndata: x\n\n\r\n")
                await writer.drain()
                await asyncio.wait([gone], timeout=0.1)
        finally:
            gone.cancel()

    async def _read_body(self, head: bytes, reader: asyncio.StreamReader) -> None:
        if length := re.search(rb"(?i)content-length: *([0-9]+)", head):
            await reader.readexactly(int(length[1]))
        elif b"chunked" in head:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        self.uploaded += 1


async def _end(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(65536):
            pass
    except OSError:
        return
