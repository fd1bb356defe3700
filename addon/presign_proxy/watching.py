"""Whether files have changed. Polling `stat`, because config maps and network drives defeat notifications."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Version = tuple[tuple[int, ...] | None, ...]


def version_of(files: Iterable[Path]) -> Version:
    """Changes whenever one of the files is written, replaced, removed or made readable."""
    return tuple(_state_of(path) for path in files)


def _state_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # ctime: of the mode too, which decides whether a file is read.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
