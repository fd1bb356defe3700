"""The file of the registry: read only where nobody else can read or write it, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...config_problems import UNCONFIRMED, Foreseen
from ..permissions import BadLink, exposed, followed, is_secret, quoted

if sys.platform != "win32":
    import fcntl

MAX_BYTES: Final = 512 * 1024 * 1024
_BLOCK: Final = 1024 * 1024
_SWAPS: Final = 3
"""How often in a row what is mounted may be replaced while it is opened."""
_UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


class PrivateFileError(Foreseen):
    """A file that cannot be read or written. The text says what is wrong with it and what to do."""


def read_private(path: Path) -> bytes:
    """The content of a regular file that nobody else can read (`permissions.is_secret`).

    The file that was opened is the one that is judged, and no link is followed but those of a mounted
    directory (`permissions.followed`): nobody can put another one in its place in between.

    Raises StoreError.
    """
    _check_platform()
    descriptor = _opened(path)
    try:
        _check_private(descriptor, path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PrivateFileError(_reason(error)) from None
    finally:
        os.close(descriptor)
    if len(raw) > MAX_BYTES:
        raise PrivateFileError(f"is larger than {MAX_BYTES} bytes")
    return raw


def _opened(path: Path) -> int:
    """Raises StoreError."""
    # O_NONBLOCK, or a FIFO in its place would hang us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        for _ in range(_SWAPS):
            # What is mounted may be replaced between the two steps, and the old one removed.
            with contextlib.suppress(FileNotFoundError):
                return os.open(followed(path), flags)
        return os.open(followed(path), flags)
    except BadLink as error:
        raise PrivateFileError(str(error)) from None
    except OSError as error:
        if path.is_symlink():
            raise PrivateFileError("is a symbolic link that leads nowhere") from None
        raise PrivateFileError(f"{_reason(error)}; is the path right?") from None
    except ValueError:
        raise PrivateFileError("the path holds a NUL") from None


def _check_private(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise PrivateFileError("is not a file but a directory, a device or a pipe")
    if found.st_size > MAX_BYTES:
        raise PrivateFileError(f"is larger than {MAX_BYTES} bytes")
    if not is_secret(found):
        raise PrivateFileError(exposed(path))
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PrivateFileError(f"the file is writable by others: chmod go-w {shlex.quote(str(path))}")


def write_private(path: Path, content: bytes, like: Path | None = None) -> None:
    """Replace the file, mode 0600. After a crash at any moment, the old content is there or the new one.

    Args:
        like: whose owner it gets where root writes it; else that of the file it replaces.

    The caller holds `lock` where it read the file before. Raises StoreError; the old file is then as it was.
    """
    _check_platform()
    if path.is_symlink():
        raise PrivateFileError("is a symbolic link: name the file itself")
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.draft")
    try:
        _write_draft(draft, content, like=like or path)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise PrivateFileError(f"cannot be written: {_reason(error)}") from None
    try:
        _sync_directory(path.parent)
    except OSError as error:
        # It is in force: whoever reads the file now reads the new one.
        why = f"the disk has not confirmed it ({_reason(error)})"
        UNCONFIRMED.append(
            f"{path} is written and in force, but {why}: after a power cut the old one may be back"
        )


def _write_draft(draft: Path, content: bytes, like: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "wb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        _hand_over(file.fileno(), like)
        view = memoryview(content)
        while view:
            view = view[file.write(view[:_BLOCK]) or 0 :]
        # Before the rename, or a power cut could leave the new name with nothing in it.
        os.fsync(file.fileno())


def _hand_over(descriptor: int, like: Path) -> None:
    """Give what root has just made to whom it is for: a service has to go on reading and locking its files.

    That is the owner of the file that was there before, else of its directory. Raises OSError.
    """
    if os.geteuid() == 0:
        owner = (like if like.exists() else like.parent).stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the right to change a file: two commands at once would lose what one of them wrote.

    Also removes what a writer that was killed has left behind. Raises StoreError.
    """
    _check_platform()
    descriptor = _opened_lock(path.with_name(f".{path.name}.lock"), path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        remove_drafts(path)
        yield
    finally:
        os.close(descriptor)


def _opened_lock(beside: Path, path: Path) -> int:
    """Raises StoreError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(beside, flags, 0o600)
    except OSError as error:
        mending = _mending(beside, path)
        if error.errno in _UNWRITABLE and not mending:
            raise PrivateFileError(f"nothing can be written to its directory: {_reason(error)}") from None
        raise PrivateFileError(f"cannot be locked: {_reason(error)}{mending}") from None
    try:
        found = os.fstat(descriptor)
        # Only an empty file with this one name: a link that somebody has put here leads to what is not ours.
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size == 0 and found.st_uid == 0:
            _hand_over(descriptor, path)
    except OSError as error:
        os.close(descriptor)
        raise PrivateFileError(f"cannot be locked: {_reason(error)}") from None
    return descriptor


def _mending(beside: Path, path: Path) -> str:
    """What to do about a lock that another user has left; empty where that is not the reason."""
    with contextlib.suppress(OSError):
        if beside.lstat().st_uid != os.geteuid():
            return f"; another user made it: chown --reference={quoted(path.parent)} {quoted(beside)}"
    return ""


def remove_drafts(path: Path) -> None:
    """Remove what a writer that was killed has left. The caller sees to it that nobody writes the file."""
    for left in path.parent.glob(f".{_literally(path.name)}.*.draft"):
        with contextlib.suppress(OSError):
            left.unlink()


def _check_platform() -> None:
    """Raises StoreError where no file can be kept from others in this way."""
    if sys.platform == "win32":
        raise PrivateFileError("needs the file modes and locks of Linux or macOS: on Windows, use WSL")


def _literally(name: str) -> str:
    """The name as a glob pattern that matches nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _reason(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()
