"""The file of the registry: read only where nobody else can read or write it, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .problems import Foreseen

if sys.platform != "win32":
    import fcntl

MAX_BYTES: Final = 512 * 1024 * 1024
_BLOCK: Final = 1024 * 1024


class StoreError(Foreseen):
    """A file that cannot be read or written. The text says what is wrong with it and what to do."""


def read_private(path: Path) -> bytes:
    """The content of a regular file of mode 0600 or less.

    The file that was opened is the one that is judged, and a link is not followed: nobody can put
    another one in its place in between.

    Raises StoreError.
    """
    _check_platform()
    try:
        # O_NONBLOCK, or a FIFO in its place would hang us.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise StoreError("is a symbolic link: name the file itself") from None
        raise StoreError(f"{_reason(error)}; is the path right?") from None
    except ValueError:
        raise StoreError("the path holds a NUL") from None
    try:
        _check_private(descriptor, path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StoreError(_reason(error)) from None
    finally:
        os.close(descriptor)
    if len(raw) > MAX_BYTES:
        raise StoreError(f"is larger than {MAX_BYTES} bytes")
    return raw


def _check_private(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise StoreError("is not a file but a directory, a device or a pipe")
    if found.st_size > MAX_BYTES:
        raise StoreError(f"is larger than {MAX_BYTES} bytes")
    if found.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        raise StoreError(f"the file is readable by others: chmod go-r {shlex.quote(str(path))}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(f"the file is writable by others: chmod go-w {shlex.quote(str(path))}")


def write_private(path: Path, content: bytes) -> None:
    """Replace the file, mode 0600. After a crash at any moment, the old content is there or the new one.

    The caller holds `lock` where it read the file before. Raises StoreError; the old file is then as it was.
    """
    _check_platform()
    if path.is_symlink():
        raise StoreError("is a symbolic link: name the file itself")
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.draft")
    try:
        _write_draft(draft, content, like=path)
        draft.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StoreError(f"cannot be written: {_reason(error)}") from None


def _write_draft(draft: Path, content: bytes, like: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "wb", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        if os.geteuid() == 0 and like.exists():
            # root manages the file of a service that has to go on reading it.
            owner = like.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        view = memoryview(content)
        while view:
            view = view[file.write(view[:_BLOCK]) or 0 :]
        # Before the rename, or a power cut could leave the new name with nothing in it.
        os.fsync(file.fileno())


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
    beside = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot be locked: {_reason(error)}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in path.parent.glob(f".{_literally(path.name)}.*.draft"):
            with contextlib.suppress(OSError):
                left.unlink()
        yield
    finally:
        os.close(descriptor)


def _check_platform() -> None:
    """Raises StoreError where no file can be kept from others in this way."""
    if sys.platform == "win32":
        raise StoreError("needs the file modes and locks of Linux or macOS: on Windows, use WSL")


def _literally(name: str) -> str:
    """The name as a glob pattern that matches nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _reason(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()
