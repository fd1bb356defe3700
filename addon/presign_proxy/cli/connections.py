"""`presign connections …`: what the registry's file holds, and the life of a signing secret."""

from __future__ import annotations

from typing import Any

import click

from . import prompts
from .completion import complete_connections
from .connections_add import add
from .connections_rotate import rotate
from .hints import command
from .managed import changing_registry, draft_of, managed
from .mask import masked
from .output import Voice, table, verb
from .workspace import Desk, Entry


@click.group(name="connections")
def connections() -> None:
    """Add, show and change what is in the registry file."""


connections.add_command(add)
connections.add_command(rotate)


@connections.command("list")
@verb
def list_(desk: Desk, voice: Voice) -> None:
    """All connections, of the configuration and of the registry."""
    rows = [_summary(desk, entry) for entry in desk.entries.values()]
    head = ("ID", "UPSTREAM", "AUTH", "KEYS", "STATE", "IN")
    lines = [(r["id"], r["upstream"], r["auth"], ",".join(r["keys"]), r["state"], r["file"]) for r in rows]
    none = f"No connections yet: {command('connections', 'add', '--preset', 'openai')}"
    voice.tell(rows, *(table([head, *lines]) if rows else [none]))


def _summary(desk: Desk, entry: Entry) -> dict[str, Any]:
    desk.model(entry)  # says what is wrong with it
    filled = desk.filled(entry)
    auth = filled.get("auth") or {}
    origins = ", ".join(filled.get("allowed_origins") or []) or "any public origin"
    keys = [key.get("id") or f"k{n}" for n, key in enumerate(filled.get("signing_keys") or [], 1)]
    return {
        "id": entry.id,
        "scheme": filled.get("scheme", "presign"),
        "upstream": filled.get("upstream", origins),
        "auth": auth.get("type", "none"),
        "keys": keys,
        "state": _state(desk, entry),
        "file": entry.document.file.rpartition("/")[2],
    }


def _state(desk: Desk, entry: Entry) -> str:
    if entry.id in desk.revocations.connections:
        return "revoked"
    return "enabled" if entry.data.get("enabled", True) else "disabled"


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def show(desk: Desk, voice: Voice, name: str) -> None:
    """One connection, without its secrets."""
    import yaml

    entry = desk.entry(name)
    data = {**_summary(desk, entry), "entry": masked(desk.filled(entry))}
    body = yaml.safe_dump(data["entry"], sort_keys=False, allow_unicode=True).rstrip().splitlines()
    voice.tell(data, f"{name}  ({data['state']}, in {data['file']})", "", *(f"  {line}" for line in body))


def _switch(desk: Desk, voice: Voice, name: str, *, enabled: bool) -> None:
    with changing_registry(desk) as draft:
        data = managed(desk, draft, name)
        data.pop("enabled", None)
        if not enabled:
            data["enabled"] = False
        draft.connections[name] = data
    state = "enabled" if enabled else "disabled"
    voice.tell({"id": name, "state": state}, f"{name} is {state}; gateways notice within a second.")


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def disable(desk: Desk, voice: Voice, name: str) -> None:
    """Answer `revoked` to everything signed for a connection, until it is enabled again."""
    _switch(desk, voice, name, enabled=False)


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def enable(desk: Desk, voice: Voice, name: str) -> None:
    """Undo `disable`."""
    _switch(desk, voice, name, enabled=True)


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def remove(desk: Desk, voice: Voice, name: str, yes: bool) -> None:
    """Forget a connection and its API key."""
    managed(desk, draft_of(desk), name)
    prompts.sure(f"Remove {name}, its API key and its signing secrets?", yes=yes)
    with changing_registry(desk) as draft:
        managed(desk, draft, name)
        del draft.connections[name]
    voice.tell({"id": name, "state": "removed"}, f"{name} is gone; what was signed for it is invalid.")
