"""`presign revoke --list`: everything that is revoked, each with the command that cancels exactly it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import Draft
from ..config.values import instant as parse_instant
from ..core.revocations import EVERY
from ..units import instant, printable
from .audit_query import asked
from .hints import command
from .names_in_log import last_uses
from .output import Output, table
from .registry_entries import draft_of
from .revoked_now import is_marked
from .values import YEAR_10000
from .width import columns, commands, wrapped
from .workspace import Workspace

_YEAR_1: Final = -62_135_596_800
"""Unix time of the year 1. Earlier instants have no text form."""


def list_revocations(workspace: Workspace, output: Output) -> None:
    """Print every revocation in the registry. Raises ConfigError."""
    draft = draft_of(workspace)
    revocations_of(draft.content("revoked"), draft.path)  # reports errors in it
    found = [*_urls(draft), *_named(draft), *_by_age(draft)]
    uses = last_uses(workspace, draft.revoked("urls").keys())
    for one in found:
        if one["what"] == "urls" and one["id"] in uses:
            one["last_seen"] = _seen(uses[one["id"]])
        if is_marked(draft, one["what"], one["id"]):
            one["now"] = True
    output.tell(found, *(_shown(found, columns()) if found else ["Nothing is revoked."]))


def _shown(found: list[dict[str, Any]], width: int | None) -> list[str]:
    """Return the lines for people. On a narrow terminal, each command is below its instant, to be pasted.

    They say of each what became of requests under way, if any were ended.
    """
    rows = _rows(found)
    widest = sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True)) - 2
    if width is None or widest <= width:
        return table(rows)
    lines = []
    for one in found:
        lines += wrapped(f"since {one['at'] or '-'}{_more(one, found)}:", width, 4)
        lines += commands(one["undo"], width, 2)
    return lines


def _more(one: dict[str, Any], found: list[dict[str, Any]]) -> str:
    under_way = f"; requests under way {_under_way(one)}" if any("now" in other for other in found) else ""
    return under_way + (f"; last seen as {_request(one)}" if "last_seen" in one else "")


def _under_way(one: dict[str, Any]) -> str:
    return "ended" if "now" in one else "went on"


def _request(one: dict[str, Any]) -> str:
    found: str = one["last_seen"]["request"] if "last_seen" in one else "-"
    return found


def _seen(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the audit log has of the last request with a URL, also if it was refused."""
    names = ("at", "connection", "key", "id", "method", "path")
    name = f" (id {printable(record['id'])})" if isinstance(record.get("id"), str) else ""
    return {"request": f"{asked(record)}{name}"} | {name: record.get(name) for name in names}


def _rows(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the rows of the table. Columns that would be empty are left out."""
    titles: list[tuple[str, Callable[[dict[str, Any]], str]]] = [("SINCE", lambda one: one["at"] or "-")]
    if any("now" in one for one in found):
        titles.append(("UNDER WAY", _under_way))
    if any("last_seen" in one for one in found):
        titles.append(("LAST SEEN AS", _request))
    titles.append(("TO CANCEL IT", lambda one: one["undo"]))
    return [tuple(title for title, _ in titles), *(tuple(of(one) for _, of in titles) for one in found)]


def _urls(draft: Draft) -> Iterator[dict[str, Any]]:
    for name, one in _by_time(draft.revoked("urls"), lambda one: one["at"]):
        yield _entry("urls", name, _at(one["at"]), name) | {"expires": one.get("expires")}


def _named(draft: Draft) -> Iterator[dict[str, Any]]:
    for section, option in (("ids", "--id"), ("keys", "--key"), ("connections", "--connection")):
        for name, at in _by_time(draft.revoked(section), lambda at: at):
            yield _entry(section, name, _at(at), option, name)


def _by_age(draft: Draft) -> Iterator[dict[str, Any]]:
    """Yield the revocations of all older keys. When these were made is not recorded."""
    for name, bound in _by_time(draft.revoked("added_before"), lambda bound: bound):
        whose = () if name == EVERY else ("--connection", name)
        before = _at(bound)
        yield _entry("added_before", name, None, *whose, "--added-before", before) | {"before": before}


def _entry(section: str, name: str, at: str | None, *options: str) -> dict[str, Any]:
    return {"what": section, "id": name, "at": at, "undo": command("revoke", "--undo", *options)}


def _by_time(section: dict[str, Any], at: Callable[[Any], Any]) -> list[tuple[str, Any]]:
    return sorted(section.items(), key=lambda item: parse_instant(at(item[1])))


def _at(text: str) -> str:
    """Return an instant of the registry, which may have any zone, as UTC."""
    moment = min(max(parse_instant(text), _YEAR_1), YEAR_10000 - 1)
    return instant(moment)
