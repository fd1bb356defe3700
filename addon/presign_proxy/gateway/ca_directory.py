"""The directory of the certificate authority, which is made if it is missing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..config.path import expanded

_AUTHORITY = "mitmproxy-ca.pem"


def prepare(directory: Path) -> None:
    """Make the directory. Raises OSError, also if the authority does not exist and cannot be made."""
    if (error := refused(directory)) is not None:
        raise error
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def refused(directory: Path) -> OSError | None:
    """Return what `prepare` would raise, or None. Nothing is made."""
    if (directory / _AUTHORITY).exists():
        return None
    nearest = next(one for one in (directory, *directory.parents) if os.path.lexists(one))
    if not nearest.is_dir():
        return _error(errno.ENOTDIR, nearest)
    return None if os.access(nearest, os.W_OK | os.X_OK) else _error(errno.EACCES, directory)


def obstacle(option: str) -> str:
    """Return why mitmdump has no authority with this `confdir`, and what to add; empty if it has one.

    mitmproxy itself would end in a traceback after it has loaded the scripts.
    """
    error = refused(expanded(option))
    if error is None:
        return ""
    why = (error.strerror or "cannot be written").lower()
    return f"{error.filename}: {why}; name another directory with --set confdir=DIR"


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
