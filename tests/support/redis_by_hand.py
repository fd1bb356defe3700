"""A Redis that a test plays itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import hiredis


class ByHand:
    """Speaks the protocol at a port, answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.pieces: list[int] = []
        """How many commands came at once."""
        self.says: Callable[[list[bytes]], bytes | None] = lambda command: None
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 20):
                parser.feed(data)
                count = 0
                while (command := parser.gets()) is not False:
                    if command[0].upper() in (b"CLIENT", b"HELLO", b"SELECT", b"AUTH"):
                        writer.write(b"+OK\r\n")
                        self.asked.append(command)
                        continue
                    count += 1
                    self.asked.append(command)
                    if (answer := self.says(command)) is not None:
                        writer.write(answer)
                if count:
                    self.pieces.append(count)
        self.ended.set()
        writer.close()

    def say(self, answer: bytes) -> None:
        self.writers[-1].write(answer)

    async def heard(self, count: int) -> None:
        while sum(self.pieces) < count:  # noqa: ASYNC110 - it comes over a socket
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def by_hand() -> AsyncIterator[tuple[ByHand, int]]:
    hand = ByHand()
    server = await asyncio.start_server(hand.serve, "127.0.0.1", 0)
    try:
        yield hand, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in hand.writers:
            writer.transport.abort()


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Nothing fails where nobody looks."""
    unseen: list[dict[str, Any]] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(15):
            return await work()

    found = asyncio.run(main())
    assert unseen == []
    return found


def asking(asked: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.ensure_future(asked)
