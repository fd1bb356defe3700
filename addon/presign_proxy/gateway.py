"""The decision: one way through the house, every question asked once, the whole outcome as a value."""

from __future__ import annotations

from typing import Final

from . import canonical, policy, sources
from .answers import Style
from .connections import Connection, Network, Registry, Upstream
from .decisions import PASS, Decision, Deny, Facts, Forward
from .errors import Denied, Malformed
from .hosts import is_loopback, parse_authority
from .injectors import Outgoing
from .keys import NO_KEYS, KeyRing, SigningKey, signature_id
from .message import Origin, Request, check_grammar, check_size
from .paths import canonical_path
from .rewrite import check_upgrade, outgoing
from .schemes import presign as presign_scheme
from .schemes import source as source_scheme
from .schemes.presign import API_PROXY, TOKEN_PATH, Presign
from .schemes.source import Source
from .sources import Admitted

_NO_CONNECTION: Final = Connection(id="")


def decide(registry: Registry | None, request: Request, now: int, request_id: str) -> Decision:
    """What becomes of a request. Pure: no clock, no disk, no socket; raises nothing it knows of.

    Args:
        registry: None while there is none: everything of ours is then unavailable.
        now: Unix time, whole seconds.
    """
    facts = Facts(request_id, method=request.method.decode("ascii", "replace")[:32], client=request.client)
    known = registry or _NO_REGISTRY
    gateway = is_gateway(known, request)
    style: Style = "bare" if gateway and _is_source(known, request) else "json"
    try:
        claim = _recognise(known, request, gateway=gateway)
        if claim is None:
            if known.deny_unsigned:
                raise Denied("unsigned", "the request carries no presign")
            return PASS
        if isinstance(claim, Source):
            style = "bare"
        if registry is None:
            raise Denied("unavailable", "there is no registry")
        check_size(request)
        check_grammar(request)
        if isinstance(claim, Source):
            return _grant_source(registry, request, claim, facts, now, gateway=gateway)
        return _grant_presign(registry, request, claim, facts, now)
    except Denied as denied:
        return Deny(denied.code, denied.detail, style, facts)


def is_gateway(registry: Registry, request: Request) -> bool:
    """Whether the request is addressed to the gateway itself rather than to an API."""
    if request.reverse:
        # mitmproxy has replaced Host by then, so only the path can tell.
        path = request.path
        return path.startswith((API_PROXY, TOKEN_PATH + b"ps1_")) or _is_source(registry, request)
    host, port = request.origin.host, request.origin.port
    if host in registry.hosts:
        return True
    if request.listener is None or port != request.listener[1]:
        return False
    return is_loopback(host) or host == request.listener[0]


def _is_source(registry: Registry, request: Request) -> bool:
    """Whether a request at the gateway is of scheme source; in reverse mode, `/v1/` may be the API's own."""
    if not request.path.startswith(source_scheme.PREFIX):
        return False
    if not request.reverse:
        return True
    project = request.path[len(source_scheme.PREFIX) :].partition(b"/")[0].decode("ascii", "replace")
    return registry.get(project, "source") is not None


def _recognise(registry: Registry, request: Request, *, gateway: bool) -> Presign | Source | None:
    if gateway:
        if _is_source(registry, request):
            source = source_scheme.recognise(request)
            if source is None:
                raise Denied("not_found", "no such form at a gateway host")
            if presign_scheme.recognise(request, gateway=False) is not None:
                raise Malformed("it carries presigns of two schemes")
            return source
        if not request.path.startswith((API_PROXY, TOKEN_PATH)):
            raise Denied("not_found", "no such form at a gateway host")
    presign = presign_scheme.recognise(request, gateway=gateway)
    if presign is not None or gateway:
        return presign
    return _recognise_intercepted(registry, request)


def _recognise_intercepted(registry: Registry, request: Request) -> Source | None:
    """`sig` and `exp` on an origin that a project intercepts. Elsewhere they belong to other people."""
    projects = registry.intercepting.get(request.origin)
    found = source_scheme.recognise_intercepted(request) if projects else None
    if found is None or projects is None:
        return None
    named, source = found
    matching = [c.id for c in projects if named is None or c.id == named]
    if len(matching) != 1:
        raise Denied("invalid", "no project is named and none or several match")
    return source._replace(project=matching[0])


def _verify(ring: KeyRing, message: bytes, signature: str, facts: Facts, now: int) -> SigningKey:
    """Raises Denied("invalid"); from here on the request was made by somebody who holds a signing key."""
    key = ring.verify(message, signature, now)
    if key is None:
        raise Denied("invalid", "no signing key of the connection made this signature")
    facts.verified = True
    facts.key, facts.signature = key.id, signature_id(signature)
    return key


def _grant_presign(registry: Registry, request: Request, presign: Presign, facts: Facts, now: int) -> Forward:
    facts.scheme, facts.carrier = "presign", presign.carrier
    connection = _connection(registry, request, presign)
    # One decoy for all that does not exist: an unknown connection costs what a bad signature costs.
    known = connection or _NO_CONNECTION
    facts.connection = known.id or None
    message = canonical.presign(
        presign.connection_id or known.id, presign.expires, presign.methods, presign.paths
    )
    _verify(known.keys, message, presign.signature, facts, now)
    upstream = known.upstream
    if upstream is None:
        raise Denied("invalid", "the connection is of another scheme")
    methods = policy.parse_list(presign.methods, "methods")
    paths = policy.parse_list(presign.paths, "paths")
    expires = int(presign.expires)
    policy.check_expiry(expires, now)
    _check_enabled(known)
    policy.check_lifetime(expires, now, known.ceiling)
    _check_slot(presign, known)
    policy.check_method(request.method, methods, known.ceiling)
    path = _relative_path(presign, known, upstream)
    facts.path = path.decode("ascii")
    policy.check_path(path, paths, known.ceiling)
    _check_names(request)
    if not presign.gateway and request.origin != upstream.origin:
        raise Denied("host_mismatch", "the request is addressed to another origin than the upstream")
    check_upgrade(request.fields, gateway=presign.gateway)
    token_in = presign.slot.name if presign.slot else b""
    plain = outgoing(request, upstream.base + path, presign.query, known, token_in)
    prefix = _gateway_prefix(request, presign)
    return _forward(known, upstream.origin, plain, facts, "json", prefix)


def _connection(registry: Registry, request: Request, presign: Presign) -> Connection | None:
    if presign.connection_id is not None:
        return registry.get(presign.connection_id, "presign")
    return registry.addressed(request.origin, request.path)


def _check_enabled(connection: Connection) -> None:
    if not connection.enabled:
        raise Denied("revoked", "the connection is disabled")


def _check_slot(presign: Presign, connection: Connection) -> None:
    """A key token stands where the credential would: in Authorization, or where `auth` puts it."""
    slot, slots = presign.slot, connection.injector.slots
    if slot is None or (slot.kind == "header" and slot.name in (b"authorization", *slots.headers)):
        return
    if slot.kind == "param" and slot.name in slots.params:
        return
    raise Malformed("the token stands in a slot that the connection's credential does not fill")


def _relative_path(presign: Presign, connection: Connection, upstream: Upstream) -> bytes:
    """The canonical path below the upstream's base. Raises Denied("path_not_allowed")."""
    if not presign.path.startswith(b"/"):
        raise Denied("not_found", "the gateway URL has no path")
    allow_slash = connection.ceiling.allow_encoded_slash
    path = canonical_path(presign.path, allow_encoded_slash=allow_slash)
    if presign.gateway:
        return path
    relative = upstream.relative(path)
    if relative is None:
        raise Denied("path_not_allowed", "the path is not below the upstream's base path")
    return relative


def _check_names(request: Request) -> None:
    """Every name that the client gave (Host, :authority, SNI) agrees with where it is addressed."""
    for kind, name in request.names:
        named = parse_authority(name, request.origin.scheme)
        if named is None:
            raise Malformed(f"{kind} is not a host")
        same = named.host == request.origin.host and (kind == "sni" or named.port == request.origin.port)
        if not same:
            raise Denied("host_mismatch", f"{kind} names another host than the request is addressed to")


def _gateway_prefix(request: Request, presign: Presign) -> bytes | None:
    """What stands before the path in the URL the client used; the token itself is never repeated."""
    if not presign.gateway:
        return None
    return b"" if presign.carrier == "path" else request.path[: len(request.path) - len(presign.path)]


def _grant_source(
    registry: Registry, request: Request, source: Source, facts: Facts, now: int, *, gateway: bool
) -> Forward:
    facts.scheme, facts.carrier = "source", "query" if source.signature else "path"
    connection = registry.get(source.project, "source")
    rules = connection.source if connection else None
    admitted: Admitted
    if source.signature is not None and source.exp is not None:
        ring = connection.keys if connection and rules and rules.signed else NO_KEYS
        message = canonical.source(source.project, source.url, source.exp)
        _verify(ring, message, source.signature, facts, now)
        if connection is None or rules is None:
            raise Denied("invalid", "there is no such project")
        facts.connection = connection.id
        # exp=0 is not "never" here but long past.
        policy.check_expiry(int(source.exp) or 1, now)
        admitted = sources.admit_signed(source.url, rules)
    else:
        if connection is None or rules is None or rules.signed:
            raise Denied("invalid", "there is no such project in allowlist mode")
        facts.connection = connection.id
        admitted = sources.admit_plain(source.url, rules)
    _check_enabled(connection)
    facts.path = f"{admitted.url.origin}{admitted.url.target.partition(b'?')[0].decode('ascii')}"
    if source.format is not None and source.format not in rules.formats:
        raise Denied("invalid", "the project does not serve this format")
    policy.check_method(request.method, ("GET", "HEAD"), connection.ceiling)
    _check_names(request)
    check_upgrade(request.fields, gateway=gateway)
    sender = connection if admitted.exact else connection.without_credential()
    path, mark, query = admitted.url.target.partition(b"?")
    plain = outgoing(request, path, query if mark else None, sender)
    networks = rules.networks if admitted.listed else ()
    prefix = b"" if gateway else None
    return _forward(sender, admitted.url.origin, plain, facts, "bare", prefix, networks)


def _forward(
    connection: Connection,
    origin: Origin,
    plain: Outgoing,
    facts: Facts,
    style: Style,
    prefix: bytes | None,
    resolve: tuple[Network, ...] | None = None,
) -> Forward:
    injector = connection.injector
    return Forward(
        connection=connection,
        origin=origin,
        shown=injector.placeholder(plain, f"presign:{connection.id}"),
        sent=injector.inject(plain),
        facts=facts,
        style=style,
        resolve=resolve,
        gateway_prefix=prefix,
    )


_NO_REGISTRY: Final = Registry({})
