"""What a presign says to its holder, who has no configuration. Offline; nothing is decided here.

The checks are those of the gateway (`core`), as far as they need only the presign and the request. The rest
is listed as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ..core.ceiling import Ceiling
from ..core.connection import Connection, Reached, SourceRules, Upstream
from ..core.credentials import NoCredential
from ..core.decision import PASS, Deny, Facts, denial
from ..core.presign_checks import PresignClaim, checks_of
from ..core.recognise import form_of, recognise
from ..core.registry import Registry
from ..core.source_checks import SOURCE_CHECKS, SourceClaim
from ..errors import Denied
from ..http.message import Origin, Request, check_grammar, check_size, head_of
from ..http.patterns import pattern
from ..signing import source_scheme
from ..signing.carrier_names import API_PROXY, TERMS, TOKEN_PATH
from ..signing.keys import NO_KEYS, KeyRing, SigningKey
from ..signing.presign_scheme import Presign
from ..signing.secret import Secret
from ..signing.source_scheme import Source
from ..signing.source_url import parse_source
from .after_signature import beyond_the_signature
from .case import Case
from .diagnosis import diagnose
from .explain import claimed_in, conclusion_of, without_signature
from .explanation import Claimed, Conclusion, Explanation, Finding, Step, shown
from .holder_steps import fields_of, passed, refused, says, unknown
from .input import lenient
from .input.urls import UnreadableUrl
from .steps import describe

Refusal = Deny | None
"""The refusal of one check; None if the request passes it, or if it cannot be made here."""

_MOST_ALLOWED: Final = Ceiling(head_as_get=True, allow_encoded_slash=True)
_OF_THE_GATEWAY: Final = frozenset(("project", "revocation", "lifetime", "slot", "format", "host"))
"""Checks that need the configuration."""
_NEEDED: Final = frozenset(("lists", "policy"))
"""Checks that parse what the later ones compare."""
_MOST_BASES: Final = 8
"""Most base paths that are tried for a URL of the API itself."""


class Held(NamedTuple):
    """What a presign says, whether it may be used so, and what only the gateway knows."""

    explanation: Explanation
    says: dict[str, Any]
    unknown: tuple[str, ...]


def explain_to_holder(
    request: Request, now: int, secret: Secret | None = None, connection: str | None = None
) -> Held:
    """Explain a request to somebody who has no configuration.

    Args:
        secret: the signing secret, if the holder has it.
        connection: the id of the connection, for a presign that names none.

    Raises UnreadableUrl if the request carries no presign.
    """
    bare = Registry({}, _hosts(request))
    form, head = form_of(bare, request), head_of(request)
    try:
        check_size(request, head)
        claim = recognise(bare, request, head, form) or source_scheme.recognise_intercepted(request)
        check_grammar(request, head)
    except Denied as denied:
        return _unreadable(request, now, denied, secret)
    if claim is None or claim.signature is None:
        raise UnreadableUrl("it carries no presign, so without a configuration there is nothing to explain")
    named = _named(claim) or connection or ""
    if connection not in (None, named):
        raise UnreadableUrl("the presign names another connection than the given one")
    if isinstance(claim, Source):
        claim = claim._replace(project=named)
    lack = "" if named else "without the connection's id, which is signed: --connection ID"
    if secret is None:
        lack = "without the secret"
    registry = _registry(request, claim, named, None if lack else secret)
    known = registry.connections[named]
    facts = Facts("req_explain", request.method.decode("ascii", "replace"), request.client, known=known)
    return _held(Case(registry, request, now, PASS, head, form, claim, facts), lack)


def _hosts(request: Request) -> frozenset[str]:
    """Return the host as the gateway's if only a gateway has such a path."""
    is_source = source_scheme.FORM.match(request.target) and source_scheme.names_signature(request.query)
    if is_source or request.path.startswith((API_PROXY, TOKEN_PATH)):
        return frozenset((request.origin.host,))
    return frozenset()


def _named(claim: Presign | Source) -> str:
    return claim.project if isinstance(claim, Source) else claim.connection_id or ""


def _registry(
    request: Request, claim: Presign | Source | None, named: str, secret: Secret | None
) -> Registry:
    """Return a registry with one connection, which allows everything and has the given secret."""
    written = claim.written if isinstance(claim, Presign) else None
    key = written.key if written is not None else ""
    keys = NO_KEYS if secret is None else KeyRing((SigningKey(key or "given", secret),))
    known = Connection(named, keys=keys, ceiling=_MOST_ALLOWED)
    if isinstance(claim, Source):
        known = replace(known, source=_any_source(claim.url))
    else:
        known = replace(known, upstream=Upstream(request.origin))
    return Registry({named: known}, _hosts(request))


def _any_source(url: str) -> SourceRules:
    try:
        return SourceRules(any_public=True, ports=frozenset((parse_source(url).origin.port,)))
    except Denied:
        return SourceRules(any_public=True)


def _unreadable(request: Request, now: int, denied: Denied, secret: Secret | None) -> Held:
    """Explain a request whose presign is not well-formed."""
    loose = lenient.read(request)
    registry = _registry(request, None, loose.first("connection_id") or "", secret)
    facts = Facts("req_explain", request.method[:32].decode("ascii", "replace"), request.client)
    decision, form = denial(denied, "json", facts), form_of(registry, request)
    case = Case(registry, request, now, decision, head_of(request), form, None, facts)
    step = without_signature(case, Step("presign", "refused", case.why, fields_of(loose)))
    found = [finding for finding in diagnose(case) if secret or finding.name != "unexplained"]
    return Held(Explanation(conclusion_of(case), Claimed(), (step,), _shown(found)), {}, ())


def _shown(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(Finding(finding.name, shown(finding.text)) for finding in dict.fromkeys(findings))


def _held(case: Case, lack: str) -> Held:
    """Explain a presign that is well-formed. All that is wrong is named, not only the first.

    Args:
        lack: what is missing to check the signature; empty if it can be checked.
    """
    steps = [passed(case, "presign")]
    findings: list[Finding] = []
    verdict: Conclusion | None = None
    for name, denied in _checked(case):
        if name == "signature" and case.facts.connection:
            steps.append(describe(case, "canonical"))
        if denied is None:
            steps += [passed(case, name)] if case.is_asked(name) else []
            continue
        case.facts.step = name
        failed = replace(case, decision=denied)
        steps.append(step := refused(failed, name))
        verdict = verdict or _conclusion(failed, step)
        findings += diagnose(failed) if name == "signature" else beyond_the_signature(failed)
    case.facts.step = ""
    verdict = verdict or (Conclusion("unknown", detail=lack) if lack else Conclusion("good"))
    clean = tuple(without_signature(case, step) for step in steps if step is not None)
    claimed = claimed_in(case)._replace(key=says(case).get("policy", {}).get(TERMS["key"]))
    explanation = Explanation(verdict, claimed, clean, _shown(findings))
    return Held(explanation, says(case), unknown(case))


def _conclusion(case: Case, step: Step) -> Conclusion:
    """Return the refusal in the words of its step: those of the audit log are for an operator."""
    text = shown(step.text).removesuffix(".")
    return conclusion_of(case)._replace(detail=f"{text[:1].lower()}{text[1:]}")


def _checked(case: Case) -> Iterator[tuple[str, Refusal]]:
    """Yield each check that needs no configuration, and its refusal."""
    if isinstance(case.claim, Source):
        yield from _checked_source(case, case.claim)
    elif case.claim is not None:
        yield from _checked_presign(case, case.claim)


def _checked_source(case: Case, source: Source) -> Iterator[tuple[str, Refusal]]:
    claim = SourceClaim(case.registry, case.request, source, case.facts, case.now, gateway=case.gateway)
    claim.connection = case.registry.connections[source.project]
    claim.rules = claim.connection.source or SourceRules()
    for name, run, _ in SOURCE_CHECKS:
        if name not in _OF_THE_GATEWAY:
            yield name, _refusal(case, name, run, claim)


def _checked_presign(case: Case, presign: Presign) -> Iterator[tuple[str, Refusal]]:
    claim = PresignClaim(case.registry, case.request, presign, case.facts, case.now)
    claim.upstream = Upstream(case.request.origin)
    for name, run, _ in checks_of(presign):
        if name in _OF_THE_GATEWAY:
            continue
        denied = _refusal(case, name, run, claim)
        if name == "path" and denied is not None and not presign.gateway:
            denied = _below_a_base(case, run, claim) and _at_an_upstream(case, run, claim)
        yield name, denied
        if denied is not None and name in _NEEDED:
            return


def _refusal[Claim](case: Case, name: str, run: Callable[[Claim], None], claim: Claim) -> Refusal:
    known = case.facts.known
    if name == "signature" and (known is None or not known.keys.keys):
        return None  # no secret, no check
    try:
        run(claim)
    except Denied as denied:
        return denial(denied, "bare" if isinstance(case.claim, Source) else "json", case.facts)
    return None


def _at_an_upstream(case: Case, run: Callable[[PresignClaim], None], claim: PresignClaim) -> Refusal:
    """Check the path again, as one of each upstream that a pattern names: the host may be any of them."""
    known, denied = claim.connection, _refusal(case, "path", run, claim)
    nowhere, there = Upstream(Origin("https", "", 0)), case.request.origin
    for name in sorted({pattern(text).upstream for text in claim.paths} - {""}):
        reached = Reached(Upstream(there, name=name), NoCredential())
        claim.connection = replace(known, upstreams={"": Reached(nowhere, NoCredential()), name: reached})
        if _refusal(case, "path", run, claim) is None:
            return None
    claim.connection, case.facts.known = known, known
    return denied


def _below_a_base(case: Case, run: Callable[[PresignClaim], None], claim: PresignClaim) -> Refusal:
    """Check the path again, below each base path that the upstream may have. Patterns leave it out."""
    origin, segments = case.request.origin, claim.presign.path.split(b"/")
    for count in range(2, min(len(segments), _MOST_BASES + 2)):
        claim.upstream = Upstream(origin, b"/".join(segments[:count]))
        if _refusal(case, "path", run, claim) is None:
            return None
    claim.upstream = Upstream(origin)
    return _refusal(case, "path", run, claim)
