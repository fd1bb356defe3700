"""What people read fits into their terminal, in aligned rows, with colours that mean something."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from presign_proxy.cli.width import commands, hanging
from presign_proxy.units import instant
from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.shell import MODULE, Shell

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
RED, GREEN = "\x1b[31m", "\x1b[32m"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    connections = {"conn_a": bearer_connection("http://127.0.0.1:9", SECRET)}
    write_config({"connections": connections, "audit": {"file": "audit.jsonl"}}, found.directory)
    return found


def signed(shell: Shell, *options: str) -> str:
    return shell.presign("sign", "conn_a", "v1/models", *options).out.strip()


@pytest.mark.parametrize("width", [40, 50, 80])
@pytest.mark.parametrize("options", [(), ("--max-uses", "3", "--not-before", "1h", "--client", "10.0.0.0/8")])
def test_an_explanation_fits_and_goes_on_below_its_text(
    options: tuple[str, ...], width: int, shell: Shell
) -> None:
    url = signed(shell, *options)
    explain = ("explain", url, "--at", instant(int(time.time())))  # the same second for all
    wide = shell.presign(*explain).out
    for text in (wide, shell.presign(*explain, COLUMNS=str(width)).out):
        assert text.split() == wide.split() or width < 80  # long words are broken where it is narrow
    narrow = shell.presign(*explain, COLUMNS=str(width)).out.splitlines()
    assert max(map(len, narrow)) <= width < max(map(len, wide.splitlines()))
    rows = narrow[narrow.index("") + 1 :]
    # What is signed may end with an empty line.
    steps = list(filter(None, rows[: rows.index("Assumed:")]))
    assert {re.match(r" *", line)[0] for line in steps} <= {"  ", " " * 4, " " * 19}
    assert width < 50 or any(re.fullmatch(r".*\b[0-9a-f]{32}\.", line) for line in steps)  # to be copied


def test_on_a_terminal_a_step_that_refuses_is_red_and_the_others_are_green(shell: Shell) -> None:
    url = signed(shell, "--not-before", "1h")
    seen = shell.terminal([*MODULE, "explain", url], [], TERM="xterm").out
    assert seen.startswith(f"{RED}Refused: 403 not_yet_valid")
    assert re.search(r"\n  \x1b\[32mok\x1b\[0m  presign ", seen)
    assert re.search(r"\n  \x1b\[31m!!\x1b\[0m  not_before ", seen)
    assert "\x1b" not in shell.terminal([*MODULE, "explain", url], [], NO_COLOR="1").out


def test_a_refusal_in_the_audit_log_is_red_on_a_terminal_and_plain_in_a_pipe(shell: Shell) -> None:
    line = (
        '{"time":1796047013.4,"client":"127.0.0.1","method":"GET","connection":"conn_a","decision":"deny",'
        '"path":"/refused:","code":"expired","detail":"expired 3 s ago","status":403,"request_id":"req_1"}\n'
    )
    (shell.directory / "audit.jsonl").write_text(line)
    seen = shell.terminal([*MODULE, "audit"], [], COLUMNS="50").out
    assert f"{RED}refused:\x1b[0m" in seen
    assert max(map(len, ESCAPES.sub("", seen).splitlines())) <= 50
    assert "conn_a/refused: 403" in ESCAPES.sub("", seen)
    assert "\x1b" not in shell.presign("audit").out


def test_a_holder_is_told_of_no_condition_that_was_not_signed(shell: Shell, tmp_path: Path) -> None:
    url = signed(shell, "--id", "nightly")
    (tmp_path / "holder").mkdir()
    said = Shell(tmp_path / "holder").presign("explain", url).out
    assert "nightly" in said
    assert "None" not in said
    for step in ("not_before", "client", "body"):
        assert not re.search(rf"^  \S\S  {step}\b", said, re.MULTILINE)


@pytest.mark.parametrize(("line", "expected"), [
    ("  ok  name  one two three four five", ["  ok  name  one two three", "            four five"]),
    ("  under way  0 requests, more and more", ["  under way  0 requests,", "             more and more"]),
    ("  -  a list goes on below itself", ["  -  a list goes on below", "     itself"]),
    ("a sentence that goes on and on", ["a sentence that goes on", "and on"]),
    ("  a name of a row  text", ["  a name of a row  text"]),
    ("  a name that is far too long  text", ["  a name that is far too", "    long  text"]),
])  # fmt: skip
def test_a_line_goes_on_behind_the_name_of_its_row(line: str, expected: list[str]) -> None:
    assert hanging([line], 26) == expected
    assert hanging([line], None) == [line]


def test_a_long_line_is_wrapped_in_no_time() -> None:
    began = time.monotonic()
    assert hanging(["  " + "a " * 20_000], 80)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("preset", ["openai", "azure-openai", "github"])
def test_a_preset_fits(preset: str, shell: Shell) -> None:
    wide = shell.presign("presets", preset).out
    narrow = shell.presign("presets", preset, COLUMNS="50").out
    assert max(map(len, narrow.splitlines())) <= 50 < max(map(len, wide.splitlines()))
    assert "".join(narrow.split()) == "".join(wide.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "presign sign conn v1/chat --methods POST --expires '2 hours'",
            ["presign sign conn v1/chat --methods POST \\", "  --expires '2 hours'"],
        ),
        ("presign sign https://api.example.com/user --as curl --json", None),
        ("presign revoke --undo --connection conn_a --added-before=2026-01-02T03:04:05Z --json", None),
        ("presign run conn_a -- python3 agent.py --model gpt --verbose", None),
    ],
)
def test_an_option_stays_with_its_value_where_a_command_is_too_long(
    line: str, expected: list[str] | None
) -> None:
    found = commands(line, 50)
    assert expected in (None, found)
    assert len(found) == 2
    assert all(len(one) <= 50 for one in found)
    assert " ".join(one.removesuffix(" \\").strip() for one in found) == line
    assert not found[0].endswith(("--as \\", "--expires \\", "--connection \\", "--model \\"))
