"""The credential of a new connection: typed at a prompt, or a reference to where it is kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from ..config.auth_types import AUTH_TYPES, GROUPS, places_of
from ..config.secret_sources import name_of
from ..config.values import SecretSource
from . import prompts
from .workspace import Workspace

_TYPES: Final = ", ".join(AUTH_TYPES)
_WHERE: Final = "The gateway needs it on its machine."


def auth_of(
    workspace: Workspace,
    name: str,
    options: dict[str, Any],
    ask: Callable[[str], str] = lambda what: prompts.secret(what),
) -> dict[str, Any]:
    """Return the member `auth` of a new connection; {} for sources that need none. Raises UsageError.

    Args:
        ask: returns the secret that a question asks for.
    """
    if options["origins"] and not options["kind"]:
        if options["places"] or _reference(options):
            raise click.UsageError(f"a key needs --auth: {_TYPES}")
        return {}
    known = workspace.presets.known.get(options["preset"] or "", {})
    asks: dict[str, str] = known.get("auth", {}).get("asks", {})
    reference = _reference(options)
    if known:
        if not asks:
            return {"token": reference or ask(f"API key of {name} ({known['name']})")}
        kind, places, about = known["auth"]["type"], list(asks), asks
        public = [place for place in places if place in known["auth"].get("public", ())]
    else:
        public = []
        kind, places = options["kind"], list(options["places"])
        if kind is None:
            raise click.UsageError(f"--auth is required: {_TYPES}")
        if kind in GROUPS and not places:
            raise click.UsageError(f"--auth {kind} needs --name, the name of its {kind}")
        places = list(places_of(kind, options["grant"])) or places
        about = dict.fromkeys(places, "")
    if reference and len(places) - len(public) > 1:
        raise click.UsageError("the API needs several secrets: write references to them into the file")
    given = {
        place: (reference if place not in public else None) or ask(_question(name, place, about[place]))
        for place in places
    }
    plain = {member: options[member] for member in AUTH_TYPES[kind].plain if options.get(member)}
    return {"type": kind, **plain, **({GROUPS[kind]: given} if kind in GROUPS else given)}


def _question(name: str, place: str, about: str) -> str:
    what = "API key" if place == "token" else place
    return f"{what} of {name}" + (f" ({about})" if about else "")


def _reference(options: dict[str, Any]) -> dict[str, Any] | None:
    given = {kind: options[f"credential_{kind}"] for kind in ("env", "file", "exec")}
    said = {kind: value for kind, value in given.items() if value}
    if len(said) > 1:
        raise click.UsageError("choose one place for the key: --credential-env, -file or -exec")
    if "exec" in said:
        try:
            said["exec"] = shlex.split(said["exec"])
        except ValueError:
            raise click.UsageError("--credential-exec has an unclosed quote") from None
    return said or None


def absent(workspace: Workspace, options: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each missing variable or file that `auth_of` refers to. Reads no secret.

    It may exist for the gateway, which is another process or on another machine.
    """
    env, file = options["credential_env"], options["credential_file"]
    if env and not workspace.environ.get(env):
        yield f"Not set here: {name_of(SecretSource(env=env))}. {_WHERE}"
    if file and not _is_there(path := workspace.base / file):
        yield f"Not found here: the file {path}. {_WHERE}"


def _is_there(path: Path) -> bool:
    """Return whether a file exists. Never fails, because the connection is already written."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
