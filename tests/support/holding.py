"""An upstream that keeps every request until its connection ends, and counts how many it has at a time."""

import asyncio
import contextlib
import re
import threading
from typing import Self

from support.crowd import Gauge

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"


DROPS = 10
LARGE = 1_000_000


class Holding:
    """Says nothing to a request for `wait`, begins an answer to `stream`, and gives one to `answer`, a large
    one to `large`, and one byte by byte to `drip`.
    """

    def __init__(self) -> None:
        self.gauge = Gauge()
        self.port = 0
        self.heads: list[bytes] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                self.gauge.enter()
                try:
                    await self._hold(head, reader, writer)
                finally:
                    self.gauge.leave()
        writer.close()

    async def _hold(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(b" ", 2)[1]
        if b"/answer" in path:
            length = re.search(rb"(?i)content-length: *([0-9]+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            if b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            await asyncio.sleep(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        if b"/drip" in path:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DROPS)
            for _ in range(DROPS):
                writer.write(b".")
                await asyncio.sleep(0.5)
            return
        if b"/large" in path:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (LARGE, b"." * LARGE))
            await writer.drain()
            return
        if path.endswith(b"/stream"):
            writer.write(STREAM)
        while await reader.read(65536):  # until it is ended
            pass
