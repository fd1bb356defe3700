"""An answer that came before its connection failed is read, whoever reads it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from presign_proxy.mitm import last_bytes as module
from presign_proxy.mitm.last_bytes import keep, unread
from support.gateways import TLS_NAMES

PATIENCE = 5.0
ANSWER = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"


class Plain(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)
        self.over.set_result(None)


class Buffered(asyncio.BufferedProtocol):
    """The same, in pieces of ten bytes."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(10)

    def get_buffer(self, sizehint: int) -> memoryview:
        assert sizehint > 0
        return memoryview(self._buffer)  # of a fixed size, as that of TLS

    def buffer_updated(self, nbytes: int) -> None:
        self.told.append(bytes(self._buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)
        self.over.set_result(None)


class Upstream:
    """Its end of a connection; and ours, which does not read by itself."""

    def __init__(self, transport: Any, protocol: Any, sock: socket.socket) -> None:
        self.transport, self.protocol, self.sock = transport, protocol, sock

    async def refuse(self, answer: bytes) -> None:
        """Answer, and reset the connection; what is written then fails."""
        self.transport.pause_reading()
        await asyncio.get_running_loop().sock_sendall(self.sock, answer)
        self.reset()
        while not self.transport.is_closing():
            self.transport.write(b"more of the upload")
            await asyncio.sleep(0.001)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def until(is_so: Callable[[], Any]) -> None:
    while not is_so():  # noqa: ASYNC110 - nobody is told
        await asyncio.sleep(0.001)


@asynccontextmanager
async def connected(factory: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        transport, protocol = await loop.create_connection(factory, *listener.getsockname())
        sock, _ = await loop.sock_accept(listener)
        with sock:
            yield Upstream(transport, protocol, sock)
            transport.abort()
            await asyncio.sleep(0)


def story(work: Callable[[Upstream], Awaitable[None]], factory: Callable[[], Any] = Plain) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), connected(factory) as upstream:
            await work(upstream)

    asyncio.run(main())


@pytest.mark.parametrize("factory", [Plain, Buffered])
def test_the_answer_to_a_refused_upload_is_read_before_its_connection_is_told_to_have_failed(
    factory: Callable[[], Any],
) -> None:
    async def work(upstream: Upstream) -> None:
        keep(upstream.transport)
        await upstream.refuse(ANSWER)
        await upstream.protocol.over
        *pieces, end = upstream.protocol.told
        assert b"".join(pieces) == ANSWER
        assert isinstance(end, OSError)
        assert "connection_lost" not in vars(upstream.protocol), "they would refer to each other"

    story(work, factory)


def test_without_that_the_answer_is_lost() -> None:
    """What asyncio does by itself, and the reason for all of this."""

    async def work(upstream: Upstream) -> None:
        await upstream.refuse(ANSWER)
        await upstream.protocol.over
        assert len(upstream.protocol.told) == 1

    story(work)


def test_no_more_than_a_quarter_of_a_mebibyte_is_read() -> None:
    """It is read without a pause, while every client waits."""

    async def work(upstream: Upstream) -> None:
        size = 1024 * 1024
        upstream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * size)
        await asyncio.get_running_loop().sock_sendall(upstream.sock, b"x")
        await until(lambda: upstream.protocol.told)
        del upstream.protocol.told[:]
        keep(upstream.transport)
        await upstream.refuse(bytes(size))
        await upstream.protocol.over
        *pieces, _ = upstream.protocol.told
        assert sum(map(len, pieces)) == 256 * 1024
        assert max(map(len, pieces)) == 64 * 1024

    story(work)


def test_an_end_without_a_failure_is_told_of_as_it_came() -> None:
    async def work(upstream: Upstream) -> None:
        keep(upstream.transport)
        await asyncio.get_running_loop().sock_sendall(upstream.sock, ANSWER)
        await until(lambda: upstream.protocol.told)
        await asyncio.get_running_loop().sock_sendall(upstream.sock, b"never read")
        upstream.transport.close()
        await upstream.protocol.over
        assert upstream.protocol.told == [ANSWER, None]

    story(work)


def test_nothing_is_read_of_a_connection_at_its_end() -> None:
    async def work(upstream: Upstream) -> None:
        upstream.transport.pause_reading()
        upstream.sock.close()
        assert list(unread(upstream.transport)) == []

    story(work)


def test_nothing_is_read_where_nothing_has_come() -> None:
    async def work(upstream: Upstream) -> None:
        assert list(unread(upstream.transport)) == []

    story(work)


class Failing(Plain):
    def data_received(self, data: bytes) -> None:
        raise ZeroDivisionError("sk_secret")


def test_whoever_fails_at_the_last_bytes_is_told_of_the_end_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(upstream: Upstream) -> None:
        keep(upstream.transport)
        await upstream.refuse(ANSWER)
        await upstream.protocol.over
        assert len(upstream.protocol.told) == 1
        assert isinstance(upstream.protocol.told[0], OSError)

    with caplog.at_level(logging.ERROR, "presign_proxy"):
        story(work, Failing)
    assert "ZeroDivisionError" in caplog.text
    assert "sk_secret" not in caplog.text


class Streamed(asyncio.StreamReaderProtocol):
    def __init__(self) -> None:
        self.reader: Any = asyncio.StreamReader()  # asyncio refers to it weakly
        super().__init__(self.reader)
        self.lost: list[Any] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)
        super().connection_lost(exc)


def test_a_stream_is_told_of_its_failure_once_what_came_before_was_taken() -> None:
    """Told of it, it forgets what nobody has taken yet."""

    async def work(upstream: Upstream) -> None:
        keep(upstream.transport)
        await upstream.refuse(ANSWER)
        for _ in range(5):
            await asyncio.sleep(0)
        assert upstream.protocol.lost == []
        assert await upstream.protocol.reader.read(1000) == ANSWER
        with pytest.raises(OSError, match=r"."):
            await upstream.protocol.reader.read(1000)
        assert len(upstream.protocol.lost) == 1

    story(work, Streamed)


def test_a_stream_that_nobody_reads_is_told_of_its_failure_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.001)

    async def work(upstream: Upstream) -> None:
        looks = []
        loop = asyncio.get_running_loop()
        real = loop.call_later

        def counting(delay: float, *rest: Any, **more: Any) -> Any:
            looks.extend([1] if rest[0] is module._report else [])
            return real(delay, *rest, **more)

        monkeypatch.setattr(loop, "call_later", counting)
        keep(upstream.transport)
        await upstream.refuse(ANSWER)
        await until(lambda: upstream.protocol.lost)
        assert len(looks) == 100

    story(work, Streamed)


def test_a_stream_of_which_all_was_taken_is_told_of_its_failure_at_once() -> None:
    async def work(upstream: Upstream) -> None:
        keep(upstream.transport)
        await upstream.refuse(b"")
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(upstream.protocol.lost) == 1

    story(work, Streamed)


def test_over_tls_the_answer_to_a_refused_upload_is_read_too(ca: trustme.CA) -> None:
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert(*TLS_NAMES).configure_cert(served)
    ca.configure_trust(trusting)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accepted: asyncio.Future[Any] = loop.create_future()
        server = await asyncio.start_server(
            lambda *ends: accepted.set_result(ends), "127.0.0.1", 0, ssl=served
        )
        transport, protocol = await loop.create_connection(
            Plain, *server.sockets[0].getsockname(), ssl=trusting, server_hostname="localhost"
        )
        _, writer = await accepted
        keep(transport)
        await asyncio.sleep(0.02)  # what belongs to the handshake comes behind it
        transport.pause_reading()
        raw: Any = transport._ssl_protocol._transport
        raw.pause_reading()
        writer.write(ANSWER)
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        transport.resume_reading()
        raw.pause_reading()
        while not raw.is_closing():
            transport.write(b"more of the upload")
            await asyncio.sleep(0.001)
        await protocol.over
        *pieces, _ = protocol.told
        assert b"".join(pieces) == ANSWER
        server.close()

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    asyncio.run(bounded())


def test_a_stream_that_ends_without_a_failure_is_told_so_at_once() -> None:
    async def work(upstream: Upstream) -> None:
        keep(upstream.transport)
        await asyncio.get_running_loop().sock_sendall(upstream.sock, ANSWER)
        await until(lambda: upstream.protocol.reader._buffer)
        upstream.transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert upstream.protocol.lost == [None]
        assert await upstream.protocol.reader.read(1000) == ANSWER

    story(work, Streamed)


class Slotted(asyncio.BaseProtocol):
    """Of a library that would not let anything be put before its methods."""

    __slots__ = ()


class OfAProxy:
    """What is no transport of asyncio's."""


def test_what_is_no_transport_over_tcp_stays_as_it_is() -> None:
    keep(OfAProxy())
    keep(None)

    class Transport:
        @staticmethod
        def get_protocol() -> Any:
            return Slotted()

    keep(Transport())
