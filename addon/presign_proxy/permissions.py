"""Who else can read or write the files that say what the gateway may do."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .problems import Problem


def writable_by_others(path: Path) -> list[Problem]:
    """Whoever can write the file, or replace it in its directory, can register an upstream of their own."""
    if os.name != "posix":
        return []
    found: list[Problem] = []
    # Where links lead, too: whoever can write there needs no link.
    for place in dict.fromkeys((path, path.parent, path.resolve(), path.resolve().parent)):
        try:
            mode = place.stat().st_mode
        except OSError:
            continue  # reading it will say what is wrong
        sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            what = "the directory" if stat.S_ISDIR(mode) else "the file"
            found.append(Problem(str(place), 0, 0, "", f"{what} is writable by others: chmod go-w {place}"))
    return found


def readable_by_others(path: Path) -> list[Problem]:
    """A registry holds credentials."""
    if os.name != "posix":
        return []
    try:
        mode = path.stat().st_mode
    except OSError:
        return []
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return [Problem(str(path), 0, 0, "", f"the file is readable by others: chmod go-r {path}")]
    return []
