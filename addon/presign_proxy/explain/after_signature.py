"""Findings for a refused request with a good signature: why, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..core.connection import Connection, Upstream
from ..http.paths import units
from ..http.patterns import Pattern, compared, pattern, unmarked
from ..signing.grammar import parse_list
from ..signing.presign_scheme import Presign
from . import misspellings
from .case import Case, refused_at
from .explanation import Finding, printable

_ESCAPED: Final = {ord("+"): units(b"%2B"), ord(";"): units(b"%3B")}
_SHOWN: Final = 60
_LIFETIMES: Final = 1_000_000_000
"""A Unix time below this (year 2001) is probably a lifetime that the signer gave as a time."""


def beyond_the_signature(case: Case) -> list[Finding]:
    """Return the recognised mistakes of a request whose signature is good."""
    claim = case.claim
    if not isinstance(claim, Presign):
        return list(_expiry(int(getattr(claim, "exp", None) or "0"), case))
    step = refused_at(case)
    if step == "lists":
        return _lists(claim)
    if step == "policy" and claim.written is not None:
        found = [misspellings.term(name, value) for name, value in claim.written._asdict().items() if value]
        return [read.finding for read in found if read.finding is not None]
    if step == "not_before":
        return list(_not_before(claim))
    if step == "expiry":
        return list(_expiry(int(claim.expires), case))
    known = case.connection
    if known is None:
        return []
    if step == "methods":
        return list(_methods(case, claim))
    if step == "path":
        return list(_paths(case, claim, known))
    if step == "host":
        return list(_hosts(case, known))
    return []


def _lists(claim: Presign) -> list[Finding]:
    found = [*misspellings.listed(claim.methods, "methods")[0], *misspellings.listed(claim.paths, "paths")[0]]
    if found:
        text = "The signature was made over the lists as they were sent: put them right before signing."
        found.append(Finding("signed_as_sent", text))
    return found


def _expiry(expires: int, case: Case) -> Iterator[Finding]:
    if refused_at(case) == "expiry" and 0 < expires < _LIFETIMES:
        text = (
            f"Expires is {expires}, which looks like a lifetime: it is the Unix time of the end, now + "
            "lifetime."
        )
        yield Finding("lifetime_as_expires", text)


def _not_before(claim: Presign) -> Iterator[Finding]:
    begins = int(claim.written.not_before) if claim.written and claim.written.not_before else 0
    if 0 < int(claim.expires) < begins:
        yield Finding("never_valid", "It expires before it becomes valid.")


def _methods(case: Case, claim: Presign) -> Iterator[Finding]:
    method = case.facts.method
    signed = claim.methods.split(",")
    if method != method.upper() and (method.upper() in signed or signed == ["*"]):
        yield Finding("lower_case_method", f"Methods are case-sensitive: send {method.upper()}.")
    elif method == "HEAD" and "GET" in signed:
        text = "HEAD is not implied by GET: sign GET,HEAD, or set head_as_get on the connection."
        yield Finding("head_is_not_get", text)


def _paths(case: Case, claim: Presign, known: Connection) -> Iterator[Finding]:
    if case.facts.path is None:
        yield from _doubled_slash(claim)
        return
    path = compared(case.facts.path.encode("ascii"), several=bool(known.upstreams))
    patterns = [pattern(text) for text in parse_list(claim.paths, "paths")]
    if any(one.matches(path) for one in patterns):
        yield Finding("ceiling", "The signature allows the path, the connection's own patterns do not.")
        return
    base = known.upstream.base.decode("ascii") if known.upstream else ""
    reaching = [one for one in patterns if _is_for(one, known)]
    if not reaching and known.upstream is not None:
        yield _of_another(known.upstream)
    for one in reaching:
        yield from _blank(one, unmarked(path)) or _pattern(one, unmarked(path), base)


def _is_for(one: Pattern, known: Connection) -> bool:
    """Return whether a pattern is for the upstream that a connection was led to."""
    if not known.upstreams or known.upstream is None:
        return True
    return one.upstream == known.upstream.name and one.at == bool(known.upstream.name)


def _of_another(upstream: Upstream) -> Finding:
    """Return the finding for a path at an upstream that no signed pattern names."""
    if not upstream.name:
        text = (
            f"The path is at the default upstream, {upstream.origin}: a pattern for it does not begin with @."
        )
        return Finding("other_upstream", text)
    text = (
        f'The path is at the upstream @{upstream.name}: sign a pattern that begins with "@{upstream.name}/".'
    )
    return Finding("other_upstream", text)


def _doubled_slash(claim: Presign) -> Iterator[Finding]:
    """Yield a finding for `//` in a path, the usual reason why it is refused: two parts were joined."""
    path = claim.path.decode("ascii", "replace")
    at = path.find("//")
    if at >= 0:
        where = f'behind "{printable(path[:at][-_SHOWN:])}"' if at else "at its beginning"
        text = f"The path holds two slashes {where}: one of them is too many."
        yield Finding("doubled_slash", text)


def _blank(one: Pattern, path: str) -> tuple[Finding, ...]:
    """Return the finding for a pattern that only the blank of a list such as `a, b` keeps from matching."""
    bare = one.text.strip()
    if bare in ("", one.text) or not pattern(bare).matches(path):
        return ()
    text = f'"{one.text}" begins or ends with a blank, which counts: items are joined with a comma alone.'
    return (Finding("blank_in_pattern", text),)


def _pattern(one: Pattern, path: str, base: str) -> Iterator[Finding]:
    text = one.text
    if one.matches_as_sent(path):
        yield Finding(
            "path_may_end_earlier",
            f'An upstream may end the path at ;, %3B, %3F or %23, or drop what follows ;, and "{text}" does '
            "not match what is left. Sign this very path, without *.",
        )
    elif one.matches(path.translate(_ESCAPED)):
        yield Finding(
            "plain_where_escaped",
            f'"{text}" holds %2B or %3B, the path a plain + or ;, which upstreams may read as a blank or as '
            "the end of a segment: send it escaped, or sign it plain, which matches both.",
        )
    elif base and one.matches(units(f"{base}/".encode()).removeprefix("/") + path):
        yield Finding(
            "base_in_pattern",
            f'Patterns are relative to the connection\'s base path {base}: leave it out of "{text}".',
        )
    elif one.matches(f"{path}/"):
        bare = text.removesuffix("*").removesuffix("/")
        yield Finding(
            "without_slash", f'"{text}" does not match the path without its last slash: sign "{bare}" too.'
        )
    elif path.endswith("/") and one.matches(path.removesuffix("/")):
        yield Finding("trailing_slash", f'The path ends in a slash, which counts: "{text}" has none.')
    elif _folded(one).matches(path.lower()):
        yield Finding(
            "case_of_path", f'Paths are case-sensitive: "{text}" differs from the path in case only.'
        )
    elif "*" not in text and path.startswith(f"{text.removeprefix('/')}/"):
        yield Finding(
            "no_wildcard", f'"{text}" matches that path alone, nothing below it: sign "{text}/*" for that.'
        )
    elif re.search(r"\{[^}]*\}|:[A-Za-z]|[?\[]", text):
        yield Finding(
            "other_pattern_language", f'"{text}": only * is special in a pattern, any run of characters.'
        )


def _folded(one: Pattern) -> Pattern:
    return one._replace(literals=tuple(literal.lower() for literal in one.literals))


def _hosts(case: Case, known: Connection) -> Iterator[Finding]:
    origin, upstream = case.request.origin, known.upstream
    if upstream is None or case.gateway:
        return
    if origin.host == upstream.origin.host and origin.scheme != upstream.origin.scheme:
        yield Finding("other_scheme", f"The upstream is {upstream.origin}: use {upstream.origin.scheme}://.")
    elif origin.host != upstream.origin.host:
        text = f'The presign is for connection "{known.id}": send it to its upstream, {upstream.origin}.'
        yield Finding("other_upstream", text)
