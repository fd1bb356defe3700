"""`presign revoke`: a URL, a key, a connection, or every key that was added before an instant."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from .. import grammar
from ..converting import revocable
from ..draft import Draft, changing
from ..explaining import explain as explained
from ..message import Request
from ..presenting import parse
from ..presenting.urls import Unreadable
from ..revocations import EVERY
from ..schema import instant as parse_instant
from .completing import complete_connections
from .connecting import instant
from .desk import Desk, Failure
from .explaining import named_in
from .voice import Voice, verb

_GRACE: Final = 86_400
"""Seconds after its expiry for which a revoked URL is remembered: clocks differ."""
_NAMES: Final = {"urls": "The URL with signature id", "keys": "The key", "connections": "The connection"}
_SIGNATURE_ID = re.compile(r"[0-9a-f]{32}")
_ID = re.compile(grammar.CONNECTION_ID)
_KEY = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.KEY_ID}")


@click.command()
@click.argument("url", required=False)
@click.option(
    "--connection", "connection", shell_complete=complete_connections, help="All that was signed for it."
)
@click.option("--key", "key", metavar="CONNECTION/KEY", help="All that was signed with one key.")
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
    added_before: str | None,
    undo: bool,
) -> None:
    """Revoke a URL, token or signature id (URL; - reads standard input), or what the options say.

    It takes effect within a second and survives restarts; it holds for connections of the configuration too.
    """
    if sum(one is not None for one in (url, key, added_before or connection)) != 1:
        raise click.UsageError("one of: URL, --key, --connection, --added-before")
    openers = desk.openers
    with changing(desk.registry_path, openers) as draft:
        _forget_expired(draft, time.time())
        section, name, value = _what(desk, url, connection, key, added_before)
        revoked = draft.revoked(section)
        if undo:
            if revoked.pop(name, None) is None:
                raise Failure(f"{name} is not revoked")
        else:
            revoked[name] = value
        draft.write()
    state = "no longer revoked" if undo else "revoked"
    said = f"{_named(section, name)} is {state}; gateways notice within a second."
    voice.tell({"revoked": not undo, "what": section, "id": name}, said)


def _what(
    desk: Desk, url: str | None, connection: str | None, key: str | None, added_before: str | None
) -> tuple[str, str, Any]:
    """Section, name in it, and value."""
    now = instant()
    if key is not None:
        if not _KEY.fullmatch(key):
            raise click.UsageError("--key is CONNECTION/KEY, as `presign connections list` shows them")
        _known(desk, key.partition("/")[0])
        return "keys", key, now
    if connection is not None:
        _known(desk, connection)
    if added_before is not None:
        return "added_before", connection or EVERY, _instant(added_before)
    if connection is not None:
        return "connections", connection, now
    text = (sys.stdin.read(1 << 20) if url == "-" else url or "").strip()
    if _SIGNATURE_ID.fullmatch(text):
        return "urls", text, {"at": now}
    try:
        presented = parse(text)
        signature, expires = revocable(presented)
    except Unreadable as error:
        raise Failure(f"{error}; a signature id has 32 hex digits, the audit log shows it") from None
    # Only what was signed: with another expiry beside the signature, the real URL would be forgotten early.
    known = expires and _is_verified(desk, presented.request)
    return "urls", signature, {"at": now, **({"expires": expires} if known else {})}


def _is_verified(desk: Desk, request: Request) -> bool:
    registry, _ = desk.registry(named_in(request))
    return explained(registry, request, int(time.time())).claimed.key is not None


def _known(desk: Desk, name: str) -> None:
    """A connection that was removed may be revoked all the same, but a mistyped one is told."""
    if not _ID.fullmatch(name):
        raise click.UsageError("a connection id is 1 to 64 of A-Z a-z 0-9 _ -")
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


def _named(section: str, name: str) -> str:
    if section == "added_before":
        return "Every key" + (f" of {name}" if name != EVERY else "") + " that was added before"
    return f"{_NAMES[section]} {name}"
