"""Room for new clients of a full worker: which connection is missed least."""

from __future__ import annotations

import time
from typing import Final

from mitmproxy.connection import Client

from .client_state import ClientStates
from .sockets import silent_for

PATIENCE: Final = 1.0
"""Seconds of silence after which a client may have to make room for a new one, once there are too many."""
_SHARE: Final = 10
"""Looking through all clients may take one tenth of the time: anyone can connect again and again."""


class Room:
    """Finds the clients that make room for new ones. No request that is under way has to go."""

    def __init__(self, clients: ClientStates) -> None:
        self._clients = clients
        self._found: list[Client] = []
        """What the last look has found, those that are missed least at the end."""
        self._next = 0.0
        """When all clients may be looked through again."""

    def least_missed(self, now: float) -> Client | None:
        """Return the client that has to make room, or None.

        Args:
            now: of `time.monotonic`.
        """
        if now >= self._next:
            self._found = self._look(now)
            self._next = now + _SHARE * (time.monotonic() - now)
        while self._found:
            client = self._found.pop()
            if self._may_go(client, now):  # it may have asked for something since
                return client
        return None

    def _look(self, now: float) -> list[Client]:
        """Return all clients that may have to go.

        First those that were never granted anything and ask for nothing. Then those whose heads are awaited
        for longest: a new client sends its head at once, so that is not a new one. Then those that ask for
        nothing for longest: they connect again when they have a request.
        """
        clients = self._clients
        late = clients.awaited_longer_than(PATIENCE, now)
        late.sort(key=lambda client: clients.awaits_head_since(client) or 0.0)
        strangers = clients.idle_strangers()
        known = set(strangers)
        silent = [(silent_for(client), client) for client in clients.idle() if client not in known]
        silent = [one for one in silent if one[0] > PATIENCE]
        silent.sort(key=lambda one: -one[0])
        return [*strangers, *late, *(client for _, client in silent)][::-1]

    def _may_go(self, client: Client, now: float) -> bool:
        since, layer = self._clients.awaits_head_since(client), self._clients.layer_of(client)
        if since is not None:
            return now - since > PATIENCE
        if layer is None:
            return False
        return layer.is_idle_stranger() or (layer.is_idle() and silent_for(client) > PATIENCE)
