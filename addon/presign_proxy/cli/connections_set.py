"""`presign connections set`: change the settings of a connection; secrets are changed by `rotate`."""

from __future__ import annotations

from typing import Any

import click

from ..config_problems import ConfigError
from . import prompts
from .completion import complete_connections, complete_keys_of_settings, complete_settings
from .connection_settings import applied, setting_of
from .entry_changes import changes, lines_of
from .methods import check_methods
from .output import Output, verb
from .registry_entries import changing_registry, check, draft_of, managed
from .setting_options import SettingsCommand, Typed, check_effect, options_given, refuse_options, settings_of
from .upstream_option import check_upstream
from .workspace import Failure, Workspace


@click.command("set", cls=SettingsCommand)
@click.argument("name", shell_complete=complete_connections)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE…]", shell_complete=complete_settings)
@click.option(
    "--unset",
    "unset",
    multiple=True,
    metavar="KEY",
    shell_complete=complete_keys_of_settings,
    help="Remove a key, which gets its default back.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def set_(
    workspace: Workspace,
    output: Output,
    name: str,
    settings: tuple[str, ...],
    unset: tuple[str, ...],
    yes: bool,
    **options: Any,
) -> None:
    """Change settings of a connection: shown first, then written after a question. KEY= removes a key.

    Each key has an option too. Lists take commas: --paths 'v1/*,v2/*' or allow.paths='v1/*,v2/*'. A key in a
    key has a dot: timeouts.response=5m. Secrets are never arguments: `connections rotate` changes them.
    """
    typed = [Typed(text) for text in (*settings, *(f"{key}=" for key in unset))] + list(settings_of(options))
    if not typed:
        raise click.UsageError("give KEY=VALUE, as in max_lifetime=7d, or an option")
    before = managed(workspace, draft := draft_of(workspace), name)
    after = applied(before, [setting_of(*one, before.get("scheme", "presign")) for one in typed])
    check_upstream(options["upstream"], after)
    _check_methods(before, after, typed)
    try:
        entry = check(workspace, name, after, draft)
    except ConfigError as error:
        refuse_options(error, name, options_given(options))
        raise
    check_effect(workspace.filled(entry), typed)
    if not changes(before, after):
        output.tell({"id": name, "changed": {}}, f"{name} is like that already; nothing was changed.")
        return
    confirm_and_write(workspace, output, name, before, after, yes=yes)


def _check_methods(before: dict[str, Any], after: dict[str, Any], typed: list[Typed]) -> None:
    """Refuse a method that looks misspelt, unless the connection has it already. Raises UsageError."""
    own, wanted = (entry.get("allow", {}).get("methods") or () for entry in (before, after))
    given = [one for one in typed if one.text.startswith("allow.methods=")]
    name = next((one.option for one in given if one.option), None) or "allow.methods"
    check_methods(name, wanted, (one.text.partition("=")[2] for one in given), own)


def confirm_and_write(
    workspace: Workspace,
    output: Output,
    name: str,
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    yes: bool,
) -> None:
    """Show what changes, ask, and write all of it. Raises Failure if the entry has changed meanwhile."""
    draft = draft_of(workspace)
    entry, found = check(workspace, name, after, draft), changes(before, after)
    preview = [f"{name}, in {draft.path.name}:", *lines_of(found)]
    old, new = _upstream(workspace, name), workspace.filled(entry).get("upstream")
    if old != new:
        preview.append(f"  Its API key is sent to {new} from now on.")
    if not yes:
        click.echo("\n".join(preview), err=True)
    prompts.sure(f"Change {name}?", yes=yes)
    with changing_registry(workspace) as draft:
        if managed(workspace, draft, name) != before:
            raise Failure(f"{name} was changed by another command meanwhile; nothing was written: try again")
        check(workspace, name, after, draft)
        draft.connections[name] = after
    said = f"{name} is changed; gateways notice within a second."
    output.tell({"id": name, "changed": found}, *(preview if yes else ()), said)


def _upstream(workspace: Workspace, name: str) -> str | None:
    """Return where a connection leads as it is; None if it would not load, and so leads nowhere."""
    try:
        found: str | None = workspace.filled(workspace.entry(name)).get("upstream")
    except ConfigError:
        return None
    return found
