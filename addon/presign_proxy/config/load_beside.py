"""Loading a large configuration, and letting go of the last one, beside a running event loop."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ..core.registry import Registry
from .acyclic import leave_out
from .load import Loaded, build
from .read_files import Seen, see
from .registry_file.memory import Memory

_TURN: Final = 0.0005
"""Seconds; Python's own choice is 5 ms."""


def load_calmly(path: Path, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """As `load.load`."""
    return build_calmly(see_calmly(path, environ, memory), environ, unsigned, memory)


def see_calmly(path: Path, environ: Mapping[str, str], memory: Memory) -> Seen:
    """As `read_files.see`."""
    with _without_collecting(), _SHORT_TURNS:
        return see(path, environ, memory)


def build_calmly(seen: Seen, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """As `load.build`, without a garbage collection that walks through what is being made.

    Later collections pass over the connections as well (`acyclic`): they would take a second for 100,000.
    """
    with _without_collecting(), _SHORT_TURNS:
        loaded = build(seen, environ, unsigned, memory)
        leave_out(memory.known.values())
        leave_out(loaded.registry.connections.values())
        leave_out(loaded.lent.read)
        return loaded


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
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
