"""Revocations of single URLs, keys, connections, and of all keys that were added before an instant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from ..signing.keys import KeyRing, SigningKey

if TYPE_CHECKING:
    from .connection import Connection

EVERY: Final = "*"


class Revocations(NamedTuple):
    """A set of revocations.

    `urls` are signature ids. `keys` are `{connection}/{key}`. `ids` are `{connection}/{id}` of presigns with
    a name. `added_before` maps a connection, or `EVERY`, to a Unix time. `now` are those that end what is
    under way, too; None if there are none.
    """

    urls: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    connections: frozenset[str] = frozenset()
    added_before: Mapping[str, int] = {}
    ids: frozenset[str] = frozenset()
    now: Revocations | None = None

    def __bool__(self) -> bool:
        return bool(self.urls or self.keys or self.connections or self.added_before or self.ids or self.now)

    def __or__(self, other: Revocations) -> Revocations:
        """Return the union: everything that either of the two revokes."""
        bounds = dict(self.added_before)
        for name, bound in other.added_before.items():
            bounds[name] = max(bound, bounds.get(name, 0))
        return Revocations(
            self.urls | other.urls,
            self.keys | other.keys,
            self.connections | other.connections,
            bounds,
            self.ids | other.ids,
            (self.now | other.now) if self.now and other.now else (self.now or other.now),
        )

    def is_revoked(self, connection: str, key: SigningKey | None) -> bool:
        """Return whether a connection, or this key of it, is revoked."""
        return connection in self.connections or (key is not None and self._is_revoked(connection, key))

    def applied(self, connections: Mapping[str, Connection]) -> dict[str, Connection]:
        """Return the connections, with revoked connections and keys marked as revoked."""
        if not (self.keys or self.connections or self.added_before):
            return dict(connections)
        return {name: self._applied(connection) for name, connection in connections.items()}

    def _applied(self, connection: Connection) -> Connection:
        from dataclasses import replace  # slow to import, and a signer does not need it

        if connection.id in self.connections:
            connection = replace(connection, revoked=True)
        keys = self.applied_to(connection.id, connection.keys)
        return connection if keys is connection.keys else replace(connection, keys=keys)

    def applied_to(self, connection: str, keys: KeyRing) -> KeyRing:
        """Return the keys of a connection, with revoked keys marked as revoked."""
        revoked = [self._is_revoked(connection, key) for key in keys.keys]
        if not any(revoked):
            return keys
        pairs = zip(keys.keys, revoked, strict=True)
        return KeyRing(tuple(key._replace(revoked=is_revoked) for key, is_revoked in pairs))

    def _is_revoked(self, connection: str, key: SigningKey) -> bool:
        return self.revokes_key(connection, key.id, key.added)

    def revokes_key(self, connection: str, key: str, added: int | None) -> bool:
        """Return whether a key is revoked, by its name or by its age. Args: added: None if unknown."""
        if f"{connection}/{key}" in self.keys:
            return True
        bound = max((self.added_before.get(name, 0) for name in (EVERY, connection)), default=0)
        # A key of unknown age may be as old as any.
        return bool(bound) and (added is None or added < bound)


NONE_REVOKED: Final = Revocations()
