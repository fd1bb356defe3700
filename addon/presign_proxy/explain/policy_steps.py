"""The texts of the steps of a signed policy (version 2). Nothing is decided here: see `case`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..http.client_address import client_of
from ..signing.carrier_names import TERMS
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import NO_TERMS, Terms, parse
from ..units import in_words, instant
from .case import Case
from .explanation import Step, printable

Describer = Callable[[Case], Step | None]


def terms_of(case: Case) -> Terms:
    """Return the terms of a claim with a good signature and a well-formed policy."""
    claim = case.claim
    return parse(claim.written) if isinstance(claim, Presign) and claim.written else NO_TERMS


def _policy(case: Case) -> Step:
    claim = case.claim
    written = claim.written if isinstance(claim, Presign) else None
    named = [TERMS[name] for name, value in (written._asdict() if written else {}).items() if value]
    terms = terms_of(case)
    lines = [f"Only key {terms.key} may have signed it."] if terms.key else []
    lines += [f"Its signer named it {terms.id}."] if terms.id else []
    return Step("policy", "ok", f"Version 2, with {', '.join(named)}.", tuple(lines))


def _not_before(case: Case) -> Step | None:
    begun = terms_of(case).not_before
    if begun is None:
        return None
    return Step("not_before", "ok", f"Valid since {instant(begun)}.")


def _not_before_refused(case: Case) -> Step:
    begun = terms_of(case).not_before or 0
    text = f"It becomes valid in {in_words(begun - case.now)}, at {instant(begun)}."
    return Step("not_before", "refused", text)


def _client(case: Case) -> Step | None:
    if not terms_of(case).clients:
        return None
    return Step("client", "ok", f"{_address(case)} is in one of the signed networks.")


def _client_refused(case: Case) -> Step:
    networks = ", ".join(map(str, terms_of(case).clients))
    lines = [f"signed: {networks}"]
    if case.request.client != _address(case):
        lines.append(f"the connection comes from {printable(case.request.client)}, a trusted proxy")
    return Step("client", "refused", f"{_address(case)} is in none of the signed networks.", tuple(lines))


def _address(case: Case) -> str:
    request = case.request
    address = client_of(request, case.registry.trusted_proxies)
    return "An unknown address" if address is None else str(address)


def _body(case: Case) -> Step | None:
    most = terms_of(case).max_body
    if most is None:
        return None
    return Step("body", "ok", f"At most {most} bytes; a body without a length is cut off at the limit.")


PASSED: Final[dict[str, Describer]] = {
    "policy": _policy,
    "not_before": _not_before,
    "client": _client,
    "body": _body,
}
REFUSED: Final[dict[str, Callable[[Case], Step]]] = {
    "not_before": _not_before_refused,
    "client": _client_refused,
}
