"""Who changes a connection by the options with which it was added gets what the keys would have done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    assert found.presign("init").code == 0
    added = found.presign(
        "connections", "add", "conn_a", "--preset", "github", stdin="ghp_0123456789abcdef\n"
    )
    assert added.code == 0, added.err
    return found


def entry(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell.presign("decrypt").out)["connections"]["conn_a"]
    return found


@pytest.mark.parametrize(("options", "settings"), [
    (["--paths", "repos/*,user"], ["allow.paths=repos/*,user"]),
    (["--methods", "get,post"], ["allow.methods=get,post"]),
    (["--max-lifetime", "7d"], ["max_lifetime=7d"]),
    (["--limit", "60/minute", "--limit", "concurrency 20"], ["limits=60/minute,concurrency 20"]),
    (["--max-uses", "5", "--upstream", "https://a.example"], ["max_uses=5", "upstream=https://a.example"]),
    (["--header", "X-A=1", "--header", "X-B=2=3"], ["default_headers.X-A=1", "default_headers.X-B=2=3"]),
])  # fmt: skip
def test_an_option_does_what_its_key_does(options: list[str], settings: list[str], shell: Shell) -> None:
    before = entry(shell)
    done = shell.presign("connections", "set", "conn_a", *options, "--yes")
    assert done.code == 0, done.err
    by_option = entry(shell)
    assert by_option != before
    assert shell.presign("connections", "set", "conn_a", *settings, "--yes").out.endswith(
        "nothing was changed.\n"
    )
    assert entry(shell) == by_option


def test_nothing_to_change_and_a_bad_value_are_told(shell: Shell) -> None:
    before = entry(shell)
    nothing = shell.presign("connections", "set", "conn_a", "--yes")
    assert (nothing.code, "give KEY=VALUE" in nothing.err) == (2, True)
    bad = shell.presign("connections", "set", "conn_a", "--max-lifetime", "soon", "--yes")
    assert bad.code != 0
    assert "max_lifetime" in bad.err
    assert entry(shell) == before
