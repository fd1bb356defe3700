"""Exclude objects that form no cycle from garbage collection."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable
from gc import is_tracked
from itertools import islice
from typing import Any, Final

from ..core.ceiling import Ceiling
from ..core.connection import Conduct, Connection, SourceRules, Upstream
from ..core.credentials import BasicCredential, HeaderCredential, NoCredential, QueryCredential
from ..core.path_credential import PathCredential
from ..signing.keys import KeyRing, SigningKey
from ..signing.secret import Secret

_untrack: Any = None
with contextlib.suppress(ImportError, AttributeError):  # without it, collections just take longer
    import ctypes

    _untrack = ctypes.pythonapi.PyObject_GC_UnTrack
    _untrack.argtypes, _untrack.restype = (ctypes.py_object,), None

_AT_ONCE: Final = 500
"""Objects per step; no other thread runs during a step."""
_FROZEN: Final = (
    tuple,
    frozenset,
    Ceiling,
    Conduct,
    Connection,
    SourceRules,
    Upstream,
    BasicCredential,
    HeaderCredential,
    NoCredential,
    PathCredential,
    QueryCredential,
    KeyRing,
    SigningKey,
    Secret,
)
"""Types whose objects never change. Each object refers only to older ones, so they form no cycle."""


def leave_out(roots: Iterable[tuple[Any, ...] | Connection]) -> None:
    """Make garbage collections skip these objects and their parts for as long as they live.

    They are still freed when nothing refers to them any more. Only objects that refer to each other need a
    collection, and frozen objects never do. If they did, they would stay in memory, and nothing worse would
    happen. `gc.freeze` is no alternative: it also exempts every other object that is alive at that moment,
    and the cycles of a client connection would never be freed.

    Other threads may use the objects meanwhile.
    Source: https://docs.python.org/3/c-api/gcsupport.html (PyObject_GC_UnTrack).
    """
    if _untrack is None:
        return
    remaining = iter(roots)
    while batch := list(islice(remaining, _AT_ONCE)):
        while level := [one for one in batch if is_tracked(one)]:
            for one in level:
                _untrack(one)
            batch = [part for part in gc.get_referents(*level) if _is_frozen[type(part)]]


class _Judged(dict[type, bool]):
    """A cache that maps a type to whether its objects are frozen."""

    def __missing__(self, kind: type) -> bool:
        return self.setdefault(kind, issubclass(kind, _FROZEN))


_is_frozen: Final = _Judged()
