"""`presign connections import` of JSON, of YAML and of standard input, beside `.env` files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.shell import Done, Shell

ENV = "OPENAI_API_KEY=sk-VALUE-openai\nGITHUB_TOKEN=ghp_VALUE-github\n"
MAPPING = {"OPENAI_API_KEY": "sk-VALUE-openai", "GITHUB_TOKEN": "ghp_VALUE-github"}
GROUPED = {"llm": {"OPENAI_API_KEY": "sk-VALUE-openai"}, "GITHUB_TOKEN": "ghp_VALUE-github"}
BY_PRESET = "openai: sk-VALUE-openai\ngithub: 'ghp_VALUE-github'  # ours\n"
GOOD = {
    "keys.env": ENV,
    "keys": ENV,
    "keys.json": json.dumps(MAPPING),
    "grouped.JSON": json.dumps(GROUPED, indent=2),
    "keys.yaml": "OPENAI_API_KEY: sk-VALUE-openai\nGITHUB_TOKEN: ghp_VALUE-github\n",
    "keys.yml": BY_PRESET,
}
BAD = {
    "list.json": '["sk-VALUE-openai"]',
    "text.yaml": "sk-VALUE-openai\n",
    "number.json": '{"OPENAI_API_KEY": 17}',
    "twice.json": '{"OPENAI_API_KEY": "sk-VALUE-1", "OPENAI_API_KEY": "sk-VALUE-2"}',
    "twice.yaml": "OPENAI_API_KEY: sk-VALUE-1\nOPENAI_API_KEY: sk-VALUE-2\n",
    "grouped.yaml": "a: {OPENAI_API_KEY: sk-VALUE-1}\nb: {OPENAI_API_KEY: sk-VALUE-2}\n",
    "open.json": '{"OPENAI_API_KEY": "sk-VALUE',
    "open.yaml": 'OPENAI_API_KEY: "sk-VALUE',
    "alias.yaml": "a: &x sk-VALUE-1\nb: *x\n",
    "deep.json": '{"a": {"b": {"c": "sk-VALUE"}}}',
    "empty.yaml": "",
    "null.json": "null",
}


@pytest.fixture
def home(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    return shell


def imported(shell: Shell, name: str, *options: str, stdin: str = "") -> Done:
    done = shell.presign("connections", "import", name, *options, stdin=stdin)
    assert "VALUE" not in done.all
    return done


def both_are_there(shell: Shell) -> None:
    shell.presign("decrypt", "--out", "plain.json")
    there = json.loads((shell.directory / "plain.json").read_text())["connections"]
    assert there["conn_openai"]["auth"] == {"token": "sk-VALUE-openai"}
    assert there["conn_github"]["auth"] == {"token": "ghp_VALUE-github"}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_of_keys_is_read_by_its_ending(name: str, home: Shell) -> None:
    (home.directory / name).write_text(GOOD[name])
    (home.directory / name).chmod(0o600)
    done = imported(home, name, "--yes")
    assert done.code == 0, done.all
    both_are_there(home)


@pytest.mark.parametrize("name", ["keys.env", "keys.json"])
def test_standard_input_is_read_as_what_it_is(name: str, home: Shell) -> None:
    done = imported(home, "-", "--yes", "--json", stdin=GOOD[name])
    assert (done.code, done.err) == (0, ""), done.all
    assert [one["id"] for one in json.loads(done.out)["added"]] == ["conn_openai", "conn_github"]
    both_are_there(home)


def test_keys_on_standard_input_need_a_yes_and_no_file_is_spoken_of(home: Shell) -> None:
    done = imported(home, "-", stdin=ENV)
    assert (done.code, "Confirm with --yes" in done.err) == (1, True)
    done = imported(home, "-", "--yes", stdin=ENV)
    assert done.code == 0
    assert "still contains" not in done.all


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_something_else_is_refused_without_its_content(name: str, home: Shell) -> None:
    (home.directory / name).write_text(BAD[name])
    done = imported(home, name, "--yes")
    assert done.code == 1, done.all
    assert name in done.err
    assert not (json.loads(home.presign("connections", "list", "--json").out))
