"""`presign connections import`: the keys of a `.env` file, shown without values before they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.shell import MODULE, Done, Shell, Terminal

FILE = """\
# keys of the team
export OPENAI_API_KEY="sk-VALUE-openai" # mine
ANTHROPIC_API_KEY='sk-VALUE-anthropic$x#y'
GITHUB_TOKEN=ghp_VALUE#1   # a remark
GH_TOKEN=ghp_VALUE_other
TWILIO_AUTH_TOKEN=VALUE-twilio
TWILIO_ACCOUNT_SID=AC-VALUE
POSTMARK_API_TOKEN=VALUE-postmark\r
DD_API_KEY=VALUE-datadog
AZURE_OPENAI_API_KEY=VALUE-azure
MISTRAL_API_KEY=${VALUE_OF_OTHER}
GROQ_API_KEY=
COHERE_API_KEY="VALUE
of two lines"

DATABASE_URL=postgres://user:VALUE@db/x
VALUEc2VjcmV0MTIz=
"""


@pytest.fixture
def home(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    write(shell, FILE)
    return shell


def write(shell: Shell, text: str | bytes, mode: int = 0o600) -> None:
    file = shell.directory / "keys.env"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)


def imported(shell: Shell, *options: str) -> Done:
    done = shell.presign("connections", "import", "keys.env", *options)
    assert "VALUE" not in done.all.replace("NAME=VALUE", "")
    assert "Traceback" not in done.all
    return done


def entries(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell.presign("decrypt").out)["connections"]
    return found


def test_each_key_of_a_known_provider_becomes_a_connection(home: Shell) -> None:
    done = imported(home, "--yes", "--json")
    assert done.code == 0
    said = json.loads(done.out)
    assert {one["id"]: one["variables"] for one in said["added"]} == {
        "conn_openai": ["OPENAI_API_KEY"],
        "conn_anthropic": ["ANTHROPIC_API_KEY"],
        "conn_github": ["GITHUB_TOKEN"],
        "conn_twilio": ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"],
        "conn_postmark": ["POSTMARK_API_TOKEN"],
    }
    auths = {name: entry["auth"] for name, entry in entries(home).items()}
    assert auths == {
        "conn_openai": {"token": "sk-VALUE-openai"},
        "conn_anthropic": {"token": "sk-VALUE-anthropic$x#y"},
        "conn_github": {"token": "ghp_VALUE#1"},
        "conn_twilio": {"type": "basic", "username": "AC-VALUE", "password": "VALUE-twilio"},
        "conn_postmark": {"token": "VALUE-postmark"},
    }
    secrets = {one["id"]: one["signing_key"]["secret"] for one in said["added"]}
    assert len(set(secrets.values())) == 5
    kept = {name: entry["signing_keys"][0]["secret"] for name, entry in entries(home).items()}
    assert kept == secrets
    assert home.presign("check").code == 0
    url = home.presign("sign", "conn_openai", "v1/models").out.strip()
    assert home.presign("verify", url).code == 0


def test_what_makes_no_connection_is_named_with_its_reason(home: Shell) -> None:
    said = json.loads(imported(home, "--yes", "--json").out)
    left = {one["variable"]: one["reason"] for one in said["left_out"]}
    expected = {
        "GH_TOKEN": "github has GITHUB_TOKEN already",
        "DD_API_KEY": "datadog needs DD-API-KEY, DD-APPLICATION-KEY",
        "AZURE_OPENAI_API_KEY": "azure-openai needs --var resource",
        "MISTRAL_API_KEY": "refers to another variable",
        "GROQ_API_KEY": "is not set or empty",
        "COHERE_API_KEY": "holds a line break",
    }
    assert left.keys() == expected.keys()
    for name, reason in expected.items():
        assert left[name].startswith(reason), name
    assert said["unknown"] == 2


def test_a_key_is_known_by_how_it_begins_whatever_its_variable_is_called(home: Shell) -> None:
    write(
        home,
        "BOT=xoxb-VALUE-0123456789abcdef\nSOMETHING=sk-ant-api03-VALUE-0123456789\nOTHER=glpat-VALUE-0123456789ab\n"
        "MODELS=hf_VALUE0123456789abcdef\nWHICH=sk-VALUE-0123456789abcdef\nMAPS=AIzaVALUE0123456789abcdef\n"
        "SHORT=xoxp-VALUE\nREFERS=xoxb-$VALUE_0123456789abcdef\n",
    )
    done = imported(home, "--yes")
    assert set(entries(home)) == {"conn_slack", "conn_anthropic", "conn_gitlab", "conn_huggingface"}
    for name in ("WHICH", "MAPS", "SHORT", "REFERS"):
        assert name in done.all


def test_it_is_shown_first_and_without_yes_nothing_is_written(home: Shell) -> None:
    before = (home.directory / "connections.enc").read_bytes()
    for options in ((), ("--json",)):
        done = imported(home, *options)
        assert done.code == 1
        assert "conn_openai" in done.err
        assert "********" in done.err
        assert "no known provider: DATABASE_URL, 1 more" in done.err
        assert "sk_" not in done.all
    assert (home.directory / "connections.enc").read_bytes() == before


@pytest.mark.parametrize(("answer", "written"), [("y", 5), ("n", 0)])
def test_on_a_terminal_it_asks(home: Shell, answer: str, written: int) -> None:
    argv = [*MODULE, "connections", "import", "keys.env"]
    with Terminal(argv, home.directory, home.env) as terminal:
        terminal.wait_for_question()
        assert "Add 5 connections?" in terminal.screen
        assert not entries(home)
        terminal.type(answer)
        assert terminal.wait() == (0 if written else 1)
        assert "VALUE" not in terminal.screen
    assert len(entries(home)) == written


def test_a_second_time_adds_only_what_is_new(home: Shell) -> None:
    imported(home, "--yes")
    before = entries(home)
    done = imported(home, "--yes")
    assert done.code == 1
    assert "nothing to add" in done.err
    assert "connections rotate conn_openai --credential" in done.err
    assert entries(home) == before
    write(home, f"{FILE}DEEPSEEK_API_KEY=VALUE\n")
    assert imported(home, "--yes").code == 0
    assert entries(home).keys() - before.keys() == {"conn_deepseek"}
    assert entries(home) | before == entries(home)


def test_a_provider_is_named_and_a_variable_is_left_out(home: Shell) -> None:
    write(home, "OUR_KEY=VALUE\nGITHUB_TOKEN=VALUE\n")
    assert imported(home, "--preset", "OUR_KEY=gitlab", "--preset", "GITHUB_TOKEN=", "--yes").code == 0
    assert entries(home).keys() == {"conn_gitlab"}


def test_a_revoked_name_does_not_come_back(home: Shell) -> None:
    write(home, "GITHUB_TOKEN=VALUE\n")
    assert imported(home, "--yes").code == 0
    assert home.presign("revoke", "--connection", "conn_github").code == 0
    assert home.presign("connections", "remove", "conn_github", "--yes").code == 0
    done = imported(home, "--yes")
    assert (done.code, "conn_github was revoked" in done.err) == (1, True)
    assert not entries(home)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--preset", "OPENAI_API_KEY=opnai"), 1, "did you mean openai?"),
        (("--preset", "NOT_THERE=openai"), 2, "with a variable of the file"),
        (("--preset", "openai"), 2, "--preset needs VARIABLE=PRESET"),
    ],
)
def test_a_preset_that_fits_nothing_is_refused(
    home: Shell, options: tuple[str, ...], code: int, said: str
) -> None:
    done = imported(home, *options, "--yes")
    assert (done.code, said in done.err) == (code, True), done.all
    assert not entries(home)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing to add"),
        ("# only a remark", "nothing to add"),
        ("A=1\nsk-VALUE-0123", "keys.env:2: is not NAME=VALUE"),
        ("A=1\n\nOPENAI_API_KEY='sk-VALUE", "keys.env:3: is not NAME=VALUE, or a quote is not closed"),
        ('OPENAI_API_KEY="sk-VALUE" more', "keys.env:1: is not NAME=VALUE"),
        ('{"openai": "sk-VALUE"}', "keys.env:1: is not NAME=VALUE"),
        (b"OPENAI_API_KEY=VALUE\xff", "is not UTF-8"),
        (b"A=" + b" " * (1 << 20), "is larger than"),
        ("OPENAI_API_KEY=VALUE\x1b[2J", "control character"),
        ("OPENAI_API_KEY=$(cat VALUE)", "refers to another variable or a program"),
        ("OPENAI_API_KEY=" + "# VALUE", "is not set or empty"),
    ],
)
def test_a_file_of_something_else_is_refused_without_a_word_of_it(
    home: Shell, text: str | bytes, said: str
) -> None:
    write(home, text)
    done = imported(home, "--yes")
    assert (done.code, said in done.err) == (1, True), done.all
    assert not entries(home)


def test_a_file_that_is_not_there_is_told(home: Shell) -> None:
    done = home.presign("connections", "import", "nowhere.env")
    assert (done.code, done.err) == (1, "presign: nowhere.env: no such file or directory\n")
    assert home.presign("connections", "import", ".").code == 1


def test_a_file_that_others_can_read_is_told_of(home: Shell) -> None:
    write(home, "GITHUB_TOKEN=VALUE\n", 0o644)
    done = imported(home, "--yes")
    assert done.code == 0
    assert "keys.env: the file is readable by others" in done.err
    assert "delete what no program needs" in done.err
    registry = home.directory / "connections.enc"
    assert registry.stat().st_mode & 0o777 == 0o600
    assert b"VALUE" not in registry.read_bytes()
