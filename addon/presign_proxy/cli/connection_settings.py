"""Settings of a connection as they are typed: KEY=VALUE, with the keys and the types of the schema.

No setting holds a secret: other users of the machine can read the arguments of a command.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import click

from ..config.strict_yaml import parse
from ..similar_names import did_you_mean
from .limit_words import limit_of
from .methods import methods_of
from .values import listed

_SECRETS: Final = ("auth", "signing_keys")
"""Keys that hold secrets, and so are no arguments."""
_NAMEABLE: Final = re.compile(r"[A-Za-z_.-]{1,64}")
"""Words that a message may repeat. Anything else may be a secret in the wrong place."""


class Setting(NamedTuple):
    """One key with its new value; None removes it."""

    key: tuple[str, ...]
    value: Any


def setting_of(text: str, scheme: str) -> Setting:
    """Parse KEY=VALUE for a connection of a scheme. Raises UsageError, which never holds the value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError("give KEY=VALUE, as in max_lifetime=7d; KEY= removes the key")
    key = tuple(name.split(".", 1))
    if key[0] in _SECRETS:
        raise click.UsageError(
            f"{key[0]} holds secrets, which are never arguments: `connections rotate` makes a new signing"
            " secret, and with --credential replaces the API key"
        )
    if key[0] == "scheme":
        raise click.UsageError("the scheme of a connection cannot change: add another connection")
    node = _node(key, name, scheme)
    return Setting(key, None if value == "" else _value(name, node, value))


def applied(data: dict[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """Return a copy of an entry with the settings in it. What it does not name stays as it is."""
    found = copy.deepcopy(data)
    for (key, *rest), value in settings:
        if not rest:
            _put(found, key, value)
            continue
        group = found.get(key)
        group = group if isinstance(group, dict) else {}
        _put(group, rest[0], value)
        _put(found, key, group or None)
    return found


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        data.pop(key, None)
    else:
        data[key] = value


def keys_of(scheme: str) -> Iterator[str]:
    """Yield the keys that may be set, dotted. Names of headers and of variables are up to the user."""
    for name, node in _schema(scheme)["properties"].items():
        if name in (*_SECRETS, "scheme"):
            continue
        members = _resolved(node, scheme).get("properties")
        yield from (f"{name}.{member}" for member in members) if members else (name,)


def _node(key: tuple[str, ...], name: str, scheme: str) -> dict[str, Any]:
    """Return the schema of a key. Raises UsageError if there is no such key."""
    top = _schema(scheme)["properties"].get(key[0])
    if top is None:
        raise click.UsageError(_unknown(name, key[0], scheme))
    node = _resolved(top, scheme)
    if len(key) == 1:
        return node
    if node.get("type") != "object":
        raise click.UsageError(f"{key[0]} has no keys in it: write {key[0]}=VALUE")
    members = node.get("properties")
    if members is None:
        return {"type": "string"}  # `default_headers` and `vars`: the schema judges the name
    if key[1] not in members:
        raise click.UsageError(_unknown(name, key[1], scheme, members))
    return _resolved(members[key[1]], scheme)


def _unknown(name: str, part: str, scheme: str, members: Iterable[str] | None = None) -> str:
    if not _NAMEABLE.fullmatch(name):
        return "the word before = is not a key of a connection"
    other = "source" if scheme == "presign" else "presign"
    if members is None and part in _schema(other)["properties"]:
        return f"{part} is a key of connections of scheme {other}, and this one is of scheme {scheme}"
    known = [*_schema(scheme)["properties"], *keys_of(scheme)] if members is None else members
    hint = did_you_mean(part, known)
    return f"{name} is not a key of a connection" + (f": {hint}" if hint else "")


def _value(name: str, node: dict[str, Any], text: str) -> Any:
    """Return a value in the type that the schema wants. Whether it is a good one, the schema judges later."""
    kinds = {node.get("type"), *(one.get("type") for one in node.get("anyOf", ()))}
    if "array" in kinds:
        return _many(name, node["items"], text)
    if "object" in kinds:
        if not text.startswith("{"):
            raise click.UsageError(f"{name} has keys of its own: write {name}.KEY=VALUE")
        return parse(text.encode(), name).data
    if "boolean" in kinds and text in ("true", "false"):
        return text == "true"
    if "boolean" in kinds and "string" not in kinds:
        raise click.UsageError(f"{name} has to be true or false")
    if "integer" in kinds:
        return _number(name, text)
    return text


def _many(name: str, item: dict[str, Any], text: str) -> list[Any]:
    if text.startswith("["):
        found = parse(text.encode(), name).data
        return found if isinstance(found, list) else [found]
    if "oneOf" in item:
        return [limit_of(one) for one in text.split(",")]
    if name == "allow.methods":
        return methods_of([text])
    if item.get("type") == "integer":
        return [_number(name, one) for one in listed((text,))]
    return listed((text,))


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise click.UsageError(f"{name} has to be a whole number")
    return int(text)


def _resolved(node: dict[str, Any], scheme: str) -> dict[str, Any]:
    """Return the schema that a node refers to, also one that may be left out."""
    named = [one for one in node.get("anyOf", ()) if "$ref" in one]
    node = named[0] if len(named) == 1 else node
    if "$ref" not in node:
        return node
    found: dict[str, Any] = _schema(scheme)["$defs"][node["$ref"].rpartition("/")[2]]
    return found


@lru_cache(maxsize=2)
def _schema(scheme: str) -> dict[str, Any]:
    from ..config.schema.connections import PresignConnection, SourceConnection

    model = SourceConnection if scheme == "source" else PresignConnection
    return model.model_json_schema()
