"""mitmproxy's connection handlers: where the sockets of a client and its upstreams are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
from collections import defaultdict
from typing import Any, Final
from weakref import WeakSet

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.proxy import events

from .tcp import unsent

MAX_CONNECTIONS: Final = 100
"""To one address, for one client: the streams that a client of HTTP/2 may have at a time."""

_calls: Final[set[asyncio.Task[None]]] = set()
"""Those under way: the event loop alone would let go of them."""


unannounced: Final[WeakSet[Connection]] = WeakSet()
"""Upstream connections over TLS that ended without a closure alert."""


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
        # mitmproxy makes one outside of its own `try`. No code of ours runs there: what it raised would leave
        # the client waiting.
        handler.max_conns = defaultdict(functools.partial(asyncio.Semaphore, MAX_CONNECTIONS))


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


def own_ports() -> set[int]:
    """Return the ports of the proxy, and of mitmweb."""
    server = proxyserver()
    ports = {address[1] for address in server.listen_addrs()} if server else set()
    if "web_port" in ctx.options:
        ports.add(ctx.options.web_port)
    return ports


async def tell(client: Client, event: events.Event) -> None:
    """Lead an event through the layers of a client's handler."""
    if (handler := handler_of(client)) is not None:
        await handler.server_event(event)


def call(turn: Any) -> None:
    """Tell a side of HTTP/2 that it is its turn; one whose client has gone is told nothing."""
    task = asyncio.get_running_loop().create_task(tell(turn.side.conn, turn))
    _calls.add(task)
    task.add_done_callback(_calls.discard)


def cut(client: Client, connection: Connection) -> None:
    """Close one connection of a client's handler, or stop dialling it; what was written still goes out."""
    handler = handler_of(client)
    if handler is None:
        return
    io = handler.transports.get(connection)
    if io is not None and io.handler is not None:
        with contextlib.suppress(RuntimeError):
            io.handler.cancel("deadline")


def transport_of(client: Client, connection: Connection) -> Any:
    """The transport of one connection of a client's handler; None where there is none."""
    handler = handler_of(client)
    io = handler.transports.get(connection) if handler is not None else None
    return getattr(io.writer, "transport", None) if io is not None else None


def is_taken(client: Client, connection: Connection) -> bool:
    """Whether all that was written to one connection of a client's handler has left."""
    transport = transport_of(client, connection)
    return transport is None or not transport.get_write_buffer_size()


def has_failed(client: Client, connection: Connection) -> bool:
    """Return whether a connection of a client's handler was reset by its peer or cut off here.

    Over TLS, also whether a closure alert is missing: anybody on the way can end the connection. A body that
    ends with its connection is whole only after the peer's own end (RFC 9112, 6.3 and 9.8).
    """
    handler = handler_of(client)
    io = handler.transports.get(connection) if handler is not None else None
    reset = io is not None and io.reader is not None and io.reader.exception() is not None
    return reset or connection in unannounced or connection.state is ConnectionState.CLOSED


def keep_awake(client: Client) -> None:
    """A client that waits for more of its answer is not idle, however long that takes.

    One that does not take what there is stays under mitmproxy's `tcp_timeout`.
    """
    handler, transport = handler_of(client), transport_of(client, client)
    if handler is None or transport is None or transport.is_closing() or transport.get_write_buffer_size():
        return
    if not unsent(transport.get_extra_info("socket").fileno()):
        handler.timeout_watchdog.register_activity()


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
    if (transport := transport_of(client, connection)) is not None:
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
