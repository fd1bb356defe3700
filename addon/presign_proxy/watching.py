"""Whether files have changed. Polling `stat`, because config maps and network drives defeat notifications."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Version = tuple[tuple[int, int, int] | None, ...]


def version_of(files: Iterable[Path]) -> Version:
    """Changes whenever one of the files is written, replaced or removed."""
    return tuple(_state_of(path) for path in files)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
