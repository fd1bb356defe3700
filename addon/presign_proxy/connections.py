"""Connections: what the owner of a credential registered, parsed, frozen, ready to decide with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from typing import overload

from .ceiling import Ceiling
from .errors import Denied
from .injectors import Injector, NoCredential
from .keys import NO_KEYS, KeyRing
from .limits.rules import Limit
from .message import Fields, Origin
from .networks import Network
from .paths import canonical_path
from .revocations import Revocations
from .secret import LateSecret


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a connection leads: an origin and a canonical base path without trailing slash."""

    origin: Origin
    base: bytes = b""

    def relative(self, path: bytes) -> bytes | None:
        """The path below the base, with its leading slash; None where it is not below."""
        if not path.startswith(self.base):
            return None
        rest = path[len(self.base) :]
        return rest if rest.startswith(b"/") else None


@dataclass(frozen=True, slots=True)
class Conduct:
    """How requests and responses of a connection are treated on their way; defaults grant least."""

    cookies: bool = False
    redirects: bool = False
    cache: bool = False
    reject_client_credentials: bool = False
    default_fields: Fields = ()
    connect_timeout: int = 10
    response_timeout: int = 600
    body_timeout: int = 60
    pool: bool = True
    """Whether clients share upstream connections."""
    challenge: bool = False
    """Whether a request without a presign is asked for one, where it is denied."""
    url_headers: frozenset[bytes] = frozenset()
    """Lower-case names of response headers, besides those of `links.LINKS`, that hold a URL to ask next."""

    @property
    def patience(self) -> tuple[int, int]:
        """Seconds in which more of a body has to come from the client, or to be taken by its upstream."""
        return (self.body_timeout, self.response_timeout)


@dataclass(frozen=True, slots=True)
class SourceRules:
    """What a project of scheme source may fetch.

    `origins` are the allowed origins; in allowlist mode each admits its subdomains too. `any_public`
    adds every public origin (signed mode only).
    """

    signed: bool = True
    origins: tuple[Origin, ...] = ()
    any_public: bool = False
    formats: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    networks: tuple[Network, ...] = ()
    intercept: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """One registered API (scheme presign) or source project (scheme source).

    Everything here is trusted: it was parsed and checked when the configuration was loaded.
    """

    id: str
    upstream: Upstream | None = None
    source: SourceRules | None = None
    injector: Injector = field(default_factory=NoCredential)
    keys: KeyRing = NO_KEYS
    ceiling: Ceiling = field(default_factory=Ceiling)
    conduct: Conduct = field(default_factory=Conduct)
    enabled: bool = True
    revoked: bool = False
    limits: tuple[Limit, ...] = ()
    max_uses: int | None = None
    """Of each of its URLs."""
    late: tuple[LateSecret, ...] = ()
    """The secrets of the injector that are fetched when they are first needed."""
    lacks: str = ""
    """Why nothing is granted though it is registered: a secret of it cannot be had. Names the source only."""
    also: tuple[Origin, ...] = ()
    """Where requests without a presign may go although such are denied, never with the credential."""
    networks: tuple[Network, ...] = ()
    """In which those may lie, besides public ones."""

    @property
    def key_ids(self) -> frozenset[str]:
        """Of its signing keys."""
        return frozenset([key.id for key in self.keys.keys])

    def without_credential(self) -> Connection:
        """The same project towards an origin that its credential must not reach."""
        return replace(self, injector=NoCredential(), late=())


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
