"""Diagnosis: the recognised mistakes in a refused request. Nothing is decided here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..core.decision import Deny, Forward
from ..core.recognise import has_gateway_form, is_source_of_another_name
from ..errors import Malformed
from ..http.message import Request
from ..signing.carrier_names import API_PROXY, MAX_LIST, TERMS
from ..signing.signed_policy import SIGNED_AS, PolicyText, read_lines
from ..signing.source_scheme import Source
from ..signing.tokens import has_start
from . import misspellings
from .after_signature import beyond_the_signature
from .case import Case
from .explanation import Finding
from .input import lenient
from .input.lenient import NAMES, Loose
from .signature_mismatch import Suspect, investigate, investigate_others
from .signer_mistakes import Signable, message, messages
from .source_diagnosis import diagnose_source

_FIELDS: Final = ("expires", "methods", "paths", "signature")


def diagnose(case: Case) -> tuple[Finding, ...]:
    """Return the recognised mistakes, the one to correct first at the front; none for a granted request."""
    if isinstance(case.decision, Forward):
        return ()
    found = list(_address(case))
    if case.facts.verified:
        found += beyond_the_signature(case)
    elif isinstance(case.decision, Deny) and case.decision.code != "too_large":
        if isinstance(case.claim, Source) or case.form.source:
            found += diagnose_source(case)
        else:
            found += _diagnose_presign(case)
    return _unique(found)


def _unique(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple({finding.name: finding for finding in reversed(list(findings))}.values())[::-1]


def _address(case: Case) -> Iterator[Finding]:
    request = case.request
    stray = has_gateway_form(request) or is_source_of_another_name(case.registry, request)
    if not case.gateway and stray:
        yield Finding(
            "gateway_host_unknown",
            f"The path has the gateway's form, but {request.origin.host} is not one of its names: list it "
            "under gateway.hosts, or use a name that is listed. A published port is not the port on which "
            "the gateway listens.",
        )


def _diagnose_presign(case: Case) -> list[Finding]:
    loose = lenient.read(case.request)
    if not loose.carriers and not loose.tokens:
        return list(_nothing(case))
    if any(len(value.text) > MAX_LIST for values in loose.fields.values() for value in values):
        return [Finding("field_too_long", f"A field is longer than {MAX_LIST} characters.")]
    spelled = _spelling(loose)
    found = [*_arrangement(case.request, loose), *spelled.in_values, *spelled.in_signature]
    if spelled.signature is None or any(not loose.fields.get(name) for name in _FIELDS):
        return found
    made = _investigated(case, loose, spelled, bytes.fromhex(spelled.signature))
    if not made and not found:
        made = [Finding("unexplained", _UNEXPLAINED)]
    return found + made


_UNEXPLAINED: Final = (
    "No usual mistake explains the signature: it was made with another secret, or one of the values that "
    "are signed was changed afterwards. Compare the canonical string above with the one that was signed, "
    "byte by byte."
)


def _nothing(case: Case) -> Iterator[Finding]:
    if case.gateway and case.request.path.startswith(API_PROXY):
        text = "The URL has no X-Presign-* parameters: it was cut at the ?, or the client dropped its query."
        yield Finding("query_lost", text)
    elif has_start(case.request.path):
        yield Finding("token_unreadable", "The token is not of the form ps1_{base64url}.{64 hex digits}.")


def _arrangement(request: Request, loose: Loose) -> Iterator[Finding]:
    """Yield the mistakes in how the request carries the fields."""
    if loose.entities:
        yield Finding("html_entities", "The URL was copied out of HTML: write & for each &amp;.")
    if len(loose.carriers) > 1:
        where = ", ".join(loose.carriers)
        yield Finding("several_carriers", f"It carries more than one presign ({where}): leave one of them.")
    for name in lenient.lookalikes(request) if not loose.entities else ():
        yield Finding(
            "look_alike", f'"{name}" is no field: names are spelled as {", ".join(NAMES.values())}.'
        )
    for field, values in loose.fields.items():
        carriers = [value.carrier for value in values]
        if len(set(carriers)) < len(carriers):
            yield Finding("field_twice", f"{NAMES[field]} is given twice: each field stands once.")
    named = {value.text for value in loose.fields.get("connection_id", ())}
    if len(named) > 1:
        text = (
            f"The URL and the presign name two connections ({', '.join(sorted(named))[:140]}): they must "
            "agree."
        )
        yield Finding("two_connections", text)
    yield from _missing(loose)
    yield from _tokens(loose)


def _missing(loose: Loose) -> Iterator[Finding]:
    missing = [NAMES[name] for name in _FIELDS if not loose.fields.get(name)]
    if not missing or loose.tokens:
        return
    present = [name for name in _FIELDS if loose.fields.get(name)]
    if present == ["expires"] and loose.carriers == ("query",):
        text = (
            "The URL ends after its first parameter: a shell cuts at an & without quotes. Put the URL in "
            "quotes."
        )
        yield Finding("cut_at_ampersand", text)
    else:
        yield Finding("fields_missing", f"The presign has no {', '.join(missing)}: all four are needed.")


def _tokens(loose: Loose) -> Iterator[Finding]:
    for token in loose.tokens:
        payload, dot, _ = token[4:].partition(".")
        if "=" in payload:
            yield Finding("token_padding", "The base64url of the token has padding: leave the = out.")
        if "+" in payload or "/" in payload.rstrip("/"):  # a trailing slash may belong to a path after it
            yield Finding(
                "token_alphabet", "The token is in standard base64: base64url has - for + and _ for /."
            )
        if not dot:
            yield Finding(
                "token_cut", "The token is cut: behind its base64url there is no dot and signature."
            )
        yield from _token_fields(token[:4], (lenient.text_of(payload.encode()) or "").split("\n"))


def _token_fields(prefix: str, lines: list[str]) -> Iterator[Finding]:
    count = len(lines)
    if prefix == "ps1_" and any(line.partition(":")[0] in SIGNED_AS.values() for line in lines[4:]):
        yield Finding("token_version", "The token holds a policy, so it begins with ps2_, not with ps1_.")
    elif prefix == "ps2_" and (count == 4 or not any(lines[4:])):
        text = "The token holds no policy, so it is one of version 1: four lines, and it begins with ps1_."
        yield Finding("token_version", text)
    elif prefix == "ps1_" and count != 4:
        text = f"The token holds {count} lines: id, expires, methods and paths, without a newline at the end."
        yield Finding("token_fields", text)
    elif prefix == "ps2_" and (why := _wrong_with_lines(lines[4:])):
        yield Finding("token_fields", f"The token's policy is not in its form: {why}.")


def _wrong_with_lines(lines: list[str]) -> str:
    """Return what is wrong with the lines of a policy in a token; empty if nothing is."""
    try:
        read_lines(lines)
    except Malformed:
        names = ", ".join(f"{name}:…" for name in SIGNED_AS.values())
        return f"behind the paths comes one line for each field that is present, in this order: {names}"
    return ""


class _Spelled(NamedTuple):
    """The mistakes within fields, the corrected values, and the signature or its beginning."""

    in_values: list[Finding]
    in_signature: list[Finding]
    repaired: Signable
    signature: str | None


def _spelling(loose: Loose) -> _Spelled:
    expires = misspellings.expires(loose.first("expires") or "")
    whose = "the token's signature" if loose.tokens else NAMES["signature"]
    signature = misspellings.signature(loose.first("signature") or "", whose)
    in_methods, methods = misspellings.listed(loose.first("methods") or "", "methods")
    in_paths, paths = misspellings.listed(loose.first("paths") or "", "paths")
    in_values: list[Finding] = []
    for field, findings in (("expires", [expires.finding]), ("methods", in_methods), ("paths", in_paths)):
        if loose.fields.get(field):
            in_values += [finding for finding in findings if finding is not None]
    terms = {
        field: misspellings.term(field, loose.first(field) or "") for field in TERMS if field in loose.fields
    }
    in_values += [read.finding for read in terms.values() if read.finding is not None]
    written = PolicyText(**{field: read.meant or "" for field, read in terms.items()}) if terms else None
    named = loose.first("connection_id") or ""
    repaired = Signable(named, expires.meant or loose.first("expires") or "", methods, paths, written)
    given = signature.finding is not None and loose.fields.get("signature")
    in_signature = [signature.finding] if given and signature.finding else []
    return _Spelled(in_values, in_signature, repaired, signature.meant)


def _investigated(case: Case, loose: Loose, spelled: _Spelled, beginning: bytes) -> list[Finding]:
    """Return findings on the secret and the text with which the signature was made."""
    addressed = case.registry.addressed(case.request.origin, case.request.path)
    named = spelled.repaired.connection_id or (addressed.id if addressed else "")
    known = case.registry.get(named, "presign")
    written = _written(loose)
    expires, methods, paths = (loose.first(name) or "" for name in ("expires", "methods", "paths"))
    sent = Signable(named, expires, methods, paths, written)
    repaired = spelled.repaired._replace(connection_id=named)
    raw = Signable(named, _raw(loose, "expires"), _raw(loose, "methods"), _raw(loose, "paths"))
    asked = (case.request.method.decode("ascii", "replace"), _below(case.request.path))
    tried = messages(sent, asked, raw)
    if repaired != sent:
        tried |= {f"{name}-repaired": made for name, made in messages(repaired, asked, raw).items()}
    good = message(sent.lines()), message(repaired.lines())
    key = written.key or None if written else None
    suspect = Suspect(known, *good, tried, beginning, misspelled=bool(spelled.in_values), key=key)
    found = investigate(suspect, case.now)
    for signable in dict.fromkeys((sent, repaired)) if not found else ():
        found = found or list(investigate_others(case.registry, named, signable, beginning))
    return found


def _written(loose: Loose) -> PolicyText | None:
    """Return the policy as it was sent; None if there is none."""
    found = {field: loose.first(field) or "" for field in TERMS if field in loose.fields}
    return PolicyText(**found) if found else None


def _raw(loose: Loose, name: str) -> str:
    found = loose.fields.get(name)
    return found[0].raw if found else ""


def _below(path: bytes) -> str:
    """Return the path below the gateway prefix, with its leading slash."""
    text = path.decode("utf-8", "replace")
    return re.sub(r"^/(?:api/proxy|p)/[^/]*", "", text)
