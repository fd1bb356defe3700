"""Checks that a file can be opened or created, made before anything depends on the file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path


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
