"""`presign revoke`: a URL, a key, a connection, or every key that was added before an instant."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import click

from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import Draft, changing
from ..config.values import instant as parse_instant
from ..config_problems import ConfigError
from ..core.connection import Connection
from ..core.revocations import EVERY
from ..explain.convert import claimed
from ..explain.input.paste import Presented, parse
from ..explain.input.urls import UnreadableUrl
from ..explain.provenance import maker, meant
from ..signing import grammar
from ..signing.keys import signature_id
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from . import prompts
from .completion import complete_connections
from .hints import quoted
from .output import Output, verb
from .values import instant
from .workspace import Failure, Workspace

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
    workspace: Workspace,
    output: Output,
    url: str | None,
    connection: str | None,
    key: str | None,
    name: str | None,
    added_before: str | None,
    undo: bool,
) -> None:
    """Revoke a URL, token or signature id (URL; - reads standard input), or what the options say.

    It takes effect within a second and survives restarts; it holds for connections of the configuration too.
    A URL or token that no signing key here made is not revoked: exit code 1.
    """
    if sum(one is not None for one in (url, key, name, added_before or connection)) != 1:
        raise click.UsageError("one of: URL, --key, --id, --connection, --added-before")
    openers = workspace.openers
    if url == "-":
        url = prompts.text()  # before the lock: whoever types may be long, and others wait
    with changing(workspace.registry_path, openers) as draft:
        revocations_of(draft.content("revoked"), draft.path)  # says what is wrong with it
        _forget_expired(draft, time.time())
        if name is not None:
            target = Target("ids", _presign_id(workspace, name, undo=undo), instant())
        elif url is not None:
            target = _signature(workspace, url, undo=undo)
        else:
            target = _what(workspace, connection, key, added_before, undo=undo)
        value = _written(draft, target, undo=undo)
        draft.write()
    section, what, _, remarks = target
    state = "no longer revoked" if undo else "revoked"
    said = f"{_named(section, what, value)} is {state}; gateways notice within a second."
    output.tell({"revoked": not undo, "what": section, "id": what}, said)
    if not undo:
        output.note(*remarks)


def _written(draft: Draft, target: Target, *, undo: bool) -> Any:
    """Revoke the target in the draft, or take that back. Returns the value that stands, or stood, there."""
    revoked = draft.revoked(target.section)
    if undo:
        value = revoked.pop(target.name, None)
        if value is None:
            raise Failure(f"{target.name} is not revoked")
        return value
    value = revoked[target.name] = _later(revoked.get(target.name), target.value)
    return value


def _later(before: Any, value: Any) -> Any:
    """Of two instants the later one: to revoke takes nothing back that was revoked."""
    if not isinstance(before, str):
        return value
    try:
        return max(before, value, key=parse_instant)
    except ValueError as error:
        raise Failure(f"what is revoked already {error}") from None


class Target(NamedTuple):
    """What is to be revoked: a section of the registry, a name in it, its value; and remarks on it."""

    section: str
    name: str
    value: Any
    remarks: tuple[str, ...] = ()


def _what(
    workspace: Workspace, connection: str | None, key: str | None, added_before: str | None, *, undo: bool
) -> Target:
    now = instant()
    if key is not None:
        if not _KEY.fullmatch(key):
            raise click.UsageError(f"--key is CONNECTION/KEY: {quoted('connections', 'list')} shows them")
        _known_key(workspace, *key.split("/"), undo=undo)
        return Target("keys", key, now)
    if connection is not None:
        _known(workspace, connection, undo)
    if added_before is not None:
        return Target("added_before", connection or EVERY, _instant(added_before))
    return Target("connections", connection or "", now)


def _signature(workspace: Workspace, given: str, *, undo: bool) -> Target:
    """A signature id, or the URL or token that bears the signature. Raises Failure."""
    now = instant()
    text = given.strip()
    if _SIGNATURE_ID.fullmatch(text):
        return Target("urls", text, {"at": now})
    try:
        presented = parse(text)
        claim = claimed(presented)
    except UnreadableUrl as error:
        raise Failure(f"{error}; a signature id has 32 hex digits, the audit log shows it") from None
    name = signature_id(claim.signature or "")
    if undo:
        return Target("urls", name, None)
    genuine, remarks = _checked(workspace, presented, claim, name)
    # Unless it is what was signed, its expiry is anybody's, and would end the revocation.
    expires = _expires(claim) if genuine else 0
    return Target("urls", name, {"at": now} | ({"expires": expires} if expires else {}), remarks)


def _expires(claim: Presign | Source) -> int:
    return int(claim.expires if isinstance(claim, Presign) else claim.exp or "0")


def _checked(
    workspace: Workspace, presented: Presented, claim: Presign | Source, name: str
) -> tuple[bool, tuple[str, ...]]:
    """Whether it is what was signed, and what to say of it. False where its keys are not to be had here.

    Raises Failure where no key here made it: to say that it is revoked would be wrong, because the URL that
    was meant would still be good.
    """
    known, left_out = _candidates(workspace, presented, claim)
    made = maker(known, claim)
    if made is None and left_out:
        return False, ("Whether it was signed here could not be checked:", *left_out)
    if made is None:
        raise Failure(_unsigned([one.id for one in known], name))
    connection, key = made
    now, remarks = time.time(), []
    if not key.is_live(int(now)):
        remarks.append(f"It was not valid any more: its key {connection.id}/{key.id} has ended.")
    if 0 < _expires(claim) < now:
        remarks.append("It was not valid any more: it has expired.")
    return True, tuple(remarks)


def _unsigned(names: list[str], signature: str) -> str:
    whose = f"no signing key of {' or '.join(names)}" if names else "no signing key"
    return (
        f"{whose} made this signature: nothing was revoked\n"
        "The gateway refuses it as it is: it was changed, or made with another key or one that was dropped.\n"
        f"To refuse this signature on whatever it stands: {quoted('revoke', signature)}"
    )


def _candidates(
    workspace: Workspace, presented: Presented, claim: Presign | Source
) -> tuple[list[Connection], list[str]]:
    """For what it may have been signed, and why others were left out. Raises Failure."""
    named = claim.connection_id if isinstance(claim, Presign) else claim.project
    if not named:
        registry, left_out = workspace.registry()
        return meant(registry, presented.request, claim), left_out
    try:
        return [workspace.connection(workspace.entry(named))], []
    except ConfigError as error:
        return [], list(map(str, error.problems))
    except Failure as failure:
        raise Failure(f"{failure}\nNothing was revoked.") from None


def _presign_id(workspace: Workspace, name: str, *, undo: bool) -> str:
    if not _PRESIGN_ID.fullmatch(name):
        raise click.UsageError("--id is CONNECTION/ID, the ID as it was signed (X-Presign-Id)")
    _known(workspace, name.partition("/")[0], undo)
    return name


def _known(workspace: Workspace, name: str, undo: bool) -> None:
    """A mistyped connection is told of; what was revoked may be undone also after the connection is gone."""
    if not _ID.fullmatch(name):
        raise click.UsageError("a connection id is 1 to 64 of A-Z a-z 0-9 _ -")
    if not undo:
        workspace.entry(name)


def _known_key(workspace: Workspace, name: str, key: str, *, undo: bool) -> None:
    """A mistyped key is told of: its URLs would live on."""
    _known(workspace, name, undo)
    if undo:
        return
    entry = workspace.model(workspace.entry(name))
    ids = [one.id or f"k{index}" for index, one in enumerate(entry.signing_keys, 1)]
    if key not in ids:
        raise Failure(f"{name} has no key {key}, it has {', '.join(ids) or 'none'}: nothing was revoked")


def _instant(text: str) -> str:
    try:
        moment = parse_instant(text)
    except ValueError as error:
        raise click.UsageError(f"--added-before {error}") from None
    if moment > time.time() + 1:
        raise click.UsageError("--added-before lies in the future: keys yet to be added would be revoked")
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _forget_expired(draft: Draft, now: float) -> None:
    """Forget what is over by this clock, and was over by most clocks that have revoked something before.

    A clock that is ahead must not forget what is still good, for it will be set right. So it counts no
    further than the middle one of the instants at which the URLs here were revoked.
    """
    urls = draft.revoked("urls")
    known = sorted(parse_instant(one["at"]) for one in urls.values())
    over = min(now, known[len(known) // 2]) - _GRACE if known else 0.0
    for name in [name for name, one in urls.items() if 0 < (one.get("expires") or 0) < over]:
        del urls[name]


def _named(section: str, name: str, value: Any) -> str:
    if section == "added_before":
        return "Every key" + (f" of {name}" if name != EVERY else "") + f" that was added before {value}"
    return f"{_NAMES[section]} {name}"
