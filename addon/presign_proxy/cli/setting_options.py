"""The options for the settings of a connection: one for each key of the schema, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import click

from ..config_problems import ConfigError
from .setting_schema import SCHEMES, Node, choices_of, keys_of, kinds_of, values_of

_SHORT: Final = {
    "allow.methods": "methods",
    "allow.paths": "paths",
    "limits": "limit",
    "default_headers": "header",
    "vars": "var",
    "allowed_origins": "origin",
    "formats": "format",
    "ports": "port",
}
"""Options with another name than their key. All others have the key's, with a hyphen for each `_` and dot."""
_FIRST: Final = ("max_lifetime", "max_uses")
"""Keys whose options stand beside those."""
_METAVARS: Final = {
    "upstream": "URL",
    "max_lifetime": "7d",
    "limits": "60/minute",
    "allowed_origins": "URL,…",
}
_MEANINGS: Final = {
    "limits": "A limit: '60/minute burst 10 per url', 1000/month, 'quota 9/day', 'concurrency 20'.",
}
"""Help that says more than the description in the schema, because the option has a form of its own."""


class SettingOption(NamedTuple):
    """The option for a key."""

    key: str
    option: click.Option


@lru_cache(maxsize=1)
def setting_options() -> tuple[SettingOption, ...]:
    """Return an option for each key of both schemes, those with short names first."""
    nodes: dict[str, tuple[Node, str]] = {}
    for scheme in SCHEMES:
        nodes = {
            **nodes,
            **{key: (node, scheme) for key, node in keys_of(scheme).items() if key not in nodes},
        }
    keys = [*(key for key in (*_SHORT, *_FIRST) if key in nodes), *nodes]
    return tuple(SettingOption(key, _option(key, *nodes[key])) for key in dict.fromkeys(keys))


def _option(key: str, node: Node, scheme: str) -> click.Option:
    name = _SHORT.get(key, key.replace("_", "-").replace(".", "-"))
    kinds = kinds_of(node, scheme)
    if "boolean" in kinds:
        switch = [f"--{name}/--no-{name}", name.replace("-", "_")]
        return click.Option(switch, default=None, help=_help(key, node, scheme))
    repeated = "array" in kinds or values_of(node, scheme) is not None
    return click.Option(
        [f"--{name}", name.replace("-", "_")],
        metavar=_METAVARS.get(key) or _metavar(node, scheme),
        multiple=repeated,
        help=_help(key, node, scheme),
    )


def _metavar(node: Node, scheme: str) -> str:
    kinds = kinds_of(node, scheme)
    if values_of(node, scheme) is not None:
        return "NAME=VALUE"
    if "array" in kinds:
        return "A,B,…"
    if kinds == {"integer"}:
        return "N"
    return "|".join(choices_of(node, scheme)) or "VALUE"


def _help(key: str, node: Node, scheme: str) -> str:
    said = _MEANINGS.get(key) or node["description"]
    if key not in keys_of(SCHEMES[0]):
        said = f"Scheme source: {said[:1].lower()}{said[1:]}"
    if "array" in kinds_of(node, scheme):
        return f"{said} Replaces the list."
    default = node.get("default")
    default = str(default).lower() if isinstance(default, bool) else default
    return f"{said.removesuffix('.')}; {default} by default." if isinstance(default, str) else said


class Typed(NamedTuple):
    """A setting as it was typed: KEY=VALUE, and the option that stands for the key, if it was one."""

    text: str
    option: str = ""


def options_given(given: dict[str, Any]) -> dict[str, str]:
    """Return the option of each key that was given as an option."""
    return {
        key: option.opts[0]
        for key, option in setting_options()
        if given.get(option.name or "") not in (None, ())
    }


def settings_of(given: dict[str, Any]) -> Iterator[Typed]:
    """Yield the setting of each option that was given. Raises UsageError."""
    for key, option in setting_options():
        value, name = given.get(option.name or ""), option.opts[0]
        if value is None or value == ():
            continue
        if isinstance(value, bool):
            yield Typed(f"{key}={'true' if value else 'false'}", name)
        elif option.metavar == "NAME=VALUE":
            yield from (Typed(f"{key}.{_named(one, option)}", name) for one in value)
        else:
            yield Typed(f"{key}={','.join(value) if isinstance(value, tuple) else value}", name)


def refuse_options(error: ConfigError, name: str, given: Mapping[str, str]) -> None:
    """Raise UsageError for the problems of values that were typed as options, by the name of the option.

    Args:
        name: of the connection.
        given: the option of each key that was given as one.
    """
    said = []
    for problem in error.problems:
        path = problem.path.removeprefix(f"connections.{name}.")
        key = max((key for key in given if f"{path}.".startswith(f"{key}.")), key=len, default=None)
        if key is not None:
            at = path[len(key) + 1 :].partition(".")[0]
            place = f"item {int(at) + 1}" if at.isdigit() else at
            said.append(str(problem._replace(file=given[key], path=place, line=0)))
    if said:
        raise click.UsageError("\n".join(said))


def check_effect(entry: Mapping[str, Any], typed: Iterable[Typed]) -> None:
    """Refuse a setting that would have no effect on the connection, filled in from its preset.

    Raises UsageError.
    """
    for one in typed:
        key, _, value = one.text.partition("=")
        if key == "max_duration" and value and not entry.get("websocket"):
            other = "--websocket" if one.option else "websocket=true"
            raise click.UsageError(f"{one.option or key} needs {other}: it limits nothing but WebSockets")


def _named(text: str, option: click.Option) -> str:
    name, equals, _ = text.partition("=")
    if not equals or ":" in name:
        raise click.UsageError(f"{option.opts[0]} needs NAME=VALUE")
    return text


class SettingsCommand(click.Command):
    """A verb with an option for each setting, made when it is needed: reading the schema is slow."""

    without: frozenset[str] = frozenset()
    """Options that it lacks, besides those that it has in its own form."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        taken = self.without | {name for one in own for name in (*one.opts, *one.secondary_opts)}
        more = [option for _, option in setting_options() if not taken & set(option.opts)]
        last = next(at for at, one in enumerate(own) if one.name == "config")
        return [*own[:last], *more, *own[last:]]  # what each verb has comes last
