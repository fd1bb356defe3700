"""`presign revoke`: revoke a URL, a name, a key, a connection, or all keys added before an instant."""

from __future__ import annotations

import time
from typing import Any

import click

from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import Draft, changing
from ..config.values import instant as parse_instant
from . import prompts
from .completion import complete_connections, complete_keys
from .expired_revocations import forget_expired
from .output import Output, verb
from .revocation_list import list_revocations
from .revocation_target import Target, named_target, url_target
from .revocation_words import sentence
from .revoked_now import mark, unmark
from .workspace import Failure, Workspace


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
            target = url_target(workspace, url, undo=undo, now=now)
        else:
            target = named_target(workspace, name, connection, key, added_before, undo=undo, now=now)
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
    section, what, _, doubts, remarks = target
    output.note(*doubts)
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
