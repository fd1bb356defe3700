"""Connections that are read in small pieces, under both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from presign_proxy.mitm import last_bytes
from presign_proxy.mitm.small_reads import LIMIT, PIECE, Sips, hold_less, sip

LARGE = 4 * 1024 * 1024


def loops() -> list[Any]:
    try:
        import uvloop
    except ImportError:
        return [asyncio.new_event_loop]
    return [asyncio.new_event_loop, uvloop.new_event_loop]


async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """A connection that is read in small pieces, and its other end."""
    here, there = socket.socketpair()
    for one in (here, there):
        one.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=here)
    sip(writer, reader)
    return reader, writer, there


def test_of_a_client_that_sends_ahead_little_is_taken_though_its_protocol_stays() -> None:
    """Hundreds of clients that pipelined and read no answer filled hundreds of megabytes."""

    async def main() -> None:
        here, there = socket.socketpair()
        for one in (here, there):
            one.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=here)
        stock = writer.transport.get_protocol()
        hold_less(writer, reader)
        assert writer.transport.get_protocol() is stock
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(there, b"x" * LARGE))
        received = 0
        while received < LARGE:
            await asyncio.sleep(0)
            assert len(reader._buffer) <= PIECE + 2 * LIMIT  # type: ignore[attr-defined]
            received += len(await reader.read(65_535))
        await sending
        writer.close()
        there.close()

    asyncio.run(main())


@pytest.mark.parametrize("loop", loops())
def test_of_a_peer_that_sends_megabytes_little_is_taken_before_anybody_reads(loop: Callable[[], Any]) -> None:
    """A quarter of a megabyte was, and two hundred peers filled fifty."""

    async def main() -> None:
        reader, writer, there = await connected()
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(there, b"x" * LARGE))
        most = received = 0
        for _ in range(50):
            await asyncio.sleep(0.001)
            most = max(most, len(reader._buffer))  # type: ignore[attr-defined]
        assert 0 < most <= PIECE + 2 * LIMIT
        while received < LARGE:
            received += len(await reader.read(65_535))
            assert len(reader._buffer) <= PIECE + 2 * LIMIT  # type: ignore[attr-defined]
        await sending
        there.close()
        assert await reader.read(1) == b""
        writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", loops())
def test_all_that_is_sent_comes_in_order_and_both_ways(loop: Callable[[], Any]) -> None:
    async def main() -> None:
        reader, writer, there = await connected()
        sent = bytes(range(256)) * 2000
        running = asyncio.get_running_loop()
        sending = asyncio.ensure_future(running.sock_sendall(there, sent))
        assert await reader.readexactly(len(sent)) == sent
        await sending
        writer.write(sent * 8)
        draining = asyncio.ensure_future(writer.drain())
        received = b""
        while len(received) < 8 * len(sent):
            received += await running.sock_recv(there, 1 << 16)
        await draining
        assert received == sent * 8
        there.close()
        assert await reader.read(1) == b""
        writer.close()
        await writer.wait_closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", loops())
def test_an_answer_in_front_of_a_reset_is_read(loop: Callable[[], Any]) -> None:
    """Writing fails where the upstream has answered and closed: what it said is there all the same."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            reader, writer = await asyncio.open_connection(*server.getsockname()[:2])
            there, _ = server.accept()
        last_bytes.keep(writer.transport)
        sip(writer, reader)
        writer.write(b"never read")
        there.sendall(b"answer")
        there.close()
        assert await reader.readexactly(6) == b"answer"
        writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_a_connection_that_no_stream_reader_reads_stays_as_it_is() -> None:
    async def main() -> None:
        class Other(asyncio.Protocol):
            pass

        here, there = socket.socketpair()
        transport, other = await asyncio.get_running_loop().create_connection(Other, sock=here)

        class Writer:
            pass

        writer: Any = Writer()
        writer.transport = transport
        sip(writer, None)
        assert transport.get_protocol() is other
        assert not isinstance(transport.get_protocol(), Sips)
        transport.close()
        there.close()

    asyncio.run(main())
