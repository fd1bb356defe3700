"""The registry's file on disk: kills and power cuts between any two system calls, owners, links, locks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file import storage
from presign_proxy.config.registry_file.storage import PrivateFileError, lock, read_private, write_private
from support.descriptors import descriptors
from support.machine import needs_root

NOBODY = 65534
NEW = b"new " * 700_000
"""More than two blocks."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "connections.enc"
    path.write_bytes(b"old")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- a kill, a power cut ------------------------------------------------------------------------------

CALLS = ("open", "fchmod", "fchown", "fsync", "replace", "close", "unlink")


def killed_before(number: int, path: Path) -> bool:
    """Write in a child that dies before its system call of that number; whether it came so far."""
    child = os.fork()
    if child == 0:
        left = iter(range(number))

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **more: Any) -> Any:
                if next(left, None) is None:
                    os._exit(9)
                return call(*arguments, **more)

            return counted

        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        with lock(path):
            write_private(path, NEW)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_writer_that_is_killed_between_any_two_calls_leaves_the_old_file_or_the_new_one(
    file: Path,
) -> None:
    number, found = 0, []
    while killed_before(number, file):
        content = read_private(file)
        assert content in (b"old", NEW)
        found.append(content)
        with lock(file):
            assert names(file.parent) == [f".{file.name}.lock", file.name]
        file.write_bytes(b"old")
        number += 1
    assert {b"old", NEW} == set(found)
    assert number >= 6
    assert read_private(file) == NEW


class Disk:
    """What a power cut leaves: the content of a file as it was synced, and a name once its directory was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[int, int] = {}
        self.renamed: list[tuple[int, int]] = []
        """Of each rename: how much of the file was on the disk then, and its size."""
        self.names_are_synced = True
        sync, replace = os.fsync, os.replace

        def fsync(descriptor: int) -> None:
            sync(descriptor)
            found = os.fstat(descriptor)
            self.synced[found.st_ino] = found.st_size
            self.names_are_synced = self.names_are_synced or stat.S_ISDIR(found.st_mode)

        def renamed(source: Any, target: Any, **more: Any) -> None:
            found = Path(source).stat()
            self.renamed.append((self.synced.get(found.st_ino, -1), found.st_size))
            self.names_are_synced = False
            replace(source, target, **more)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", renamed)


@pytest.mark.parametrize("content", [b"small", NEW])
def test_a_power_cut_after_the_rename_finds_the_whole_file_on_the_disk(
    file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    write_private(file, content)
    assert disk.renamed == [(len(content), len(content))]
    assert disk.names_are_synced


# -- what is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 1024 * 1024 + 1, 3 * 1024 * 1024])
def test_all_of_it_is_written(file: Path, size: int) -> None:
    write_private(file, b"x" * size)
    assert read_private(file) == b"x" * size
    assert names(file.parent) == [file.name]


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_of_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, sizes = os.fdopen, []

    class Slow:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *_: object) -> None:
            self._inner.close()

        def fileno(self) -> int:
            return self._inner.fileno()

        def write(self, data: memoryview) -> int | None:
            sizes.append(len(data))
            return self._inner.write(data[:1000]) if len(sizes) % 3 else None

    def fdopen(descriptor: int, how: str, **more: Any) -> Any:
        return Slow(opened(descriptor, how, **more)) if how == "wb" else opened(descriptor, how, **more)

    monkeypatch.setattr(os, "fdopen", fdopen)
    content = bytes(range(256)) * 4100
    write_private(file, content)
    assert file.read_bytes() == content
    assert max(sizes) == 1024 * 1024, "a block at a time: between two, other threads run"


@pytest.mark.parametrize("umask", [0, 0o277])
def test_the_file_is_for_its_owner_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_private(tmp_path / "a", b"x")
        with lock(tmp_path / "a"):
            pass
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o600
    assert mode(tmp_path / ".a.lock") == 0o600 & ~umask


def test_nobody_can_read_the_draft_while_it_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its mode is set it has one already: a umask takes bits and gives none."""
    modes = []
    change = os.fchmod

    def slow(descriptor: int, bits: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        change(descriptor, bits)

    monkeypatch.setattr(os, "fchmod", slow)
    before = os.umask(0)
    try:
        write_private(file, b"x")
    finally:
        os.umask(before)
    assert modes == [0o600]


@needs_root
def test_root_leaves_the_file_to_the_user_of_the_service(file: Path) -> None:
    os.chown(file, NOBODY, NOBODY - 1)
    write_private(file, b"new")
    found = file.stat()
    assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY - 1)


def test_another_user_than_root_gives_no_file_away(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", lambda *arguments: given.append(*arguments[:1]))
    write_private(file, b"new")
    assert given == []
    assert file.read_bytes() == b"new"


def test_a_file_that_waits_under_the_name_of_the_draft_is_not_written_to(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: b"\xab" * size)
    draft = file.with_name(f".{file.name}.{'ab' * 8}.draft")
    victim = file.parent / "victim"
    victim.write_bytes(b"mine")
    os.link(victim, draft)
    with pytest.raises(PrivateFileError, match=r"^cannot be written: file exists$"):
        write_private(file, b"new")
    assert (file.read_bytes(), victim.read_bytes()) == (b"old", b"mine")


def test_a_link_in_place_of_the_file_is_refused(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    for attempt in (lambda: write_private(link, b"new"), lambda: read_private(link)):
        with pytest.raises(
            PrivateFileError, match=r"^is a symbolic link(?: out of its directory)?: name the file itself$"
        ):
            attempt()
    assert link.is_symlink()
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod", "open"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_draft(
    file: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(PrivateFileError, match=r"^cannot be written: input/output error$"):
            write_private(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(file.parent) == [file.name]


def test_a_file_in_a_directory_that_is_gone_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PrivateFileError, match=r"^cannot be written: no such file or directory$"):
        write_private(tmp_path / "gone" / "a", b"x")


# -- what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        (0o640, "readable by others: chmod go-r"),
        (0o604, "readable by others: chmod go-r"),
        (0o644, "readable by others: chmod go-r"),
        (0o620, "writable by others: chmod go-w"),
        (0o602, "writable by others: chmod go-w"),
        (0o622, "writable by others: chmod go-w"),
    ],
)
def test_a_file_that_others_can_open_is_refused(file: Path, bits: int, why: str) -> None:
    file.chmod(bits)
    with pytest.raises(PrivateFileError, match=rf"^the file is {why} {file}$"):
        read_private(file)


@pytest.mark.parametrize("bits", [0o600, 0o400, 0o711])
def test_a_file_that_only_its_owner_can_open_is_read(file: Path, bits: int) -> None:
    file.chmod(bits)
    assert read_private(file) == b"old"


def test_a_file_is_as_large_as_it_may_be_and_no_larger(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", 3)
    assert read_private(file) == b"old"
    file.write_bytes(b"more")
    with pytest.raises(PrivateFileError, match=r"^is larger than 3 bytes$"):
        read_private(file)


def test_a_large_file_is_refused_before_any_of_it_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", 2)
    monkeypatch.setattr(os, "fdopen", None)
    with pytest.raises(PrivateFileError, match=r"^is larger than 2 bytes$"):
        read_private(file)


@pytest.mark.parametrize(("grown", "is_refused"), [(b"", False), (b"x", True), (b"x" * 9000, True)])
def test_a_file_that_grows_while_it_is_read_is_not_cut_off(
    file: Path, grown: bytes, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", 3)
    look = os.fstat

    def slow(descriptor: int) -> os.stat_result:
        found = look(descriptor)
        with file.open("ab") as writer:
            writer.write(grown)
        monkeypatch.setattr(os, "fstat", look)
        return found

    monkeypatch.setattr(os, "fstat", slow)
    if is_refused:
        with pytest.raises(PrivateFileError, match=r"^is larger than 3 bytes$"):
            read_private(file)
    else:
        assert read_private(file) == b"old"


def test_half_a_gigabyte_is_what_a_registry_may_have() -> None:
    assert storage.MAX_BYTES == 512 * 1024 * 1024


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("dir", "fifo"):
        with pytest.raises(PrivateFileError, match=r"^is not a file but a directory, a device or a pipe$"):
            read_private(tmp_path / name)
    with pytest.raises(PrivateFileError, match=r"^no such file or directory; is the path right\?$"):
        read_private(tmp_path / "missing")
    with pytest.raises(PrivateFileError, match=r"^the path holds a NUL$"):
        read_private(tmp_path / "a\0b")


def test_a_link_that_comes_after_the_look_is_not_followed(file: Path, tmp_path: Path) -> None:
    """`O_NOFOLLOW`, and not a look before, keeps a link out."""
    link = tmp_path / "link"
    link.symlink_to(file)
    opened: list[int] = []
    look = os.fstat
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fstat", lambda descriptor: opened.append(descriptor) or look(descriptor))
        with pytest.raises(PrivateFileError):
            read_private(link)
    assert opened == []


def test_a_disk_that_cannot_be_read_is_told_of(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", fail)
        with pytest.raises(PrivateFileError, match=r"^input/output error$"):
            read_private(file)


def test_an_error_without_words_has_some(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(PrivateFileError, match=r"^cannot be read; is the path right\?$"):
            read_private(file)


# -- the lock -----------------------------------------------------------------------------------------


def is_locked(path: Path) -> bool:
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_nobody_else_has_the_lock_meanwhile(file: Path) -> None:
    with lock(file):
        assert is_locked(file)
    assert not is_locked(file)
    with pytest.raises(ZeroDivisionError), lock(file):
        raise ZeroDivisionError
    assert not is_locked(file)


def test_a_lock_removes_what_a_killed_writer_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*?.enc"
    mine, others = (
        f".{path.name}.0123.draft",
        [".a1xx.enc.0123.draft", ".aX1]*?.enc.0.draft", ".a[1]X?.enc.0.draft"],
    )
    others += [f".{path.name}.draft", path.name]
    for name in (mine, *others):
        (tmp_path / name).touch()
    with lock(path):
        assert names(tmp_path) == sorted([*others, f".{path.name}.lock"])


def test_a_draft_that_cannot_be_removed_keeps_nobody_from_the_lock(file: Path) -> None:
    (file.parent / f".{file.name}.0.draft").mkdir()
    with lock(file):
        assert is_locked(file)


def test_a_link_in_place_of_the_lock_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / f".{file.name}.lock").symlink_to(tmp_path / "made")
    with pytest.raises(PrivateFileError, match=r"^cannot be locked: too many levels of symb"), lock(file):
        raise AssertionError
    assert not (tmp_path / "made").exists()


def test_where_no_lock_can_be_had_nothing_is_changed(tmp_path: Path) -> None:
    with (
        pytest.raises(PrivateFileError, match=r"^cannot be locked: no such file or directory$"),
        lock(tmp_path / "gone" / "a"),
    ):
        raise AssertionError


def test_a_platform_without_modes_and_locks_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = [lambda: read_private(file), lambda: write_private(file, b""), lambda: lock(file).__enter__()]
    for attempt in attempts:
        with monkeypatch.context() as patched:
            patched.setattr(storage.sys, "platform", "win32")
            with pytest.raises(PrivateFileError, match=r"use WSL$"):
                attempt()
    assert file.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform != "linux", reason="nobody can write to /sys, not even root")
def test_a_directory_that_is_read_only_is_told_as_such() -> None:
    with (
        pytest.raises(PrivateFileError, match=r"^nothing can be written to its directory: "),
        lock(Path("/sys/connections.enc")),
    ):
        pass
