"""Who can write the files that say what the gateway may do: modes, links, groups, and who was faster."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

import pytest

from presign_proxy.config import permissions
from presign_proxy.config.permissions import readable_by_others, tightened, writable_by_others
from support.descriptors import descriptors
from support.machine import needs_root

NOBODY = 65534


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "d"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def file(directory: Path) -> Path:
    made = directory / "config.yaml"
    made.write_text("{}")
    made.chmod(0o600)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def places(path: Path) -> list[tuple[str, str]]:
    return [(one.file, one.message) for one in writable_by_others(path)]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> str:
    """The user of the tests, whose first group has the user's name and no other member."""
    user = pwd.getpwuid(os.geteuid())
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((user.pw_name, "x", gid, [])))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    return user.pw_name


@pytest.fixture
def others_in_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.getpwuid(os.geteuid())
    both = [user.pw_name, "mallory"]
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((user.pw_name, "x", gid, both)))


# -- who can write ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_told_of(file: Path, bits: int) -> None:
    file.chmod(bits)
    assert places(file) == [(str(file), f"the file is writable by others: chmod go-w {file}")]
    (found,) = writable_by_others(file)
    assert (found.line, found.column) == (0, 0)


@pytest.mark.parametrize("bits", [0o600, 0o644, 0o755])
def test_a_file_that_only_its_owner_can_write_is_not(file: Path, bits: int) -> None:
    file.chmod(bits)
    assert writable_by_others(file) == []


def test_a_directory_in_which_others_can_replace_the_file_is_told_of(file: Path) -> None:
    file.parent.chmod(0o770)
    why = f"the directory is writable by others: chmod go-w {file.parent}"
    assert places(file) == [(str(file.parent), why)]


def test_a_directory_in_which_each_can_replace_only_their_own_is_not(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert writable_by_others(file) == []


def test_a_sticky_file_is_as_writable_as_any(file: Path) -> None:
    file.chmod(0o1666)
    assert [place for place, _ in places(file)] == [str(file)]


def test_what_a_link_leads_to_is_judged_with_its_directory(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    file.parent.chmod(0o777)
    file.chmod(0o666)
    found = [place for place, _ in places(link)]
    assert found == [str(link), str(file), str(file.parent)]


def test_a_file_that_is_not_there_hides_no_directory(file: Path) -> None:
    file.unlink()
    file.parent.chmod(0o777)
    assert [place for place, _ in places(file)] == [str(file.parent)]
    assert readable_by_others(file) == []


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o644])
def test_a_registry_that_others_can_read_is_told_of(file: Path, bits: int) -> None:
    file.chmod(bits)
    (found,) = readable_by_others(file)
    assert found.message == f"the file is readable by others: chmod go-r {file}"
    assert (found.file, found.line, found.column) == (str(file), 0, 0)


@pytest.mark.parametrize("bits", [0o600, 0o611, 0o622])
def test_a_registry_that_others_cannot_read_is_not(file: Path, bits: int) -> None:
    file.chmod(bits)
    assert readable_by_others(file) == []


def test_without_modes_nothing_is_judged(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a mode says nothing."""
    file.chmod(0o666)
    file.parent.chmod(0o777)
    found = []
    with monkeypatch.context() as patched:
        patched.setattr(permissions.os, "name", "nt")
        # A path cannot be asked meanwhile: pathlib would make one of Windows.
        found = [readable_by_others(file), writable_by_others(file), tightened(file.parent)]
    assert found == [[], [], False]
    assert mode(file.parent) == 0o777


# -- taking the right to write from others ------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(0o777, 0o755), (0o775, 0o755), (0o772, 0o750)])
def test_an_empty_directory_of_ones_own_is_tightened(directory: Path, before: int, after: int) -> None:
    directory.chmod(before)
    assert tightened(directory) is True
    assert mode(directory) == after


@pytest.mark.parametrize("before", [0o755, 0o700, 0o2775, 0o1777, 0o3775])
def test_a_directory_that_is_tight_or_meant_to_be_shared_is_left(directory: Path, before: int) -> None:
    directory.chmod(before)
    assert tightened(directory) is False
    assert mode(directory) == before


def test_a_directory_with_files_of_a_private_group_is_tightened(file: Path, group: str) -> None:
    file.parent.chmod(0o770)
    os.chown(file.parent, -1, pwd.getpwuid(os.geteuid()).pw_gid)
    assert tightened(file.parent) is True
    assert mode(file.parent) == 0o750


@pytest.mark.parametrize("before", [0o777, 0o772])
def test_a_directory_in_which_everybody_may_have_put_a_file_is_left(
    file: Path, group: str, before: int
) -> None:
    file.parent.chmod(before)
    assert tightened(file.parent) is False
    assert mode(file.parent) == before


def test_a_directory_with_files_of_a_group_with_a_second_member_is_left(
    file: Path, others_in_the_group: None
) -> None:
    file.parent.chmod(0o770)
    assert tightened(file.parent) is False
    assert mode(file.parent) == 0o770


@pytest.mark.parametrize("what", ["the name", "the first group", "no such group"])
def test_a_group_that_is_not_the_users_own_is_not_private(
    file: Path, group: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = pwd.getpwuid(os.geteuid())
    if what == "the name":
        monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("staff", "x", gid, [])))
    elif what == "the first group":
        other = pwd.struct_passwd((*user[:3], user.pw_gid + 1, *user[4:]))
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: other)
    else:

        def missing(gid: int) -> grp.struct_group:
            raise KeyError(gid)

        monkeypatch.setattr(grp, "getgrgid", missing)
    file.parent.chmod(0o770)
    assert tightened(file.parent) is False
    assert mode(file.parent) == 0o770


def test_who_was_faster_than_the_mode_finds_the_directory_as_it_was(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's file that came between the look and the change may be one that is to be read."""
    directory.chmod(0o777)
    change = os.fchmod

    def slow(descriptor: int, bits: int) -> None:
        (directory / "config.yaml").touch()
        change(descriptor, bits)

    monkeypatch.setattr(permissions.os, "fchmod", slow)
    assert tightened(directory) is False
    assert mode(directory) == 0o777


def test_a_private_group_that_names_its_user_as_member_is_private(
    file: Path, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((group, "x", gid, [group])))
    file.parent.chmod(0o770)
    assert tightened(file.parent) is True
    assert mode(file.parent) == 0o750


@needs_root
def test_the_directory_of_another_user_is_left(directory: Path) -> None:
    directory.chmod(0o777)
    os.chown(directory, NOBODY, NOBODY)
    assert tightened(directory) is False
    assert mode(directory) == 0o777


def test_a_link_to_a_file_is_no_directory(file: Path) -> None:
    with pytest.raises(NotADirectoryError):
        tightened(file)


def test_no_descriptor_stays_open(directory: Path) -> None:
    directory.chmod(0o777)
    before = descriptors()
    assert tightened(directory) is True
    assert descriptors() == before
