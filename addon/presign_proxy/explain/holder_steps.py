"""The texts of an explanation for a holder, as far as they differ from those for an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ..errors import Denied
from ..http.paths import canonical_path
from ..signing.carrier_names import TERMS
from ..signing.keys import signature_id
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from ..units import instant
from .case import Case
from .explanation import Step, listed, printable, shown
from .input.lenient import NAMES, Loose
from .policy_steps import terms_of
from .steps import describe, describe_refusal

_SHOWN: Final = 300
"""Most characters of one value."""


def passed(case: Case, name: str) -> Step | None:
    """Return a step that the request passes, or that cannot be checked; None if it says nothing."""
    own = _PASSED.get(name)
    return own(case) if own else describe(case, name)


def refused(case: Case, name: str) -> Step:
    """Return a step at which the request is refused."""
    own = _REFUSED.get(name)
    return own(case) if own else describe_refusal(case, name)


def fields_of(loose: Loose) -> tuple[str, ...]:
    """Return the fields of a presign that is not well-formed, as far as they can be read."""
    return tuple(
        f"{NAMES[field]}: {printable(value.text)[:_SHOWN]}"
        for field, values in loose.fields.items()
        if field != "signature"
        for value in values
    )


def _presign(case: Case) -> Step | None:
    step, claim = describe(case, "presign"), case.claim
    if step is None or not isinstance(claim, Presign):
        return step
    return step._replace(text=f"{step.text} Version {1 if claim.written is None else 2}.")


def _connection(case: Case) -> Step:
    named = case.facts.connection
    if not named:
        return Step("connection", "note", "It names no connection: the gateway finds it by the URL.")
    return Step("connection", "ok", f'"{named}"; only the gateway knows whether it exists.')


def _signature(case: Case) -> Step:
    if case.facts.verified:
        text = f"Made with the given secret. Its id: {case.facts.signature}."
        return Step("signature", "ok", text)
    if not case.facts.connection:
        text = "Not checked: the connection's id is signed, and it names none (--connection ID)."
        return Step("signature", "note", text)
    return Step("signature", "note", "Cannot be verified without the secret (--secret-env NAME).")


def _signature_refused(case: Case) -> Step:  # noqa: ARG001 - every describer takes the case
    return Step("signature", "refused", "The given secret did not make this signature, over these values.")


def _policy(case: Case) -> Step | None:
    step = describe(case, "policy")
    terms = terms_of(case)
    uses = "1 use" if terms.max_uses == 1 else f"{terms.max_uses} uses"
    more = [f"{uses} in all"] if terms.max_uses is not None else []
    more += [f"only from {listed(map(str, terms.clients))}"] if terms.clients else []
    return step._replace(lines=(*step.lines, *more)) if step else None


def _methods(case: Case) -> Step:
    if isinstance(case.claim, Source):
        return Step("methods", "ok", "A source can be read with GET and HEAD.")
    return Step("methods", "ok", f"{printable(case.facts.method)} is signed.")


def _methods_refused(case: Case) -> Step:
    step = describe_refusal(case, "methods")
    return step._replace(lines=tuple(line for line in step.lines if line.startswith("signed: ")))


def _path(case: Case) -> Step | None:
    step = describe(case, "path")
    if step is None:
        return step
    path = case.facts.path or ""
    if path.startswith("/@") and not case.gateway:
        name = path[1:].partition("/")[0]
        text = f"{step.text} That holds if {case.request.origin} is the upstream {name} of the connection."
        return step._replace(outcome="note", text=text)
    if not (base := _base_of(case)):
        return step
    text = f"{step.text} That holds if the API's paths begin at {base}."
    return step._replace(outcome="note", text=text)


def _base_of(case: Case) -> str:
    """Return the beginning of the URL's path that the signed pattern leaves out."""
    claim, below = case.claim, case.facts.path or ""
    if not isinstance(claim, Presign):
        return ""
    try:
        whole = canonical_path(claim.path, allow_encoded_slash=True).decode("ascii")
    except Denied:
        return ""
    return whole[: -len(below)] if below and whole.endswith(below) else ""


def _origin(case: Case) -> Step:
    return Step("origin", "ok", f"The source is {case.facts.path}.")


_PASSED: Final[dict[str, Callable[[Case], Step | None]]] = {
    "presign": _presign,
    "connection": _connection,
    "signature": _signature,
    "policy": _policy,
    "methods": _methods,
    "path": _path,
    "origin": _origin,
}
_REFUSED: Final[dict[str, Callable[[Case], Step]]] = {
    "signature": _signature_refused,
    "methods": _methods_refused,
}


def says(case: Case) -> dict[str, Any]:
    """Return what the presign says, for JSON; without its signature."""
    claim = case.claim
    if isinstance(claim, Source):
        own: dict[str, Any] = {"url": shown(claim.url), "format": claim.format}
        expires, scheme = int(claim.exp or "0") or 1, "source"
    elif claim is not None:
        own = {
            "version": 1 if claim.written is None else 2,
            "carrier": claim.carrier,
            "methods": claim.methods.split(","),
            "paths": shown(claim.paths).split(","),
            "policy": _written(claim),
        }
        expires, scheme = int(claim.expires), "presign"
    else:
        return {}
    return {
        "scheme": scheme,
        "connection": case.facts.connection,
        **own,
        "expires": expires,
        "expires_at": instant(expires) if expires else None,
        "expired": bool(expires) and case.now > expires,
        "signature_id": signature_id(claim.signature or ""),
    }


def _written(claim: Presign) -> dict[str, str]:
    """Return the fields of the signed policy, under the names that they have in headers."""
    written = claim.written._asdict() if claim.written is not None else {}
    return {TERMS[name]: shown(value) for name, value in written.items() if value}


def unknown(case: Case) -> tuple[str, ...]:
    """Return what cannot be said without the secret, and without the configuration."""
    return tuple(_unknown(case))


def _unknown(case: Case) -> Iterator[str]:
    claim, facts = case.claim, case.facts
    if not facts.verified and not (facts.known and facts.known.keys.keys):
        yield "whether the signature is right: that needs the signing secret"
    if isinstance(claim, Source):
        yield "whether the gateway has this project, and serves this source and format"
        yield "whether its key or the project is revoked"
        return
    yield "whether the gateway has this connection"
    yield "whether the URL, the key that signed it or the connection is revoked"
    yield "whether the connection itself allows this method, path and lifetime, and its limits another use"
    if isinstance(claim, Presign) and claim.written is not None and claim.written.max_uses:
        uses = claim.written.max_uses
        yield f"how many of the {uses} uses are left" if uses != "1" else "whether its only use is left"
    if isinstance(claim, Presign) and b"%2f" in claim.path.lower():
        yield "whether the connection admits %2F in a path (allow_encoded_slash)"
    if facts.method == "HEAD" and isinstance(claim, Presign) and "HEAD" not in claim.methods.split(","):
        yield "whether the connection takes HEAD for GET (head_as_get)"
