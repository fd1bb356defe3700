"""All connections, as one immutable value that is swapped whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import overload

from ..errors import Denied
from ..http.message import Origin
from ..http.networks import Network
from ..http.paths import canonical_path
from .connection import Connection
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
        "_bases",
        "_destinations",
        "_leading",
        "_of_scheme",
        "also",
        "connections",
        "deny_unsigned",
        "hosts",
        "intercepting",
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
        bases: dict[Origin, dict[bytes, Connection | None]] = {}
        intercepting: dict[Origin, list[Connection]] = {}
        self._leading = [connection for connection in self.connections.values() if connection.also]
        self.also = self._second_hosts()
        """Origins that take unsigned requests, with the networks where each may lie besides public ones."""
        for connection in self.connections.values():
            self._of_scheme["source" if connection.source else "presign"][connection.id] = connection
            if connection.upstream:
                found = bases.setdefault(connection.upstream.origin, {})
                # Two with one base: a request that names neither is nobody's.
                twin = connection.upstream.base in found
                found[connection.upstream.base] = None if twin else connection
            if connection.source and connection.source.intercept:
                for origin in connection.source.origins:
                    intercepting.setdefault(origin, []).append(connection)
        # The lengths of all base paths of an origin: as many look-ups, whatever path a client sends.
        self._bases = {origin: (frozenset(map(len, found)), found) for origin, found in bases.items()}
        self.intercepting = {origin: tuple(found) for origin, found in intercepting.items()}
        self._destinations = frozenset((origin.host, origin.port) for origin in (*bases, *intercepting))

    def under(self, since: Revocations) -> Registry:
        """The same registry with these taken back; whatever was judged by this one is judged again.

        At once, however many connections there are, and sharing all of them: this one is used no more.
        """
        found = copy(self)
        found.mark, found.since = object(), since
        found.also = found._second_hosts()
        return found

    def _second_hosts(self) -> dict[Origin, tuple[Network, ...]]:
        found: dict[Origin, tuple[Network, ...]] = {}
        for connection in self._leading:
            if connection.enabled and not connection.revoked and connection.id not in self.since.connections:
                for origin in connection.also:
                    found[origin] = found.get(origin, ()) + connection.networks
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
        lengths, bases = self._bases.get(origin, (frozenset(), {}))
        if any(lengths):
            with suppress(Denied):  # refused later, for its own reason
                path = canonical_path(path)
        reached = [
            bases[path[:length]]
            for length in lengths
            if path[length : length + 1] == b"/" and path[:length] in bases
        ]
        return reached[0] if len(reached) == 1 else None

    def disperse(self) -> None:
        """Let go of a registry that is no longer used, in steps between which other threads run."""
        for connections in (self.connections, *self._of_scheme.values()):
            while connections:
                connections.popitem()
        while self._bases:
            self._bases.popitem()
        self._leading.clear()

    def second_host(self, host: str, port: int) -> tuple[Network, ...] | None:
        """In which networks a host may lie that takes unsigned requests; None for a host that does not."""
        return self.also.get(Origin("https", host, port))

    def leads_to(self, host: str, port: int) -> bool:
        """Whether some connection has an upstream there, or fetches sources from there."""
        return (host, port) in self._destinations
