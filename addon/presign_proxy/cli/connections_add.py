"""`presign connections add`: register an API and its key, and make its signing secret."""

from __future__ import annotations

from typing import Any

import click

from ..config.auth_types import AUTH_TYPES
from ..config.presets.model import LABEL
from . import prompts
from .completion import complete_presets
from .credential import absent, auth_of
from .hints import command, no_preset, quoted
from .methods import methods_of, slips
from .output import Output, verb
from .registry_entries import changing_registry, check, names_of_keys, new_secret, shown_once
from .values import instant, listed
from .workspace import Failure, Workspace


@click.command()
@click.argument("name", required=False)
@click.option("--preset", shell_complete=complete_presets, help="A built-in provider (presign presets).")
@click.option(
    "--var", "variables", multiple=True, metavar="NAME=VALUE", help="A host variable of the preset."
)
@click.option("--upstream", metavar="URL", help="Any other API: https://host[:port][/base].")
@click.option("--auth", "kind", type=click.Choice(list(AUTH_TYPES)), help="How the key is sent.")
@click.option("--name", "places", multiple=True, metavar="NAME", help="The header or parameter of the key.")
@click.option("--credential-env", metavar="NAME", help="Keep the key in this environment variable.")
@click.option("--credential-file", metavar="PATH", help="Keep the key in this file.")
@click.option("--credential-exec", metavar="COMMAND", help="Read the key from this program; no shell.")
@click.option("--methods", multiple=True, metavar="M,…", help="Ceiling: methods that may be signed.")
@click.option("--paths", multiple=True, metavar="P,…", help="Ceiling: path patterns that may be signed.")
@click.option("--max-lifetime", metavar="7d", help="Ceiling: how long a URL may be valid.")
@click.option("--import-secret", is_flag=True, help="Ask for the signing secret instead of making one.")
@verb
def add(workspace: Workspace, output: Output, name: str | None, import_secret: bool, **options: Any) -> None:
    """Register an API and its key; print a new signing secret, once.

    The command prompts for the key, or reads it as one line of standard input. An imported secret follows.
    """
    name, preset = _asked_for(workspace, name, options), options["preset"]
    data = _described(options)
    _ask_for_variables(workspace, data)
    data["auth"] = auth_of(workspace, name, options)
    own = prompts.secret(f"signing secret of {name}") if import_secret else new_secret()
    with changing_registry(workspace) as draft:
        if name in draft.connections:  # added while this command waited for the key
            raise Failure(_there_is(name))
        if name in draft.revoked("connections"):
            undo = quoted("revoke", "--undo", "--connection", name)
            raise Failure(f"{name} was revoked: choose another name, or {undo}")
        key = next(key for key in names_of_keys() if f"{name}/{key}" not in draft.revoked("keys"))
        data["signing_keys"] = [{"id": key, "secret": own, "added": instant()}]
        entry = check(workspace, name, data, draft)
        draft.connections[name] = data
    upstream = workspace.filled(entry).get("upstream")
    sample = (workspace.presets.known.get(preset) or {}).get("sample") or "PATH"
    shown = None if import_secret else own
    output.tell(
        {"id": name, "upstream": upstream, "signing_key": {"id": key, "secret": shown}},
        f"{name} leads to {upstream}",
        *shown_once(shown),
    )
    output.note(*(f"--methods {question}" for question in slips(data.get("allow", {}).get("methods", ()))))
    output.note(*absent(workspace, options))
    output.note(f"Next: {command('sign', name, sample)}")


def _asked_for(workspace: Workspace, name: str | None, options: dict[str, Any]) -> str:
    """Return the name of the new connection. Raises Failure; UsageError if the options contradict."""
    preset = options["preset"]
    name = name or (f"conn_{preset.replace('-', '_')}" if preset else None)
    if name is None:
        raise click.UsageError("give NAME, or a --preset to name the connection after")
    if (preset is None) == (options["upstream"] is None):
        raise click.UsageError("give --preset, or --upstream and --auth")
    if preset is not None and (options["kind"] or options["places"]):
        raise click.UsageError("--auth and --name need --upstream: a preset defines how its key is sent")
    if preset is None and options["variables"]:
        raise click.UsageError("--var needs --preset")
    if name in workspace.entries:
        raise Failure(_there_is(name))
    return name


def _there_is(name: str) -> str:
    return f"connection {name} exists already: {quoted('connections', 'rotate', name)}, or another name"


def _described(options: dict[str, Any]) -> dict[str, Any]:
    """Return the new connection without its secrets."""
    data: dict[str, Any] = {}
    if options["preset"]:
        data["preset"] = options["preset"]
        if options["variables"]:
            data["vars"] = dict(_variable(text) for text in options["variables"])
    else:
        data["upstream"] = options["upstream"]
    ceiling = {"methods": methods_of(options["methods"]), "paths": listed(options["paths"])}
    allow = {what: found for what, found in ceiling.items() if found}
    if allow:
        data["allow"] = allow
    if options["max_lifetime"]:
        data["max_lifetime"] = options["max_lifetime"]
    return data


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not LABEL.fullmatch(value):
        raise click.UsageError("--var needs NAME=VALUE; the value is a part of a host name")
    return name, value


def _ask_for_variables(workspace: Workspace, data: dict[str, Any]) -> None:
    """Complete the preset's variables, before the user types the key. Raises Failure, UsageError."""
    preset = data.get("preset")
    if preset is None:
        return
    if preset not in workspace.presets.known:
        raise Failure(no_preset(preset, workspace.presets.known))
    given = data.get("vars", {})
    for name, variable in workspace.presets.known[preset].get("vars", {}).items():
        if name in given:
            continue
        if not prompts.is_terminal():
            raise click.UsageError(f"--var {name}=VALUE is required: {variable['about']}")
        given[name] = _variable(f"{name}={click.prompt(variable['about'], err=True)}")[1]
    if given:
        data["vars"] = given
