"""Whose files are: of root, of the service, of somebody else; and what a disk says when it is too late."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from presign_proxy.config.load import load
from presign_proxy.config.permissions import writable_by_others
from presign_proxy.config.registry_file.storage import lock, write_private
from presign_proxy.config_problems import ConfigError
from support.asking import SECRET
from support.config import write_config
from support.machine import needs_root
from support.shell import Shell

NOBODY = 65534
OTHER = 4242
ENTRY = {
    "upstream": "https://api.example.com",
    "auth": {"type": "bearer", "token": "sk-REALSECRET-0123456789"},
    "signing_keys": [{"id": "k1", "secret": SECRET}],
}
# What it runs lies in the home directory of root, perhaps, where the service's user can read nothing.
AS_SERVICE = """
import grp, os, pwd, sys
from presign_proxy.cli import connections as connecting, revoke as revoking, registry_file as vaulting
from presign_proxy.cli.main import main
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
main(sys.argv[2:])
"""
# As file systems over a network fail: the file has its new name, and the directory cannot be synced.
FAILING = """
import errno, os, stat, sys
from presign_proxy.cli.main import main
sync = os.fsync
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    sync(descriptor)
os.fsync = fsync
main(sys.argv[1:])
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the service, below one that everybody can enter."""
    directory = Path(tempfile.mkdtemp(prefix="presign-", dir="/tmp"))
    write_config({"registry": {"file": "registry.json"}}, directory)
    write_private(directory / "registry.json", json.dumps({"connections": {"conn": ENTRY}}).encode())
    yield directory
    shutil.rmtree(directory)


def hand_over(place: Path, uid: int = NOBODY) -> None:
    for path in (place, *place.iterdir()):
        os.chown(path, uid, uid)


def owners(place: Path) -> set[int]:
    return {path.stat().st_uid for path in (place, *place.iterdir())}


def as_root(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "presign_proxy", *arguments, "--config", str(place / "config.yaml")]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def as_service(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", AS_SERVICE, str(NOBODY)]
    argv = [*program, *arguments, "--config", str(place / "config.yaml")]
    env = os.environ | {"PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)


@needs_root
def test_the_service_can_revoke_after_root_has_revoked(place: Path) -> None:
    """root's lock kept the service's user from ever changing the registry again."""
    hand_over(place)
    assert as_root(place, "revoke", "--key", "conn/k1").returncode == 0
    assert owners(place) == {NOBODY}
    done = as_service(place, "revoke", "--connection", "conn")
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_a_lock_that_root_left_before_is_told_of_with_what_mends_it(place: Path) -> None:
    hand_over(place)
    left = place / ".registry.json.lock"
    left.touch(0o600)
    done = as_service(place, "revoke", "--connection", "conn")
    assert done.returncode == 1
    assert "cannot be locked: permission denied; another user made it: chown" in done.stderr
    assert as_root(place, "revoke", "--key", "conn/k1").returncode == 0  # mends it, too
    assert as_service(place, "revoke", "--connection", "conn").returncode == 0


@needs_root
def test_a_first_file_that_root_makes_belongs_to_the_owner_of_the_directory(place: Path) -> None:
    hand_over(place)
    write_private(place / "new", b"x")
    assert owners(place) == {NOBODY}


@needs_root
@pytest.mark.parametrize("how", ["link", "full"])
def test_root_gives_away_no_file_that_somebody_put_in_place_of_the_lock(place: Path, how: str) -> None:
    hand_over(place)
    victim = place.with_name(f"{place.name}.victim")
    victim.write_text("" if how == "link" else "root's")
    os.chown(victim, 0, 0)
    try:
        if how == "link":
            os.link(victim, place / ".registry.json.lock")
        else:
            victim.rename(place / ".registry.json.lock")
            victim = place / ".registry.json.lock"
        with lock(place / "registry.json"):
            pass
        assert victim.stat().st_uid == 0
    finally:
        victim.unlink(missing_ok=True)


@needs_root
@pytest.mark.parametrize("what", ["file", "directory", "directory above"])
def test_files_that_belong_to_somebody_else_are_refused_with_what_mends_it(place: Path, what: str) -> None:
    """Their owner can change their mode, and then them: nobody needs to have left them open."""
    inner = place / "inner"
    path = write_config({"connections": {"conn": ENTRY}}, inner)
    os.chown(path, NOBODY, NOBODY)
    os.chown(inner, NOBODY, NOBODY)
    os.chown(place, NOBODY, NOBODY)
    for directory in (inner, place):
        directory.chmod(0o755)
    path.chmod(0o644)
    load(path, {})  # root manages the files of a service
    wrong = {"file": path, "directory": inner, "directory above": place}[what]
    os.chown(wrong, OTHER, OTHER)
    done = as_service(inner, "connections", "list")
    assert done.returncode == 1
    told = rf"{wrong}: the (file|directory) belongs to {OTHER}, who can change it: chown "
    assert re.search(told, done.stderr), done.stderr


@needs_root
def test_a_directory_above_that_others_may_write_is_refused(place: Path) -> None:
    path = write_config({"connections": {"conn": ENTRY}}, place / "a" / "b" / "c")
    assert writable_by_others(path) == []
    (place / "a").chmod(0o777)
    with pytest.raises(ConfigError, match=f"{place / 'a'}: the directory is writable by others: chmod go-w"):
        load(path, {})
    (place / "a").chmod(0o1777)  # there, nobody can rename what is another's
    assert writable_by_others(path) == []


def test_nobody_waits_for_what_somebody_types_to_be_revoked(place: Path) -> None:
    argv = [sys.executable, "-m", "presign_proxy", "revoke", "-", "--config", str(place / "config.yaml")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as typing:
        assert typing.stdin
        assert as_root(place, "revoke", "a" * 32).returncode == 0
        typing.communicate("b" * 32, timeout=20)
    found = json.loads((place / "registry.json").read_text())
    assert set(found["revoked"]["urls"]) == {"a" * 32, "b" * 32}


# -- a disk that says so too late ---------------------------------------------------------------------------


def test_a_secret_that_is_in_force_is_shown_though_the_directory_could_not_be_synced(place: Path) -> None:
    """It signs already, and nobody would ever have seen it."""
    argv = [
        sys.executable,
        "-c",
        FAILING,
        "connections",
        "rotate",
        "conn",
        "--config",
        str(place / "config.yaml"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    key = json.loads((place / "registry.json").read_text())["connections"]["conn"]["signing_keys"][0]
    assert key["id"] != "k1"
    assert done.returncode == 0, done.stderr
    assert key["secret"] in done.stdout
    assert "is written and in force, but the disk has not confirmed it (input/output error)" in done.stderr
    assert "cannot be written" not in done.stderr


def test_a_rekey_that_was_killed_leaves_no_keys_behind(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    left = shell.directory / f".presign.key.{'ab' * 8}.draft"
    left.write_text("a key that a killed rekey has drafted\n")
    assert shell.presign("rekey").code == 0
    assert not left.exists()
