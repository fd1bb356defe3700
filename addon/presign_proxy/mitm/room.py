"""Room for new clients of a full worker: which connection is missed least."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

from mitmproxy.connection import Client

from ..http.client_address import bucket
from ..http.hosts import parse_address
from ..http.networks import is_in
from .client_state import ClientStates
from .sockets import silent_for

PATIENCE: Final = 1.0
"""Seconds of silence after which a client may have to make room for a new one, once there are too many."""
LASTING: Final = 3 * PATIENCE
"""Seconds in which a client must have been granted something. Then half a head keeps it no place any more."""
_SHARE: Final = 10
"""Looking through all clients may take one tenth of the time: anyone can connect again and again."""
_CROWD: Final = 4
"""How many times the places of the newcomer's address another one has, at least, that makes room at once."""
_PART: Final = 8
"""The part of all clients that such an address has, at least: an eighth."""


class Room:
    """Finds the clients that make room for new ones. No request that is under way has to go.

    A client that is new has a second before it has to. Somebody who connects again and again would keep all
    places with new ones. So an address with very many places makes room for other addresses at once.
    """

    def __init__(self, clients: ClientStates) -> None:
        self._clients = clients
        self._found: list[Client] = []
        """What the last look has found, those that are missed least at the end."""
        self._next = 0.0
        """When all clients may be looked through again."""
        self._places: Counter[str] = Counter()
        """How many clients the last look has found of each address."""
        self._most = 0
        """How many of them are of the address that has most; 0 where that is no large part of all."""
        self._crowd: list[Client] = []
        """The clients of that address, those that owe a head at the end."""

    def least_missed(self, now: float, newcomer: Client | None = None) -> Client | None:
        """Return the client that has to make room, or None.

        Args:
            now: of `time.monotonic`.
            newcomer: for whom.
        """
        if now >= self._next:
            self._found = self._look(now)
            self._next = now + _SHARE * (time.monotonic() - now)
        while self._found:
            client = self._found.pop()
            if self._may_go(client, now):  # it may have asked for something since
                return client
        if newcomer is not None and self._is_crowded_out(newcomer):
            while self._crowd:
                client = self._crowd.pop()
                if self._may_go(client, now, patience=0):
                    return client
        return None

    def _is_crowded_out(self, newcomer: Client) -> bool:
        return self._most >= _CROWD * (self._places[self._address_of(newcomer)] + 1)

    def _address_of(self, client: Client) -> str:
        """Return the name under which a client's place is counted.

        Empty for a client of a trusted proxy, and for one that had gone before it was accepted.
        """
        peer: Any = client.peername
        address = parse_address(peer[0]) if peer else None
        return "" if address is None or is_in(address, self._clients.proxies()) else bucket(address)

    def _count(self) -> None:
        """Count the places of each address, and find who has most."""
        found = [(self._address_of(client), client) for client in self._clients.all()]
        self._places = Counter(address for address, _ in found if address)
        first, self._most = max(self._places.items(), key=lambda one: one[1], default=("", 0))
        if self._most * _PART < len(found):
            self._most = 0
        self._crowd = [client for address, client in found if self._most and address == first]

    def _look(self, now: float) -> list[Client]:
        """Return all clients that may have to go.

        First those that were never granted anything and ask for nothing. Then those whose heads are awaited
        for longest: a new client sends its head at once, so that is not a new one. Then those that are here
        for longest, owe a head, and were only refused. Then those that ask for nothing for longest: they
        connect again when they have a request.
        """
        self._count()
        clients = self._clients
        late = clients.awaited_longer_than(PATIENCE, now)
        late.sort(key=lambda client: clients.awaits_head_since(client) or 0.0)
        owing = [client for client in clients.all() if clients.awaits_head_since(client) is not None]
        lasting = sorted(filter(self._is_lasting_stranger, owing), key=_here_for, reverse=True)
        strangers = clients.idle_strangers()
        known = set(strangers)
        silent = [(silent_for(client), client) for client in clients.idle() if client not in known]
        silent = [one for one in silent if one[0] > PATIENCE]
        silent.sort(key=lambda one: -one[0])
        return [*strangers, *late, *lasting, *(client for _, client in silent)][::-1]

    def _is_lasting_stranger(self, client: Client) -> bool:
        """Return whether it is here for long, and has only been refused: then half a head is no excuse.

        Each refusal begins the patience with the next head again.
        """
        layer = self._clients.layer_of(client)
        return layer is not None and layer.is_idle_stranger() and _here_for(client) > LASTING

    def _may_go(self, client: Client, now: float, patience: float = PATIENCE) -> bool:
        since, layer = self._clients.awaits_head_since(client), self._clients.layer_of(client)
        if since is not None:
            return now - since > patience or self._is_lasting_stranger(client)
        if layer is None:
            return False
        return layer.is_idle_stranger() or (layer.is_idle() and silent_for(client) > patience)


def _here_for(client: Client) -> float:
    """Return for how many seconds a client is here. After the clock was set back, it is for so much."""
    return abs(time.time() - (client.timestamp_start or 0.0))
