"""The environment of a program of `presign run`: presigned keys, and how its requests reach the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from ..regexes import late
from .environment import (
    PROXIES,
    KeyVariables,
    direct,
    key_variables,
    of_base_url,
    of_key,
    of_proxy,
)

VIA: Final = ("auto", "base-url", "proxy")
_WITHOUT_BASE_URL: Final = ("codex", "gemini")
"""Programs that use no base URL of their environment, whatever the SDKs of their provider do."""
_NAME = late(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class Use(NamedTuple):
    """One connection of the program: its variables, and whether its requests go through the proxy.

    Args:
        unused: variables of a base URL that must not lead the program elsewhere.
        local: whether the API is on this machine.
    """

    connection: str
    names: KeyVariables
    proxied: bool
    unused: Sequence[str] = ()
    local: bool = False
    shape: str = ""
    """The text before the key, for programs that look at it."""


def named(option: str, given: Iterable[str], connections: Sequence[str]) -> dict[str, list[str]]:
    """Return the variables by connection of an option with `[CONNECTION=]NAME,…`. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for text in given:
        connection, equals, names = text.rpartition("=")
        if not equals:
            if len(connections) != 1:
                raise click.UsageError(f"{option} needs CONNECTION=NAME if there are several connections")
            connection = connections[0]
        if connection not in connections:
            raise click.UsageError(f"{option} {text[:64]}: {connection[:64]} is not among the connections")
        if not all(map(_NAME.fullmatch, names.split(","))):
            raise click.UsageError(f"{option} needs the name of a variable, as in {connection}=ACME_TOKEN")
        found.setdefault(connection, []).extend(names.split(","))
    return found


def use_of(
    program: str,
    connection: str,
    preset: Mapping[str, Any],
    via: str,
    secret: Sequence[str] | None,
    base: Sequence[str] | None,
    *,
    local: bool,
    alone: bool,
) -> Use:
    """Return how the program uses a connection. Raises UsageError.

    Args:
        secret, base: variables for the token and for the base URL that replace those of the preset.
        alone: whether a secret alone signs: then no connection names a preset.
    """
    if not preset.get("env") and not secret:
        more = ", or name the provider with --preset" if alone and not preset else ""
        raise click.UsageError(
            f"no preset says in which variable a program looks for the key of {connection}: name it with"
            f" --env {connection}=NAME{more}"
        )
    names = key_variables(preset)
    names = names._replace(secret=secret or names.secret, base=names.base if base is None else base)
    ignored = Path(program).name in _WITHOUT_BASE_URL
    proxied = via == "proxy" or (via == "auto" and (ignored or not names.base))
    if not proxied and not names.base:
        raise click.UsageError(
            f"no variable is known for the base URL of {connection}: name it with"
            f" --base-env {connection}=NAME"
        )
    if proxied:
        return Use(connection, names._replace(base=()), True, names.base, local)
    return Use(connection, names, False, (), local)


def environment_of(
    before: Mapping[str, str],
    tokens: Mapping[str, str],
    uses: Sequence[Use],
    base: str,
    trust: Mapping[str, str],
) -> dict[str, str]:
    """Return the environment. Raises UsageError if two connections need the same variable.

    Args:
        before: the environment without secrets (`program_secrets.without_secrets`).
        tokens: by connection.
        trust: the variables by which programs find their authorities.
    """
    found = dict(before)
    for use in uses:
        for name in use.unused:
            found.pop(name, None)
    if any(use.proxied for use in uses):
        found |= of_proxy(base, local=any(use.local for use in uses))
    else:
        found |= _past_the_proxies(before, base)
    found |= trust
    owners: dict[str, str] = {}
    for use in uses:
        key = f"{use.shape}{tokens[use.connection]}"
        for name, value in (of_key(key, use.names) | of_base_url(base, use.names)).items():
            if (other := owners.setdefault(name, use.connection)) != use.connection:
                option = "--env" if name in use.names.secret else "--base-env"
                raise click.UsageError(
                    f"{other} and {use.connection} both need {name}: give one of them another variable, as in"
                    f" {option} {use.connection}=NAME, or run without it"
                )
            found[name] = value
    return found


def _past_the_proxies(before: Mapping[str, str], base: str) -> dict[str, str]:
    """Return `NO_PROXY` such that the gateway is reached directly, for programs that use another proxy."""
    if not any(before.get(spelled) for name in ("ALL_PROXY", *PROXIES[:2]) for spelled in _spelled(name)):
        return {}
    own = next((before[name] for name in _spelled("NO_PROXY") if before.get(name)), "")
    return dict.fromkeys(_spelled("NO_PROXY"), ",".join([*filter(None, [own]), *direct(base)]))


def _spelled(name: str) -> tuple[str, str]:
    return name.lower(), name
