"""Connections, as the owner of a credential registered them: parsed, frozen and ready for decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from ..http.message import Fields, Origin
from ..http.networks import Network
from ..limits.rules import Limit
from ..signing.keys import NO_KEYS, KeyRing
from ..signing.secret import LateSecret, Secret
from .ceiling import Ceiling
from .cors import Cors
from .credentials import CredentialSlots, Injector, NoCredential
from .way_out import UpstreamTls


@dataclass(frozen=True, slots=True)
class Upstream:
    """A destination of a connection: an origin and a canonical base path without trailing slash.

    `name` is empty for the default upstream.
    """

    origin: Origin
    base: bytes = b""
    name: str = ""

    @property
    def url(self) -> str:
        """The URL that all of its paths are below, without a final slash."""
        return f"{self.origin}{self.base.decode('ascii')}"

    def relative(self, path: bytes) -> bytes | None:
        """Return the path below the base, with its leading slash; None if it is not below the base."""
        if not path.startswith(self.base):
            return None
        rest = path[len(self.base) :]
        return rest if rest.startswith(b"/") else None


class Reached(NamedTuple):
    """One of several upstreams of a connection, and how the credential is put on requests to it."""

    upstream: Upstream
    injector: Injector


NO_OTHERS: Final[Mapping[str, Reached]] = MappingProxyType({})


class KeyForms(NamedTuple):
    """What may stand beside a key token in its place: a shape before it, a password of Basic behind it."""

    shapes: frozenset[bytes] = frozenset()
    passwords: frozenset[bytes] = frozenset()


PLAIN_KEYS: Final = KeyForms()


@dataclass(frozen=True, slots=True)
class Conduct:
    """How the gateway treats requests and responses of a connection. The defaults permit the least."""

    cookies: bool = False
    redirects: bool = False
    cache: bool = False
    reject_client_credentials: bool = False
    default_fields: Fields = ()
    connect_timeout: int = 10
    response_timeout: int = 600
    body_timeout: int = 60
    pool: bool = True
    """True if clients share upstream connections."""
    challenge: bool = False
    """True if a denied request without a presign is answered with a challenge for credentials."""
    url_headers: frozenset[bytes] = frozenset()
    """Lower-case names of response headers, besides those of `links.LINKS`, with a URL to request next."""
    cors: Cors | None = None
    """The pages of other origins that may call the connection; None for no page."""
    websocket: bool = False
    """True if a GET may become a WebSocket."""
    max_duration: int = 24 * 60 * 60
    """Most seconds that a WebSocket may last."""

    @property
    def patience(self) -> tuple[int, int]:
        """Most seconds of a pause in a body: until the client sends more, until the upstream reads more."""
        return (self.body_timeout, self.response_timeout)


@dataclass(frozen=True, slots=True)
class SourceRules:
    """The sources that a project of scheme source may fetch.

    `origins` are the allowed origins. Each admits its subdomains too. `any_public` adds every public origin
    (signed mode only).
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

    All values are trusted: they were parsed and checked when the configuration was loaded.
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
    """How often each URL may be used; None for any number."""
    late: tuple[LateSecret, ...] = ()
    """The secrets of the injector that are fetched on first use."""
    lacks: str = ""
    """Why a secret of the connection is missing, so that nothing is granted. Names only its source."""
    also: tuple[Origin, ...] = ()
    """Origins that take requests without a presign, even if those are denied. Never with the credential."""
    networks: tuple[Network, ...] = ()
    """Networks in which the origins of `also` may be, besides public addresses."""
    direct: bool = False
    """True if it is reached without the gateway's proxy (`upstream_proxy: none`)."""
    tls: UpstreamTls | None = None
    """Its own authorities and its client certificate, which is a credential; None for the system's."""
    upstreams: Mapping[str, Reached] = field(default=NO_OTHERS, compare=False)
    """All of its upstreams by name if it has several, the default one under the empty name; else empty."""
    others: tuple[Injector, ...] = ()
    """What puts its credential on requests to its other upstreams. An answer may show any of their forms."""
    taken: CredentialSlots | None = None
    """The places of credentials that are emptied in each request; None for those of the injector."""
    key_forms: KeyForms = PLAIN_KEYS
    """What may stand beside its key tokens."""

    @property
    def slots(self) -> CredentialSlots:
        """The places of credentials in a request: its key token may be there, and nothing else is sent on."""
        return self.injector.slots if self.taken is None else self.taken

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All secrets of its credential, fetched already or not."""
        return (*self.injector.secrets(), *[one for other in self.others for one in other.secrets()])

    @property
    def destinations(self) -> tuple[Upstream, ...]:
        """All of its upstreams; none of a project that fetches sources."""
        if self.upstreams:
            return tuple([one.upstream for one in self.upstreams.values()])
        return (self.upstream,) if self.upstream else ()

    def at(self, reached: Reached) -> Connection:
        """Return the same connection, led to another of its upstreams."""
        if reached.upstream is self.upstream:
            return self
        others = [one.injector for one in self.upstreams.values() if one.injector is not reached.injector]
        return replace(
            self, upstream=reached.upstream, injector=reached.injector, others=tuple(dict.fromkeys(others))
        )

    def named(self, path: bytes) -> tuple[Reached | None, bytes]:
        """Return the upstream that a canonical path below the connection names, and the path below that.

        `/@name/…` is at the upstream of that name; None if there is no such upstream. All other paths are at
        the default upstream. Only for a connection with several upstreams.
        """
        if not path.startswith(b"/@"):
            return self.upstreams[""], path
        name, slash, rest = path[2:].partition(b"/")
        return self.upstreams.get(name.decode("ascii")) if name else None, slash + rest

    def seen(self, path: bytes) -> bytes:
        """Return a path below its upstream as the gateway's paths and the signed patterns have it."""
        if not self.upstreams or self.upstream is None:
            return path
        if self.upstream.name:
            return b"/@" + self.upstream.name.encode("ascii") + path
        return b"/%40" + path[2:] if path.startswith(b"/@") else path

    def dialled(self, origin: Origin, path: bytes) -> Reached:
        """Return the upstream of a request that is addressed to an API itself.

        If none is at that origin, it is one with the same host, else the default one: the request is refused
        later, and told why. Of several at one origin, the longest base path counts. Only for a connection
        with several upstreams.
        """
        each = tuple(self.upstreams.values())
        there = [one for one in each if one.upstream.origin == origin]
        there = there or [one for one in each if one.upstream.origin.host == origin.host] or [each[0]]
        below = [one for one in there if one.upstream.relative(path) is not None]
        return max(below or there[:1], key=lambda one: len(one.upstream.base))

    def leads_to(self, origin: Origin) -> bool:
        """Return whether one of its upstreams is at an origin."""
        return any(one.origin == origin for one in self.destinations)

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of its signing keys."""
        return frozenset([key.id for key in self.keys.keys])

    def without_credential(self) -> Connection:
        """Return the same project without credential, for an origin that must not receive the credential."""
        return replace(self, injector=NoCredential(), late=(), tls=None)
