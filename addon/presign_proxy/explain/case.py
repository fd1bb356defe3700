"""A case: one request to explain, the decision on it, and the data for the explanation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..core.common_checks import Check
from ..core.connection import Connection
from ..core.decide import decide
from ..core.decision import Decision, Deny, Facts, Forward
from ..core.presign_checks import PRESIGN_CHECKS, checks_of
from ..core.recognise import Form, form_of, recognise
from ..core.registry import Registry
from ..core.source_checks import SOURCE_CHECKS
from ..errors import Denied
from ..http.message import Head, Request, head_of
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from .literal_address import judged
from .provenance import message_of


def _steps(checks: Iterable[Check[Any]]) -> Iterator[str]:
    """Yield the steps of an explanation: the gateway's checks, and what comes before and after them."""
    yield from ("address", "presign", "grammar")
    for check in checks:
        if check.name == "signature":
            yield "canonical"
        yield check.name
    yield from ("limits", "forward")


_TERMS: Final = {"not_before": "not_before", "client": "client", "body": "max_body"}
"""Steps that exist only if the signed policy has the field."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request and the decision on it.

    `claim` is None if the request carries no well-formed presign. `facts` is empty for a request that passes
    through.
    """

    registry: Registry
    request: Request
    now: int
    decision: Decision
    head: Head
    form: Form
    claim: Presign | Source | None
    facts: Facts

    @property
    def gateway(self) -> bool:
        """True if the request is addressed to the gateway itself."""
        return self.form.gateway

    @property
    def connection(self) -> Connection | None:
        """The connection against which the gateway checked the request, also with a bad signature."""
        if isinstance(self.claim, Source):
            return self.registry.get(self.claim.project, "source")
        found, known = self.registry.connections.get(self.facts.connection or ""), self.facts.known
        # The gateway may have led it to another of its upstreams.
        return found and (known if known is not None and known.upstreams else found)

    @property
    def detail(self) -> str:
        return self.decision.detail if isinstance(self.decision, Deny) else ""

    @property
    def why(self) -> str:
        """The reason for the audit log, as a sentence."""
        return f"{self.detail[:1].upper()}{self.detail[1:]}."

    @property
    def message(self) -> bytes | None:
        """The canonical string of the claim; None if there is none."""
        return None if self.claim is None else message_of(self.claim, self.facts.connection or "")

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that this request went through, or would have gone through."""
        if not isinstance(self.claim, Source):
            # Without a claim, an explanation ends before the checks.
            checks = checks_of(self.claim) if self.claim is not None else PRESIGN_CHECKS
            return tuple(step for step in _steps(checks) if self.is_asked(step))
        unsigned = () if self.claim.signature is not None else ("canonical", "signature", "expiry")
        return tuple(step for step in _steps(SOURCE_CHECKS) if step not in unsigned and self.is_asked(step))

    def is_asked(self, step: str) -> bool:
        """Return whether there is anything to ask at this step."""
        if step == "limits":
            return isinstance(self.decision, Forward) and bool(self.decision.counters)
        if step in _TERMS:
            written = self.claim.written if isinstance(self.claim, Presign) else None
            return written is not None and bool(getattr(written, _TERMS[step]))
        return True


def open_case(registry: Registry, request: Request, now: int) -> Case:
    """Decide on a request as the gateway does, and keep the data that explains the decision."""
    decision = judged(decide(registry, request, now, "req_explain"))
    head, form = head_of(request), form_of(registry, request)
    try:
        claim = recognise(registry, request, head, form)
    except Denied:
        claim = None
    facts = decision.facts if isinstance(decision, Deny | Forward) else Facts("req_explain")
    return Case(registry, request, now, decision, head, form, claim, facts)


def refused_at(case: Case) -> str:
    """Return the step at which the decision says no; empty where it does not. Nothing is decided again.

    The decision names the check that failed. Where it names none, the request was refused before the checks
    or after them: its claim was not recognised, its grammar is wrong, or it cannot be sent on.
    """
    decision, facts = case.decision, case.facts
    if not isinstance(decision, Deny):
        return ""
    if decision.code == "not_found" and not (case.gateway and facts.step):
        return "address"  # at another name than the gateway's, whatever check failed
    if facts.step:
        return facts.step
    if case.claim is None:
        return "presign"
    return "forward" if facts.path is not None else "grammar"
