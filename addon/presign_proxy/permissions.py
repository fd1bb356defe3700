"""Who else can read or write the files that say what the gateway may do."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from .problems import Problem

_LOOSE = stat.S_IWGRP | stat.S_IWOTH


def quoted(path: Path) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))


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
        if mode & _LOOSE and not sticky:
            what = "the directory" if stat.S_ISDIR(mode) else "the file"
            why = f"{what} is writable by others: chmod go-w {quoted(place)}"
            found.append(Problem(str(place), 0, 0, "", why))
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
        return [Problem(str(path), 0, 0, "", f"the file is readable by others: chmod go-r {quoted(path)}")]
    return []


def tightened(directory: Path) -> bool:
    """Take the right to write from others, where that takes nothing from anybody; whether it was done.

    That is a directory of the caller's own which is empty, or which only the caller's private group may
    write: a umask of 002, usual on Debian and Fedora, makes each new directory so. With the set-group-ID or
    the sticky bit it is meant to be shared.

    Raises OSError.
    """
    if os.name != "posix":
        return False
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid() or not mode & _LOOSE or mode & (stat.S_ISGID | stat.S_ISVTX):
            return False
        private = not mode & stat.S_IWOTH and _is_private(found.st_gid, found.st_uid)
        if not private and _has_files(descriptor):
            return False
        os.fchmod(descriptor, mode & ~_LOOSE)
        if not private and _has_files(descriptor):
            # Somebody was faster. What they put there may be one of the files that are to be read.
            os.fchmod(descriptor, mode)
            return False
        return True
    finally:
        os.close(descriptor)


def _has_files(descriptor: int) -> bool:
    with os.scandir(descriptor) as entries:
        return any(entries)


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group is of one user alone: named like the user, whose first group it is, no other member."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
