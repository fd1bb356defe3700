"""What is to be revoked: a URL, or what an option names, checked for a typing error."""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

import click

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
from .explained_request import REQUEST_ID
from .hints import quoted
from .names_in_log import owners_of, remarks_on
from .values import present
from .workspace import Failure, Workspace

_SIGNATURE_ID = re.compile(grammar.SIGNATURE_ID)
_ID = re.compile(grammar.CONNECTION_ID)
_KEY = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.KEY_ID}")
_PRESIGN_ID_ALONE = re.compile(grammar.PRESIGN_ID)
_PRESIGN_ID = re.compile(rf"{grammar.CONNECTION_ID}/{grammar.PRESIGN_ID}")


class Target(NamedTuple):
    """The target of a revocation: a section of the registry, a name in it, and its value.

    `doubts` are said before what was done, `remarks` behind it.
    """

    section: str
    name: str
    value: Any
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def named_target(
    workspace: Workspace,
    name: str | None,
    connection: str | None,
    key: str | None,
    added_before: str | None,
    *,
    undo: bool,
    now: bool,
) -> Target:
    """Return the target that an option names. Raises Failure, UsageError."""
    at = present()
    if name is not None:
        _presign_id(workspace, name, undo=undo)
        if undo:
            return Target("ids", name, at)
        owner, _, presign_id = name.partition("/")
        return Target("ids", name, at, *remarks_on(workspace, owner, presign_id, _again(now)))
    if key is not None:
        if not _KEY.fullmatch(key):
            raise click.UsageError(f"--key needs CONNECTION/KEY: {quoted('connections', 'list')} shows them")
        _known_key(workspace, *key.split("/"), undo=undo)
        return Target("keys", key, at)
    if connection is not None:
        _known(workspace, connection, undo)
    if added_before is not None:
        return Target("added_before", connection or EVERY, _instant(added_before, undo=undo))
    return Target("connections", connection or "", at)


def url_target(workspace: Workspace, given: str, *, undo: bool, now: bool) -> Target:
    """Return the target for a signature id, or for a URL or token with a signature. Raises Failure."""
    at = present()
    text = given.strip()
    if _SIGNATURE_ID.fullmatch(text):
        return Target("urls", text, {"at": at})
    if REQUEST_ID.fullmatch(text):
        raise Failure(
            f"this is the id of a request, not of a URL: {quoted('explain', text)} shows its signature id,"
            " which can be revoked"
        )
    try:
        presented = parse(text)
        claim = claimed(presented)
    except UnreadableUrl as error:
        meant = _meant(workspace, text, _again(now)) if _PRESIGN_ID_ALONE.fullmatch(text) else ""
        said = meant or "; a signature id has 32 hex digits, see the audit log"
        raise Failure(f"{error}{said}") from None
    name = signature_id(claim.signature or "")
    if undo:
        return Target("urls", name, None)
    genuine, remarks = _checked(workspace, presented, claim, _again(now))
    # An expiry counts only if it was signed: an invented one could end the revocation early.
    expires = _expires(claim) if genuine else 0
    return Target("urls", name, {"at": at} | ({"expires": expires} if expires else {}), remarks=remarks)


def _meant(workspace: Workspace, text: str, again: tuple[str, ...]) -> str:
    """Return a clause if the text is the name of a connection or of a presign; else nothing."""
    if text in workspace.entries:
        return f". It is a connection: {quoted('revoke', '--connection', text, *again)}"
    owners = owners_of(workspace, text)
    commands = " or ".join(quoted("revoke", "--id", f"{owner}/{text}", *again) for owner in owners)
    return f". The audit log has it as the name of a presign: {commands}" if owners else ""


def _again(now: bool) -> tuple[str, ...]:
    """Return the options to repeat in a suggested command."""
    return ("--now",) if now else ()


def _expires(claim: Presign | Source) -> int:
    return int(claim.expires if isinstance(claim, Presign) else claim.exp or "0")


def _checked(
    workspace: Workspace, presented: Presented, claim: Presign | Source, again: tuple[str, ...]
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
        raise Failure(_unsigned([one.id for one in known], (signature_id(claim.signature or ""), *again)))
    connection, key = made
    now, remarks = time.time(), []
    if not key.is_live(int(now)):
        remarks.append(f"It was no longer valid: its key {connection.id}/{key.id} has ended.")
    if 0 < _expires(claim) < now:
        remarks.append("It was no longer valid: it has expired.")
    return True, tuple(remarks)


def _unsigned(names: list[str], again: tuple[str, ...]) -> str:
    whose = f"no signing key of {' or '.join(names)}" if names else "no signing key"
    return (
        f"{whose} made this signature: nothing was revoked\n"
        "The gateway refuses it anyway: it was changed, or made with another key or with a dropped one.\n"
        f"To refuse this signature on any request: {quoted('revoke', *again)}"
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
