"""mitmproxy's connection handlers: where the sockets of a client and its upstreams are."""

from __future__ import annotations

from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client


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
