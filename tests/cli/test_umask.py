"""The first command, whatever the umask: it works, or says in one sentence what to type."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.config import write_config
from support.shell import ADDON, Done, Shell

NOBODY = 65534


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", ["000", "002", "022", "077"])
def test_a_new_directory_gets_a_gateway_whatever_the_umask(shell: Shell, umask: str) -> None:
    done = shell.bash(f"umask {umask}; mkdir d; cd d; presign init")
    assert done.code == 0, done.out
    made = shell.directory / "d"
    assert not mode(made) & 0o022
    assert {mode(path) for path in made.iterdir()} == {0o600}
    assert ("Only you can write to" in done.out) == (umask in ("000", "002"))
    assert shell.bash(f"umask {umask}; cd d; echo sk-KEY | presign connections add --preset openai").code == 0
    assert shell.bash(f"umask {umask}; cd d; presign check").code == 0


def test_a_directory_with_files_that_only_the_private_group_may_write_is_made_private(shell: Shell) -> None:
    """A checkout under umask 002."""
    user = pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(user.pw_gid)
    if group.gr_name != user.pw_name or set(group.gr_mem) - {user.pw_name}:
        pytest.skip("this user has no private group")
    (shell.directory / "README.md").touch()
    shell.directory.chmod(0o775)
    done = shell.bash("presign init")
    assert done.code == 0, done.out
    assert mode(shell.directory) == 0o755


@pytest.mark.parametrize("shared", [0o777, 0o2775])
def test_a_directory_that_others_share_stays_shared_and_is_refused(shell: Shell, shared: int) -> None:
    """Where others could have put a file already, or the bit for sharing is set."""
    if shared & 0o002:
        (shell.directory / "notes.txt").touch()
    shell.directory.chmod(shared)
    done = shell.presign("init")
    assert (done.code, mode(shell.directory)) == (1, shared)
    assert done.err.count("\n") == 1
    (line,) = re.findall(r"chmod go-w .*", done.err)
    assert shell.bash(f"{line}; presign init").code == 0


def test_what_to_type_is_quoted_where_the_path_has_a_blank(shell: Shell) -> None:
    directory = shell.directory / "my files"
    write_config({}, directory)
    directory.chmod(0o777)
    done = shell.presign("check", "--config", "my files/config.yaml")
    (line,) = re.findall(r"chmod go-w .*", done.all)
    assert shell.bash(f"{line}; presign check --config 'my files/config.yaml'").code == 0


@pytest.fixture
def of_a_stranger() -> Iterator[Path]:
    """A directory that somebody without a name owns, whose group has one."""
    if os.geteuid() != 0:
        pytest.skip("takes root")
    # Not below pytest's own directory, which each run of pytest on this machine shuts to others again.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)
        directory = Path(place) / "strange"
        directory.mkdir()
        os.chown(directory, 12345, NOBODY)
        yield directory


# Everything is imported before: the Python of the tests may lie where another user cannot read it.
_AS_ANOTHER = """
import grp, os, pwd, sys
from presign_proxy.cli.main import main
from presign_proxy.cli import init as starting
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[1]))
sys.argv = ["presign"]
main(["init"])
"""


def init_as(uid: int, gid: int, directory: Path) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", _AS_ANOTHER, str(uid), str(gid)],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ADDON), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_user_without_a_name_gets_a_gateway_in_a_directory_of_its_own(of_a_stranger: Path) -> None:
    """As in a container: no private group can be told, but an empty directory is nobody else's."""
    of_a_stranger.chmod(0o775)
    done = init_as(12345, NOBODY, of_a_stranger)
    assert done.code == 0, done.all
    assert mode(of_a_stranger) == 0o755


def test_a_directory_of_another_user_is_not_changed(shell: Shell) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes root")
    shell.directory.chmod(0o777)
    os.chown(shell.directory, NOBODY, NOBODY)
    done = shell.presign("init")
    assert (done.code, mode(shell.directory)) == (1, 0o777)
    assert "chmod go-w" in done.err
