"""The texts of the steps that find the connection or the project. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from ..core.connection import Connection
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from ..similar_names import alike
from .case import Case
from .explanation import Outcome, Step, listed, printable
from .way import way_of

_MANY: Final = 5000
"""Most connections that are searched for a similar name."""


def _connection(case: Case) -> Step:
    claim, known = case.claim, case.connection
    named = claim.connection_id if isinstance(claim, Presign) else None
    if known is None:
        return Step("connection", "note", _unknown(case, named))
    upstream = known.upstream
    which = f"@{upstream.name}, " if upstream and upstream.name else ""
    to = f", upstream {which}{upstream.url}" if upstream else ""
    how = "" if named else ", the only one whose upstream this URL reaches"
    lines = way_of(case.registry.destinations.way_out, known, upstream.origin) if upstream else ()
    return Step("connection", *_state(known, f'"{known.id}"{how}{to}'), lines)


def _unknown(case: Case, named: str | None) -> str:
    if named is None:
        return (
            f"The request names no connection, and {case.request.origin} with this path does not belong to "
            "exactly one upstream: name the connection with X-Presign-Connection."
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
        return f" Similar names: {listed(found)}."
    return (
        f" There are: {listed(ids[:8])}{', …' if len(ids) > 8 else ''}." if ids else " There is none at all."
    )


def _state(known: Connection, what: str) -> tuple[Outcome, str]:
    # The gateway refuses this after the signature, so that only a holder of a presign learns of it.
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
        f"origins: {listed(map(str, rules.origins)) or 'any public one'}",
        f"formats: {listed(sorted(rules.formats)) or 'none'}",
        *way_of(case.registry.destinations.way_out, known, None),
    )
    if rules.signed != (claim.signature is not None):
        text = f'"{known.id}" is in {mode} mode, which takes no URL of this kind.'
        return Step("project", "note", text, lines)
    return Step("project", *_state(known, f'"{known.id}" in {mode} mode'), lines)


def _project_refused(case: Case) -> Step:
    step = _project(case)
    return step._replace(outcome="refused")


PASSED: Final[dict[str, Callable[[Case], Step | None]]] = {
    "connection": _connection,
    "project": _project,
}
REFUSED: Final[dict[str, Callable[[Case], Step]]] = {
    "project": _project_refused,
}
