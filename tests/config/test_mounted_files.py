"""What Kubernetes, compose and systemd mount is read; what others on the machine can read or move is told."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.shell import ADDON, Done, Shell

# Every row starts a gateway as another user.
pytestmark = pytest.mark.slow

KEY = "sk-KEY-0123456789"
API = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
SECRET = "sk_signing_0123456789abcdef0123456789abcdef"
UID, GROUP, STRANGER = 23456, 34567, 45678
FILES = ("config.yaml", "connections.enc", "presign.key", "api_key")
# Everything is imported before: the Python of the tests may lie where another user cannot read it.
_AS_ANOTHER = """
import grp, json, os, pwd, sys
from presign_proxy.config import secret_commands
from presign_proxy.cli import check, check_startup, configured, sign, workspace
from presign_proxy.cli.main import main
from presign_proxy.prerequisites import unsupported_mitmproxy
unsupported_mitmproxy()
os.setgroups([int(sys.argv[2])])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
main(sys.argv[3:], "presign")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def volume(shell: Shell) -> Iterator[Path]:
    """Files as the kubelet mounts them for a gateway of its own user, whose `fsGroup` is GROUP."""
    if os.geteuid() != 0:
        pytest.skip("takes root")
    (shell.directory / "api_key").write_text(KEY)
    assert shell.presign("init").code == 0
    added = shell.presign("connections", "add", "conn_a", *API, "--credential-file", "api_key")
    assert added.code == 0, added.all
    # Not below pytest's own directory, which each run shuts again for other users.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        yield mounted(shell, Path(directory) / "volume")


def mounted(shell: Shell, volume: Path) -> Path:
    data = volume / "..2026_11_28"
    data.mkdir(parents=True)
    for name in FILES:
        shutil.copy(shell.directory / name, data / name)
        (volume / name).symlink_to(f"..data/{name}")
        os.chown(data / name, 0, GROUP)
        (data / name).chmod(0o440)
    (volume / "..data").symlink_to(data.name)
    os.chown(data, 0, GROUP)
    data.chmod(0o2755)
    volume.chmod(0o1777)
    # An audit log does not belong here.
    config = (data / "config.yaml").read_text().replace("audit.jsonl", '"-"')
    (data / "config.yaml").write_text(config)
    return volume


def presign(volume: Path, *argv: str, uid: int = UID, group: int = GROUP) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", _AS_ANOTHER, str(uid), str(group), *argv],
        cwd=volume,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ADDON), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_mounted_configuration_registry_key_and_secret_are_read(volume: Path) -> None:
    done = presign(volume, "check", "--json")
    assert done.code == 0, done.all
    assert [line for line in json.loads(done.out)["warnings"] if "others" in line] == []
    assert presign(volume, "sign", "conn_a", "v1/a").code == 0


def test_what_is_mounted_anew_is_read(volume: Path) -> None:
    """The kubelet moves one link, and removes what it led to."""
    fresh = volume / "..2026_11_29"
    shutil.copytree(volume / "..2026_11_28", fresh)
    for path in (fresh, *fresh.iterdir()):
        os.chown(path, 0, GROUP)
    (volume / "..next").symlink_to(fresh.name)
    (volume / "..next").rename(volume / "..data")
    shutil.rmtree(volume / "..2026_11_28")
    assert presign(volume, "sign", "conn_a", "v1/a").code == 0


def loosen(volume: Path) -> None:
    (volume / "connections.enc").chmod(0o444)


def lead_out(volume: Path) -> None:
    elsewhere = shutil.copy(volume / "connections.enc", volume.parent / "elsewhere.enc")
    os.chown(elsewhere, UID, UID)
    Path(elsewhere).chmod(0o600)
    (volume / "connections.enc").unlink()
    (volume / "connections.enc").symlink_to("../elsewhere.enc")


def of_a_stranger(volume: Path) -> None:
    (volume / "connections.enc").unlink()
    (volume / "connections.enc").symlink_to("..data/connections.enc")
    os.lchown(volume / "connections.enc", STRANGER, STRANGER)


def open_directory(volume: Path) -> None:
    (volume / "..2026_11_28").chmod(0o2777)


def directory_of_a_stranger(volume: Path) -> None:
    os.chown(volume / "..2026_11_28", STRANGER, GROUP)


def round_and_round(volume: Path) -> None:
    (volume / "connections.enc").unlink()
    (volume / "connections.enc").symlink_to("connections.enc")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (loosen, "connections.enc: the file is readable by others: chmod go-r"),
        (lead_out, "is a symbolic link out of its directory: name the file itself"),
        (of_a_stranger, "is a symbolic link, and a link on the way belongs to another user"),
        (open_directory, "is writable by others: chmod go-w"),
        (directory_of_a_stranger, f"the directory belongs to {STRANGER}, who can change it: chown"),
        (round_and_round, "is a symbolic link that leads through too many others"),
    ],
)
def test_a_mounted_registry_that_others_can_read_or_move_is_refused(
    change: Callable[[Path], None], why: str, volume: Path
) -> None:
    change(volume)
    for verb in (("check",), ("sign", "conn_a", "v1/a")):
        done = presign(volume, *verb)
        assert done.code == 1, done.all
        assert why in done.all


def test_a_registry_for_a_group_that_is_not_the_gateways_own_is_refused(volume: Path) -> None:
    for name in FILES:
        os.chown(volume / name, UID, STRANGER)
    done = presign(volume, "check")
    assert done.code == 1
    assert "the file is readable by others: chmod go-r" in done.out


def test_a_registry_of_ones_own_that_its_group_may_read_is_refused(volume: Path) -> None:
    """Nobody has mounted that: somebody's umask was loose."""
    for name in FILES:
        os.chown(volume / name, UID, GROUP)
        (volume / name).chmod(0o640)
    done = presign(volume, "check")
    assert done.code == 1
    assert "readable by others: chmod go-r" in done.out


def test_a_configuration_with_secrets_that_others_can_read_is_warned_of(shell: Shell) -> None:
    config = {"connections": {"conn_a": connection({"token": KEY})}}
    path = shell.directory / "config.yaml"
    path.write_text(json.dumps(config))
    path.chmod(0o644)
    done = shell.presign("check")
    assert done.code == 0, done.all
    (line,) = [line for line in done.out.splitlines() if "holds secrets" in line]
    assert line == f"warning  {path}: holds secrets, and the file is readable by others: chmod go-r {path}"
    assert shell.bash(line.rpartition(": ")[2]).code == 0
    assert "holds secrets" not in shell.presign("check").out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_configuration_without_secrets_may_be_read_by_others(shell: Shell) -> None:
    entry = connection({"token": {"env": "API_KEY"}}) | {"signing_keys": [{"secret": {"env": "SIGNING"}}]}
    path = shell.directory / "config.yaml"
    path.write_text(json.dumps({"connections": {"conn_a": entry}}))
    path.chmod(0o644)
    assert "readable" not in shell.presign("check", API_KEY=KEY, SIGNING=SECRET).all


def test_a_file_of_a_secret_that_others_can_read_is_warned_of(shell: Shell) -> None:
    secret = shell.directory / "api_key"
    secret.write_text(KEY)
    secret.chmod(0o644)
    path = shell.directory / "config.yaml"
    path.write_text(json.dumps({"connections": {"conn_a": connection({"token": {"file": "api_key"}})}}))
    path.chmod(0o600)
    (line,) = [line for line in shell.presign("check").out.splitlines() if "readable" in line]
    assert "connections.conn_a.auth.token: " in line
    assert shell.bash(line.rpartition(": ")[2]).code == 0
    assert "readable" not in shell.presign("check").out


def connection(auth: dict[str, object]) -> dict[str, object]:
    key = {"secret": SECRET}
    return {"upstream": "http://127.0.0.1:9", "auth": {"type": "bearer", **auth}, "signing_keys": [key]}
