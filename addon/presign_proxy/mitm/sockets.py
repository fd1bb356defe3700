"""mitmproxy's connection handlers: where the sockets of a client and its upstreams are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import select
import ssl
import time
from collections import defaultdict
from typing import Any, Final
from weakref import WeakSet

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.proxy import events

from ..core.way_out import UpstreamTls
from .lane.upstream_tls import context
from .tcp import reset as reset_transport
from .tcp import unsent

MAX_CONNECTIONS: Final = 100
"""To one address, for one client: the streams that a client of HTTP/2 may have at a time."""

_calls: Final[set[asyncio.Task[None]]] = set()
"""The calls under way: the event loop alone would not keep them alive."""


unannounced: Final[WeakSet[Connection]] = WeakSet()
"""Upstream connections over TLS that ended without a closure alert."""


def proxyserver() -> Any:
    """Return mitmproxy's addon of that name, or None."""
    return ctx.master.addons.get("proxyserver")


def handler_of(client: Client) -> Any:
    """Return the handler that serves a client, or None if the client has gone."""
    server = proxyserver()
    return server.connections.get(client.id) if server else None


def widen(client: Client) -> None:
    """Let a client have as many connections to an upstream as it may have streams.

    mitmproxy allows five. What waits for one of them waits until another stream has ended, which may take
    hours; what is allowed at a time is a matter of limits.
    """
    handler = handler_of(client)
    if handler is not None:
        # mitmproxy makes the semaphores outside of its own `try`. So no code of ours runs there: an exception
        # of it would leave the client waiting.
        handler.max_conns = defaultdict(functools.partial(asyncio.Semaphore, MAX_CONNECTIONS))


def speaks_h1(client: Client) -> bool:
    """Return whether a client speaks HTTP/1."""
    return client.alpn in (None, b"", b"http/1.1")


def open_clients() -> int:
    """Return how many client connections are open."""
    server = proxyserver()
    return len(server.connections) if server else 0


def is_listening() -> bool:
    """Return whether this process takes clients: one that is kept in reserve does not."""
    server = proxyserver()
    return server is not None and any(server.servers)


def own_ports() -> set[int]:
    """Return the ports of the proxy, and of mitmweb."""
    server = proxyserver()
    ports = {address[1] for address in server.listen_addrs()} if server else set()
    if "web_port" in ctx.options:
        ports.add(ctx.options.web_port)
    return ports


def upstream_tls(own: UpstreamTls | None = None) -> ssl.SSLContext:
    """Return what verifies upstreams on connections of the gateway's own: as the options say now.

    Args:
        own: the settings of a connection of the registry, if it has any.
    """
    return context(ctx.options, own)


async def tell(client: Client, event: events.Event) -> None:
    """Lead an event through the layers of a client's handler."""
    if (handler := handler_of(client)) is not None:
        await handler.server_event(event)


def call(turn: Any) -> None:
    """Begin the turn of a side of HTTP/2, unless its client has gone."""
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
    """Return the transport of one connection of a client's handler, or None."""
    handler = handler_of(client)
    io = handler.transports.get(connection) if handler is not None else None
    return getattr(io.writer, "transport", None) if io is not None else None


def is_taken(client: Client, connection: Connection) -> bool:
    """Return whether all that was written to one connection of a client's handler has left."""
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
    """Count a client as active: it waits for more of its answer, however long that takes.

    A client that does not take what there is stays under mitmproxy's `tcp_timeout`.
    """
    handler, transport = handler_of(client), transport_of(client, client)
    if handler is None or transport is None or transport.is_closing() or transport.get_write_buffer_size():
        return
    if not unsent(transport.get_extra_info("socket").fileno()):
        handler.timeout_watchdog.register_activity()


def silent_for(client: Client) -> float:
    """Return the seconds since a client has sent or was sent something; 0 if it has gone.

    After the clock was set back, it is by so much: what has moved before is not what has just moved.
    """
    handler = handler_of(client)
    return abs(time.time() - handler.timeout_watchdog.last_activity) if handler is not None else 0.0


def is_silent(client: Client, connection: Connection) -> bool:
    """Return whether nothing waits on a connection of a client's handler, in either direction.

    Bytes, or an end, that its layers do not know yet would pass for the answer to the next request. And the
    next request would wait behind bytes that are still to be sent, for as long as the upstream likes.
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


def is_stuck(client: Client, connection: Connection) -> bool:
    """Return whether what was sent on a connection of a client's handler waits for its peer to read."""
    transport = transport_of(client, connection)
    if transport is None or transport.is_closing():
        return False
    return bool(transport.get_write_buffer_size() or unsent(transport.get_extra_info("socket").fileno()))


def abort(client: Client, connection: Connection) -> None:
    """Close one connection of a client's handler at once, and drop what is still to be written to it."""
    if (transport := transport_of(client, connection)) is not None:
        transport.abort()


def reset(client: Client) -> None:
    """End the connection of a client with RST: what it has not taken goes nowhere."""
    if (transport := transport_of(client, client)) is not None:
        reset_transport(transport)


def hang_up(client: Client) -> None:
    """Close the connection of a client that has gone, and those that were made for it.

    Normally mitmproxy has closed them already. It has not if a task of it was cancelled while it waited for
    its turn to report what it had read: then the socket would stay open for as long as its peer likes.
    """
    handler = handler_of(client)
    for connection, io in list(handler.transports.items()) if handler is not None else ():
        if connection is not client:
            abort(client, connection)
        elif io.writer is not None:
            io.writer.close()
