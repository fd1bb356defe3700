"""Explanation of a request for the operator: what the gateway would do, step by step, and why. Offline.

The verdict is the decision of `core.decide`, and for a literal address that of `http.networks`. The steps and
findings only describe it.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from ..core.answers import refusal
from ..core.credentials import NoCredential, Outgoing
from ..core.decision import PASS, Deny, Forward, Preflight
from ..core.oauth2 import MintedSecret
from ..core.registry import Registry
from ..core.registry_token import RegistryTokenRequest
from ..core.strip_list import nominated
from ..errors import MESSAGE
from ..http.message import Request
from ..signing.keys import signature_id
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from . import stripped_headers
from .case import Case, open_case, refused_at
from .diagnosis import diagnose
from .explanation import Claimed, Conclusion, Explanation, Finding, Leaving, Step, shown
from .steps import describe, describe_refusal

_UNSIGNED: Final = (
    "mitmdump passes it on as it is, without any credential (unsigned: pass); `presign serve` answers 403"
    " unsigned, unless gateway.unsigned and --unsigned both say pass"
)


def explain(registry: Registry, request: Request, now: int) -> Explanation:
    """Explain what the gateway would do with a request, and why. Never raises.

    Args:
        registry: its connections may lack their credentials, because only placeholders are shown.
        now: Unix time, whole seconds.
    """
    case = open_case(registry, request, now)
    leaving = _leaving(case, case.decision) if isinstance(case.decision, Forward) else None
    return Explanation(
        conclusion_of(case),
        claimed_in(case),
        tuple(without_signature(case, step) for step in _steps(case, leaving)),
        tuple(Finding(finding.name, shown(finding.text)) for finding in diagnose(case)),
        leaving,
    )


def conclusion_of(case: Case) -> Conclusion:
    """Return the decision on a case as data."""
    decision = case.decision
    if isinstance(decision, Forward):
        return Conclusion("forward", credential=not isinstance(decision.connection.injector, NoCredential))
    if isinstance(decision, Preflight):
        return Conclusion("preflight")
    if not isinstance(decision, Deny):
        return Conclusion("pass", detail=_UNSIGNED if decision is PASS else None)
    status = refusal(decision.code, decision.request_id, decision.style, decision.status).status
    message = (decision.sentence or MESSAGE[decision.code]) if decision.style != "bare" else ""
    return Conclusion("deny", status, decision.code, shown(decision.detail), message)


def claimed_in(case: Case) -> Claimed:
    """Return what was recognised of the presign."""
    claim, facts = case.claim, case.facts
    if isinstance(claim, Presign):
        named = facts.connection or claim.connection_id
        signature = signature_id(claim.signature)
        return Claimed("presign", claim.carrier, named, facts.key, signature, int(claim.expires))
    if isinstance(claim, Source):
        signed = claim.signature is not None
        return Claimed(
            "source",
            "query" if signed else "path",
            claim.project,
            facts.key,
            signature_id(claim.signature) if claim.signature is not None else None,
            int(claim.exp or "0") if signed else None,
        )
    return Claimed()


def _steps(case: Case, leaving: Leaving | None) -> list[Step]:
    """Return the steps up to the refusal, or all of them."""
    refused = refused_at(case)
    steps: list[Step] = []
    for name in case.steps:
        if name == refused:
            return [*steps, describe_refusal(case, name)]
        if name == "grammar" and case.claim is None:
            return steps
        if step := describe(case, name):
            steps.append(step)
    if leaving is not None:
        steps.append(_forward_step(case, leaving))
    return steps


def _forward_step(case: Case, leaving: Leaving) -> Step:
    lines = [
        f"stripped: {', '.join(leaving.stripped) or 'nothing'}",
        *_taken_off(case),
        *(f"added: {one}" for one in leaving.added),
        *_tokens(case),
    ]
    return Step("forward", "ok", f"{leaving.method} {leaving.url}", tuple(lines))


def _tokens(case: Case) -> tuple[str, ...]:
    """Return a line that says for what a registry's token service is asked."""
    late = case.decision.connection.late if isinstance(case.decision, Forward) else ()
    asked = [one.request for one in late if isinstance(one, MintedSecret)]
    return tuple(
        [
            f"token: from {one.origin}, for {one.scope or 'no repository'}"
            for one in asked
            if isinstance(one, RegistryTokenRequest)
        ]
    )


def _taken_off(case: Case) -> tuple[str, ...]:
    """Return lines that say why headers of the client are not forwarded."""
    decision, fields = case.decision, case.request.fields
    if not isinstance(decision, Forward):
        return ()
    gone = Counter(fields) - Counter(decision.plain.fields)
    names = [name for name, _ in gone if name.lower() != b"host"]
    return stripped_headers.reasons(names, nominated(fields), decision.connection)


def _leaving(case: Case, forward: Forward) -> Leaving:
    """Return the outgoing request. Made from `Forward.shown`, never from `Forward.sent`."""
    outgoing, request = forward.shown, case.request
    query = b"" if outgoing.query is None else b"?" + outgoing.query
    url = f"{forward.origin}{(outgoing.path + query).decode('ascii', 'replace')}"
    added = Counter(outgoing.fields) - Counter(request.fields)
    return Leaving(
        case.facts.method,
        shown(url),
        tuple(shown(_text(name)) for name, _ in outgoing.fields),
        _stripped(request, forward.plain),
        tuple(shown(_text(name + b": " + value)) for name, value in added),
    )


def _stripped(request: Request, plain: Outgoing) -> tuple[str, ...]:
    """Return the names of the header fields and query parameters that are not forwarded."""
    fields = Counter(request.fields) - Counter(plain.fields)
    pieces = Counter((request.query or b"").split(b"&")) - Counter((plain.query or b"").split(b"&"))
    parameters = [piece.partition(b"=")[0] for piece in pieces if piece]
    headers = [name for name, _ in fields if name.lower() != b"host"]  # replaced, not taken off
    return tuple(shown(_text(name)) for name in headers + parameters)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def without_signature(case: Case, step: Step) -> Step:
    """Return the step without the signature.

    In the canonical string, only the signature itself is cut: other text may look like a signature.
    """
    if step.name != "canonical":
        return step._replace(text=shown(step.text), lines=tuple(map(shown, step.lines)))
    signature = case.claim.signature if case.claim is not None else None
    if not signature:
        return step
    return step._replace(lines=tuple(line.replace(signature, f"{signature[:8]}…") for line in step.lines))
