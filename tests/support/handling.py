"""One client of mitmproxy over a real connection, without a proxy around it.

For what asks mitmproxy's handlers about a socket. Nothing reads from the client, and nothing is done with
what it says: the test has both ends in its hands.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from mitmproxy import ctx
from mitmproxy.addons.proxyserver import ProxyConnectionHandler, Proxyserver
from mitmproxy.connection import Client
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from presign_proxy.mitm.tcp import unsent

PATIENCE = 5.0


class Handled(NamedTuple):
    """`peer` is the client's end, blocking."""

    handler: Any
    client: Client
    peer: socket.socket
    proxyserver: Any

    @property
    def transport(self) -> Any:
        return self.handler.transports[self.client].writer.transport

    @property
    def sock(self) -> socket.socket:
        found: socket.socket = self.transport.get_extra_info("socket")
        return found

    def forget(self) -> None:
        """As mitmproxy does where a client has gone."""
        self.proxyserver.connections.pop(self.client.id)

    async def stuff(self) -> None:
        """Write until the peer's system takes no more, and nothing of it waits in this process."""
        while not unsent(self.sock.fileno()):
            self.transport.write(bytes(4096))
            await asyncio.sleep(0)
        assert self.transport.get_write_buffer_size() == 0


@asynccontextmanager
async def handled() -> AsyncIterator[Handled]:
    proxyserver = Proxyserver()
    with taddons.context(proxyserver) as around, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctx, "master", around.master, raising=False)
        patch.setattr(ctx, "options", around.options, raising=False)
        accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0)
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.settimeout(PATIENCE)
            peer.connect(server.sockets[0].getsockname())
            reader, writer = await asyncio.wait_for(accepted, PATIENCE)
            handler = ProxyConnectionHandler(
                around.master, reader, writer, around.options, ProxyMode.parse("regular")
            )
            proxyserver.connections[handler.client.id] = handler
            yield Handled(handler, handler.client, peer, proxyserver)
            writer.transport.abort()
            server.close()
            await asyncio.sleep(0)


def with_client(work: Callable[[Handled], Awaitable[None]]) -> None:
    async def main() -> None:
        async with handled() as found:
            await work(found)

    asyncio.run(main())
