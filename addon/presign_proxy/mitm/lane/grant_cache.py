"""A cache of what was granted in this very second, by the bytes of the request's head.

A decision is a function of registry, request and second alone, so the same head from the same place is
granted in the same way as long as those two stay: nothing that expires, rotates or is revoked can be missed.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ...core.registry import Registry
from .granted_request import GrantedRequest

MAX: Final = 256
MAX_SEEN: Final = 4096
MAX_SIZE: Final = 4096
"""Bytes of a head that is kept."""


class Key(NamedTuple):
    """What a decision depends on besides registry and second: the head, and where it came from."""

    raw: bytes
    place: tuple[Any, ...]


class Granted(NamedTuple):
    """What became of a head."""

    request: GrantedRequest
    wire: bytes
    """The head that goes to the upstream."""


class GrantCache:
    """The grants of one second under one registry: each change of either empties it.

    Of a head that comes once it keeps a hash and nothing else.
    """

    __slots__ = ("_found", "_now", "_registry", "_seen")

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._now = 0
        self._found: dict[Key, Granted] = {}
        self._seen: set[int] = set()

    def find(self, key: Key, registry: Registry | None, now: int) -> Granted | None:
        """Return what became of this head, or None.

        Args:
            now: Unix time, whole seconds.
        """
        self.forget_before(registry, now)
        return self._found.get(key)

    def keep(self, key: Key, granted: Granted) -> None:
        """Keep a grant of the moment of the last `find`, if the head does not come for the first time."""
        mark = hash(key)
        if mark in self._seen:
            if len(key.raw) <= MAX_SIZE and len(self._found) < MAX:
                self._found[key] = granted
        elif len(self._seen) < MAX_SEEN:
            self._seen.add(mark)

    def forget_before(self, registry: Registry | None, now: int) -> None:
        """Empty the cache, if it is of another second or registry."""
        if now != self._now or registry is not self._registry:
            self._found.clear()
            self._seen.clear()
            self._now, self._registry = now, registry
