"""What a process holds open."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path


def descriptors() -> list[int]:
    """The numbers of all open descriptors."""
    gc.collect()  # what others have left to it is not ours to count
    found = []
    for entry in Path("/dev/fd").iterdir():
        number = int(entry.name)
        try:
            os.fstat(number)
        except OSError:
            continue  # the one with which the directory was read
        found.append(number)
    return sorted(found)


def links_of(pid: int) -> set[str]:
    """What another process has open, as `/proc` names it: paths, and sockets as `socket:[inode]`.

    A descriptor that is closed while they are read is not open.
    """
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return found
