"""Where connections lead: which of them a URL of an API reaches, and which hosts are known at all."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from ..errors import Denied
from ..http.message import Origin
from ..http.networks import Network
from ..http.paths import canonical_path
from .connection import Connection
from .revocations import Revocations


class Destinations:
    """Upstreams, sources and second hosts of all connections, immutable. One look-up costs the same, however
    many there are.
    """

    __slots__ = ("_bases", "_known", "_leading", "intercepting")

    def __init__(self, connections: Collection[Connection]) -> None:
        bases: dict[Origin, dict[bytes, Connection | None]] = {}
        intercepting: dict[Origin, list[Connection]] = {}
        self._leading = [connection for connection in connections if connection.also]
        for connection in connections:
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
        self._known = frozenset((origin.host, origin.port) for origin in (*bases, *intercepting))

    def second_hosts(self, since: Revocations) -> dict[Origin, tuple[Network, ...]]:
        """Origins that take unsigned requests, with the networks where each may lie besides public ones.

        Args:
            since: what was taken back.
        """
        found: dict[Origin, tuple[Network, ...]] = {}
        for connection in self._leading:
            if connection.enabled and not connection.revoked and connection.id not in since.connections:
                for origin in connection.also:
                    found[origin] = found.get(origin, ()) + connection.networks
        return found

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

    def holds(self, host: str, port: int) -> bool:
        """Whether some connection has an upstream there, or fetches sources from there."""
        return (host, port) in self._known

    def disperse(self) -> None:
        """Let go of what is no longer used, in steps between which other threads run."""
        while self._bases:
            self._bases.popitem()
        self._leading.clear()
