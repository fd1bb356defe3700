"""`presign revoke`: a URL, a key, a connection, or every key that was added before an instant."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from .. import grammar
from ..converting import revocable
from ..draft import Draft, changing
from ..explaining import explain
from ..presenting import Presented, parse
from ..presenting.urls import Unreadable
from ..registry_file import revocations_of
from ..revocations import EVERY
from ..values import instant as parse_instant
from . import asking
from .completing import complete_connections
from .desk import Desk, Failure
from .explaining import named
from .hints import quoted
from .values import instant
from .voice import Voice, verb

_GRACE: Final = 86_400
"""Seconds after its expiry for which a revoked URL is remembered: clocks differ."""
_NAMES: Final = {
    "urls": "The URL with signature id",
    "ids": "What was signed as",
    "keys": "The key",
    "connections": "The connection",
}
_SIGNATURE_ID = re.compile(r"[0-9a-f]{32}")
_ID = re.compile(grammar.CONNECTION_ID)
_KEY = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.KEY_ID}")
_PRESIGN_ID = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.PRESIGN_ID}")


@click.command()
@click.argument("url", required=False)
@click.option(
    "--connection", "connection", shell_complete=complete_connections, help="All that was signed for it."
)
@click.option("--key", "key", metavar="CONNECTION/KEY", help="All that was signed with one key.")
@click.option("--id", "name", metavar="CONNECTION/ID", help="All that was signed under one name.")
@click.option(
    "--added-before", metavar="INSTANT", help="All keys older than that; with --connection, its keys."
)
@click.option("--undo", is_flag=True, help="Take back that it is revoked.")
@verb
def revoke(
    desk: Desk,
    voice: Voice,
    url: str | None,
    connection: str | None,
    key: str | None,
    name: str | None,
    added_before: str | None,
    undo: bool,
) -> None:
    """Revoke a URL, token or signature id (URL; - reads standard input), or what the options say.

    It takes effect within a second and survives restarts; it holds for connections of the configuration too.
    """
    if sum(one is not None for one in (url, key, name, added_before or connection)) != 1:
        raise click.UsageError("one of: URL, --key, --id, --connection, --added-before")
    openers = desk.openers
    with changing(desk.registry_path, openers) as draft:
        revocations_of(draft.content("revoked"), draft.path)  # says what is wrong with it
        _forget_expired(draft, time.time())
        if name is not None:
            section, what, value = "ids", _presign_id(desk, name, undo=undo), instant()
        else:
            section, what, value = _what(desk, url, connection, key, added_before, undo=undo)
        revoked = draft.revoked(section)
        if undo:
            value = revoked.pop(what, None)
            if value is None:
                raise Failure(f"{what} is not revoked")
        else:
            value = revoked[what] = _later(revoked.get(what), value)
        draft.write()
    state = "no longer revoked" if undo else "revoked"
    said = f"{_named(section, what, value)} is {state}; gateways notice within a second."
    voice.tell({"revoked": not undo, "what": section, "id": what}, said)


def _later(before: Any, value: Any) -> Any:
    """Of two instants the later one: to revoke takes nothing back that was revoked."""
    if not isinstance(before, str):
        return value
    try:
        return max(before, value, key=parse_instant)
    except ValueError as error:
        raise Failure(f"what is revoked already {error}") from None


def _what(
    desk: Desk,
    url: str | None,
    connection: str | None,
    key: str | None,
    added_before: str | None,
    *,
    undo: bool,
) -> tuple[str, str, Any]:
    """Section, name in it, and value."""
    now = instant()
    if key is not None:
        if not _KEY.fullmatch(key):
            raise click.UsageError(f"--key is CONNECTION/KEY: {quoted('connections', 'list')} shows them")
        _known(desk, key.partition("/")[0], undo)
        return "keys", key, now
    if connection is not None:
        _known(desk, connection, undo)
    if added_before is not None:
        return "added_before", connection or EVERY, _instant(added_before)
    if connection is not None:
        return "connections", connection, now
    text = (asking.text() if url == "-" else url or "").strip()
    if _SIGNATURE_ID.fullmatch(text):
        return "urls", text, {"at": now}
    try:
        presented = parse(text)
        signature, expires = revocable(presented)
    except Unreadable as error:
        raise Failure(f"{error}; a signature id has 32 hex digits, the audit log shows it") from None
    forgotten = {"expires": expires} if expires and _is_genuine(desk, presented) else {}
    return "urls", signature, {"at": now, **forgotten}


def _presign_id(desk: Desk, name: str, *, undo: bool) -> str:
    if not _PRESIGN_ID.fullmatch(name):
        raise click.UsageError("--id is CONNECTION/ID, the ID as it was signed (X-Presign-Id)")
    _known(desk, name.partition("/")[0], undo)
    return name


def _is_genuine(desk: Desk, presented: Presented) -> bool:
    """Whether it is what was signed. Elsewise its expiry is anybody's, and would end the revocation."""
    registry, _ = desk.registry(named(presented.request))
    steps = explain(registry, presented.request, int(time.time())).steps
    return any(step.name == "signature" and step.outcome == "ok" for step in steps)


def _known(desk: Desk, name: str, undo: bool) -> None:
    """A mistyped connection is told of; what was revoked may be undone also after the connection is gone."""
    if not _ID.fullmatch(name):
        raise click.UsageError("a connection id is 1 to 64 of A-Z a-z 0-9 _ -")
    if not undo:
        desk.entry(name)


def _instant(text: str) -> str:
    try:
        moment = parse_instant(text)
    except ValueError as error:
        raise click.UsageError(f"--added-before {error}") from None
    if moment > time.time() + 1:
        raise click.UsageError("--added-before lies in the future: keys yet to be added would be revoked")
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _forget_expired(draft: Draft, now: float) -> None:
    urls = draft.revoked("urls")
    for name in [name for name, one in urls.items() if 0 < one.get("expires", 0) < now - _GRACE]:
        del urls[name]


def _named(section: str, name: str, value: Any) -> str:
    if section == "added_before":
        return "Every key" + (f" of {name}" if name != EVERY else "") + f" that was added before {value}"
    return f"{_NAMES[section]} {name}"
