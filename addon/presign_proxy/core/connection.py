"""Connections: what the owner of a credential registered, parsed, frozen, ready to decide with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..http.message import Fields, Origin
from ..http.networks import Network
from ..limits.rules import Limit
from ..signing.keys import NO_KEYS, KeyRing
from ..signing.secret import LateSecret
from .ceiling import Ceiling
from .credentials import Injector, NoCredential


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
