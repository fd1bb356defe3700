"""From a claim to a grant: the evidence that this request was signed, and is allowed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..errors import Denied
from ..http.message import Origin, Request
from ..http.networks import Network
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import NO_TERMS, Terms
from ..signing.source_scheme import Source, check_bodyless
from ..signing.source_url import parse_source
from .common_checks import hold
from .connection import Connection
from .decision import Facts
from .presign_checks import PresignClaim, checks_of, seen_path
from .registry import Registry
from .source_checks import SOURCE_CHECKS, SourceClaim, shown_path


class Grant(NamedTuple):
    """The proof that this request, as it is sent, was signed and is allowed.

    `path` is canonical and includes the upstream's base. `query` is without the presign. If `networks` is not
    None, the address of the origin must be checked: it must be public or in one of these networks. `prefix`
    is the part before the path in a gateway URL. `token_in` are the headers that contained the key token.
    `expires` is Unix time, 0 for never. `methods` and `paths` are the signed ones, empty in scheme source.
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
    """Verify a presign and hold the request against it. Raises Denied; `facts.step` names the check."""
    facts.scheme, facts.carrier = "presign", presign.carrier
    claim = PresignClaim(registry, request, presign, facts, now)
    try:
        hold(claim, checks_of(presign), facts)
    except Denied:
        _note_path(facts, lambda: seen_path(claim))
        raise
    return Grant(
        claim.connection,
        claim.upstream.origin,
        claim.upstream.base + claim.path,
        presign.query,
        presign.gateway,
        prefix=_gateway_prefix(request, presign),
        token_in=tuple([name for kind, name in presign.slots if kind == "header"]),
        expires=facts.expires or 0,
        terms=claim.terms,
        methods=claim.methods,
        paths=claim.paths,
    )


def _note_path(facts: Facts, path: Callable[[], str | None]) -> None:
    """Note the path of a request that was refused after its signature, for the audit log.

    What a holder still tries after a revocation is only known by its path. Before a good signature, none is
    noted: anyone could write into the log. Every refusal comes here, so that an unknown connection takes the
    same steps as a known one.
    """
    if facts.verified and facts.path is None:
        with suppress(Denied):
            facts.path = path()


def _gateway_prefix(request: Request, presign: Presign) -> bytes | None:
    """Return what stands before the path in the URL the client used; the token itself is never repeated."""
    if not presign.gateway:
        return None
    return b"" if presign.carrier == "path" else request.path[: len(request.path) - len(presign.path)]


def grant_source(
    registry: Registry, request: Request, source: Source, facts: Facts, now: int, *, gateway: bool
) -> Grant:
    """Verify a source URL and hold it against its project. Raises Denied; `facts.step` names the check."""
    facts.scheme, facts.carrier = "source", "query" if source.signature else "path"
    check_bodyless(request.fields)
    claim = SourceClaim(registry, request, source, facts, now, gateway=gateway)
    try:
        hold(claim, SOURCE_CHECKS, facts)
    except Denied:
        _note_path(facts, lambda: shown_path(parse_source(source.url)))
        raise
    connection, admitted = claim.connection, claim.admitted
    path, mark, query = admitted.url.target.partition(b"?")
    return Grant(
        connection if admitted.exact else connection.without_credential(),
        admitted.url.origin,
        path,
        query if mark else None,
        gateway,
        networks=claim.rules.networks if admitted.listed else (),
        prefix=b"" if gateway else None,
        expires=int(source.exp or 0),
    )
