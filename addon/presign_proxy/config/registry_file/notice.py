"""The notice: a small file beside a registry that says what is taken back, for gateways to read at once.

The registry says the same and is what counts. It may be large, though, and a gateway has to decrypt and build
it; the notice is looked at four times a second by itself. It can only take back, never grant, and holds no
secret: the names of connections and keys, and signature ids. It belongs to one content of the registry, by
its digest. As soon as a gateway has read that, it needs the notice no more; until then it counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...core.revocations import Revocations
from ..permissions import writable_by_others
from .open import digest_of
from .storage import PrivateFileError, read_private, write_private
from .taken_back import Present, is_disabled, keys_of, removed, said

MAX_REMOVED: Final = 10_000
"""Removed connections and keys that are remembered: what was removed long ago every gateway has read."""
_SECTIONS: Final = frozenset(("of", "revoked", "disabled", "removed"))


class Notice(NamedTuple):
    """What stands in one. `of`: digest of the registry's file that it belongs to."""

    of: str = ""
    taken_back: Revocations = Revocations()
    removed: tuple[str, ...] = ()
    """Connections, and keys as `{connection}/{key}`, the latest last."""


def place_of(registry: Path) -> Path:
    return registry.with_name(f"{registry.name}.revoked")


def read_notice(path: Path) -> Notice:
    """Raises StoreError where there is none, others could have written it, or it is not whole."""
    if loose := writable_by_others(path):
        raise PrivateFileError(loose[0].message)
    raw = read_private(path)
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        raise PrivateFileError("is not JSON, or was cut off") from None
    if not isinstance(data, dict) or data.keys() != _SECTIONS or not isinstance(data["of"], str):
        raise PrivateFileError("is not a notice of what is revoked: `presign` writes it")
    disabled, gone = _texts(data["disabled"]), _texts(data["removed"])
    both = [*disabled, *gone]
    named = Revocations(
        keys=frozenset(name for name in both if "/" in name),
        connections=frozenset(name for name in both if "/" not in name),
    )
    return Notice(data["of"], said({"revoked": data["revoked"]}) | named, tuple(gone))


def _texts(found: Any) -> list[str]:
    """Raises StoreError."""
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise PrivateFileError("is not a notice of what is revoked: `presign` writes it")
    return found


def write_notice(registry: Path, content: bytes, data: Mapping[str, Any], before: Present) -> None:
    """Say of a registry that was just written what it takes back.

    After the registry, so that whoever has read the notice finds a registry that is at least as new. Where it
    cannot be written the old one goes: gateways then learn of the change from the registry alone.

    Args:
        content: of the registry's file.
        data: of the registry, plain.
        before: what was there before.
    """
    path = place_of(registry)
    connections: Mapping[str, Any] = data.get("connections") or {}
    revoked = {name: found for name, found in (data.get("revoked") or {}).items() if found}
    disabled = [name for name, entry in connections.items() if is_disabled(entry)]
    known: tuple[str, ...] = ()
    with suppress(PrivateFileError):
        known = read_notice(path).removed
    now = {name: keys_of(connections.get(name)) for name in before if name in connections}
    went = removed(before.items(), now)
    gone = dict.fromkeys([*known, *sorted(went.connections), *sorted(went.keys)])
    gone = {name: None for name in gone if not _is_back(name, connections)}
    if not (revoked or disabled or gone or path.exists()):
        return  # as with most registries
    text = json.dumps(
        {
            "of": digest_of(content),
            "revoked": revoked,
            "disabled": disabled,
            "removed": list(gone)[-MAX_REMOVED:],
        },
        separators=(",", ":"),
    )
    try:
        write_private(path, f"{text}\n".encode(), like=registry)
    except PrivateFileError:
        with suppress(OSError):
            path.unlink()


def _is_back(name: str, connections: Mapping[str, Any]) -> bool:
    connection, _, key = name.partition("/")
    return connection in connections and (not key or key in keys_of(connections[connection]))
