"""Load a large configuration, and free the last one, while an event loop runs in another thread."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ..core.registry import Registry
from .gc_exempt import leave_out
from .load import Loaded, build
from .read_files import Seen, see
from .registry_file.memory import Memory

_TURN: Final = 0.0005
"""Seconds until a thread must give up the interpreter; Python's default is 5 ms."""


def load_calmly(path: Path, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """Do the same as `load.load`, with little delay for the event loop."""
    return build_calmly(see_calmly(path, environ, memory), environ, unsigned, memory)


def see_calmly(path: Path, environ: Mapping[str, str], memory: Memory) -> Seen:
    """Do the same as `read_files.see`, with little delay for the event loop."""
    with _without_collecting(), _SHORT_TURNS:
        return see(path, environ, memory)


def build_calmly(seen: Seen, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """Do the same as `load.build`, with the garbage collector off while the objects are made.

    Later collections skip the connections as well (`acyclic`): 100,000 of them would take a second.
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


def free(registry: Registry) -> None:
    """Free a registry that is no longer used, in steps."""
    with _SHORT_TURNS:
        registry.disperse()


class _ShortTurns:
    """A context in which threads take short turns with the interpreter.

    The event loop releases the interpreter with every system call. It gets it back only when the turn of the
    loading thread ends. Several threads may be in this context at once; the last to leave restores the value.
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
