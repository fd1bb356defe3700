"""The file of authorities that `presign sign --as env` keeps: nobody else chooses what programs trust."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
import trustme

from support.config import write_config
from support.machine import needs_root
from support.shell import Shell

KEYS = [{"secret": "sk_0123456789abcdef0123456789abcdef"}]
SIGN = ("sign", "conn", "v1/models", "--as", "env", "--ca", "ca.pem")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    known = {"preset": "openai", "auth": {"token": "sk-KEY-0123456789"}, "signing_keys": KEYS}
    write_config({"connections": {"conn": known}}, found.directory)
    trustme.CA().cert_pem.write_to_path(str(found.directory / "ca.pem"))
    return found


def file_in(shown: str) -> Path:
    return Path(shown.partition("SSL_CERT_FILE=")[2].splitlines()[0])


@pytest.mark.needs("bash")
def test_no_other_user_can_replace_the_file_whatever_the_umask(shell: Shell) -> None:
    done = shell.bash(f"umask 000; presign {' '.join(SIGN)}")
    file = file_in(done.out)
    kept = shell.home / ".local/share/presign"
    modes = [one.stat().st_mode & 0o777 for one in (kept, file.parent, file)]
    assert modes == [0o755, 0o755, 0o644]
    kept.chmod(0o777)
    done = shell.presign(*SIGN)
    assert (done.code, "export" in done.out) == (1, False)
    assert "is writable by others" in done.all


@needs_root  # to give a directory away
def test_the_file_is_not_put_where_another_user_waits_for_it(shell: Shell, tmp_path: Path) -> None:
    """Its name can be foretold by whoever knows the gateway's authority."""
    nobody, shared = 65534, str(tmp_path / "shared")
    place = file_in(shell.presign(*SIGN, XDG_DATA_HOME=shared).out).parent
    for one in (place, place.parent):
        os.chown(one, nobody, nobody)
        done = shell.presign(*SIGN, XDG_DATA_HOME=shared)
        assert (done.code, done.out) == (1, "")
        assert "belongs to" in done.err
        os.chown(one, 0, 0)
    elsewhere = place.parent.rename(tmp_path / "elsewhere")
    place.parent.symlink_to(elsewhere)
    os.chown(place.parent, nobody, nobody, follow_symlinks=False)
    assert "belongs to" in shell.presign(*SIGN, XDG_DATA_HOME=shared).err


@pytest.mark.needs("bash")
def test_a_line_break_in_the_name_of_the_file_runs_nothing(shell: Shell) -> None:
    name = "ca\ntouch run; #.pem"
    given = shlex.quote(name)
    done = shell.bash(f'eval "$(presign sign conn v1/models --as env --ca {given})" && echo "$SSL_CERT_FILE"')
    assert not (shell.directory / "run").exists()
    assert name in done.out
