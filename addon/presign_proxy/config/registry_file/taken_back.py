"""What files take back: revoked, disabled or removed, seen in their data alone.

Nothing is built for it, no secret is read and nothing else need be right: what is taken back comes into force
before the rest of a configuration, and where the rest cannot be used. What is not of the expected shape is
passed over here; reading the whole says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...core.revocations import Revocations
from ..values import instant

Present = Mapping[str, frozenset[str]]
"""The connections of a file, with the ids of their signing keys."""


def said(data: Any) -> Revocations:
    """What a file, or a part of one, says to be revoked or disabled."""
    if not isinstance(data, dict):
        return Revocations()
    revoked = _mapping(data.get("revoked"))
    disabled = [name for name, entry in _mapping(data.get("connections")).items() if is_disabled(entry)]
    return Revocations(
        _names(revoked.get("urls")),
        _names(revoked.get("keys")),
        _names(revoked.get("connections")) | frozenset(disabled),
        _bounds(revoked.get("added_before")),
        _names(revoked.get("ids")),
    )


def is_disabled(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("enabled") is False


def keys_of(entry: Any) -> frozenset[str]:
    """The ids of the signing keys of a connection; one without an id goes by its place."""
    keys = entry.get("signing_keys") if isinstance(entry, dict) else None
    found = keys if isinstance(keys, list) else []
    return frozenset(
        str(key.get("id") or f"k{place}") for place, key in enumerate(found, 1) if isinstance(key, dict)
    )


def present(data: Any) -> dict[str, frozenset[str]] | None:
    """The connections of a file; None where it has no section of them."""
    entries = data.get("connections") if isinstance(data, dict) else None
    return {name: keys_of(entry) for name, entry in entries.items()} if isinstance(entries, dict) else None


def removed(before: Iterable[tuple[str, frozenset[str]]], now: Present) -> Revocations:
    """What was there before and is not any more: whole connections, and keys of those that stay."""
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
    # What has no value was perhaps cut off in its name: then somebody else's name stands there.
    return frozenset(name for name, value in _mapping(section).items() if value)


def _bounds(section: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, text in _mapping(section).items():
        try:
            found[name] = instant(text)
        except (ValueError, TypeError):
            continue
    return found
