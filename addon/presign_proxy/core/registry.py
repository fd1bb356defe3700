"""The registry: all connections as one immutable value, which is replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import overload

from ..http.message import Origin
from ..http.networks import Network
from .connection import Connection
from .destinations import Destinations
from .revocations import NONE_REVOKED, Revocations
from .way_out import DIRECT, WayOut


class Registry:
    """All connections. Immutable, and replaced as a whole. A look-up costs the same for any number of them.

    Args:
        connections: by id.
        hosts: the gateway's own names, lower-case.
        deny_unsigned: whether requests without a presign are refused.
        revoked: of it, URLs and ids count here. Connections and keys know themselves that they are revoked.
        trusted_proxies: networks of peers whose X-Forwarded-For is believed.
        way_out: the proxies that destinations are reached through.
        tls_only: whether the gateway's own names are served over TLS only.
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
        "revoked",
        "since",
        "tls_only",
        "trusted_proxies",
    )

    def __init__(
        self,
        connections: Mapping[str, Connection],
        hosts: frozenset[str] = frozenset(),
        *,
        deny_unsigned: bool = False,
        revoked: Revocations = NONE_REVOKED,
        trusted_proxies: tuple[Network, ...] = (),
        way_out: WayOut = DIRECT,
        tls_only: bool = False,
    ) -> None:
        self.mark = object()
        """The identity of this registry, for objects that must not keep the registry alive."""
        self.connections = dict(connections)
        self._of_scheme: dict[str, dict[str, Connection]] = {"presign": {}, "source": {}}
        self.hosts = hosts
        self.deny_unsigned = deny_unsigned
        self.revoked = revoked
        self.trusted_proxies = trusted_proxies
        self.tls_only = tls_only
        self.since = NONE_REVOKED
        """The revocations since the registry was made; see `under`."""
        self.macs = max((len(connection.keys.keys) for connection in self.connections.values()), default=1)
        for connection in self.connections.values():
            self._of_scheme["source" if connection.source else "presign"][connection.id] = connection
        self.destinations = Destinations(self.connections.values(), way_out)
        self.also = self.destinations.second_hosts(self.since)
        """Origins that accept unsigned requests, with networks in which each may be, besides public ones."""

    def under(self, since: Revocations) -> Registry:
        """Return the same registry with these revocations. Its mark is new, so old decisions do not count.

        It shares all connections with this registry, so it takes no time. This registry must not be used any
        more.
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
        """Return the connection with that id and scheme; else the stand-in, in the same steps."""
        return self._of_scheme[scheme].get(connection_id, stand_in)

    def addressed(self, origin: Origin, path: bytes) -> Connection | None:
        """Return the only connection whose origin and base path this URL reaches; None if not exactly one."""
        return self.destinations.addressed(origin, path)

    def disperse(self) -> None:
        """Free the memory of an unused registry in small steps, so that other threads run in between."""
        for connections in (self.connections, *self._of_scheme.values()):
            while connections:
                connections.popitem()
        self.destinations.disperse()

    def second_host(self, host: str, port: int) -> tuple[Network, ...] | None:
        """Return the networks for a host that accepts unsigned requests; None for other hosts."""
        return self.also.get(Origin("https", host, port))

    def leads_to(self, host: str, port: int) -> bool:
        """Return whether a connection has an upstream there, or fetches sources from there."""
        return self.destinations.holds(host, port)
