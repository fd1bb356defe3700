"""Connections, as the owner of a credential registered them: parsed, frozen and ready for decisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..http.message import Fields, Origin
from ..http.networks import Network
from ..limits.rules import Limit
from ..signing.keys import NO_KEYS, KeyRing
from ..signing.secret import LateSecret
from .ceiling import Ceiling
from .cors import Cors
from .credentials import Injector, NoCredential
from .way_out import UpstreamTls


@dataclass(frozen=True, slots=True)
class Upstream:
    """The destination of a connection: an origin and a canonical base path without trailing slash."""

    origin: Origin
    base: bytes = b""

    def relative(self, path: bytes) -> bytes | None:
        """Return the path below the base, with its leading slash; None if it is not below the base."""
        if not path.startswith(self.base):
            return None
        rest = path[len(self.base) :]
        return rest if rest.startswith(b"/") else None


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

    @property
    def key_ids(self) -> frozenset[str]:
        """The ids of its signing keys."""
        return frozenset([key.id for key in self.keys.keys])

    def without_credential(self) -> Connection:
        """Return the same project without credential, for an origin that must not receive the credential."""
        return replace(self, injector=NoCredential(), late=(), tls=None)
