"""The checks of a presign, in the order of the specification: the first that fails ends them.

`PRESIGN_CHECKS` is that order. `grant.grant_presign` runs it, and `explain` tells it.
"""

from __future__ import annotations

from typing import Final

from ..errors import Denied, Malformed
from ..http.field_names import header_key
from ..http.message import Request
from ..http.paths import canonical_path
from ..signing import canonical
from ..signing.grammar import parse_list
from ..signing.keys import SigningKey
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import NO_TERMS
from ..signing.signed_policy import parse as parse_terms
from . import policy
from .common_checks import Check, check_names, check_revoked, verify
from .connection import Connection, Reached, Upstream
from .decision import Facts
from .registry import Registry

# Stands in for a connection that does not exist, and is checked in the very same steps: an unknown connection
# costs what a bad signature costs.
NO_CONNECTION: Final = Connection(id="")


class PresignClaim:
    """A presign under verification: what came, and what the checks have found so far."""

    upstream: Upstream
    """Set once the signature was good; so is `key`."""
    key: SigningKey

    __slots__ = (
        "connection",
        "facts",
        "key",
        "methods",
        "now",
        "path",
        "paths",
        "presign",
        "registry",
        "request",
        "terms",
        "upstream",
    )

    def __init__(
        self, registry: Registry, request: Request, presign: Presign, facts: Facts, now: int
    ) -> None:
        self.registry = registry
        self.request = request
        self.presign = presign
        self.facts = facts
        self.now = now
        self.connection = NO_CONNECTION
        self.methods: tuple[str, ...] = ()
        self.paths: tuple[str, ...] = ()
        self.terms = NO_TERMS
        self.path = b""


def _connection(claim: PresignClaim) -> None:
    """Find the connection that the presign names, or the only one whose upstream the URL reaches."""
    registry, request, named = claim.registry, claim.request, claim.presign.connection_id
    if named is not None:
        claim.connection = registry.get(named, "presign", NO_CONNECTION)
    else:
        claim.connection = registry.addressed(request.origin, request.path) or NO_CONNECTION
    claim.facts.known = claim.connection


def _signature(claim: PresignClaim) -> None:
    presign, written = claim.presign, claim.presign.written
    named = presign.connection_id or claim.connection.id
    if written is None:
        message, only = canonical.presign(named, presign.expires, presign.methods, presign.paths), None
    else:
        message = canonical.policy(named, presign.expires, presign.methods, presign.paths, written)
        only = written.key or None
    ring = claim.connection.keys
    claim.key = verify(claim.registry, ring, message, presign.signature, claim.facts, claim.now, only)
    if claim.connection.upstream is None:
        raise Denied("invalid", "there is no such connection")
    claim.upstream = claim.connection.upstream


def _lists(claim: PresignClaim) -> None:
    claim.methods = parse_list(claim.presign.methods, "methods")
    claim.paths = parse_list(claim.presign.paths, "paths")
    claim.facts.expires = int(claim.presign.expires)


def _policy(claim: PresignClaim) -> None:
    """Parse the fields of a signed policy (version 2)."""
    written = claim.presign.written
    if written is None:
        raise Denied("internal", "there is no signed policy")  # `checks_of` has chosen wrongly
    claim.terms = parse_terms(written)
    claim.facts.id = claim.terms.id


def _not_before(claim: PresignClaim) -> None:
    policy.check_begun(claim.terms, claim.now)


def _expiry(claim: PresignClaim) -> None:
    policy.check_expiry(claim.facts.expires or 0, claim.now)


def _revocation(claim: PresignClaim) -> None:
    check_revoked(claim.registry, claim.connection, claim.key, claim.facts)


def _lifetime(claim: PresignClaim) -> None:
    policy.check_lifetime(claim.facts.expires or 0, claim.now, claim.connection.ceiling)


def _slot(claim: PresignClaim) -> None:
    """Check that a key token stands where the credential would, in a form that the connection lists."""
    filled = claim.connection.slots
    for kind, name in claim.presign.slots:
        fits = name in filled.params if kind == "param" else header_key(name) in filled.headers
        if not fits and (kind, name) != ("header", b"authorization"):
            raise Malformed("the token stands in a slot that the connection's credential does not fill")
    forms = claim.connection.key_forms
    for shape, password in claim.presign.beside:
        if shape and shape not in forms.shapes:
            raise Malformed("the text before the token is not one of the connection's key_shapes")
        if password and password not in forms.passwords:
            raise Malformed("the token is a user name, and its password is not one of key_slots.passwords")


def _client(claim: PresignClaim) -> None:
    if claim.terms.clients:
        address = claim.facts.address(claim.request, claim.registry.trusted_proxies)
        policy.check_client(claim.terms, address)


def _methods(claim: PresignClaim) -> None:
    policy.check_method(claim.request.method, claim.methods, claim.connection.ceiling)


def _path(claim: PresignClaim) -> None:
    claim.path = relative_path(claim)
    seen = claim.connection.seen(claim.path)
    claim.facts.path = seen.decode("ascii")
    policy.check_path(seen, claim.paths, claim.connection.ceiling)


def seen_path(claim: PresignClaim) -> str | None:
    """Return the path that patterns are compared with; None without an upstream. Raises Denied."""
    if claim.connection.upstream is None:
        return None
    path = relative_path(claim)
    return claim.connection.seen(path).decode("ascii")


def _lead(claim: PresignClaim, reached: Reached) -> None:
    """Lead the claim to one of several upstreams of its connection."""
    claim.connection = claim.facts.known = claim.connection.at(reached)
    claim.upstream = reached.upstream


def relative_path(claim: PresignClaim) -> bytes:
    """Return the canonical path below the base of the upstream. Raises Denied.

    If the connection has several upstreams, the claim is led to the one that the request is addressed to.
    """
    presign = claim.presign
    if not presign.path.startswith(b"/"):
        raise Denied("not_found", "the gateway URL has no path")
    ceiling = claim.connection.ceiling
    path = canonical_path(presign.path, allow_encoded_slash=ceiling.allow_encoded_slash)
    if presign.gateway:
        return _below_named(claim, path) if claim.connection.upstreams else path
    if claim.connection.upstreams:
        _lead(claim, claim.connection.dialled(claim.request.origin, path))
    relative = claim.upstream.relative(path)
    if relative is None:
        raise Denied("path_not_allowed", "the path is not below the upstream's base path")
    return relative


def _below_named(claim: PresignClaim, path: bytes) -> bytes:
    reached, below = claim.connection.named(path)
    if reached is None:
        raise Denied("path_not_allowed", "the connection has no upstream of the name after @")
    _lead(claim, reached)
    if not below:
        raise Denied("not_found", "the gateway URL has no path after the name of the upstream")
    return below


def _host(claim: PresignClaim) -> None:
    """Check that a request to the API itself is addressed to the upstream's origin, under each name."""
    check_names(claim.request, gateway=claim.presign.gateway)
    if not claim.presign.gateway and claim.request.origin != claim.upstream.origin:
        raise Denied("host_mismatch", "the request is addressed to another origin than the upstream")


def _body(claim: PresignClaim) -> None:
    if claim.terms.max_body is not None:
        policy.check_body(claim.terms.max_body, claim.request.fields)


PRESIGN_CHECKS: Final = (
    Check("connection", _connection),
    Check("signature", _signature),
    # From here on the request was made by a holder of a signing key, who may learn what is wrong.
    Check("lists", _lists),
    Check("policy", _policy, "policy"),
    Check("not_before", _not_before, "policy"),
    Check("expiry", _expiry),
    Check("revocation", _revocation),
    Check("lifetime", _lifetime),
    Check("slot", _slot, "token"),
    Check("client", _client, "policy"),
    Check("methods", _methods),
    Check("path", _path),
    Check("host", _host),
    Check("body", _body, "policy"),
)


def checks_of(presign: Presign) -> tuple[Check[PresignClaim], ...]:
    """Return the checks that are made of a presign, in their order."""
    return _CHOSEN[presign.written is not None, bool(presign.slots)]


_CHOSEN: Final = {
    (policed, token): tuple(
        check for check in PRESIGN_CHECKS if {"all": True, "policy": policed, "token": token}[check.of]
    )
    for policed in (False, True)
    for token in (False, True)
}
