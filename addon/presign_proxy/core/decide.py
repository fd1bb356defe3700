"""The decision on a request. Every check is made once, in one order, and the outcome is one value."""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.client_address import bucket
from ..http.message import Head, Request, check_grammar, check_size, head_of
from ..http.navigation import is_navigation
from ..limits.counter import Counter
from ..limits.rules import Requester, tallies_of
from ..signing.source_scheme import Source
from . import preflight, unsigned
from .answers import Style
from .aws_sigv4 import SigV4Credential
from .confirmation import check_confirmed
from .decision import PASS, Asked, Decision, Facts, Forward, Judged, denial
from .grant import Grant, grant_presign, grant_source
from .recognise import at_another_name, check_encrypted, form_of, recognise
from .refusal_message import sentence_for
from .registry import Registry
from .registry_scope import narrowed
from .rewrite_request import check_meaning, check_wishes, outgoing
from .upgrade import handshake_of

_NO_REGISTRY: Final = Registry({})


def decide(registry: Registry | None, request: Request, now: int, request_id: str) -> Decision:
    """Decide on a request. Pure: no clock, no disk, no socket.

    Args:
        registry: None while none is loaded; all presigned requests are then answered `unavailable`.
        now: Unix time, whole seconds.
    """
    facts = Facts(request_id, request.method[:32].decode("ascii", "replace"), request.client)
    known, head, claim = registry or _NO_REGISTRY, head_of(request), None
    gateway = (form := form_of(known, request)).gateway
    usual: Style = "page" if is_navigation(request.fields, head) else "json"
    style: Style = "bare" if form.source else usual
    try:
        if registry is None:
            raise Denied("unavailable", "there is no registry")
        may_pass = not gateway and not known.deny_unsigned  # then its size counts only once it is ours
        if (asked := preflight.judge(known, request, head, form, facts)) is not None:
            return asked
        if not may_pass:
            check_size(request, head)
        claim = recognise(known, request, head, form)
        if claim is None:
            return PASS if may_pass else unsigned.judge(known, request, head)
        if may_pass:
            check_size(request, head)
        check_encrypted(known, request, form, facts)
        check_grammar(request, head)
        if known.trusted_proxies:
            facts.client = str(facts.address(request, known.trusted_proxies) or request.client)
        style = "bare" if isinstance(claim, Source) else usual
        if isinstance(claim, Source):
            grant = grant_source(registry, request, claim, facts, now, gateway=gateway)
        else:
            grant = grant_presign(registry, request, claim, facts, now)
        return _forward(registry, grant, request, head, facts, style, now)
    except Denied as denied:
        if not gateway and not _reaches_its_upstream(request, facts):
            denied = at_another_name(request, denied)
        _for_pages(known, request, head, facts, denied)
        return denial(denied, style, facts, sentence_for(denied, claim, facts, now))


def _for_pages(known: Registry, request: Request, head: Head, facts: Facts, denied: Denied) -> None:
    """Let a page read why it is refused, if any connection lists its origin.

    For the audit log, its detail says if a browser asked for the page. The answer must not depend on the
    named connection: it would tell whether that exists.
    """
    if known.destinations.cors is not None and not facts.readable:
        facts.readable = known.destinations.cors.readable(head, request.fields)
    preflight.name_it(denied, request, head, facts)


def _reaches_its_upstream(request: Request, facts: Facts) -> bool:
    """Return whether a valid signature is for the requested host: an API may have paths of our form."""
    return facts.verified and facts.known is not None and facts.known.leads_to(request.origin)


def _forward(
    registry: Registry, grant: Grant, request: Request, head: Head, facts: Facts, style: Style, now: int
) -> Forward:
    """Return the whole outgoing request of a grant. Raises Denied."""
    connection = grant.connection
    if connection.late:
        connection = narrowed(connection, request.method, grant.path, grant.methods)
    if connection.conduct.cors is not None:
        facts.readable = connection.conduct.cors.readable(head, request.fields)
    handshake = handshake_of(request, head, connection)
    check_wishes(request, head, gateway=grant.gateway)
    check_meaning(request, head)
    if connection.lacks:  # before the missing secret would be used
        raise Denied("unavailable", f"a secret of the connection is missing: {connection.lacks}")
    uses = _uses(grant)
    if uses is not None and style != "bare":
        check_confirmed(request, head, facts, grant.terms.max_uses, navigates=style == "page")
    plain = outgoing(request, grant.path, grant.query, connection, grant.token_in, handshake)
    signer = connection.injector
    hold = signer.held(request, plain, grant.origin) if isinstance(signer, SigV4Credential) else None
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
        counters=_counters(registry, grant, request, facts, uses, now),
        judged=Judged(registry.mark, now),
        asked=Asked(request, grant.methods, grant.paths, registry.trusted_proxies) if grant.paths else None,
        proxied=request.origin.scheme if request.is_proxied else "",
        hold=hold,
        handshake=handshake,
        way_out=registry.destinations.way_out,
    )


def _uses(grant: Grant) -> int | None:
    """Return how often the URL may be used. No signature can lift the limits of the connection."""
    signed, allowed = grant.terms.max_uses, grant.connection.max_uses
    return min(signed, allowed) if signed is not None and allowed is not None else signed or allowed


def _counters(
    registry: Registry, grant: Grant, request: Request, facts: Facts, uses: int | None, now: int
) -> tuple[Counter, ...]:
    """Return the counters of a request."""
    connection = grant.connection
    if not connection.limits and uses is None:
        return ()
    client = bucket(facts.address(request, registry.trusted_proxies))
    who = Requester(connection.id, facts.signature or facts.path or "", client, grant.expires)
    return tallies_of(connection.limits, uses, who, now)
