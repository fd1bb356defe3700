"""The keys of a connection that a command may set, as the schema has them: a new key needs nothing here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from ..config.auth_types import PLAIN

Node = dict[str, Any]
"""A part of a JSON Schema."""

AUTH: Final = "auth"
OF_AUTH: Final = PLAIN - {"type"}
"""The members of `auth` that may be set: the others are secrets, or decide which secrets there are."""
_NOT_SET: Final = ("scheme", "signing_keys")
SCHEMES: Final = ("presign", "source")


@lru_cache(maxsize=2)
def keys_of(scheme: str) -> dict[str, Node]:
    """Return all keys that may be set, with dots, and the schema of each. Names of headers are no keys."""
    found: dict[str, Node] = {}
    for name, node in members_of(root_of(scheme), scheme).items():
        if name not in _NOT_SET:
            found |= _below(name, node, scheme)
    return found


def _below(name: str, node: Node, scheme: str) -> Iterator[tuple[str, Node]]:
    """Yield a key if it can have a value that is not a mapping of known keys, and the keys in it."""
    members = members_of(node, scheme)
    if not members or any("properties" not in one for one in _alternatives(node, scheme)):
        yield name, node
    for member, one in members.items():
        if name != AUTH or member in OF_AUTH:
            yield from _below(f"{name}.{member}", one, scheme)


def members_of(node: Node, scheme: str) -> dict[str, Node]:
    """Return the keys in a key; none if it holds a secret, a list or names that users choose."""
    found: dict[str, Node] = {}
    if not is_secret(node, scheme):
        for one in _alternatives(node, scheme):
            found = {**one.get("properties", {}), **found}
    return found


def values_of(node: Node, scheme: str) -> Node | None:
    """Return the schema of the values, if a key maps names that users choose to values; else None."""
    for one in _alternatives(node, scheme):
        if one.get("type") == "object" and "properties" not in one:
            named = [*one.get("patternProperties", {}).values(), one.get("additionalProperties")]
            return next((each for each in named if isinstance(each, dict)), {"type": "string"})
    return None


def kinds_of(node: Node, scheme: str) -> set[str]:
    """Return the types of JSON Schema that a value may have."""
    return {str(one.get("type", "string")) for one in _alternatives(node, scheme)}


def items_of(node: Node, scheme: str) -> Node:
    """Return the schema of the items of a list."""
    found: Node = next(one["items"] for one in _alternatives(node, scheme) if one.get("type") == "array")
    return found


def choices_of(node: Node, scheme: str) -> list[str]:
    """Return the words that a value may be; none if it may be anything else."""
    each = [one.get("enum") for one in _alternatives(node, scheme)]
    return [word for words in each for word in words or ()] if all(each) else []


def range_of(node: Node, scheme: str) -> tuple[int | None, int | None]:
    """Return the least and the greatest number that a value may be."""
    one = next((one for one in _alternatives(node, scheme) if one.get("type") == "integer"), {})
    return one.get("minimum"), one.get("maximum")


def is_secret(node: Node, scheme: str) -> bool:
    """Return whether a value is a secret, or names the place of one: `{env: NAME}`."""
    return any(one.get("properties", {}).keys() == {"env"} for one in _alternatives(node, scheme))


def _alternatives(node: Node, scheme: str) -> list[Node]:
    """Return what a value may be, without references and without null."""
    if "$ref" in node:
        return _alternatives(root_of(scheme)["$defs"][node["$ref"].rpartition("/")[2]], scheme)
    if several := node.get("anyOf") or node.get("oneOf"):
        return [one for each in several for one in _alternatives(each, scheme)]
    return [] if node.get("type") == "null" else [node]


@lru_cache(maxsize=2)
def root_of(scheme: str) -> Node:
    """Return the schema of a connection."""
    from ..config.schema.connections import PresignConnection, SourceConnection

    model = SourceConnection if scheme == "source" else PresignConnection
    return model.model_json_schema()
