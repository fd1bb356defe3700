"""A new connection as the options of `connections add` describe it: everything but its secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from ..config.auth_types import AUTH_TYPES
from ..config.presets.model import LABEL
from ..config_problems import ConfigError
from ..core.grants import GRANTS
from ..similar_names import alike
from . import prompts
from .completion import complete_presets
from .connection_settings import applied, setting_of
from .credential import auth_of
from .hints import no_preset, quoted
from .methods import check_methods
from .registry_entries import check, draft_of, new_secret
from .setting_options import (
    SettingsCommand,
    Typed,
    check_effect,
    options_given,
    refuse_options,
    setting_options,
    settings_of,
)
from .setting_schema import keys_of
from .values import listed, present
from .workspace import Failure, Workspace

_OPTIONS: Final = (
    click.option("--preset", shell_complete=complete_presets, help="A built-in provider (presign presets)."),
    click.option(
        "--var", "variables", multiple=True, metavar="NAME=VALUE", help="A host variable of the preset."
    ),
    click.option(
        "--upstream",
        metavar="URL",
        help="Any other API: https://host[:port][/base]; with --preset, the provider's software elsewhere.",
    ),
    click.option("--auth", "kind", type=click.Choice(list(AUTH_TYPES)), help="How the key is sent."),
    click.option(
        "--name", "places", multiple=True, metavar="NAME", help="The header or parameter of the key."
    ),
    click.option(
        "--template",
        metavar="PATH",
        help="With --auth path: the path that contains the key, as in '/bot{token}'.",
    ),
    click.option(
        "--token-url",
        metavar="URL",
        help="With --auth oauth2 or registry_token, or --preset oci: where tokens are issued.",
    ),
    click.option(
        "--grant",
        type=click.Choice(list(GRANTS)),
        help="With --auth oauth2: how tokens are asked for.",
    ),
    click.option("--scope", metavar="TEXT", help="With --auth oauth2: the scopes, with blanks between them."),
    click.option(
        "--service",
        metavar="NAME",
        help="With --auth aws_sigv4: the service, if not by the host. With --token-url: the registry.",
    ),
    click.option("--region", metavar="NAME", help="With --auth aws_sigv4: the region, if not by the host."),
    click.option(
        "--origin",
        "origins",
        multiple=True,
        metavar="URL,…",
        help="Scheme source instead of an API: a site whose files are signed; needs --format.",
    ),
    click.option("--format", "formats", multiple=True, metavar="EXT,…", help="File extensions of sources."),
)


_KEY_OF: Final = {
    "upstream": ("upstream", "--upstream"),
    "origins": ("allowed_origins", "--origin"),
    "formats": ("formats", "--format"),
}
"""For each parameter above that is a value of a connection, its key and its option."""
_UNKNOWN: Final = "not-yet-known-0123456789"
"""The text in place of a secret that is not asked for yet."""
_A_LABEL: Final = "the value is a part of a host name, of letters, digits and hyphens"
_KEYS: Final = ("preset", "upstream", "origins", "formats", "variables")
"""Parameters above that are keys of a connection."""
_OF_AUTH: Final = ("template", "grant", "scope", "token-url")
"""Options above that set a key of `auth`."""
_ALL_OF_AUTH: Final = ("kind", "places", "template", "token_url", "grant", "scope", "service", "region")
"""Parameters above that say how the key is sent."""


class AddCommand(SettingsCommand):
    """`connections add`, which asks for what the credential needs by options of its own."""

    without = frozenset(f"--auth-{name}" for name in _OF_AUTH)


def described_by_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a connection to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def name_of(workspace: Workspace, name: str | None, options: dict[str, Any]) -> str:
    """Return the name of the new connection. Raises Failure; UsageError if the options contradict."""
    preset = options["preset"]
    name = name or (named_after(preset) if preset else None)
    if name is None:
        raise click.UsageError("give NAME, or a --preset to name the connection after")
    if options["origins"] or options["formats"]:
        _fit_a_source(options)
    elif preset is None and options["upstream"] is None:
        raise click.UsageError(_preset_meant(workspace, name) or "give --preset, or --upstream and --auth")
    known = workspace.presets.known.get(preset or "", {})
    _fit_the_auth(options, known.get("auth", {}).get("type"))
    if options["variables"] and (preset is None or options["upstream"]):
        raise click.UsageError("--var needs --preset, and excludes --upstream")
    if name in workspace.entries:
        raise Failure(there_is(name))
    return name


def _preset_meant(workspace: Workspace, name: str) -> str:
    """Return a sentence if the name is that of a built-in provider, or similar; else nothing."""
    known = workspace.presets.known
    near = [name] if name in known else alike(name.removeprefix("conn_"), known)
    commands = " or ".join(quoted("connections", "add", "--preset", one) for one in near)
    return f"a provider is named by --preset: {commands}" if near else ""


def _fit_the_auth(options: dict[str, Any], of_preset: str | None) -> None:
    """Refuse options that do not belong to the type of `auth`. Args: of_preset: that of the preset."""
    kind, given = options["kind"], {name for name in _ALL_OF_AUTH if options[name]}
    if of_preset == "registry_token" and given <= {"token_url", "service"}:
        kind = of_preset
    elif options["preset"] is not None and given:
        said = "exclude --preset, which defines how its key is sent"
        raise click.UsageError(f"--auth, --name and the options of one --auth {said}")
    if kind != "aws_sigv4" and (options["region"] or (options["service"] and kind != "registry_token")):
        raise click.UsageError("--service and --region need --auth aws_sigv4")
    if (kind == "path") != bool(options["template"]):
        raise click.UsageError("--auth path and --template belong together: give both, or neither")
    if kind == "registry_token":
        if bool(options["token_url"]) != bool(options["service"]):
            raise click.UsageError("--token-url and --service of a registry belong together: give both")
    elif (kind == "oauth2") != bool(options["token_url"]):
        raise click.UsageError("--auth oauth2 and --token-url belong together: give both, or neither")
    if kind != "oauth2" and (options["grant"] or options["scope"]):
        raise click.UsageError("--grant and --scope need --auth oauth2")


def named_after(preset: str) -> str:
    """Return the name of a preset's connection that was given no other."""
    return f"conn_{preset.replace('-', '_')}"


def _fit_a_source(options: dict[str, Any]) -> None:
    if not options["origins"] or not options["formats"]:
        raise click.UsageError("scheme source needs --origin and --format")
    for key, option in setting_options():
        if options.get(option.name or "") not in (None, ()) and key not in keys_of("source"):
            said = "is for APIs, and --origin makes a connection of scheme source"
            raise click.UsageError(f"{option.opts[0]} {said}")


def there_is(name: str) -> str:
    """Return that a connection of this name exists, and what to do."""
    change, rotate = quoted("connections", "set", name), quoted("connections", "rotate", name)
    return f"connection {name} exists already: {change} changes it, {rotate} its secrets; or another name"


def described(workspace: Workspace, options: dict[str, Any]) -> dict[str, Any]:
    """Return the new connection without its secrets. Asks for the preset's variables if they are not given.

    Raises Failure, UsageError.
    """
    data: dict[str, Any] = {}
    if options["origins"]:
        origins, formats = listed(options["origins"], "--origin"), listed(options["formats"], "--format")
        data |= {"scheme": "source", "mode": "signed", "allowed_origins": origins, "formats": formats}
    given = dict(_variable(text) for text in options["variables"])
    data |= {key: options[key] for key in ("preset", "upstream") if options[key]}
    if variables := _variables(workspace, options, given):
        data["vars"] = variables
    return applied(data, [setting_of(*one, data.get("scheme", "presign")) for one in _settings(options)])


def _settings(options: dict[str, Any]) -> Iterator[Typed]:
    return settings_of({name: value for name, value in options.items() if name not in _KEYS})


def check_described(workspace: Workspace, name: str, data: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse options that would not load, before the user types the key. Raises UsageError."""
    check_methods("--methods", data.get("allow", {}).get("methods", ()), options["methods"])
    given = dict(where for parameter, where in _KEY_OF.items() if options[parameter])
    auth = auth_of(workspace, name, options, lambda _: _UNKNOWN)
    tried = {**data, "auth": {**auth, **data.get("auth", {})}} if auth else dict(data)
    tried["signing_keys"] = [{"id": "k1", "secret": new_secret(), "added": present()}]
    try:
        entry = check(workspace, name, tried, draft_of(workspace))
    except ConfigError as error:
        refuse_options(error, name, options_given(options) | given)
        return
    check_effect(workspace.filled(entry), _settings(options))


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not LABEL.fullmatch(value):
        raise click.UsageError(f"--var needs NAME=VALUE; {_A_LABEL}")
    return name, value


def _typed(name: str, about: str) -> str:
    """Ask for the value of a variable. Raises Failure for one that no host name could hold."""
    value: str = click.prompt(about, err=True)
    if not LABEL.fullmatch(value):
        raise Failure(f"that cannot be the {name}: {_A_LABEL}")
    return value


def _variables(workspace: Workspace, options: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Return all variables of the preset, before the user types the key. Raises Failure, UsageError."""
    preset = options["preset"]
    if preset is None:
        return {}
    if preset not in workspace.presets.known:
        raise Failure(no_preset(preset, workspace.presets.known))
    if options["upstream"]:
        return {}  # they are parts of the host that this upstream replaces
    for name, variable in workspace.presets.known[preset].get("vars", {}).items():
        if name in given:
            continue
        if not prompts.is_terminal():
            raise click.UsageError(f"--var {name}=VALUE is required: {variable['about']}")
        given[name] = _typed(name, variable["about"])
    return given
