"""Who else can read or write the files that say what the gateway may do."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from ..config_problems import Problem

_LOOSE = stat.S_IWGRP | stat.S_IWOTH
_WRITE = stat.S_IWUSR | _LOOSE
_MAX_HOPS = 16
_ALL_USERS = b"4294967295"
"""Where a process is in no user namespace, this many users are mapped."""


class BadLink(Exception):
    """A symbolic link that others could lead elsewhere. The text says why and what to do."""


def quoted(path: Path) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))


def writable_by_others(path: Path) -> list[Problem]:
    """Whoever can write the file, or replace it in its directory, can register an upstream of their own."""
    if os.name != "posix":
        return []
    found: list[Problem] = []
    # Where links lead, too: whoever can write there needs no link. And all directories above: whoever can
    # rename one of them puts another one in its place.
    reached, owners = path.resolve(), _trusted(path)
    for place in dict.fromkeys((path, *path.absolute().parents, reached, *reached.parents)):
        try:
            known = place.stat()
        except OSError:
            continue  # reading it will say what is wrong
        what = "the directory" if stat.S_ISDIR(known.st_mode) else "the file"
        sticky = stat.S_ISDIR(known.st_mode) and known.st_mode & stat.S_ISVTX
        why = ""
        if known.st_mode & _LOOSE and not sticky:
            why = f"{what} is writable by others: chmod go-w {quoted(place)}"
        elif known.st_uid not in owners:
            whose, mine = _name_of(known.st_uid), _name_of(os.geteuid())
            why = f"{what} belongs to {whose}, who can change it: chown {mine} {quoted(place)}"
        if why:
            found.append(Problem(str(place), 0, 0, "", why))
    return found


def _trusted(path: Path) -> frozenset[int]:
    """Who may own a file, and the directories above it: root, and whoever runs this.

    root manages the files of a service, and so trusts their owner as well. An owner whom this container does
    not know is outside of it: nobody inside can become that user.
    """
    owners = {0, os.geteuid()}
    if os.geteuid() == 0:
        nearest = next((one for one in (path, path.parent) if one.exists()), None)
        owners |= {nearest.stat().st_uid} if nearest else set()
    return frozenset(owners | _unmapped())


def _unmapped() -> set[int]:
    """How Linux shows owners from outside of a user namespace; none where this process is in no such."""
    try:
        first, _, count = Path("/proc/self/uid_map").read_bytes().split()[:3]
        if (first, count) == (b"0", _ALL_USERS):
            return set()
        return {int(Path("/proc/sys/kernel/overflowuid").read_bytes())}
    except (OSError, ValueError):
        return set()


def _name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def readable_by_others(path: Path) -> list[Problem]:
    """The one rule for files that hold secrets: see `is_secret`. Links are followed."""
    if os.name != "posix":
        return []
    try:
        found = path.stat()
    except (OSError, ValueError):
        return []
    return [] if is_secret(found) else [Problem(str(path), 0, 0, "", exposed(path))]


def exposed(path: Path) -> str:
    return f"the file is readable by others: chmod go-r {quoted(path)}"


def is_secret(found: os.stat_result) -> bool:
    """Whether nobody but root and this user can read the file.

    Its group may, where that is this user's alone, if it was handed to us so: by root, or read-only, as
    Kubernetes mounts secrets (0440 for `fsGroup`). A file of one's own that is 0640 is a mistake.
    """
    if found.st_mode & stat.S_IROTH:
        return False
    if not found.st_mode & stat.S_IRGRP:
        return True
    me = os.geteuid()
    handed = (found.st_uid == 0 != me) or (found.st_uid in (0, me) and not found.st_mode & _WRITE)
    return handed and _is_of_us_alone(found.st_gid, me)


def _is_of_us_alone(gid: int, uid: int) -> bool:
    """Whether this process is in a group, and nobody else is."""
    import grp
    import pwd

    if gid != os.getegid() and gid not in os.getgroups():
        return False
    try:
        members = set(grp.getgrgid(gid).gr_mem) - {"root"}
    except KeyError:
        return True  # a number that the container's runtime has chosen
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    # A group without listed members may be the first one of many users, as `staff` is.
    return members == {name} or _is_private(gid, uid)


def followed(path: Path) -> Path:
    """Where the links of a mounted directory lead: the file itself. Raises BadLink, OSError.

    A link has to stay inside the directory of `path`, and to belong to root or to this user, as has each
    directory on the way, which nobody else may write: then nobody else can lead it elsewhere.
    """
    current, rest = path.parent, [path.name]
    for _ in range(_MAX_HOPS):
        current = current / rest.pop(0)
        found = current.lstat()
        if stat.S_ISLNK(found.st_mode):
            _check_owned(found, "a link on the way")
            target = current.readlink()
            if target.is_absolute() or ".." in target.parts:
                raise BadLink("is a symbolic link out of its directory: name the file itself")
            current, rest = current.parent, [*target.parts, *rest]
        elif not rest:
            return current
        else:
            _check_owned(found, "a directory on the way")
            if found.st_mode & _LOOSE and not found.st_mode & stat.S_ISVTX:
                raise BadLink(f"{current} is writable by others: chmod go-w {quoted(current)}")
    raise BadLink("is a symbolic link that leads through too many others")


def _check_owned(found: os.stat_result, what: str) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise BadLink(f"is a symbolic link, and {what} belongs to another user: name the file itself")


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
