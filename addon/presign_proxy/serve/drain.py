"""The drain of a worker: it accepts nothing, finishes what is under way, and loses no byte of an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from mitmproxy.connection import Client

from ..mitm.guard import Guard
from ..mitm.sockets import cut
from .master import GatewayServer

_LOOK: Final = 0.05
_ARRIVING: Final = 1.0
"""Seconds for a client that has just connected to send its request, which is answered 503."""


class Drain:
    """The drain: it closes idle connections and waits for the rest."""

    def __init__(self, guard: Guard, server: GatewayServer) -> None:
        self._guard = guard
        self._server = server

    async def run(self, seconds: float) -> int:
        """Drain for at most this time. Return how many connections the deadline cuts off."""
        ends = time.monotonic() + seconds
        self._guard.gateway.lifecycle.drain()
        acceptors = self._server.acceptors()
        self._server.stop_accepting()
        while self._server.connections or any(one.arriving for one in acceptors):
            if time.monotonic() > ends:
                return len(self._server.connections)
            for handler in list(self._server.connections.values()):
                if self._is_idle(handler):
                    cut(handler.client, handler.client)
            await asyncio.sleep(_LOOK)
        return 0

    def _is_idle(self, handler: Any) -> bool:
        """Return whether a client has no request under way, and no answer left to take."""
        client: Client = handler.client
        if _is_behind(handler, client):
            return False
        clients = self._guard.clients
        if (since := clients.awaits_head_since(client)) is not None:
            # It has connected or begun a request: it gets a moment to learn that this gateway is ending.
            return time.monotonic() - since > _ARRIVING
        layer = clients.layer_of(client)
        return layer is None or layer.is_idle()


def _is_behind(handler: Any, client: Client) -> bool:
    """Return whether a client has not yet taken everything that was written for it."""
    io = handler.transports.get(client)
    writer = io.writer if io is not None else None
    return writer is not None and writer.transport.get_write_buffer_size() > 0
