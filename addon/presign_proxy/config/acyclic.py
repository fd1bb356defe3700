"""Keeping garbage collections from walking through what is known to hold no cycle."""

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
from ..signing.keys import KeyRing, SigningKey
from ..signing.secret import Secret

_untrack: Any = None
with contextlib.suppress(ImportError, AttributeError):  # without it, collections only take longer
    import ctypes

    _untrack = ctypes.pythonapi.PyObject_GC_UnTrack
    _untrack.argtypes, _untrack.restype = (ctypes.py_object,), None

_AT_ONCE: Final = 500
"""Objects that are looked at in one go, while no other thread runs."""
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
    QueryCredential,
    KeyRing,
    SigningKey,
    Secret,
)
"""Types whose objects never change: each refers to what is older than itself, and to no newer one."""


def leave_out(roots: Iterable[tuple[Any, ...] | Connection]) -> None:
    """Have garbage collections pass over these objects and what they consist of, however long they live.

    They are freed as ever when nothing refers to them any more. A collection is needed only for objects that
    refer to each other, and among those that are frozen there are none: if there were, they would stay, and
    nothing worse. `gc.freeze` would leave out everything else that is alive at that moment as well, and the
    cycles of a client's connection would never be freed.

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
    """Whether objects of a type are frozen: found out once for each type."""

    def __missing__(self, kind: type) -> bool:
        return self.setdefault(kind, issubclass(kind, _FROZEN))


_is_frozen: Final = _Judged()
