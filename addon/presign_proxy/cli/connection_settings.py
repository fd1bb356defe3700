"""Settings of a connection as they are typed: KEY=VALUE, with the keys and the types of the schema.

No setting holds a secret: other users of the machine can read the arguments of a command.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import click

from ..config.strict_yaml import parse
from ..similar_names import did_you_mean
from .limit_words import limit_of
from .methods import methods_of
from .setting_schema import (
    AUTH,
    OF_AUTH,
    Node,
    is_secret,
    items_of,
    keys_of,
    kinds_of,
    members_of,
    range_of,
    root_of,
    values_of,
)
from .values import listed

_NAMEABLE: Final = re.compile(r"[A-Za-z_.-]{1,64}")
"""Words that a message may repeat. Anything else may be a secret in the wrong place."""
_PLACES: Final = ("env", "file", "exec")
"""Where a secret may be kept."""


class Setting(NamedTuple):
    """One key with its new value; None removes it."""

    key: tuple[str, ...]
    value: Any


def setting_of(text: str, option: str, scheme: str) -> Setting:
    """Parse KEY=VALUE for a connection of a scheme. Raises UsageError, which never holds the value.

    Args:
        option: the option that it was typed as, for messages; empty if it was typed as KEY=VALUE.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError("give KEY=VALUE, as in max_lifetime=7d; KEY= removes the key")
    parts = name.split(".")
    if parts[0] == "signing_keys" or (parts[0] == AUTH and not set(parts[1:2]) & OF_AUTH):
        raise click.UsageError(
            f"{parts[0]} holds secrets, which are never arguments: `connections rotate` makes a new signing"
            " secret, and with --credential replaces the API key"
        )
    if parts[0] == "scheme":
        raise click.UsageError("the scheme of a connection cannot change: add another connection")
    key, node = _place(parts, name, scheme)
    return Setting(key, None if value == "" else _value(option or name, key, node, value, scheme))


def applied(data: dict[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """Return a copy of an entry with the settings in it. What it does not name stays as it is."""
    found = copy.deepcopy(data)
    for key, value in settings:
        _put(found, key, value)
    return found


def _put(data: dict[str, Any], key: Sequence[str], value: Any) -> None:
    first, *rest = key
    if rest:
        group = data.get(first)
        group = group if isinstance(group, dict) else {}
        _put(group, rest, value)
        value = group or None
    if value is None:
        data.pop(first, None)
    else:
        data[first] = value


def _place(parts: list[str], name: str, scheme: str) -> tuple[tuple[str, ...], Node]:
    """Return a key and its schema. Raises UsageError if there is no such key."""
    node = root_of(scheme)
    for at, part in enumerate(parts):
        if (chosen := values_of(node, scheme)) is not None:
            # The user chooses the name, and the schema judges it.
            return (*parts[:at], ".".join(parts[at:])), chosen
        members = members_of(node, scheme)
        if not members:
            known = ".".join(parts[:at])
            raise click.UsageError(f"{known} has no keys in it: write {known}=VALUE")
        if part not in members:
            raise click.UsageError(_unknown(name, part, scheme, members if at else None))
        node = members[part]
    return tuple(parts), node


def _unknown(name: str, part: str, scheme: str, members: Iterable[str] | None = None) -> str:
    if not _NAMEABLE.fullmatch(name):
        return "the word before = is not a key of a connection"
    other = "source" if scheme == "presign" else "presign"
    if members is None and part in members_of(root_of(other), other):
        return f"{part} is a key of connections of scheme {other}, and this one is of scheme {scheme}"
    known = [*members_of(root_of(scheme), scheme), *keys_of(scheme)] if members is None else members
    hint = did_you_mean(part, known)
    return f"{name} is not a key of a connection" + (f": {hint}" if hint else "")


def _value(name: str, key: tuple[str, ...], node: Node, text: str, scheme: str) -> Any:
    """Return a value in the type that the schema wants. Whether it is a good one, the schema judges later."""
    kinds = kinds_of(node, scheme)
    if is_secret(node, scheme):
        return _reference(name, text)
    if "array" in kinds:
        return _many(name, key, items_of(node, scheme), text, scheme)
    if "object" in kinds and text.startswith("{"):
        return parse(text.encode(), name).data
    if kinds == {"object"}:
        raise click.UsageError(f"{name} has keys of its own: write {name}.KEY=VALUE")
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    if kinds == {"boolean"}:
        raise click.UsageError(f"{name} has to be true or false")
    if "integer" in kinds and (kinds == {"integer"} or text.isdigit()):
        return _number(name, text, *range_of(node, scheme))
    return text


def _reference(name: str, text: str) -> Any:
    """Return the place of a secret. Raises UsageError for the secret itself."""
    found = parse(text.encode(), name).data if text.startswith("{") else None
    if not isinstance(found, dict) or not found.keys() & set(_PLACES):
        raise click.UsageError(
            f"{name} is a secret, which is never an argument: write {name}='{{file: PATH}}'"
        )
    return found


def _many(name: str, key: tuple[str, ...], item: Node, text: str, scheme: str) -> list[Any]:
    if text.startswith("["):
        found = parse(text.encode(), name).data
        return found if isinstance(found, list) else [found]
    if key == ("limits",):
        return [limit_of(one) for one in text.split(",")]
    if key == ("allow", "methods"):
        return methods_of([text], name)
    kinds = kinds_of(item, scheme)
    if "object" in kinds and "string" not in kinds:
        raise click.UsageError(f"{name} is a list of mappings: write {name}='[{{KEY: VALUE}}]'")
    if kinds == {"integer"}:
        return [_number(name, one, *range_of(item, scheme)) for one in listed((text,), name)]
    return listed((text,), name)


def _number(name: str, text: str, least: int | None, most: int | None) -> int:
    """Return a whole number within its bounds. Raises UsageError."""
    if text.isascii() and text.isdigit() and len(text) <= 12:
        found = int(text)
        if (least is None or found >= least) and (most is None or found <= most):
            return found
    bounds = f" from {least} to {most}" if least is not None and most is not None else ""
    raise click.UsageError(f"{name} has to be a whole number{bounds}")
