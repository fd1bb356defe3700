"""mitmproxy's connection handlers: where the sockets of a client and its upstreams are."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import defaultdict
from typing import Any, Final

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection, ConnectionState

from .sockets import unsent

MAX_CONNECTIONS: Final = 100
"""To one address, for one client: the streams that a client of HTTP/2 may have at a time."""


PROBE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Says nothing to a client that waits for its answer (RFC 9110, 15.2), and is answered with RST by the system
of one that has closed its connection: both have ended what they say with the same FIN.
"""


def proxyserver() -> Any:
    """mitmproxy's addon of that name; None where there is none."""
    return ctx.master.addons.get("proxyserver")


def handler_of(client: Client) -> Any:
    """The handler that serves a client; None where it has gone."""
    server = proxyserver()
    return server.connections.get(client.id) if server else None


def widen(client: Client) -> None:
    """Let a client have as many connections to an upstream as it may have streams.

    mitmproxy allows five. What waits for one of them waits until another stream has ended, which may take
    hours; what is allowed at a time is a matter of limits.
    """
    handler = handler_of(client)
    if handler is not None:
        handler.max_conns = defaultdict(lambda: asyncio.Semaphore(MAX_CONNECTIONS))


def speaks_h1(client: Client) -> bool:
    return client.alpn in (None, b"", b"http/1.1")


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


def may_be_there(client: Client) -> bool:
    """Whether a client that says no more may still be waiting for an answer."""
    return bool(client.state & ConnectionState.CAN_WRITE)


def has_gone(client: Client) -> bool:
    """Whether a client that says no more has closed its connection, as far as that has been found out."""
    handler = handler_of(client)
    io = handler.transports.get(client) if handler is not None else None
    transport = getattr(io.writer, "transport", None) if io is not None else None
    if transport is None or transport.is_closing():
        return True
    asked = select.poll()
    asked.register(transport.get_extra_info("socket").fileno(), 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in asked.poll(0))


def is_silent(client: Client, connection: Connection) -> bool:
    """Whether nothing has come on a connection of a client's handler that was not told to its layers: neither
    bytes nor its end. What came before a request would pass for its answer. Nor does anything wait to be
    sent: the next request would wait behind it, for as long as the upstream likes.
    """
    handler = handler_of(client)
    io = handler.transports.get(connection) if handler is not None else None
    if io is None or not getattr(io.reader, "is_waiting", False):
        return False
    transport = getattr(io.writer, "transport", None)
    if transport is None or transport.is_closing():
        return False
    descriptor = transport.get_extra_info("socket").fileno()
    asked = select.poll()
    asked.register(descriptor, select.POLLIN)
    return not asked.poll(0) and not unsent(descriptor)


def abort(client: Client, connection: Connection) -> None:
    """Close one connection of a client's handler at once, whatever is still to be written to it."""
    handler = handler_of(client)
    io = handler.transports.get(connection) if handler is not None else None
    transport = getattr(io.writer, "transport", None) if io is not None else None
    if transport is not None:
        transport.abort()


def hang_up(client: Client) -> None:
    """Close the connection of a client that is told to be gone, and those that were made for it.

    mitmproxy has done so, unless a task of it was to be closed while it waited for its turn to report what it
    had read: then the socket would stay open for as long as its peer pleases.
    """
    handler = handler_of(client)
    for connection, io in list(handler.transports.items()) if handler is not None else ():
        if connection is not client:
            abort(client, connection)
        elif io.writer is not None:
            io.writer.close()
