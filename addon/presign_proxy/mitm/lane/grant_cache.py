"""What was granted in this very second, found again by the bytes of the request's head.

A decision is a function of registry, request and second alone, so the same head from the same place is
granted in the same way as long as those two stay: nothing that expires, rotates or is revoked can be missed.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ...core.decision import Forward
from ...core.registry import Registry
from ...http.message import Request
from .request_head import RequestHead

MAX: Final = 256
MAX_SEEN: Final = 4096
MAX_SIZE: Final = 4096
"""Bytes of a head that is kept."""


class Key(NamedTuple):
    """All that a decision depends on besides registry and second: the head, and where it came from."""

    raw: bytes
    place: tuple[Any, ...]


class Granted(NamedTuple):
    """What became of a head; `wire` is the head that goes to the upstream."""

    head: RequestHead
    request: Request
    forward: Forward
    wire: bytes


class GrantCache:
    """Forgets everything once the second or the registry is another one. Of what comes once it keeps nothing
    but a hash.
    """

    __slots__ = ("_found", "_now", "_registry", "_seen")

    def __init__(self) -> None:
        self._registry: Registry | None = None
        self._now = 0
        self._found: dict[Key, Granted] = {}
        self._seen: set[int] = set()

    def find(self, key: Key, registry: Registry | None, now: int) -> Granted | None:
        """Args: now: Unix time, whole seconds."""
        self.forget_before(registry, now)
        return self._found.get(key)

    def keep(self, key: Key, granted: Granted) -> None:
        """For whoever asks next, in the moment of the last `find`, if this is not the first time."""
        mark = hash(key)
        if mark in self._seen:
            if len(key.raw) <= MAX_SIZE and len(self._found) < MAX:
                self._found[key] = granted
        elif len(self._seen) < MAX_SEEN:
            self._seen.add(mark)

    def forget_before(self, registry: Registry | None, now: int) -> None:
        if now != self._now or registry is not self._registry:
            self._found.clear()
            self._seen.clear()
            self._now, self._registry = now, registry
