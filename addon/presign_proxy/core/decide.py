"""The decision: one way through the house, every question asked once, the whole outcome as a value."""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.client_address import bucket, client_of
from ..http.message import Head, Request, check_grammar, check_size, head_of
from ..limits.counter import Counter
from ..limits.rules import Requester, tallies_of
from ..signing.source_scheme import Source
from . import unsigned
from .answers import Style
from .decision import PASS, Asked, Decision, Facts, Forward, Judged, denial
from .grant import Grant, grant_presign, grant_source
from .recognise import at_another_name, is_gateway, is_source_form, recognise
from .registry import Registry
from .rewrite_request import check_meaning, check_upgrade, outgoing

_NO_REGISTRY: Final = Registry({})


def decide(registry: Registry | None, request: Request, now: int, request_id: str) -> Decision:
    """What becomes of a request. Pure: no clock, no disk, no socket.

    Args:
        registry: None while there is none: everything of ours is then unavailable.
        now: Unix time, whole seconds.
    """
    facts = Facts(request_id, request.method[:32].decode("ascii", "replace"), request.client)
    known = registry or _NO_REGISTRY
    gateway = is_gateway(known, request)
    style: Style = "bare" if gateway and is_source_form(known, request) else "json"
    head = head_of(request)
    try:
        if registry is None:
            raise Denied("unavailable", "there is no registry")
        # Before anything is looked for, unless it may be somebody else's: then only what is ours is measured.
        may_pass = not gateway and not known.deny_unsigned
        if not may_pass:
            check_size(request, head)
        claim = recognise(known, request, head, gateway=gateway)
        if claim is None:
            return PASS if may_pass else unsigned.judge(known, request, head)
        if may_pass:
            check_size(request, head)
        check_grammar(request, head)
        if known.trusted_proxies:
            facts.client = _client(known, request)
        if isinstance(claim, Source):
            style = "bare"
            grant = grant_source(registry, request, claim, facts, now, gateway=gateway)
        else:
            style = "json"
            grant = grant_presign(registry, request, claim, facts, now)
        return _forward(registry, grant, request, head, facts, style, now)
    except Denied as denied:
        if not gateway and not _reaches_its_upstream(request, facts):
            denied = at_another_name(request, denied)
        return denial(denied, style, facts)


def _reaches_its_upstream(request: Request, facts: Facts) -> bool:
    """Whether a good signature is for the very host that is asked: an API may have such paths itself."""
    upstream = facts.known.upstream if facts.verified and facts.known else None
    return upstream is not None and upstream.origin == request.origin


def _client(registry: Registry, request: Request) -> str:
    """Who asks, for people: behind a trusted proxy that says nothing usable, the proxy."""
    address = client_of(request, registry.trusted_proxies)
    return str(address) if address is not None else request.client


def _forward(
    registry: Registry, grant: Grant, request: Request, head: Head, facts: Facts, style: Style, now: int
) -> Forward:
    """The whole outgoing request of a grant. Raises Denied."""
    check_upgrade(request, head, gateway=grant.gateway)
    check_meaning(request, head)
    connection = grant.connection
    if connection.lacks:  # before anything is made of a secret that is not there
        raise Denied("unavailable", f"a secret of the connection cannot be had: {connection.lacks}")
    plain = outgoing(request, grant.path, grant.query, connection, grant.token_in)
    return Forward(
        connection=connection,
        origin=grant.origin,
        plain=plain,
        sent=None if connection.late else connection.injector.inject(plain),
        facts=facts,
        style=style,
        resolve=grant.networks,
        gateway_prefix=grant.prefix,
        terms=grant.terms,
        counters=_counters(registry, grant, request, facts, now),
        judged=Judged(registry.mark, now),
        asked=Asked(request, grant.methods, grant.paths, registry.trusted_proxies) if grant.paths else None,
        proxied=request.origin.scheme if request.is_proxied else "",
    )


def _counters(
    registry: Registry, grant: Grant, request: Request, facts: Facts, now: int
) -> tuple[Counter, ...]:
    """The counters of the request. Those of the connection are as it was registered, whoever signed."""
    connection, signed = grant.connection, grant.terms.max_uses
    allowed = connection.max_uses
    uses = min(signed, allowed) if signed is not None and allowed is not None else signed or allowed
    if not connection.limits and uses is None:
        return ()
    client = bucket(client_of(request, registry.trusted_proxies))
    who = Requester(connection.id, facts.signature or facts.path or "", client, grant.expires)
    return tallies_of(connection.limits, uses, who, now)
