"""May it? From a claim to a grant, in the order of the specification: connection, MAC, expiry, the
connection's state and ceilings, methods, path, destination. The first that says no ends it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import Denied, Malformed
from ..http.client_address import client_of
from ..http.field_names import header_key
from ..http.hosts import parse_authority
from ..http.message import Origin, Request
from ..http.networks import Network
from ..http.paths import canonical_path
from ..signing import canonical
from ..signing.grammar import parse_list
from ..signing.keys import NO_KEYS, KeyRing, SigningKey, signature_id
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import NO_TERMS, PolicyText, Terms
from ..signing.signed_policy import parse as parse_terms
from ..signing.source_scheme import Source, check_bodyless
from . import policy, source_rules
from .connection import Connection, SourceRules, Upstream
from .decision import Facts
from .registry import Registry
from .source_rules import Admitted

# Stand in for what does not exist, one of each scheme, so that it is decided on in the very same steps: an
# unknown connection costs what a bad signature costs.
_NO_CONNECTION: Final = Connection(id="")
_NO_PROJECT: Final = Connection(id="", source=SourceRules())


class Grant(NamedTuple):
    """Evidence: this request, as sent, was signed and is allowed.

    `path` is canonical, the upstream's base included; `query` is without the presign. `networks`, where
    not None, says that the origin's address must be judged, and which networks count besides public ones.
    `prefix` is what stands before the path in a gateway URL; `token_in`, the headers a key token stood in;
    `expires`, Unix time, 0 for never; `methods` and `paths` are what was signed, empty in scheme source.
    """

    connection: Connection
    origin: Origin
    path: bytes
    query: bytes | None
    gateway: bool
    networks: tuple[Network, ...] | None = None
    prefix: bytes | None = None
    token_in: tuple[bytes, ...] = ()
    expires: int = 0
    terms: Terms = NO_TERMS
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def grant_presign(registry: Registry, request: Request, presign: Presign, facts: Facts, now: int) -> Grant:
    """Verify a presign and hold the request against it. Raises Denied."""
    facts.scheme, facts.carrier = "presign", presign.carrier
    known = _connection(registry, request, presign)
    facts.known = known
    key = _verify_presign(registry, known, presign, facts, now)
    upstream = known.upstream
    if upstream is None:
        raise Denied("invalid", "there is no such connection")
    methods = parse_list(presign.methods, "methods")
    paths = parse_list(presign.paths, "paths")
    expires = int(presign.expires)
    facts.expires = expires
    terms = NO_TERMS if presign.written is None else _begun(presign.written, facts, now)
    policy.check_expiry(expires, now)
    _check_revoked(registry, known, key, facts)
    policy.check_lifetime(expires, now, known.ceiling)
    _check_slot(presign, known)
    if terms.clients:
        policy.check_client(terms, client_of(request, registry.trusted_proxies))
    policy.check_method(request.method, methods, known.ceiling)
    path = _relative_path(presign, known, upstream)
    facts.path = path.decode("ascii")
    policy.check_path(path, paths, known.ceiling)
    _check_destination(request, presign, upstream)
    if terms.max_body is not None:
        policy.check_body(terms.max_body, request.fields)
    return Grant(
        known,
        upstream.origin,
        upstream.base + path,
        presign.query,
        presign.gateway,
        prefix=_gateway_prefix(request, presign),
        token_in=tuple([name for kind, name in presign.slots if kind == "header"]),
        expires=expires,
        terms=terms,
        methods=methods,
        paths=paths,
    )


def _verify_presign(
    registry: Registry, known: Connection, presign: Presign, facts: Facts, now: int
) -> SigningKey:
    """The key that made the signature. Raises Denied("invalid")."""
    named, written = presign.connection_id or known.id, presign.written
    if written is None:
        message, only = canonical.presign(named, presign.expires, presign.methods, presign.paths), None
    else:
        message = canonical.policy(named, presign.expires, presign.methods, presign.paths, written)
        only = written.key or None
    return _verify(registry, known.keys, message, presign.signature, facts, now, only)


def _verify(
    registry: Registry,
    ring: KeyRing,
    message: bytes,
    signature: str,
    facts: Facts,
    now: int,
    only: str | None = None,
) -> SigningKey:
    """Raises Denied("invalid"); from here on the request was made by somebody who holds a signing key."""
    key = ring.verify(message, signature, now, registry.macs, only)
    if key is None:
        raise Denied("invalid", "no signing key of the connection made this signature")
    facts.verified = True
    facts.key, facts.signature = key.id, signature_id(signature)
    return key


def _begun(written: PolicyText, facts: Facts, now: int) -> Terms:
    """The terms of a signed policy. Raises Denied where their time has not come, or they are malformed."""
    terms = parse_terms(written)
    facts.id = terms.id
    policy.check_begun(terms, now)
    return terms


def _connection(registry: Registry, request: Request, presign: Presign) -> Connection:
    if presign.connection_id is not None:
        return registry.get(presign.connection_id, "presign", _NO_CONNECTION)
    return registry.addressed(request.origin, request.path) or _NO_CONNECTION


def _check_revoked(registry: Registry, connection: Connection, key: SigningKey | None, facts: Facts) -> None:
    since = registry.since
    if facts.signature in registry.revoked_urls or facts.signature in since.urls:
        raise Denied("revoked", "this signature is revoked")
    named = f"{connection.id}/{facts.id}" if facts.id is not None else ""
    if named in registry.revoked_ids or named in since.ids:
        raise Denied("revoked", "this id is revoked")
    if key is not None and key.revoked:
        raise Denied("revoked", "the signing key is revoked")
    if connection.revoked:
        raise Denied("revoked", "the connection is revoked")
    if not connection.enabled:
        raise Denied("revoked", "the connection is disabled")
    if since and since.is_revoked(connection.id, key):
        raise Denied("revoked", "its connection or key was taken back; the registry is still to be read")


def _check_slot(presign: Presign, connection: Connection) -> None:
    """A key token stands where the credential would: in Authorization, or where `auth` puts it."""
    filled = connection.injector.slots
    for kind, name in presign.slots:
        fits = name in filled.params if kind == "param" else header_key(name) in filled.headers
        if not fits and (kind, name) != ("header", b"authorization"):
            raise Malformed("the token stands in a slot that the connection's credential does not fill")


def _relative_path(presign: Presign, connection: Connection, upstream: Upstream) -> bytes:
    """The canonical path below the upstream's base. Raises Denied."""
    if not presign.path.startswith(b"/"):
        raise Denied("not_found", "the gateway URL has no path")
    path = canonical_path(presign.path, allow_encoded_slash=connection.ceiling.allow_encoded_slash)
    if presign.gateway:
        return path
    relative = upstream.relative(path)
    if relative is None:
        raise Denied("path_not_allowed", "the path is not below the upstream's base path")
    return relative


def _check_destination(request: Request, presign: Presign, upstream: Upstream) -> None:
    """Where the request is addressed to the API itself, that is the upstream's origin. Raises Denied."""
    check_names(request, gateway=presign.gateway)
    if not presign.gateway and request.origin != upstream.origin:
        raise Denied("host_mismatch", "the request is addressed to another origin than the upstream")


def check_names(request: Request, *, gateway: bool) -> None:
    """Every name that the client gave (Host, :authority, SNI) agrees with where it is addressed."""
    for kind, name in request.names:
        if kind == "front-sni" and not gateway:
            continue  # the name of a TLS proxy, through which the request goes somewhere else
        if kind == "scheme":
            if name != request.origin.scheme:
                raise Denied("host_mismatch", "the request's URL is of another scheme than its connection")
            continue
        named = parse_authority(name, request.origin.scheme)
        if named is None:
            raise Malformed(f"{kind} is not a host")
        same = named.host == request.origin.host and ("sni" in kind or named.port == request.origin.port)
        if not same:
            raise Denied("host_mismatch", f"{kind} names another host than the request is addressed to")


def _gateway_prefix(request: Request, presign: Presign) -> bytes | None:
    """What stands before the path in the URL the client used; the token itself is never repeated."""
    if not presign.gateway:
        return None
    return b"" if presign.carrier == "path" else request.path[: len(request.path) - len(presign.path)]


def grant_source(
    registry: Registry, request: Request, source: Source, facts: Facts, now: int, *, gateway: bool
) -> Grant:
    """Verify a source URL and hold it against its project. Raises Denied."""
    facts.scheme, facts.carrier = "source", "query" if source.signature else "path"
    check_bodyless(request.fields)
    connection = registry.get(source.project, "source", _NO_PROJECT)
    if source.signature is None:
        admitted = _admit_plain(registry, connection, source, facts)
    else:
        admitted = _admit_signed(registry, connection, source, facts, now)
    url = admitted.url
    path, mark, query = url.target.partition(b"?")
    facts.path = f"{url.origin}{path.decode('ascii')}"
    rules = connection.source
    if rules is None or (source.format is not None and source.format not in rules.formats):
        raise Denied("invalid", "the project does not serve this format")
    policy.check_method(request.method, ("GET", "HEAD"), connection.ceiling)
    check_names(request, gateway=gateway)
    return Grant(
        connection if admitted.exact else connection.without_credential(),
        url.origin,
        path,
        query if mark else None,
        gateway,
        networks=rules.networks if admitted.listed else (),
        prefix=b"" if gateway else None,
        expires=int(source.exp or 0),
    )


def _admit_signed(
    registry: Registry, connection: Connection, source: Source, facts: Facts, now: int
) -> Admitted:
    rules = connection.source
    signed = rules is not None and rules.signed
    exp = source.exp or ""
    message = canonical.source(source.project, source.url, exp)
    ring = connection.keys if signed else NO_KEYS
    key = _verify(registry, ring, message, source.signature or "", facts, now)
    if rules is None:
        raise Denied("invalid", "there is no such project")
    facts.known, facts.expires = connection, int(exp) or 1
    # exp=0 is not "never" here but long past.
    policy.check_expiry(facts.expires, now)
    _check_revoked(registry, connection, key, facts)
    return source_rules.admit_signed(source.url, rules)


def _admit_plain(registry: Registry, connection: Connection, source: Source, facts: Facts) -> Admitted:
    rules = connection.source
    if rules is None or rules.signed:
        raise Denied("invalid", "there is no such project in allowlist mode")
    facts.known = connection
    _check_revoked(registry, connection, None, facts)
    return source_rules.admit_plain(source.url, rules)
