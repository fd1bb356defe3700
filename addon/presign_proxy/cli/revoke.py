"""`presign revoke`: revoke a URL, a name, a key, a connection, or all keys added before an instant."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

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
from ..similar_names import did_you_mean
from ..units import instant
from . import prompts
from .completion import complete_connections, complete_keys
from .expired_revocations import forget_expired
from .explained_request import REQUEST_ID
from .hints import quoted
from .names_in_log import remarks_on
from .output import Output, verb
from .revocation_list import list_revocations
from .revocation_words import sentence
from .revoked_now import mark, unmark
from .values import present
from .workspace import Failure, Workspace

_SIGNATURE_ID = re.compile(grammar.SIGNATURE_ID)
_ID = re.compile(grammar.CONNECTION_ID)
_KEY = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.KEY_ID}")
_PRESIGN_ID = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.PRESIGN_ID}")


@click.command()
@click.argument("url", required=False)
@click.option(
    "--connection", "connection", shell_complete=complete_connections, help="Everything signed for it."
)
@click.option(
    "--key",
    "key",
    metavar="CONNECTION/KEY",
    shell_complete=complete_keys,
    help="Everything signed with one key.",
)
@click.option("--id", "name", metavar="CONNECTION/ID", help="Everything signed under one name.")
@click.option(
    "--added-before", metavar="INSTANT", help="All keys older than this; with --connection, only its keys."
)
@click.option("--now", is_flag=True, help="End what is under way, too: streams, downloads, uploads.")
@click.option("--undo", is_flag=True, help="Cancel the revocation.")
@click.option("--list", "listing", is_flag=True, help="List every revocation, and how to cancel it.")
@verb
def revoke(
    workspace: Workspace,
    output: Output,
    url: str | None,
    connection: str | None,
    key: str | None,
    name: str | None,
    added_before: str | None,
    now: bool,
    undo: bool,
    listing: bool,
) -> None:
    """Revoke a URL, a token or a signature id, or what the options name.

    For URL, - reads standard input. It takes effect within a second, survives restarts, and applies to
    connections of the configuration too. With --now, what is under way ends within two seconds; without, it
    goes on. A URL or token that no signing key here made is not revoked: exit code 1.
    """
    given = sum(one is not None for one in (url, key, name, added_before or connection))
    _check_usage(given, now=now, undo=undo, listing=listing)
    if listing:
        list_revocations(workspace, output)
        return
    openers = workspace.openers
    if url == "-":
        url = prompts.text()  # before the lock: typing may take long, and other commands wait
    with changing(workspace.registry_path, openers) as draft:
        revocations_of(draft.content("revoked"), draft.path)  # reports errors in it
        if not undo:
            forget_expired(draft, time.time())  # with --undo it would forget what was to be undone
        if url is not None:
            target = _signature(workspace, url, undo=undo)
        else:
            target = _what(workspace, name, connection, key, added_before, undo=undo)
        value = _written(draft, target, undo=undo)
        if now:
            mark(draft, target.section, target.name, value["at"] if isinstance(value, dict) else value)
        draft.write()
    _tell(output, target, value, undo=undo, now=now)


def _check_usage(given: int, *, now: bool, undo: bool, listing: bool) -> None:
    """Raise UsageError for options that do not go together. Args: given: how many targets there are."""
    if now and undo:
        raise click.UsageError("what was ended cannot be undone: leave out --now")
    if listing and (given or undo or now):
        raise click.UsageError("--list lists every revocation: give nothing else with it")
    if not listing and given != 1:
        raise click.UsageError("give exactly one of: URL, --key, --id, --connection, --added-before")


def _tell(output: Output, target: Target, value: Any, *, undo: bool, now: bool) -> None:
    section, what, _, remarks = target
    said = sentence(section, what, value, undo=undo, now=now)
    data = {"revoked": not undo, "what": section, "id": what}
    output.tell(data | ({"now": True} if now else {}), said)
    if not undo:
        output.note(*remarks)


def _written(draft: Draft, target: Target, *, undo: bool) -> Any:
    """Revoke the target in the draft, or undo that. Return its present, or former, value."""
    revoked = draft.revoked(target.section)
    if undo:
        value = revoked.pop(target.name, None)
        if value is None:
            raise Failure(f"{target.name} is not revoked")
        unmark(draft, target.section, target.name)
        return value
    value = revoked[target.name] = _later(revoked.get(target.name), target.value)
    return value


def _later(before: Any, value: Any) -> Any:
    """Return the later of two instants, so that a new revocation never shortens an old one."""
    if not isinstance(before, str):
        return value
    try:
        return max(before, value, key=parse_instant)
    except ValueError as error:
        raise Failure(f"the instant in the registry {error}") from None


class Target(NamedTuple):
    """The target of a revocation: a section of the registry, a name in it, its value; and remarks on it."""

    section: str
    name: str
    value: Any
    remarks: tuple[str, ...] = ()


def _what(
    workspace: Workspace,
    name: str | None,
    connection: str | None,
    key: str | None,
    added_before: str | None,
    *,
    undo: bool,
) -> Target:
    now = present()
    if name is not None:
        _presign_id(workspace, name, undo=undo)
        return Target("ids", name, now, () if undo else remarks_on(workspace, *name.split("/")))
    if key is not None:
        if not _KEY.fullmatch(key):
            raise click.UsageError(f"--key needs CONNECTION/KEY: {quoted('connections', 'list')} shows them")
        _known_key(workspace, *key.split("/"), undo=undo)
        return Target("keys", key, now)
    if connection is not None:
        _known(workspace, connection, undo)
    if added_before is not None:
        return Target("added_before", connection or EVERY, _instant(added_before, undo=undo))
    return Target("connections", connection or "", now)


def _signature(workspace: Workspace, given: str, *, undo: bool) -> Target:
    """Return the target for a signature id, or for a URL or token with a signature. Raises Failure."""
    now = present()
    text = given.strip()
    if _SIGNATURE_ID.fullmatch(text):
        return Target("urls", text, {"at": now})
    if REQUEST_ID.fullmatch(text):
        raise Failure(
            f"this is the id of a request, not of a URL: {quoted('explain', text)} shows its signature id,"
            " which can be revoked"
        )
    try:
        presented = parse(text)
        claim = claimed(presented)
    except UnreadableUrl as error:
        raise Failure(f"{error}; a signature id has 32 hex digits, see the audit log") from None
    name = signature_id(claim.signature or "")
    if undo:
        return Target("urls", name, None)
    genuine, remarks = _checked(workspace, presented, claim, name)
    # An expiry counts only if it was signed: an invented one could end the revocation early.
    expires = _expires(claim) if genuine else 0
    return Target("urls", name, {"at": now} | ({"expires": expires} if expires else {}), remarks)


def _expires(claim: Presign | Source) -> int:
    return int(claim.expires if isinstance(claim, Presign) else claim.exp or "0")


def _checked(
    workspace: Workspace, presented: Presented, claim: Presign | Source, name: str
) -> tuple[bool, tuple[str, ...]]:
    """Return whether the claim was signed here, and remarks on it. False if its keys are not available here.

    Raises Failure if no key here made it. To report it as revoked would be wrong, because the URL that the
    user meant would still be valid.
    """
    known, left_out = _candidates(workspace, presented, claim)
    made = maker(known, claim)
    if made is None and left_out:
        return False, ("It could not be checked whether it was signed here:", *left_out)
    if made is None:
        raise Failure(_unsigned([one.id for one in known], name))
    connection, key = made
    now, remarks = time.time(), []
    if not key.is_live(int(now)):
        remarks.append(f"It was no longer valid: its key {connection.id}/{key.id} has ended.")
    if 0 < _expires(claim) < now:
        remarks.append("It was no longer valid: it has expired.")
    return True, tuple(remarks)


def _unsigned(names: list[str], signature: str) -> str:
    whose = f"no signing key of {' or '.join(names)}" if names else "no signing key"
    return (
        f"{whose} made this signature: nothing was revoked\n"
        "The gateway refuses it anyway: it was changed, or made with another key or with a dropped one.\n"
        f"To refuse this signature on any request: {quoted('revoke', signature)}"
    )


def _candidates(
    workspace: Workspace, presented: Presented, claim: Presign | Source
) -> tuple[list[Connection], list[str]]:
    """Return the connections that may have signed it, and why others were left out. Raises Failure."""
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


def _presign_id(workspace: Workspace, name: str, *, undo: bool) -> None:
    if not _PRESIGN_ID.fullmatch(name):
        raise click.UsageError("--id needs CONNECTION/ID, with the signed ID (X-Presign-Id)")
    _known(workspace, name.partition("/")[0], undo)


def _known(workspace: Workspace, name: str, undo: bool) -> None:
    """Refuse a mistyped connection. A revocation may be undone even after the connection is gone."""
    if not _ID.fullmatch(name):
        raise click.UsageError("a connection id is 1 to 64 of A-Z a-z 0-9 _ -")
    if not undo:
        workspace.entry(name)


def _known_key(workspace: Workspace, name: str, key: str, *, undo: bool) -> None:
    """Refuse a mistyped key: the URLs of the key that was meant would stay valid. Raises Failure."""
    _known(workspace, name, undo)
    if undo:
        return
    entry = workspace.model(workspace.entry(name))
    ids = [one.id or f"k{index}" for index, one in enumerate(entry.signing_keys, 1)]
    if key not in ids:
        hint = did_you_mean(key, ids) or f"it has {', '.join(ids) or 'none'}"
        raise Failure(f"{name} has no key {key}: {hint}\nNothing was revoked.")


def _instant(text: str, *, undo: bool = False) -> str:
    try:
        moment = parse_instant(text)
    except ValueError as error:
        raise click.UsageError(f"--added-before {error}") from None
    if undo:
        return text  # whatever the registry says: an instant in the future can be there, and has to go
    if moment > time.time() + 1:
        raise click.UsageError("--added-before lies in the future: it would revoke keys that are added later")
    return instant(moment)
