"""Points in time have one form, wherever the command prints one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from presign_proxy.units import instant
from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.shell import Shell

FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    write_config(
        {"connections": {"conn_a": bearer_connection("http://127.0.0.1:9", SECRET)}}, found.directory
    )
    return found


@pytest.mark.parametrize(("unix", "text"), [
    (0, "1970-01-01T00:00:00Z"), (0.9, "1970-01-01T00:00:00Z"), (1_800_000_000, "2027-01-15T08:00:00Z"),
    (-62_135_596_800, "0001-01-01T00:00:00Z"), (253_402_300_800, "Unix time 253402300800"),
])  # fmt: skip
def test_every_unix_time_has_its_text_and_the_first_one_is_not_the_present(unix: float, text: str) -> None:
    assert instant(unix) == text


def test_a_grant_says_its_end_as_its_holder_is_told_it(shell: Shell, tmp_path: Path) -> None:
    grant = json.loads(shell.presign("sign", "conn_a", "v1/a", "--json").out)
    (tmp_path / "holder").mkdir()
    said = Shell(tmp_path / "holder").presign("explain", grant["url"], "--json").out
    assert FORM.fullmatch(grant["expires_at"])
    assert grant["expires_at"] == instant(grant["expires"])
    assert grant["expires_at"] in said


def test_a_key_and_a_revocation_are_dated_in_the_same_form(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.presign("init")
    shell.presign("connections", "add", "conn_b", "--preset", "openai", stdin="sk-0123456789abcdef\n")
    shell.presign("revoke", "--connection", "conn_b")
    at = json.loads(shell.presign("revoke", "--list", "--json").out)[0]["at"]
    added = json.loads(shell.presign("decrypt").out)["connections"]["conn_b"]["signing_keys"][0]["added"]
    assert FORM.fullmatch(at)
    assert FORM.fullmatch(added)
