"""Several upstreams of one connection, and shapes of keys, on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.shell import Shell

GIT = {"url": "http://127.0.0.1:9/git", "auth": {"type": "basic", "username": "x"}}
UPSTREAMS = {"uploads": "http://127.0.0.1:7", "git": GIT}
API = bearer_connection(
    "http://127.0.0.1:9/base", SECRET, upstreams=UPSTREAMS, key_shapes=["sk-ant-api03-", "ghp_"]
)
SHOW = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    plain = bearer_connection("http://127.0.0.1:5", SECRET)
    slack: dict[str, Any] = {"preset": "slack", "auth": {"token": "xoxb-REAL"}}
    write_config(
        {
            "connections": {
                "conn_a": API,
                "conn_plain": plain,
                "conn_slack": slack | {"signing_keys": [{"secret": SECRET}]},
            }
        },
        shell.directory,
    )
    return shell


def signed(shell: Shell, *arguments: str) -> dict[str, Any]:
    done = shell.presign("sign", *arguments, "--json")
    assert done.code == 0, done.all
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("@uploads/a/b", "@uploads/a/b"),
        ("http://127.0.0.1:7/a/b?x=1", "@uploads/a/b"),
        ("http://127.0.0.1:9/git/o/r.git", "@git/o/r.git"),
        ("http://127.0.0.1:9/base/v1/x", "v1/x"),
        ("http://127.0.0.1:9/base/@uploads/x", "%40uploads/x"),
        ("%40uploads/x", "%40uploads/x"),
    ],
)
def test_a_path_or_the_url_of_an_api_names_its_upstream(path: str, pattern: str, shell: Shell) -> None:
    found = signed(shell, "conn_a", path)
    assert found["paths"] == [pattern]
    assert f"/api/proxy/conn_a/{pattern}" in found["url"]
    shown = shell.presign("explain", found["url"])
    assert shown.code == 0, shown.all
    if pattern.startswith("@"):
        assert pattern.partition("/")[0] in shown.out


def test_a_url_alone_finds_the_connection_by_any_of_its_hosts(shell: Shell) -> None:
    assert signed(shell, "http://127.0.0.1:7/a/b")["connection"] == "conn_a"
    done = shell.presign("sign", "conn_a", "http://127.0.0.1:6/x")
    assert done.code == 1
    assert "http://127.0.0.1:9/base/ or http://127.0.0.1:7/ or http://127.0.0.1:9/git/" in done.err


@pytest.mark.parametrize("pattern", ["@other/*", "@*", "@up*/x", "@Uploads/x", "@uploads"])
def test_a_pattern_that_no_upstream_has_is_not_signed(pattern: str, shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "--paths", pattern)
    assert done.code == 1
    assert "has @uploads, @git" in done.err
    assert "%40" in done.err
    # Where there is one upstream, an @ is a character like any other.
    assert shell.presign("sign", "conn_plain", "--paths", pattern, "--as", "key").code == 0


def test_explain_tells_why_another_upstream_is_not_reached(shell: Shell) -> None:
    token = shell.presign("sign", "conn_a", "--paths", "*", "--as", "token").out.strip()
    done = shell.presign("explain", f"http://127.0.0.1:8080/p/{token}/@git/o/r.git")
    assert done.code == 1
    assert 'sign a pattern that begins with "@git/"' in done.out
    named = shell.presign("sign", "conn_a", "--paths", "@git/*", "--as", "token").out.strip()
    done = shell.presign("explain", f"http://127.0.0.1:8080/p/{named}/v1/x")
    assert done.code == 1
    assert "a pattern for it does not begin with @" in done.out


def test_an_upstream_is_added_and_taken_away_by_option(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    given = (
        "--upstream",
        "http://127.0.0.1:9",
        "--auth",
        "bearer",
        "--upstreams",
        "files=http://127.0.0.1:7",
    )
    done = shell.presign("connections", "add", "conn_b", *given, stdin="sk-KEY-0123456789\n")
    assert done.code == 0, done.all
    git = "upstreams.git={url: http://127.0.0.1:6, auth: {type: basic, username: x}}"
    done = shell.presign("connections", "set", "conn_b", git, "--yes")
    assert done.code == 0, done.all
    entry = json.loads(shell.presign("decrypt").out)["connections"]["conn_b"]
    assert entry["upstreams"] == {
        "files": "http://127.0.0.1:7",
        "git": {"url": "http://127.0.0.1:6", "auth": {"type": "basic", "username": "x"}},
    }
    shown = shell.presign("connections", "show", "conn_b")
    assert "http://127.0.0.1:7" in shown.out
    twice = shell.presign("connections", "set", "conn_b", "upstreams.more=http://127.0.0.1:9/", "--yes")
    assert twice.code != 0
    assert "no request could tell them apart" in twice.err


def test_a_shape_is_put_before_a_key_and_accepted_wherever_a_key_is_pasted(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/x", "--as", "key", "--shape", "sk-ant-api03-")
    assert done.code == 0, done.all
    key = done.out.strip()
    assert key.startswith("sk-ant-api03-ps1_")
    for text in (key, f"Bearer {key}", f"ANTHROPIC_API_KEY={key}", f'export K="{key}"'):
        assert shell.presign("explain", text).code == 0
    converted = shell.presign("convert", key, "--as", "token")
    assert converted.out.strip() == key.removeprefix("sk-ant-api03-")
    assert shell.presign("revoke", key).code in (0, 1)


def test_a_shape_that_the_connection_does_not_list_is_not_signed(shell: Shell) -> None:
    done = shell.presign("sign", "conn_a", "v1/x", "--as", "key", "--shape", "xoxb-")
    assert done.code == 1
    assert "key_shapes of conn_a has" in done.err
    assert shell.presign("sign", "conn_a", "v1/x", "--shape", "ghp_").code == 2


def test_a_program_whose_tools_look_at_keys_gets_one_with_a_shape(shell: Shell) -> None:
    base = ("--via", "base-url", "--base-env", "SLACK_API_URL", "--env", "SLACK_BOT_TOKEN")
    done = shell.presign("run", "--no-check", "conn_slack", *base, "--", *SHOW)
    assert done.code == 0, done.all
    assert json.loads(done.out)["SLACK_BOT_TOKEN"].startswith("xoxb-ps")
