"""What each step of the gateway says of a request, in words. Nothing is decided here: see `case`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from ..core.connection import Connection
from ..errors import Denied
from ..http.paths import Pattern, pattern, units
from ..likeness import alike
from ..signing.grammar import ANY, parse_list
from ..signing.keys import SigningKey
from ..signing.presign_scheme import Presign
from ..signing.signed_policy import Written
from ..signing.source_scheme import Source
from ..signing.source_url import parse_url
from . import limit_steps, policy_steps
from .case import Case
from .closest_path import closest
from .explanation import Outcome, Step, moment, printable, span

_MANY: Final = 5000
"""Connections among which a similar name is looked for."""

_CARRIERS: Final = {
    "query": "the query, as X-Presign-* parameters",
    "header": "the header, as X-Presign-* fields",
    "path": "the path, as a token (/p/{token}/{path})",
}


def told(case: Case, name: str) -> Step | None:
    """The step where the request passes it; None where it has nothing to say."""
    teller = _TELLERS.get(name)
    return teller(case) if teller else None


def told_refused(case: Case, name: str) -> Step:
    """The step at which the request is refused."""
    teller = _REFUSALS.get(name)
    if teller is None:
        return Step(name, "refused", _why(case))
    return teller(case)


def _why(case: Case) -> str:
    """The reason that goes into the audit log, as a sentence."""
    return f"{case.detail[:1].upper()}{case.detail[1:]}."


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
    return f"The gateway's own names: {_listed(sorted(case.registry.hosts)) or 'none'}."


def _address_refused(case: Case) -> Step:
    if not case.gateway:
        text = (
            f"{case.request.origin} is none of the gateway's names, though the path has the gateway's form."
        )
        return Step("address", "refused", text, (_own_names(case),))
    forms = ("/api/proxy/{connectionId}/{path}", "/p/{token}/{path}", "/v1/{projectKey}/{source}.{format}")
    return Step("address", "refused", f"{_why(case)} The forms are:", forms)


def _presign(case: Case) -> Step:
    claim = case.claim
    if claim is None:
        return Step("presign", "note", "It carries no part of a presign, so it is none of ours.")
    if isinstance(claim, Source):
        how = "in plain text (allowlist mode)" if claim.signature is None else "signed with sig and exp"
        where = "a source URL of its own" if claim.format is not None else "the URL itself"
        return Step("presign", "ok", f"Scheme source: {where}, {how}.")
    if not claim.slots:
        return Step("presign", "ok", f"Scheme presign, carried by {_CARRIERS[claim.carrier]}.")
    kinds = {"header": "the header", "param": "the query parameter"}
    places = " and ".join(
        f"{kinds[kind]} {printable(name.decode('utf-8', 'replace'))}" for kind, name in claim.slots
    )
    return Step("presign", "ok", f"Scheme presign, carried as a token in place of the API key, in {places}.")


def _grammar(case: Case) -> Step:  # noqa: ARG001
    return Step("grammar", "ok", "Request line and header are well-formed.")


def _connection(case: Case) -> Step:
    claim, known = case.claim, case.connection
    named = claim.connection_id if isinstance(claim, Presign) else None
    if known is None:
        return Step("connection", "note", _unknown(case, named))
    upstream = known.upstream
    to = f", upstream {upstream.origin}{upstream.base.decode('ascii')}" if upstream else ""
    how = "" if named else ", the only one whose upstream this URL reaches"
    return Step("connection", *_state(known, f'"{known.id}"{how}{to}'))


def _unknown(case: Case, named: str | None) -> str:
    if named is None:
        return (
            f"None is named, and not exactly one connection has an upstream that {case.request.origin} and "
            "this path reach: name it with X-Presign-Connection."
        )
    other = case.registry.connections.get(named)
    if other is not None:
        return f'"{named}" is a project of scheme source, which has another form of URL.'
    return f'There is no connection "{named}".{_similar(case, named)}'


def _similar(case: Case, named: str) -> str:
    source = isinstance(case.claim, Source)
    known = islice(case.registry.connections.values(), _MANY)
    ids = [one.id for one in known if (one.source is not None) == source]
    if found := alike(named, ids):
        return f" Similar names: {_listed(found)}."
    return (
        f" There are: {_listed(ids[:8])}{', …' if len(ids) > 8 else ''}." if ids else " There is none at all."
    )


def _state(known: Connection, what: str) -> tuple[Outcome, str]:
    # Refused later, after the signature, so that only its holder learns of it.
    if known.revoked:
        return "note", f"{what}; it is revoked."
    if not known.enabled:
        return "note", f"{what}; it is disabled."
    count = len(known.keys.keys)
    return "ok", f"{what}; enabled, {count} signing key{'' if count == 1 else 's'}."


def _project(case: Case) -> Step:
    claim, known = case.claim, case.connection
    if not isinstance(claim, Source) or known is None or known.source is None:
        named = claim.project if isinstance(claim, Source) else ""
        return Step("project", "note", f'There is no project "{printable(named)}".{_similar(case, named)}')
    rules = known.source
    mode = "signed" if rules.signed else "allowlist"
    lines = (
        f"origins: {_listed(map(str, rules.origins)) or 'any public one'}",
        f"formats: {_listed(sorted(rules.formats)) or 'none'}",
    )
    if rules.signed != (claim.signature is not None):
        text = f'"{known.id}" is in {mode} mode, which takes no URL of this kind.'
        return Step("project", "note", text, lines)
    return Step("project", *_state(known, f'"{known.id}" in {mode} mode'), lines)


def _project_refused(case: Case) -> Step:
    step = _project(case)
    return step._replace(outcome="refused")


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
    until = f", good until {moment(made.not_after)}" if made and made.not_after is not None else ""
    return Step("signature", "ok", f"Made with key {case.facts.key}{until}. Its id: {case.facts.signature}.")


def _signature_refused(case: Case) -> Step:
    known = case.connection
    keys = known.keys.keys if known else ()
    written = case.claim.written if isinstance(case.claim, Presign) else None
    tried = tuple(f"key {key.id}: {_why_not(key, written, case.now)}" for key in keys)
    return Step("signature", "refused", _why(case), tried)


def _why_not(key: SigningKey, written: Written | None, now: int) -> str:
    if written is not None and written.key not in ("", key.id):
        return f"the presign names another one, {printable(written.key)}"
    return "does not match" if key.is_live(now) else f"past its not_after, {moment(key.not_after or 0)}"


def _lists(case: Case) -> Step | None:
    claim = case.claim
    if not isinstance(claim, Presign):
        return None
    return Step("lists", "ok", f"Methods {claim.methods}; paths {claim.paths}.")


def _expires(case: Case) -> int:
    if isinstance(case.claim, Presign):
        return int(case.claim.expires)
    # exp=0 of scheme source is not "never" but long past.
    return int(case.claim.exp or "0") or 1 if case.claim is not None else 0


def _expiry(case: Case) -> Step:
    expires = _expires(case)
    if expires == 0:
        return Step("expiry", "note", "It never expires (expires is 0).")
    return Step("expiry", "ok", f"{span(expires - case.now)} left, until {moment(expires)}.")


def _expiry_refused(case: Case) -> Step:
    expires = _expires(case)
    return Step("expiry", "refused", f"It expired {span(case.now - expires)} ago, at {moment(expires)}.")


def _revocation(case: Case) -> Step:  # noqa: ARG001 - every teller takes the case
    return Step("revocation", "ok", "Neither the URL, nor its key, nor the connection is revoked.")


def _lifetime(case: Case) -> Step:
    known = case.connection
    most = known.ceiling.max_lifetime if known else None
    if most is None:
        return Step("lifetime", "ok", "The connection sets no max_lifetime.")
    return Step("lifetime", "ok", f"The connection allows {span(most)} at most.")


def _slot(case: Case) -> Step:  # noqa: ARG001
    return Step("slot", "ok", "The token stands where the credential will go.")


def _methods(case: Case) -> Step:
    return Step("methods", "ok", f"{case.facts.method} is signed and allowed by the connection.")


def _methods_refused(case: Case) -> Step:
    lines = []
    if isinstance(case.claim, Presign):
        lines.append(f"signed: {case.claim.methods}")
    if known := case.connection:
        lines.append(f"the connection allows: {','.join(known.ceiling.methods)}")
    return Step("methods", "refused", f"{printable(case.facts.method)}: {case.detail}.", tuple(lines))


def _patterns(case: Case) -> tuple[list[Pattern], tuple[Pattern, ...], str]:
    """Signed patterns, the connection's, and the units they are matched on."""
    claim, known = case.claim, case.connection
    paths = claim.paths if isinstance(claim, Presign) else ""
    signed = [pattern(text) for text in parse_list(paths, "paths")]
    allowed = known.ceiling.paths if known else ()
    return signed, allowed, units((case.facts.path or "").encode("ascii")).removeprefix("/")


def _path(case: Case) -> Step:
    signed, allowed, path = _patterns(case)
    by = next((one.text for one in signed if one.matches(path)), "")
    ceiling = next((one.text for one in allowed if one.matches(path)), "")
    own = "" if (ceiling,) == ANY else f', and the connection\'s own "{ceiling}"'
    return Step("path", "ok", f'{case.facts.path} matches the signed "{by}"{own}.', _respelled(case))


def _respelled(case: Case) -> tuple[str, ...]:
    """What canonicalising changed, if it did."""
    claim = case.claim
    received = claim.path.decode("utf-8", "replace") if isinstance(claim, Presign) else ""
    if not case.gateway or received == case.facts.path:
        return ()
    return (f"received as {printable(received)}",)


def _path_refused(case: Case) -> Step:
    if case.facts.path is None:
        return Step("path", "refused", _why(case))
    signed, allowed, path = _patterns(case)
    whose, patterns = "signed pattern", tuple(signed)
    if any(one.matches(path) for one in signed):
        whose, patterns = "pattern of the connection itself", allowed
    if any(one.matches_as_sent(path) for one in patterns):
        text = f"No {whose} matches {case.facts.path} in every way in which an upstream may read it."
        return Step("path", "refused", text, ("; %3B %3F %23 may end the path, or a segment, earlier.",))
    near = closest(patterns, path)
    lines = () if near is None else (f"Closest: {near}.",)
    return Step("path", "refused", f"No {whose} matches {case.facts.path}.", lines)


def _origin(case: Case) -> Step:
    return Step("origin", "ok", f"The source {case.facts.path} is on an allowed origin.")


def _origin_refused(case: Case) -> Step:
    claim, known = case.claim, case.connection
    origins = known.source.origins if known and known.source else ()
    where = _origin_of(claim.url) if isinstance(claim, Source) else ""
    lines = (f"the source is on: {where}", f"allowed: {_listed(map(str, origins)) or 'any public origin'}")
    return Step("origin", "refused", _why(case), lines)


def _origin_of(url: str) -> str:
    try:
        return str(parse_url(url if "://" in url else f"https://{url}").origin)
    except Denied:
        return "no origin that can be read"


def _format(case: Case) -> Step | None:
    claim = case.claim
    if not isinstance(claim, Source) or claim.format is None:
        return None
    return Step(
        "format", "ok", f".{claim.format} is among the project's formats; the source is not transcoded."
    )


def _format_refused(case: Case) -> Step:
    known = case.connection
    formats = known.source.formats if known and known.source else frozenset()
    return Step("format", "refused", f"{case.detail}: {_listed(sorted(formats)) or 'none'} would be.")


def _host(case: Case) -> Step:
    names = _listed(f"{kind} {name}" for kind, name in case.request.names) or "no name"
    return Step("host", "ok", f"{printable(names)}: it agrees with where the request is addressed.")


def _host_refused(case: Case) -> Step:
    known = case.connection
    upstream = known.upstream if known else None
    lines = [f"addressed to: {case.request.origin}"]
    lines += [f"{kind}: {printable(name)}" for kind, name in case.request.names]
    if upstream and not case.gateway:
        lines.append(f"the upstream: {upstream.origin}")
    return Step("host", "refused", _why(case), tuple(lines))


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


Teller = Callable[[Case], Step | None]

_TELLERS: Final[dict[str, Teller]] = {
    "address": _address,
    "presign": _presign,
    "grammar": _grammar,
    "connection": _connection,
    "project": _project,
    "canonical": _canonical,
    "signature": _signature,
    "lists": _lists,
    "expiry": _expiry,
    "revocation": _revocation,
    "lifetime": _lifetime,
    "slot": _slot,
    "methods": _methods,
    "path": _path,
    "origin": _origin,
    "format": _format,
    "host": _host,
    "limits": limit_steps.limits,
    **policy_steps.TELLERS,
}
_REFUSALS: Final[dict[str, Callable[[Case], Step]]] = {
    "address": _address_refused,
    "project": _project_refused,
    "signature": _signature_refused,
    "expiry": _expiry_refused,
    "methods": _methods_refused,
    "path": _path_refused,
    "origin": _origin_refused,
    "format": _format_refused,
    "host": _host_refused,
    **policy_steps.REFUSALS,
}
