"""`presign connections import`: add a connection for each key of a file, presets guessed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click

from ..config.permissions import readable_by_others
from ..config.registry_file.edit import Draft
from . import prompts
from .colours import styled
from .env_file import STANDARD_INPUT, variables_of
from .guessed_presets import Guesses, guesses
from .hints import no_preset, quoted
from .new_connection import named_after
from .output import Output, counted, table, verb
from .registry_entries import changing_registry, check, draft_of, names_of_keys, new_secret
from .values import present
from .workspace import Failure, Workspace

_NAME: Final = re.compile(r"[A-Z][A-Z_]{0,63}")
"""Names that are words, and so may be printed: a line of another file may begin with a secret."""


@click.command("import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--preset",
    "told",
    multiple=True,
    metavar="VARIABLE=PRESET",
    help="The provider of a variable; an empty PRESET leaves the variable out.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def import_(workspace: Workspace, output: Output, source: Path, told: tuple[str, ...], yes: bool) -> None:
    """Add a connection for each API key in a file: shown first, then written after a question.

    FILE is .env, .json or .yaml; - reads standard input. Providers are guessed by the names of the
    variables, else by how the keys begin. New signing secrets are shown once.
    """
    variables = variables_of(source)
    found = guesses(variables, workspace.presets.known, _told(workspace, told, set(variables)))
    draft = draft_of(workspace)
    _leave_out_what_is_there(workspace, draft, found)
    if not found.entries:
        why = [f"nothing to add from {source}; --preset VARIABLE=PRESET names a provider"]
        raise Failure("\n".join(why + _left_out(found)))
    made = {named_after(preset): _with_key(draft, preset, data) for preset, data in found.entries.items()}
    leads = {
        name: workspace.filled(check(workspace, name, data, draft))["upstream"] for name, data in made.items()
    }
    rows = [
        (named_after(preset), leads[named_after(preset)], ",".join(used), "********")
        for preset, used in found.sources.items()
    ]
    preview = [*table([("ID", "UPSTREAM", "FROM", "KEY"), *rows]), "", *_left_out(found)]
    if not yes:
        click.echo("\n".join(preview), err=True)
    prompts.sure(f"Add {counted(len(made), 'connection')}?", yes=yes)
    with changing_registry(workspace) as draft:
        if taken := (draft.connections.keys() | draft.revoked("connections").keys()) & made.keys():
            what = f"{', '.join(sorted(taken))} was added or revoked meanwhile"
            raise Failure(f"{what}; nothing was written: try again")
        draft.connections.update(made)
    _tell(output, found, made, leads, preview if yes else [])
    if source == STANDARD_INPUT:
        return
    output.note(*(f"{styled('warning:', 'warning')} {one}" for one in readable_by_others(source)))
    output.note(f"{source} still contains every key in plain text: delete what no program needs.")


def _told(workspace: Workspace, told: tuple[str, ...], names: set[str]) -> dict[str, str]:
    """Parse `--preset`. Raises Failure, UsageError."""
    found: dict[str, str] = {}
    for text in told:
        name, equals, preset = text.partition("=")
        if not equals or name not in names:
            raise click.UsageError("--preset needs VARIABLE=PRESET, with a variable of the file")
        if preset and preset not in workspace.presets.known:
            raise Failure(no_preset(preset, workspace.presets.known))
        found[name] = preset
    return found


def _leave_out_what_is_there(workspace: Workspace, draft: Draft, found: Guesses) -> None:
    for preset in list(found.entries):
        name = named_after(preset)
        if name in workspace.entries:
            why = f"{name} exists already: {quoted('connections', 'rotate', name, '--credential')}"
        elif name in draft.revoked("connections"):
            why = f"{name} was revoked: {quoted('revoke', '--undo', '--connection', name)}"
        else:
            continue
        del found.entries[preset]
        found.left_out |= dict.fromkeys(found.sources.pop(preset), why)


def _with_key(draft: Draft, preset: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with a new signing key, whose id was never revoked."""
    revoked = draft.revoked("keys")
    key = next(key for key in names_of_keys() if f"{named_after(preset)}/{key}" not in revoked)
    return {**data, "signing_keys": [{"id": key, "secret": new_secret(), "added": present()}]}


def _left_out(found: Guesses) -> list[str]:
    """Return a line for each variable that makes no connection. A name that may be a secret is counted."""
    lines = [f"{name} is left out: {why}" for name, why in found.left_out.items()]
    named = [name for name in found.unknown if _NAME.fullmatch(name)]
    if others := len(found.unknown) - len(named):
        named.append(f"{others} more" if named else counted(others, "variable"))
    return lines + ([f"no known provider: {', '.join(named)}"] if named else [])


def _tell(
    output: Output, found: Guesses, made: dict[str, Any], leads: dict[str, str], preview: list[str]
) -> None:
    keys = {name: data["signing_keys"][0] for name, data in made.items()}
    added = [
        {
            "id": named_after(preset),
            "upstream": leads[named_after(preset)],
            "variables": used,
            "signing_key": {part: keys[named_after(preset)][part] for part in ("id", "secret")},
        }
        for preset, used in found.sources.items()
    ]
    left = [{"variable": name, "reason": why} for name, why in found.left_out.items()]
    output.tell(
        {"added": added, "left_out": left, "unknown": len(found.unknown)},
        *preview,
        f"Added {counted(len(made), 'connection')}.",
        "",
        "Their signing secrets, shown only once; anyone who has one can sign:",
        "",
        *(f"  {name}  {styled(key['secret'], 'secret')}" for name, key in keys.items()),
        "",
    )
