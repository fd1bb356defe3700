"""mitmproxy's connection handlers: where the sockets of a client and its upstreams are."""

from __future__ import annotations

import contextlib
from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection


def proxyserver() -> Any:
    """mitmproxy's addon of that name; None where there is none."""
    return ctx.master.addons.get("proxyserver")


def handler_of(client: Client) -> Any:
    """The handler that serves a client; None where it has gone."""
    server = proxyserver()
    return server.connections.get(client.id) if server else None


def open_clients() -> int:
    """How many client connections are open."""
    server = proxyserver()
    return len(server.connections) if server else 0


def is_listening() -> bool:
    """Whether this process takes clients: one that is kept in reserve does not."""
    server = proxyserver()
    return server is not None and any(server.servers)


def cut(client: Client, connection: Connection) -> None:
    """Close one connection of a client's handler, or stop dialling it; what was written still goes out."""
    handler = handler_of(client)
    if handler is None:
        return
    io = handler.transports.get(connection)
    if io is not None and io.handler is not None:
        with contextlib.suppress(RuntimeError):
            io.handler.cancel("deadline")


def hang_up(client: Client) -> None:
    """Close the connection of a client that is told to be gone.

    mitmproxy has done so, unless it was to be closed while its task waited for its turn to report what it had
    read: then the socket would stay open, and the client waiting, for as long as the client pleases.
    """
    handler = handler_of(client)
    io = handler.transports.get(client) if handler is not None else None
    if io is not None and io.writer is not None:
        io.writer.close()
