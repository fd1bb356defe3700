"""A small HTTP/1.1 load: an upstream that answers at once, clients that ask again once they are answered."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'


class Upstream(asyncio.Protocol):
    """Answers every head that ends; bodies are not expected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            self.buffer = self.buffer[end + 4 :]
            self.transport.write(ANSWER)


class Client(asyncio.Protocol):
    """One keep-alive connection: the next request goes out when the answer to the last is whole."""

    def __init__(self, request: bytes, counted: Callable[[bool], bool], done: asyncio.Future[None]) -> None:
        self.request, self.counted, self.done = request, counted, done
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or not self.buffer.endswith(b"}"):
            return
        good = self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        if self.counted(good):
            self.transport.write(self.request)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        if not self.done.done():
            self.done.set_result(None)


async def requests_per_second(
    port: int, request: bytes, *, connections: int, seconds: float
) -> tuple[float, int]:
    """Answers of status 200 in a second, and in all; raises RuntimeError where one is of another status."""
    loop = asyncio.get_running_loop()
    answered, bad = 0, 0
    ends = time.perf_counter() + seconds

    def counted(good: bool) -> bool:
        nonlocal answered, bad
        answered += good
        bad += not good
        return time.perf_counter() < ends

    done = [loop.create_future() for _ in range(connections)]
    started = time.perf_counter()
    for future in done:
        await loop.create_connection(
            lambda future=future: Client(request, counted, future), "127.0.0.1", port
        )
    await asyncio.gather(*done)
    if bad:
        raise RuntimeError(f"{bad} answers were not 200")
    return answered / (time.perf_counter() - started), answered


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve()))
