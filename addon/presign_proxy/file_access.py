"""Whether a file can be opened or made, and why not, before anything depends on it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path


def why_not(path: Path, error: OSError) -> str:
    """Why a file could not be opened or made, with its directory where that is the reason."""
    why, directory = (error.strerror or "it failed").lower(), path.parent
    if isinstance(error, FileNotFoundError) and not directory.is_dir():
        return f"there is no directory {directory}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and not os.path.lexists(path):
        return f"the directory {directory} cannot be written: {why}"
    return why


def tried(path: Path, opened: Callable[[Path], int]) -> None:
    """Open a file, or make one beside it where it is not there, and leave nothing behind.

    Not the file itself: made by root, it could not be written by the service that it is for.

    Args:
        opened: as `path` is opened, made if need be; returns the descriptor.

    Raises OSError, ValueError.
    """
    if os.path.lexists(path):
        os.close(opened(path))
        return
    beside = path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}.try")
    os.close(opened(beside))
    beside.unlink()
