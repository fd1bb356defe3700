"""The texts of the steps of the gateway's decision. Nothing is decided here: see `case`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..signing.key_token import PLAIN_KEY, SUBPROTOCOL, TokenSlot
from ..signing.keys import SigningKey
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import PolicyText
from ..signing.source_scheme import Source
from ..units import in_words, instant
from . import connection_steps, limit_steps, path_steps, policy_steps
from .case import Case
from .explanation import Step, listed, printable

_CARRIERS: Final = {
    "query": "the query, as X-Presign-* parameters",
    "header": "the header, as X-Presign-* fields",
    "path": "the path, as a token (/p/{token}/{path})",
}


def describe(case: Case, name: str) -> Step | None:
    """Return a step that the request passes; None if there is nothing to say about it."""
    describer = _PASSED.get(name)
    return describer(case) if describer else None


def describe_refusal(case: Case, name: str) -> Step:
    """Return the step at which the request is refused."""
    describer = _REFUSED.get(name)
    if describer is None:
        return Step(name, "refused", case.why)
    return describer(case)


def _address(case: Case) -> Step:
    origin, names = case.request.origin, _own_names(case)
    if case.gateway and case.request.listener is not None and origin.host not in case.registry.hosts:
        text = f"{origin} is the gateway itself if it listens on port {origin.port}."
        behind = f"Where that port is published or forwarded, list {origin.host} under gateway.hosts."
        return Step("address", "note", text, (names, behind))
    if case.gateway:
        return Step("address", "ok", f"{origin} is the gateway itself.")
    leads = case.registry.leads_to(origin.host, origin.port)
    second = case.registry.second_host(origin.host, origin.port) is not None
    whose = "a second host of a connection (also)" if second else "no upstream of any connection"
    if leads:
        whose = "the API's own host: the request comes through the proxy"
    return Step("address", "ok" if leads else "note", f"{origin} is {whose}.", (names,))


def _own_names(case: Case) -> str:
    return f"The gateway's own names: {listed(sorted(case.registry.hosts)) or 'none'}."


def _address_refused(case: Case) -> Step:
    if not case.gateway:
        text = (
            f"{case.request.origin} is not one of the gateway's names, but the path has the gateway's form."
        )
        return Step("address", "refused", text, (_own_names(case),))
    if case.facts.step == "address":
        return Step("address", "refused", case.why)
    forms = ("/api/proxy/{connectionId}/{path}", "/p/{token}/{path}", "/v1/{projectKey}/{source}.{format}")
    return Step("address", "refused", f"{case.why} The forms are:", forms)


def _presign(case: Case) -> Step:
    claim = case.claim
    if claim is None:
        return Step("presign", "note", "It carries no part of a presign, so the gateway does not handle it.")
    if isinstance(claim, Source):
        how = "in plain text (allowlist mode)" if claim.signature is None else "signed with sig and exp"
        where = "a source URL in the path" if claim.format is not None else "the URL itself"
        return Step("presign", "ok", f"Scheme source: {where}, {how}.")
    if not claim.slots:
        return Step("presign", "ok", f"Scheme presign, carried by {_CARRIERS[claim.carrier]}.")
    places = " and ".join(map(_place_of, claim.slots))
    return Step("presign", "ok", f"Scheme presign, carried as a token in place of the API key, in {places}.")


def _place_of(slot: TokenSlot) -> str:
    if slot == TokenSlot("header", SUBPROTOCOL):
        return f"the subprotocol {PLAIN_KEY.decode()}… of a WebSocket"
    kind = {"header": "the header", "param": "the query parameter"}[slot.kind]
    return f"{kind} {printable(slot.name.decode('utf-8', 'replace'))}"


def _grammar(case: Case) -> Step:  # noqa: ARG001
    return Step("grammar", "ok", "Request line and header are well-formed.")


def _canonical(case: Case) -> Step:
    message = (case.message or b"").decode("utf-8", "replace")
    if isinstance(case.claim, Source):
        return Step("canonical", "ok", "What is signed, without a newline at its end:", (printable(message),))
    lines = message.split("\n")
    shown = (*(f"{printable(line)}⏎" for line in lines[:-1]), printable(lines[-1]))
    return Step("canonical", "ok", f"What is signed, {len(lines)} lines without a newline at the end:", shown)


def _signature(case: Case) -> Step:
    known = case.connection
    keys = known.keys.keys if known else ()
    made = next((key for key in keys if key.id == case.facts.key), None)
    until = f", good until {instant(made.not_after)}" if made and made.not_after is not None else ""
    return Step("signature", "ok", f"Made with key {case.facts.key}{until}. Its id: {case.facts.signature}.")


def _signature_refused(case: Case) -> Step:
    known = case.connection
    keys = known.keys.keys if known else ()
    written = case.claim.written if isinstance(case.claim, Presign) else None
    tried = tuple(f"key {key.id}: {_why_not(key, written, case.now)}" for key in keys)
    return Step("signature", "refused", case.why, tried)


def _why_not(key: SigningKey, written: PolicyText | None, now: int) -> str:
    if written is not None and written.key not in ("", key.id):
        return f"the presign names another one, {printable(written.key)}"
    return "does not match" if key.is_live(now) else f"past its not_after, {instant(key.not_after or 0)}"


def _lists(case: Case) -> Step | None:
    claim = case.claim
    if not isinstance(claim, Presign):
        return None
    return Step("lists", "ok", f"Methods {claim.methods}; paths {claim.paths}.")


def _expires(case: Case) -> int:
    if isinstance(case.claim, Presign):
        return int(case.claim.expires)
    # In scheme source, exp=0 does not mean "never": it is long past.
    return int(case.claim.exp or "0") or 1 if case.claim is not None else 0


def _expiry(case: Case) -> Step:
    expires = _expires(case)
    if expires == 0:
        return Step("expiry", "note", "It never expires (expires is 0).")
    return Step("expiry", "ok", f"{in_words(expires - case.now)} left, until {instant(expires)}.")


def _expiry_refused(case: Case) -> Step:
    expires = _expires(case)
    return Step("expiry", "refused", f"It expired {in_words(case.now - expires)} ago, at {instant(expires)}.")


def _revocation(case: Case) -> Step:  # noqa: ARG001 - every describer takes the case
    return Step("revocation", "ok", "Neither the URL, nor its key, nor the connection is revoked.")


def _lifetime(case: Case) -> Step:
    known = case.connection
    most = known.ceiling.max_lifetime if known else None
    if most is None:
        return Step("lifetime", "ok", "The connection sets no max_lifetime.")
    return Step("lifetime", "ok", f"The connection allows {in_words(most)} at most.")


def _slot(case: Case) -> Step:  # noqa: ARG001
    return Step("slot", "ok", "The token is in the place of the credential.")


def _host(case: Case) -> Step:
    names = listed(f"{kind} {name}" for kind, name in case.request.names) or "no name"
    return Step("host", "ok", f"It agrees with where the request is addressed: {printable(names)}.")


def _host_refused(case: Case) -> Step:
    known = case.connection
    upstream = known.upstream if known else None
    lines = [f"addressed to: {case.request.origin}"]
    lines += [f"{kind}: {printable(name)}" for kind, name in case.request.names]
    if upstream and not case.gateway:
        lines.append(f"the upstream: {upstream.origin}")
    return Step("host", "refused", case.why, tuple(lines))


Describer = Callable[[Case], Step | None]

_PASSED: Final[dict[str, Describer]] = {
    "address": _address,
    "presign": _presign,
    "grammar": _grammar,
    "canonical": _canonical,
    "signature": _signature,
    "lists": _lists,
    "expiry": _expiry,
    "revocation": _revocation,
    "lifetime": _lifetime,
    "slot": _slot,
    "host": _host,
    "limits": limit_steps.limits,
    **connection_steps.PASSED,
    **path_steps.PASSED,
    **policy_steps.PASSED,
}
_REFUSED: Final[dict[str, Callable[[Case], Step]]] = {
    "address": _address_refused,
    "signature": _signature_refused,
    "expiry": _expiry_refused,
    "host": _host_refused,
    **connection_steps.REFUSED,
    **path_steps.REFUSED,
    **policy_steps.REFUSED,
}
