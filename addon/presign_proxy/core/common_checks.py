"""What checks of both schemes share: how they run, the signature, revocation, the names in a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from ..errors import Denied, Malformed
from ..http.hosts import parse_authority
from ..http.message import Request
from ..signing.keys import KeyRing, SigningKey, signature_id
from .connection import Connection
from .decision import Facts
from .registry import Registry


class Check[Claim](NamedTuple):
    """One check, by the name that `explain` gives its step. `run` raises Denied."""

    name: str
    run: Callable[[Claim], None]
    of: Literal["all", "policy", "token"] = "all"
    """Which presigns it is made of: all, those with a signed policy, those carried as a token."""


def hold[Claim](claim: Claim, checks: tuple[Check[Claim], ...], facts: Facts) -> None:
    """Hold a claim against checks, in their order. Raises Denied; `facts.step` then names the check."""
    for step, run, _ in checks:
        try:
            run(claim)
        except Denied:
            facts.step = step
            raise


def verify(
    registry: Registry,
    ring: KeyRing,
    message: bytes,
    signature: str,
    facts: Facts,
    now: int,
    only: str | None = None,
) -> SigningKey:
    """Return the key that made the signature. Raises Denied("invalid").

    From here on the request was made by a holder of a signing key.
    """
    key = ring.verify(message, signature, now, registry.macs, only)
    if key is None:
        raise Denied("invalid", "no signing key of the connection made this signature")
    facts.verified = True
    facts.key, facts.signature = key.id, signature_id(signature)
    return key


def check_revoked(registry: Registry, connection: Connection, key: SigningKey | None, facts: Facts) -> None:
    """Check that neither the URL, nor its id, key or connection is revoked. Raises Denied("revoked")."""
    revoked, since = registry.revoked, registry.since
    if facts.signature in revoked.urls or facts.signature in since.urls:
        raise Denied("revoked", "this signature is revoked")
    named = f"{connection.id}/{facts.id}" if facts.id is not None else ""
    if named in revoked.ids or named in since.ids:
        raise Denied("revoked", "this id is revoked")
    if key is not None and key.revoked:
        raise Denied("revoked", "the signing key is revoked")
    if connection.revoked:
        raise Denied("revoked", "the connection is revoked")
    if not connection.enabled:
        raise Denied("revoked", "the connection is disabled")
    if since and since.is_revoked(connection.id, key):
        raise Denied("revoked", "its connection or key was taken back; the registry is still to be read")


def check_names(request: Request, *, gateway: bool) -> None:
    """Check that every name the client gave (Host, :authority, SNI) is the one the request is addressed to.

    Raises Denied.
    """
    for kind, name in request.names:
        if kind == "front-sni" and not gateway:
            continue  # the name of a TLS proxy, through which the request goes to another host
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
