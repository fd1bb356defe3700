"""One request under explanation: what the gateway decided, and what it had in hand when it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..core.connection import Connection
from ..core.decide import decide
from ..core.decision import Decision, Deny, Facts, Forward
from ..core.recognise import is_gateway, recognise
from ..core.registry import Registry
from ..errors import Denied, Malformed
from ..http.hosts import parse_authority
from ..http.message import Head, Request, head_of
from ..signing.grammar import parse_list
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import parse as parse_terms
from ..signing.source_scheme import Source
from .provenance import message_of

PRESIGN_STEPS: Final = (
    *("address", "presign", "grammar", "connection", "canonical", "signature", "lists", "policy"),
    *("not_before", "expiry", "revocation", "lifetime", "slot", "client", "methods", "path", "host", "body"),
    *("limits", "forward"),
)
SOURCE_STEPS: Final = (
    *("address", "presign", "grammar", "project", "canonical", "signature", "expiry", "revocation"),
    *("origin", "format", "methods", "host", "limits", "forward"),
)
"""The questions of the gateway, in its order."""

_TERMS: Final = {"not_before": "not_before", "client": "client", "body": "max_body"}
"""Questions that are asked where the signed policy has that field."""

_BY_CODE: Final = {
    "unsigned": "presign",
    "too_large": "grammar",
    "invalid": "signature",
    "not_yet_valid": "not_before",
    "expired": "expiry",
    "revoked": "revocation",
    "lifetime_too_long": "lifetime",
    "no_expiry_not_allowed": "lifetime",
    "method_not_allowed": "methods",
    "path_not_allowed": "path",
    "host_mismatch": "host",
    "client_not_allowed": "client",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A request and the decision on it. `claim` is None where it carries no presign or no well-formed one;
    `facts` is empty for a request that passes through.
    """

    registry: Registry
    request: Request
    now: int
    decision: Decision
    head: Head
    gateway: bool
    claim: Presign | Source | None
    facts: Facts

    @property
    def connection(self) -> Connection | None:
        """The connection the gateway held the request against, whether or not the signature was good."""
        if isinstance(self.claim, Source):
            return self.registry.get(self.claim.project, "source")
        return self.registry.connections.get(self.facts.connection or "")

    @property
    def detail(self) -> str:
        return self.decision.detail if isinstance(self.decision, Deny) else ""

    @property
    def why(self) -> str:
        """The reason that goes into the audit log, as a sentence."""
        return f"{self.detail[:1].upper()}{self.detail[1:]}."

    @property
    def message(self) -> bytes | None:
        """The canonical string of the claim; None where there is none."""
        return None if self.claim is None else message_of(self.claim, self.facts.connection or "")

    @property
    def steps(self) -> tuple[str, ...]:
        """The questions that this request was asked or would have been."""
        if not isinstance(self.claim, Source):
            return tuple(step for step in PRESIGN_STEPS if self._is_asked(step))
        unsigned = () if self.claim.signature is not None else ("canonical", "signature", "expiry")
        return tuple(step for step in SOURCE_STEPS if step not in unsigned and self._is_asked(step))

    def _is_asked(self, step: str) -> bool:
        if step == "limits":
            return isinstance(self.decision, Forward) and bool(self.decision.counters)
        claim = self.claim if isinstance(self.claim, Presign) else None
        if step == "slot":
            return claim is not None and bool(claim.slots)
        written = claim.written if claim is not None else None
        if step in _TERMS:
            return written is not None and bool(getattr(written, _TERMS[step]))
        return step != "policy" or written is not None


def open_case(registry: Registry, request: Request, now: int) -> Case:
    """Decide on a request as the gateway does, and keep what is needed to tell why."""
    decision = decide(registry, request, now, "req_explain")
    head, gateway = head_of(request), is_gateway(registry, request)
    try:
        claim = recognise(registry, request, head, gateway=gateway)
    except Denied:
        claim = None
    facts = decision.facts if isinstance(decision, Deny | Forward) else Facts("req_explain")
    return Case(registry, request, now, decision, head, gateway, claim, facts)


def refused_at(case: Case) -> str:
    """The step at which the decision says no, empty where it does not. Nothing is decided again here: the
    code, and how far the facts were filled, tell the step.
    """
    decision, facts = case.decision, case.facts
    if not isinstance(decision, Deny):
        return ""
    if decision.code == "not_found":
        return "path" if case.gateway and case.claim is not None else "address"
    if case.claim is None:
        return "presign"
    if decision.code == "malformed":
        return _malformed_at(case) if facts.verified else _unverified_malformed_at(case)
    if decision.code == "too_large" and facts.verified:
        return "body"
    if decision.code == "invalid" and isinstance(case.claim, Source):
        return _source_invalid_at(case.claim, facts)
    return _BY_CODE.get(decision.code, "forward")


def _unverified_malformed_at(case: Case) -> str:
    """An allowlist URL verifies nothing, so all of its steps come without a good signature."""
    plain = isinstance(case.claim, Source) and case.claim.signature is None
    return _malformed_at(case) if plain and case.facts.path is not None else "grammar"


def _malformed_at(case: Case) -> str:
    claim = case.claim
    if isinstance(claim, Presign):
        try:
            parse_list(claim.methods, "methods")
            parse_list(claim.paths, "paths")
        except Malformed:
            return "lists"
        try:
            _ = claim.written and parse_terms(claim.written)
        except Malformed:
            return "policy"
        if case.facts.path is None:
            return "slot"
    names = (parse_authority(name, case.request.origin.scheme) for _, name in case.request.names)
    return "host" if None in names else "forward"


def _source_invalid_at(claim: Source, facts: Facts) -> str:
    if claim.signature is not None and not facts.verified:
        return "signature"
    if facts.connection is None:
        return "project"
    return "origin" if facts.path is None else "format"
