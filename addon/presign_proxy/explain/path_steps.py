"""The texts of the steps about method, path and source. Nothing is decided here: see `case`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import Denied
from ..http.patterns import Pattern, compared, pattern, unmarked
from ..signing.grammar import ANY, parse_list
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from ..signing.source_url import parse_url
from .case import Case
from .closest_path import closest
from .explanation import Step, listed, printable


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
    """Return the signed patterns, the patterns of the connection, and the units of the path."""
    claim, known = case.claim, case.connection
    paths = claim.paths if isinstance(claim, Presign) else ""
    signed = [pattern(text) for text in parse_list(paths, "paths")]
    allowed = known.ceiling.paths if known else ()
    several = known is not None and bool(known.upstreams)
    return signed, allowed, compared((case.facts.path or "").encode("ascii"), several=several)


def _path(case: Case) -> Step:
    signed, allowed, path = _patterns(case)
    by = next((one.text for one in signed if one.matches(path)), "")
    ceiling = next((one.text for one in allowed if one.matches(path)), "")
    own = "" if (ceiling,) in (ANY, ("",)) else f', and the connection\'s own "{ceiling}"'
    return Step("path", "ok", f'{case.facts.path} matches the signed "{by}"{own}.', _respelled(case))


def _respelled(case: Case) -> tuple[str, ...]:
    """Return a line with the path as received, if the canonical path is different."""
    claim = case.claim
    received = claim.path.decode("utf-8", "replace") if isinstance(claim, Presign) else ""
    if not case.gateway or received == case.facts.path:
        return ()
    return (f"received as {printable(received)}",)


def _path_refused(case: Case) -> Step:
    if case.facts.path is None:
        return Step("path", "refused", case.why)
    signed, allowed, path = _patterns(case)
    whose, patterns = "signed pattern", tuple(signed)
    if any(one.matches(path) for one in signed):
        whose, patterns = "pattern of the connection itself", allowed
    if any(one.matches_as_sent(path) for one in patterns):
        text = f"No {whose} matches {case.facts.path} in every way in which an upstream may read it."
        return Step("path", "refused", text, ("; %3B %3F %23 may end the path, or a segment, earlier.",))
    near = closest([one for one in patterns if one.reaches(path)], unmarked(path))
    lines = () if near is None else (f"Closest: {near}.",)
    return Step("path", "refused", f"No {whose} matches {case.facts.path}.", lines)


def _origin(case: Case) -> Step:
    return Step("origin", "ok", f"The source {case.facts.path} is on an allowed origin.")


def _origin_refused(case: Case) -> Step:
    claim, known = case.claim, case.connection
    origins = known.source.origins if known and known.source else ()
    where = _origin_of(claim.url) if isinstance(claim, Source) else ""
    lines = (f"the source is on: {where}", f"allowed: {listed(map(str, origins)) or 'any public origin'}")
    return Step("origin", "refused", case.why, lines)


def _forward_refused(case: Case) -> Step:
    claim = case.claim
    if not isinstance(claim, Source) or not case.detail.endswith("not public"):
        return Step("forward", "refused", case.why)
    where = _origin_of(claim.url)
    lines = (f"If {where} is meant: list it in allowed_origins, and its network in allow_networks.",)
    return Step("forward", "refused", case.why, lines)


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
    return Step("format", "refused", f"{case.detail}; it serves {listed(sorted(formats)) or 'none'}.")


PASSED: Final[dict[str, Callable[[Case], Step | None]]] = {
    "methods": _methods,
    "path": _path,
    "origin": _origin,
    "format": _format,
}
REFUSED: Final[dict[str, Callable[[Case], Step]]] = {
    "methods": _methods_refused,
    "path": _path_refused,
    "origin": _origin_refused,
    "format": _format_refused,
    "forward": _forward_refused,
}
