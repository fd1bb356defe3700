"""Loading a large configuration, and letting go of the last one, beside a running event loop."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .config import Loaded, load
from .connections import Registry
from .registry_file import Memory

_TURN: Final = 0.0005
"""Seconds; Python's own choice is 5 ms."""
_LARGE: Final = 1000
"""New connections from which on a garbage collection that walks through all of them would be noticed."""


def load_calmly(path: Path, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """As `config.load`. Collecting garbage meanwhile would walk through what is being made, again and again;
    afterwards, many new connections are left out of it, since nothing in them refers back to itself.
    Not after each small change: whatever else is alive then is left out too, and its cycles are never freed.
    """
    was_enabled, memory.built = gc.isenabled(), 0
    gc.disable()
    try:
        with _SHORT_TURNS:
            loaded = load(path, environ, unsigned, memory)
        if memory.built + len(loaded.config.connections) > _LARGE:
            gc.freeze()
        return loaded
    finally:
        if was_enabled:
            gc.enable()


def let_go(registry: Registry) -> None:
    """Free a registry that is no longer used, in steps."""
    with _SHORT_TURNS:
        registry.disperse()


class _ShortTurns:
    """An event loop lets go of the interpreter with every system call, and gets it back when the thread that
    works beside it has had its turn. Several may want it at a time; the last one puts back what was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._wanted += 1
            if self._wanted == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(_TURN)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._wanted -= 1
            if self._wanted == 0:
                sys.setswitchinterval(self._before)


_SHORT_TURNS: Final = _ShortTurns()
