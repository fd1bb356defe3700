"""The destinations of all connections: which one a URL of an API reaches, and which hosts are known."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from ..errors import Denied
from ..http.message import Origin
from ..http.networks import Network
from ..http.paths import canonical_path
from .connection import Connection
from .cors import merged
from .revocations import Revocations
from .way_out import DIRECT, WayOut


class Destinations:
    """The upstreams, sources and second hosts of all connections. Immutable.

    A look-up costs the same, however many connections there are.
    """

    __slots__ = ("_bases", "_known", "_leading", "challenges", "cors", "intercepting", "way_out")

    def __init__(self, connections: Collection[Connection], way_out: WayOut = DIRECT) -> None:
        self.way_out = way_out
        bases: dict[Origin, dict[bytes, Connection | None]] = {}
        intercepting: dict[Origin, list[Connection]] = {}
        self._leading = [connection for connection in connections if connection.also]
        for connection in connections:
            for upstream in connection.destinations:
                found = bases.setdefault(upstream.origin, {})
                # Two connections with the same base: a request that names no connection matches neither.
                found[upstream.base] = None if upstream.base in found else connection
            if connection.source and connection.source.intercept:
                for origin in connection.source.origins:
                    intercepting.setdefault(origin, []).append(connection)
        # The lengths of all base paths of an origin: the number of look-ups does not depend on the path.
        self._bases = {origin: (frozenset(map(len, found)), found) for origin, found in bases.items()}
        self.intercepting = {origin: tuple(found) for origin, found in intercepting.items()}
        self.challenges = any(one.enabled and one.conduct.challenge for one in connections)
        """True if a connection wants clients to be asked for their credential."""
        self.cors = merged([one.conduct.cors for one in connections if one.conduct.cors is not None])
        """What any connection permits pages of other origins; None if no connection permits anything."""
        self._known = frozenset((origin.host, origin.port) for origin in (*bases, *intercepting))

    def second_hosts(self, since: Revocations) -> dict[Origin, tuple[Network, ...]]:
        """Return the origins that accept unsigned requests, with the networks in which each may be.

        Public addresses are always permitted.

        Args:
            since: the revocations since the registry was made.
        """
        found: dict[Origin, tuple[Network, ...]] = {}
        for connection in self._leading:
            if connection.enabled and not connection.revoked and connection.id not in since.connections:
                for origin in connection.also:
                    found[origin] = found.get(origin, ()) + connection.networks
        return found

    def addressed(self, origin: Origin, path: bytes) -> Connection | None:
        """Return the only connection whose origin and base path this URL reaches; None if not exactly one."""
        lengths, bases = self._bases.get(origin, (frozenset(), {}))
        if any(lengths):
            with suppress(Denied):  # a bad path is refused later, with its own reason
                path = canonical_path(path)
        reached = [
            bases[path[:length]]
            for length in lengths
            if path[length : length + 1] == b"/" and path[:length] in bases
        ]
        # One connection may have several upstreams there: which one it is, is decided later.
        return reached[0] if reached and all(one is reached[0] for one in reached) else None

    def holds(self, host: str, port: int) -> bool:
        """Return whether a connection has an upstream there, or fetches sources from there."""
        return (host, port) in self._known

    def disperse(self) -> None:
        """Free the memory of unused destinations in small steps, so that other threads run in between."""
        while self._bases:
            self._bases.popitem()
        self._leading.clear()
