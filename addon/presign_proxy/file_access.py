"""Files that others put in their place: checked before anything depends on them, and read without hanging."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PIPE_PATIENCE: Final = 2.0
"""Seconds for which a file that is a pipe may keep its reader waiting."""


def read_at_most(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """Return the first bytes of a file, and its state when it was opened.

    A pipe (`<(…)` of a shell, a FIFO) is read as well, but not waited for longer than `PIPE_PATIENCE`: the
    thread that waits for it would read no revocation meanwhile.

    Raises OSError, ValueError.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(most), found
        return _from_pipe(descriptor, most), found
    finally:
        os.close(descriptor)


def _from_pipe(descriptor: int, most: int) -> bytes:
    """Return what comes out of a pipe until it ends. Raises OSError."""
    import select  # here, because hardly any file is a pipe

    until, raw = time.monotonic() + PIPE_PATIENCE, b""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    while len(raw) < most:
        if not ready.poll(1000 * max(0.0, until - time.monotonic())):
            raise TimeoutError(errno.ETIMEDOUT, f"is a pipe that did not end within {PIPE_PATIENCE:.0f} s")
        with contextlib.suppress(BlockingIOError):
            if not (piece := os.read(descriptor, most - len(raw))):
                break
            raw += piece
    return raw


def why_not(path: Path, error: OSError) -> str:
    """Return why a file could not be opened or created. Names its directory if that is the reason."""
    why, directory = (error.strerror or "it failed").lower(), path.parent
    if isinstance(error, FileNotFoundError) and not directory.is_dir():
        return f"there is no directory {directory}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and not os.path.lexists(path):
        return f"the directory {directory} cannot be written: {why}"
    return why


def tried(path: Path, opened: Callable[[Path], int]) -> None:
    """Check that a file can be opened, or created if it does not exist. Leaves nothing behind.

    If the file does not exist, a temporary file beside it is created instead. If root created the file
    itself, the service that uses it could not write to it.

    Args:
        opened: opens a path, creates the file if needed, and returns the descriptor.

    Raises OSError, ValueError.
    """
    if os.path.lexists(path):
        os.close(opened(path))
        return
    beside = path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}.try")
    os.close(opened(beside))
    beside.unlink()
