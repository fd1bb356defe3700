"""The end of a worker: whom it waits for, whom it lets go, and that nobody new comes in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.addons import disable_h2c, next_layer, tlsconfig
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.server import ConnectionIO

from presign_proxy.mitm.addon import PresignAddon
from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.guard import Guard
from presign_proxy.serve import drain as draining
from presign_proxy.serve import listeners
from presign_proxy.serve.capacity import Room, RoomTable
from presign_proxy.serve.drain import Drain
from presign_proxy.serve.master import GatewayServer
from support.config import write_config
from support.handling import Handled, with_client
from support.lanes import GATEWAY, LEAST, SIGNING, config
from support.leaks import FOREVER, Issuer

HOST = "127.0.0.1"
PATIENCE = 5.0


class Api:
    """An upstream that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.ends: list[Any] = []  # asyncio ends a connection whose reader nobody has
        self.server: Any = None

    async def start(self) -> str:
        self.server = await asyncio.start_server(self._accept, HOST, 0)
        return f"http://{HOST}:{self.server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ends.append((reader, writer))
        await reader.readuntil(b"\r\n\r\n")
        self.asked.put_nowait((reader, writer))


class Lab:
    """A worker's proxy server, with its guard before it, in this process."""

    def __init__(self, master: Any, server: GatewayServer, api: Api, sock: socket.socket) -> None:
        self.guard: Guard = Guard.installed(master)  # type: ignore[assignment]
        self.server = server
        self.api = api
        self.port = sock.getsockname()[1]
        self.issuer = Issuer({"conn_0": SIGNING})
        self.clients: list[asyncio.StreamWriter] = []

    async def client(self, data: bytes = b"") -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        self.clients.append(writer)
        writer.write(data)
        return reader

    def head(self) -> bytes:
        target = self.issuer.url("conn_0", "x", expires=FOREVER)
        return f"GET {target} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode()

    async def asked(self) -> asyncio.StreamWriter:
        async with asyncio.timeout(PATIENCE):
            return (await self.api.asked.get())[1]

    def drain(self, seconds: float = 30) -> asyncio.Task[int]:
        return asyncio.get_running_loop().create_task(Drain(self.guard, self.server).run(seconds))


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Lab]:
    api, factory = Api(), logging.getLogRecordFactory()
    made = config(await api.start())
    made["connections"] = {"conn_0": made["connections"]["conn_0"]}
    path = write_config(made, folder)
    options = Options()
    options.update(confdir=str(folder.parent / "confdir"))
    master: Any = Master(options, with_termlog=False)
    server = GatewayServer()
    master.addons.add(disable_h2c.DisableH2C(), server, next_layer.NextLayer(), tlsconfig.TlsConfig())
    master.addons.add(PresignAddon())
    options.update(presign_config=str(path), presign_lane="on")
    (sock,) = listeners.bind(HOST, 0)
    table = RoomTable()
    await server.serve([sock], Room(table.descriptor, table.take(), lambda: (0, 1000)))
    lab = Lab(master, server, api, sock)
    try:
        yield lab
    finally:
        for writer in lab.clients:
            writer.close()
        server.stop_accepting()
        api.server.close()
        for _, end in api.ends:
            end.transport.abort()
        await lab.guard.done()
        master._legacy_log_events.uninstall()
        logging.setLogRecordFactory(factory)


def story(folder: Path, work: Callable[[Lab], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served(folder) as lab:
            await work(lab)

    asyncio.run(main())


async def read(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.read()


def test_with_nobody_there_it_ends_at_once_and_takes_nobody(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        assert await lab.drain() == 0
        assert lab.guard.gateway.lifecycle.draining
        with pytest.raises(OSError):
            await asyncio.open_connection(HOST, lab.port)

    story(tmp_path / "config", work)


def test_a_client_that_waits_for_its_answer_gets_it_and_the_word_that_it_was_the_last(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        client = await lab.client(lab.head())
        api = await lab.asked()
        drain = lab.drain()
        await asyncio.sleep(0.3)
        assert not drain.done()
        api.write(LEAST)
        got = await read(client)
        assert got.endswith(b"\r\n\r\nok")
        assert b"\r\nConnection: close\r\n" in got
        assert await drain == 0

    story(tmp_path / "config", work)


def test_a_client_that_has_its_answer_is_let_go_at_once(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        client = await lab.client(lab.head())
        (await lab.asked()).write(LEAST)
        await client.readuntil(b"\r\n\r\nok")
        drain = lab.drain()
        async with asyncio.timeout(0.9):  # well before one who has said nothing yet
            assert await read(client) == b""
            assert await drain == 0

    story(tmp_path / "config", work)


def test_one_who_has_just_connected_may_ask_and_is_told_to_go_elsewhere(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        client = await lab.client()
        await asyncio.sleep(0.05)
        drain = lab.drain()
        await asyncio.sleep(0.2)
        assert not drain.done()
        lab.clients[0].write(lab.head())
        got = await read(client)
        assert got.startswith(b"HTTP/1.1 503 ")
        assert await drain == 0
        assert lab.api.asked.empty()

    story(tmp_path / "config", work)


def test_one_who_has_connected_and_says_nothing_is_let_go_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "_ARRIVING", 0.3)

    async def work(lab: Lab) -> None:
        client = await lab.client(b"GET /x HT")
        await asyncio.sleep(0.05)
        drain = lab.drain()
        await asyncio.sleep(0.15)
        assert not drain.done()
        assert await read(client) == b""
        assert await drain == 0

    story(tmp_path / "config", work)


def test_what_is_not_over_in_time_is_counted(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        clients = [await lab.client(lab.head()) for _ in range(2)]
        for _ in clients:
            await lab.asked()
        assert await lab.drain(0.2) == 2
        assert not any(client.at_eof() for client in clients)

    story(tmp_path / "config", work)


def test_who_has_not_taken_all_of_the_answer_is_not_let_go(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        client = await lab.client(lab.head())
        client._transport.pause_reading()  # type: ignore[attr-defined]
        size = 16 << 20
        (await lab.asked()).write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await asyncio.sleep(0.1)
        drain = lab.drain()
        await asyncio.sleep(0.3)
        assert not drain.done()
        client._transport.resume_reading()  # type: ignore[attr-defined]
        got = await read(client)
        assert len(got) > size
        assert await drain == 0

    story(tmp_path / "config", work)


def test_whoever_has_not_taken_what_was_written_for_it_is_behind_and_not_idle() -> None:
    """Its answer is over for everybody else: nobody but the socket knows of the last bytes."""

    async def work(lab: Handled) -> None:
        drain = Drain(knowing({}), None)  # type: ignore[arg-type]
        assert draining._is_behind(lab.handler, lab.client) is False
        assert drain._is_idle(lab.handler) is True
        while not lab.transport.get_write_buffer_size():
            lab.transport.write(bytes(65536))
        assert draining._is_behind(lab.handler, lab.client) is True
        assert drain._is_idle(lab.handler) is False
        io = lab.handler.transports.pop(lab.client)
        assert draining._is_behind(lab.handler, lab.client) is False
        lab.handler.transports[lab.client] = ConnectionIO(handler=None, reader=io.reader, writer=None)
        assert draining._is_behind(lab.handler, lab.client) is False
        lab.handler.transports[lab.client] = io

    with_client(work)


def knowing(layers: dict[Any, Any]) -> Any:
    """A guard that knows of these layers, and of no head that is due."""
    clients = ClientStates()
    for client, layer in layers.items():
        clients.attach(client, layer)
    return SimpleNamespace(clients=clients)


@pytest.mark.parametrize("idle", [True, False])
def test_whoever_is_served_is_idle_where_nothing_is_under_way_for_it(idle: bool) -> None:
    async def work(lab: Handled) -> None:
        layer = SimpleNamespace(is_idle=lambda: idle)
        drain = Drain(knowing({lab.client: layer}), None)  # type: ignore[arg-type]
        assert drain._is_idle(lab.handler) is idle

    with_client(work)


def test_one_that_is_about_to_be_handled_is_waited_for(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        (acceptor,) = lab.server.acceptors()
        arriving = asyncio.get_running_loop().create_task(asyncio.sleep(0.3))
        acceptor._arriving.add(arriving)  # type: ignore[arg-type]
        arriving.add_done_callback(acceptor._arriving.discard)  # type: ignore[arg-type]
        drain = lab.drain()
        await asyncio.sleep(0.15)
        assert not drain.done()
        assert await drain == 0
        assert arriving.done()

    story(tmp_path / "config", work)
