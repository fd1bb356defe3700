"""The end of a worker: nothing new, what is under way to its end, and not a byte of an answer lost."""

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
"""Seconds in which a client that has just connected may send its request, to be told to go elsewhere."""


class Drain:
    """Ends what is idle, waits for the rest."""

    def __init__(self, guard: Guard, server: GatewayServer) -> None:
        self._guard = guard
        self._server = server

    async def run(self, seconds: float) -> int:
        """Returns how many connections the deadline has cut."""
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
        """Whether nothing is under way for a client, nor on its way to it."""
        client: Client = handler.client
        if _is_behind(handler, client):
            return False
        clients = self._guard.clients
        if (since := clients.awaits_head_since(client)) is not None:
            # It has connected, or begun to ask: it will be told that this gateway is going away.
            return time.monotonic() - since > _ARRIVING
        layer = clients.layer_of(client)
        return layer is None or layer.is_idle()


def _is_behind(handler: Any, client: Client) -> bool:
    """Whether a client has not yet taken all that was written for it."""
    io = handler.transports.get(client)
    writer = io.writer if io is not None else None
    return writer is not None and writer.transport.get_write_buffer_size() > 0
