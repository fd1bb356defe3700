"""All connections, as one immutable value that is swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import overload

from ..http.message import Origin
from ..http.networks import Network
from .connection import Connection
from .destinations import Destinations
from .revocations import Revocations


class Registry:
    """All connections, immutable, swapped whole. Looking one up costs the same, however many there are.

    Args:
        connections: by id.
        hosts: lower-case names under which the gateway itself is addressed.
        deny_unsigned: whether a request that is not ours is refused.
        revoked_urls: signature ids.
        revoked_ids: `{connection}/{id}` of presigns that their signer named.
        trusted_proxies: networks of peers whose X-Forwarded-For is believed.
    """

    __slots__ = (
        "_of_scheme",
        "also",
        "connections",
        "deny_unsigned",
        "destinations",
        "hosts",
        "macs",
        "mark",
        "revoked_ids",
        "revoked_urls",
        "since",
        "trusted_proxies",
    )

    def __init__(
        self,
        connections: Mapping[str, Connection],
        hosts: frozenset[str] = frozenset(),
        *,
        deny_unsigned: bool = False,
        revoked_urls: frozenset[str] = frozenset(),
        revoked_ids: frozenset[str] = frozenset(),
        trusted_proxies: tuple[Network, ...] = (),
    ) -> None:
        self.mark = object()
        """Tells this registry from every other one, for those who must not keep it alive."""
        self.connections = dict(connections)
        self._of_scheme: dict[str, dict[str, Connection]] = {"presign": {}, "source": {}}
        self.hosts = hosts
        self.deny_unsigned = deny_unsigned
        self.revoked_urls = revoked_urls
        self.revoked_ids = revoked_ids
        self.trusted_proxies = trusted_proxies
        self.since = Revocations()
        """What was taken back since it was made: see `under`."""
        self.macs = max((len(connection.keys.keys) for connection in self.connections.values()), default=1)
        for connection in self.connections.values():
            self._of_scheme["source" if connection.source else "presign"][connection.id] = connection
        self.destinations = Destinations(self.connections.values())
        self.also = self.destinations.second_hosts(self.since)
        """Origins that take unsigned requests, with the networks where each may lie besides public ones."""

    def under(self, since: Revocations) -> Registry:
        """The same registry with these taken back; whatever was judged by this one is judged again.

        At once, however many connections there are, and sharing all of them: this one is used no more.
        """
        found = copy(self)
        found.mark, found.since = object(), since
        found.also = found.destinations.second_hosts(since)
        return found

    @overload
    def get(self, connection_id: str, scheme: str) -> Connection | None: ...

    @overload
    def get(self, connection_id: str, scheme: str, stand_in: Connection) -> Connection: ...

    def get(self, connection_id: str, scheme: str, stand_in: Connection | None = None) -> Connection | None:
        """The connection of that id, if it is of that scheme; else the stand-in, by the same steps."""
        return self._of_scheme[scheme].get(connection_id, stand_in)

    def addressed(self, origin: Origin, path: bytes) -> Connection | None:
        """The only connection whose upstream origin and base path a request to this URL would reach."""
        return self.destinations.addressed(origin, path)

    def disperse(self) -> None:
        """Let go of a registry that is no longer used, in steps between which other threads run."""
        for connections in (self.connections, *self._of_scheme.values()):
            while connections:
                connections.popitem()
        self.destinations.disperse()

    def second_host(self, host: str, port: int) -> tuple[Network, ...] | None:
        """In which networks a host may lie that takes unsigned requests; None for a host that does not."""
        return self.also.get(Origin("https", host, port))

    def leads_to(self, host: str, port: int) -> bool:
        """Whether some connection has an upstream there, or fetches sources from there."""
        return self.destinations.holds(host, port)
