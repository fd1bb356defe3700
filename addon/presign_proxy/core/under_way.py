"""Requests under way: which of them are ended, because what they rest on was revoked with `now`."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import Denied
from .common_checks import check_revoked
from .decision import Facts
from .registry import Registry
from .revocations import Revocations

CODE: Final = "ended"
"""The code of a request that was ended so."""
WHY: Final = "it was revoked, with --now, while it was under way"


class Basis(NamedTuple):
    """What a grant rests on: the names by which it can be revoked. It holds no credential.

    `added` is when the key was made; None if that is unknown, or there is no key.
    """

    connection: str
    key: str | None
    added: int | None
    signature: str | None
    id: str | None


def basis_of(facts: Facts) -> Basis:
    """Return what a grant rests on."""
    keys = facts.known.keys.keys if facts.known is not None and facts.key is not None else ()
    added = next((key.added for key in keys if key.id == facts.key), None)
    return Basis(facts.connection or "", facts.key, added, facts.signature, facts.id)


def is_ended(registry: Registry, now: Revocations | None, basis: Basis) -> bool:
    """Return whether a request that rests on this is to be ended.

    Args:
        registry: in force.
        now: what was revoked, disabled or removed with `now`.

    It must also be refused if it came again: what is enabled again, or was marked by mistake, goes on.
    """
    return now is not None and _is_marked(now, basis) and _is_refused(registry, basis)


def _is_marked(now: Revocations, basis: Basis) -> bool:
    if basis.signature in now.urls or (basis.id is not None and f"{basis.connection}/{basis.id}" in now.ids):
        return True
    if basis.connection in now.connections:
        return True
    return basis.key is not None and now.revokes_key(basis.connection, basis.key, basis.added)


def _is_refused(registry: Registry, basis: Basis) -> bool:
    connection = registry.connections.get(basis.connection)
    if connection is None:
        return True
    key = next((one for one in connection.keys.keys if one.id == basis.key), None)
    if key is None and basis.key is not None:
        return True
    try:
        check_revoked(registry, connection, key, Facts("", signature=basis.signature, id=basis.id))
    except Denied:
        return True
    return False
