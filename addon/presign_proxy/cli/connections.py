"""`presign connections …`: list and change the connections of the registry's file."""

from __future__ import annotations

from typing import Any, Final

import click

from . import prompts
from .completion import complete_connections
from .connections_add import add
from .connections_edit import edit
from .connections_import import import_
from .connections_rotate import rotate
from .connections_set import set_
from .hints import command
from .mask import masked
from .output import Output, table, verb
from .program import Verbs
from .progress import counting, working
from .registry_entries import changing_registry, draft_of, managed
from .revocation_words import AT_ONCE, SOON
from .revoked_now import mark, unmark
from .values import present
from .workspace import Entry, Workspace

_NOW: Final = "End what is under way, too: streams, downloads, uploads."


@click.group(name="connections", cls=Verbs)
def connections() -> None:
    """Add, show and change the connections in the registry file."""


connections.add_command(add)
connections.add_command(edit)
connections.add_command(import_)
connections.add_command(rotate)
connections.add_command(set_)


@connections.command("list")
@verb
def list_(workspace: Workspace, output: Output) -> None:
    """List all connections, of the configuration and of the registry."""
    with working("reading the registry"):
        entries = workspace.entries
    each = counting("listing connections", entries.values(), len(entries))
    rows = [_summary(workspace, entry) for entry in each]
    head = ("ID", "UPSTREAM", "AUTH", "KEYS", "STATE", "IN")
    lines = [(r["id"], r["upstream"], r["auth"], _keys_of(r), r["state"], r["file"]) for r in rows]
    none = f"No connections yet: {command('connections', 'add', '--preset', 'openai')}"
    output.tell(rows, *(table([head, *lines]) if rows else [none]))


def _keys_of(row: dict[str, Any]) -> str:
    """Return the keys of a connection for the table, with those that are revoked marked."""
    return ",".join(f"{key} (revoked)" if key in row["revoked_keys"] else key for key in row["keys"])


def _summary(workspace: Workspace, entry: Entry) -> dict[str, Any]:
    model = workspace.model(entry)  # reports errors in it
    filled = workspace.filled(entry)
    auth = filled.get("auth") or {}
    origins = ", ".join(filled.get("allowed_origins") or []) or "any public origin"
    keys = [key.get("id") or f"k{n}" for n, key in enumerate(filled.get("signing_keys") or [], 1)]
    made = [key.added for key in model.signing_keys]
    revokes = workspace.revocations.revokes_key
    return {
        "id": entry.id,
        "scheme": filled.get("scheme", "presign"),
        "upstream": filled.get("upstream", origins),
        "auth": auth.get("type", "none"),
        "keys": keys,
        "revoked_keys": [key for key, added in zip(keys, made, strict=True) if revokes(entry.id, key, added)],
        "state": _state(workspace, entry),
        "file": entry.document.file.rpartition("/")[2],
    }


def _state(workspace: Workspace, entry: Entry) -> str:
    if entry.id in workspace.revocations.connections:
        return "revoked"
    return "enabled" if entry.data.get("enabled", True) else "disabled"


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def show(workspace: Workspace, output: Output, name: str) -> None:
    """Show one connection, without its secrets."""
    import yaml

    entry = workspace.entry(name)
    data = {**_summary(workspace, entry), "entry": masked(workspace.filled(entry))}
    body = yaml.safe_dump(data["entry"], sort_keys=False, allow_unicode=True).rstrip().splitlines()
    state = [data["state"], f"in {data['file']}"]
    state += [f"{', '.join(data['revoked_keys'])} revoked"] if data["revoked_keys"] else []
    output.tell(data, f"{name}  ({', '.join(state)})", "", *(f"  {line}" for line in body))


def _switch(workspace: Workspace, output: Output, name: str, *, enabled: bool, now: bool = False) -> None:
    with changing_registry(workspace) as draft:
        data = managed(workspace, draft, name)
        data.pop("enabled", None)
        if not enabled:
            data["enabled"] = False
        draft.connections[name] = data
        if now:
            mark(draft, "connections", name, present())
        elif enabled and name not in draft.revoked("connections"):
            unmark(draft, "connections", name)
    state = "enabled" if enabled else "disabled"
    data = {"id": name, "state": state} | ({"now": True} if now else {})
    output.tell(data, f"{name} is {state}; {AT_ONCE if now else SOON}.")


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--now", is_flag=True, help=_NOW)
@verb
def disable(workspace: Workspace, output: Output, name: str, now: bool) -> None:
    """Disable a connection: everything signed for it is answered `revoked`, until it is enabled again."""
    _switch(workspace, output, name, enabled=False, now=now)


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def enable(workspace: Workspace, output: Output, name: str) -> None:
    """Enable a disabled connection."""
    _switch(workspace, output, name, enabled=True)


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--now", is_flag=True, help=_NOW)
@verb
def remove(workspace: Workspace, output: Output, name: str, yes: bool, now: bool) -> None:
    """Delete a connection and its API key."""
    managed(workspace, draft_of(workspace), name)
    prompts.sure(f"Remove {name}, its API key and its signing secrets?", yes=yes)
    with changing_registry(workspace) as draft:
        managed(workspace, draft, name)
        del draft.connections[name]
        if now:
            mark(draft, "connections", name, present())
    data = {"id": name, "state": "removed"} | ({"now": True} if now else {})
    text = f"{name} is removed; everything signed for it is invalid" + (f": {AT_ONCE}." if now else ".")
    output.tell(data, text)
