"""Find what files revoke, disable or remove, from their data alone.

This builds nothing and reads no secret, and the rest of the file may be wrong. So revocations come into force
before the rest of a configuration, and even if the rest cannot be used. Data without the expected form is
ignored here; the full load reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...core.revocations import Revocations
from ..values import instant

Present = Mapping[str, frozenset[str]]
"""The connections of a file, each with the ids of its signing keys."""


def said(data: Any) -> Revocations:
    """Return everything that a file, or a part of one, revokes or disables."""
    if not isinstance(data, dict):
        return Revocations()
    revoked = _mapping(data.get("revoked"))
    disabled = [name for name, entry in _mapping(data.get("connections")).items() if is_disabled(entry)]
    now = revoked.get("now")
    return Revocations(
        _names(revoked.get("urls")),
        _names(revoked.get("keys")),
        _names(revoked.get("connections")) | frozenset(disabled),
        _bounds(revoked.get("added_before")),
        _names(revoked.get("ids")),
        said({"revoked": {**now, "now": None}}) if isinstance(now, dict) else None,
    )


def is_disabled(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("enabled") is False


def keys_of(entry: Any) -> frozenset[str]:
    """Return the ids of the signing keys of a connection. A key without an id is named by its place."""
    keys = entry.get("signing_keys") if isinstance(entry, dict) else None
    found = keys if isinstance(keys, list) else []
    return frozenset(
        str(key.get("id") or f"k{place}") for place, key in enumerate(found, 1) if isinstance(key, dict)
    )


def present(data: Any) -> dict[str, frozenset[str]] | None:
    """Return the connections of a file; None if it has no section `connections`."""
    entries = data.get("connections") if isinstance(data, dict) else None
    return {name: keys_of(entry) for name, entry in entries.items()} if isinstance(entries, dict) else None


def removed(before: Iterable[tuple[str, frozenset[str]]], now: Present) -> Revocations:
    """Return what was removed: whole connections, and keys of the connections that stay."""
    connections: set[str] = set()
    keys: set[str] = set()
    for name, ids in before:
        left = now.get(name)
        if left is None:
            connections.add(name)
        elif not ids <= left:
            keys.update(f"{name}/{key}" for key in ids - left)
    return Revocations(keys=frozenset(keys), connections=frozenset(connections))


def _mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _names(section: Any) -> frozenset[str]:
    # An entry without a value may be cut off in the middle of its name, which then names something else.
    return frozenset(name for name, value in _mapping(section).items() if value)


def _bounds(section: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, text in _mapping(section).items():
        try:
            found[name] = instant(text)
        except (ValueError, TypeError):
            continue
    return found
