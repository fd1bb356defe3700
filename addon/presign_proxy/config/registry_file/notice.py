"""The notice: a small file beside a registry that says what is revoked, so that gateways know it at once.

The registry says the same, and it is authoritative. But it may be large, and a gateway has to decrypt and
build it. The notice is checked on its own, four times a second. It can only revoke, never grant. It contains
no secret, only names of connections and keys, and signature ids. It has the digest of the registry that it
belongs to, and counts until the gateway has loaded that registry.
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
from .revoked_entries import Present, is_disabled, keys_of, removed, said
from .storage import PrivateFileError, read_private, write_private

MAX_REMOVED: Final = 10_000
"""The most removed connections and keys that are kept: every gateway has read the oldest ones long ago."""
_SECTIONS: Final = frozenset(("of", "revoked", "disabled", "removed"))


class Notice(NamedTuple):
    """The content of a notice. `of`: the digest of the registry's file that it belongs to."""

    of: str = ""
    taken_back: Revocations = Revocations()
    removed: tuple[str, ...] = ()
    """Removed connections, and removed keys as `{connection}/{key}`, the latest last."""


def place_of(registry: Path) -> Path:
    return registry.with_name(f"{registry.name}.revoked")


def read_notice(path: Path) -> Notice:
    """Read a notice. Raises PrivateFileError if it is missing or not whole, or if others could write it."""
    if loose := writable_by_others(path):
        raise PrivateFileError(loose[0].message)
    raw = read_private(path)
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        raise PrivateFileError("is not JSON, or was cut off") from None
    if not isinstance(data, dict) or data.keys() != _SECTIONS or not isinstance(data["of"], str):
        raise PrivateFileError("is not a notice of revocations, as `presign` writes it")
    disabled, gone = _texts(data["disabled"]), _texts(data["removed"])
    both = [*disabled, *gone]
    named = Revocations(
        keys=frozenset(name for name in both if "/" in name),
        connections=frozenset(name for name in both if "/" not in name),
    )
    return Notice(data["of"], said({"revoked": data["revoked"]}) | named, tuple(gone))


def _texts(found: Any) -> list[str]:
    """Return the value if it is a list of texts. Raises PrivateFileError."""
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise PrivateFileError("is not a notice of revocations, as `presign` writes it")
    return found


def write_notice(registry: Path, content: bytes, data: Mapping[str, Any], before: Present) -> None:
    """Write the notice of a registry that was just written.

    The registry is written first, so that a gateway that has read the notice finds a registry that is at
    least as new. If the notice cannot be written, the old one is deleted: gateways then learn of the change
    from the registry alone.

    Args:
        content: the bytes of the registry's file.
        data: the registry as plain data.
        before: the connections and keys that were there before the change.
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
