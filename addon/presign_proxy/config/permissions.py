"""Check which other users can read or write the files that control the gateway."""

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
"""The number of mapped users outside of any user namespace."""


class BadLink(Exception):
    """A symbolic link that others could point elsewhere. The text says why and what to do."""


def quoted(path: Path) -> str:
    """Return a path, quoted for a shell."""
    return shlex.quote(str(path))


def writable_by_others(path: Path) -> list[Problem]:
    """Return a problem for each place where another user can write the file or replace it.

    A user who can do that can register an upstream of their own, and receive the credentials.
    """
    if os.name != "posix":
        return []
    found: list[Problem] = []
    # The target of links counts too: a user who can write there needs no link. So do all directories above: a
    # user who can rename one of them can put another in its place.
    reached, owners = path.resolve(), _trusted(path)
    for place in dict.fromkeys((path, *path.absolute().parents, reached, *reached.parents)):
        try:
            known = place.stat()
        except OSError:
            continue  # reading the file will report what is wrong
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


def why_not_own(directory: Path) -> str:
    """Return why other users can replace the files in a directory; empty if none but root can.

    A link counts as the directory that it leads to, and must not belong to another user either. The
    directories above are not looked at: homes in a group's hands are common, and their users know that.

    Raises OSError.
    """
    if os.name != "posix":
        return ""
    owners = {0, os.geteuid(), *_unmapped()}
    for found in (directory.lstat(), directory.stat()):
        if found.st_uid not in owners:
            return f"belongs to {_name_of(found.st_uid)}"
    return "is writable by others" if found.st_mode & _LOOSE else ""


def _trusted(path: Path) -> frozenset[int]:
    """Return the users who may own a file and the directories above it: root and the user of this process.

    If this process is root, it manages the files of a service, so their owner is trusted as well. An owner
    that this container does not know is outside of it: no user inside can become that owner.
    """
    owners = {0, os.geteuid()}
    if os.geteuid() == 0:
        nearest = next((one for one in (path, path.parent) if one.exists()), None)
        owners |= {nearest.stat().st_uid} if nearest else set()
    return frozenset(owners | _unmapped())


def _unmapped() -> set[int]:
    """Return the user id that stands for owners outside our user namespace; empty outside of namespaces."""
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
    """Return a problem if other users can read a file of secrets (`is_secret`). Links are followed."""
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
    """Return whether only root and this user can read the file.

    Its group may also read it if this user is its only member, and if we received the file like that: from
    root, or read-only, as Kubernetes mounts secrets (0440 for `fsGroup`). A file of our own with mode 0640 is
    a mistake.
    """
    if found.st_mode & stat.S_IROTH:
        return False
    if not found.st_mode & stat.S_IRGRP:
        return True
    me = os.geteuid()
    handed = (found.st_uid == 0 != me) or (found.st_uid in (0, me) and not found.st_mode & _WRITE)
    return handed and _is_of_us_alone(found.st_gid, me)


def _is_of_us_alone(gid: int, uid: int) -> bool:
    """Return whether this process is in a group that has no other user."""
    import grp
    import pwd

    if gid != os.getegid() and gid not in os.getgroups():
        return False
    try:
        members = set(grp.getgrgid(gid).gr_mem) - {"root"}
    except KeyError:
        return True  # a group id without a name was chosen by the container's runtime
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return False
    # A group without listed members may be the primary group of many users, as `staff` is.
    return members == {name} or _is_private(gid, uid)


def followed(path: Path) -> Path:
    """Follow the links of a mounted directory and return the file itself. Raises BadLink, OSError.

    A link must stay inside the directory of `path`. The link and each directory on the way must belong to
    root or to this user, and no other user may write such a directory. So no other user can redirect it.
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
    """Make a directory unwritable for others if no other user loses anything. Return whether it was done.

    It is done for a directory of the caller's own that is empty, or that only the caller's private group may
    write. A umask of 002, usual on Debian and Fedora, makes each new directory so. A directory with the
    set-group-ID or the sticky bit is meant to be shared, and stays as it is.

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
            # Another user was faster, and may have planted one of the files that we are going to read.
            os.fchmod(descriptor, mode)
            return False
        return True
    finally:
        os.close(descriptor)


def _has_files(descriptor: int) -> bool:
    with os.scandir(descriptor) as entries:
        return any(entries)


def _is_private(gid: int, uid: int) -> bool:
    """Return whether a group is a user's private one: same name, their primary group, no other member."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
