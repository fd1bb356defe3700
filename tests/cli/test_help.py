"""Help: by job, with examples that work, whole at every width, in colour on a terminal only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from mitmproxy.certs import CertStore

from presign_proxy.cli.examples import EXAMPLES
from presign_proxy.cli.groups import GROUPS, grouped
from presign_proxy.cli.main import VERBS, main
from presign_proxy.cli.width import commands, fitted, wrapped
from support.forking import Case, Runner
from support.shell import MODULE, Shell

KEY = "sk-KEY-0123456789"
NARROW = (40, 50, 80, 120)


def verbs(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield f"{before}{name}", found
        if isinstance(found, click.Group):
            yield from verbs(found, f"{name} ")


ALL = dict(verbs(main))


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(Shell(tmp_path_factory.mktemp("help")))
    yield runner
    runner.close()


def test_every_verb_has_a_job_and_an_example() -> None:
    for names in (VERBS, ALL["connections"].commands):
        assert "More" not in dict(grouped(names))
    assert EXAMPLES.keys() == ALL.keys() | {""}


def test_a_verb_without_a_job_is_shown_all_the_same() -> None:
    assert dict(grouped(["sign", "new", "init"])) == {
        "Setting up": ["init"],
        "Signing": ["sign"],
        "More": ["new"],
    }


def test_help_is_by_job(runner: Runner) -> None:
    done = runner.run(Case(("--help",)))
    heads = [line.rstrip(":") for line in done.out.splitlines() if line.endswith(":") and line[0] != " "]
    assert heads == ["Options", *[job for job, _ in grouped(VERBS)], "Examples"]
    assert heads[1:4] == list(GROUPS)[:3]
    assert {line.split()[0] for line in done.out.splitlines() if re.match(r"  [a-z]", line)} >= set(VERBS)


@pytest.mark.parametrize("columns", NARROW)
@pytest.mark.parametrize("name", ["", *ALL])
def test_help_is_whole_and_no_line_is_longer_than_the_terminal_is_wide(name: str, columns: int) -> None:
    verb = ALL.get(name, main)
    done = CliRunner().invoke(main, [*name.split(), "--help"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= columns, done.output
    assert "..." not in done.stdout.replace("]...", "]")  # several arguments, as click writes it
    flat = "".join(done.stdout.split())
    assert "".join(verb.help.split("\f")[0].split()) in flat
    for example in EXAMPLES[name]:
        assert "".join(example.split()) in flat.replace("\\", ""), example
    shown = [one for one in verb.get_params(click.Context(verb)) if isinstance(one, click.Option)]
    assert shown
    for option in shown:
        for text in (option.help or "", option.metavar or "", *option.opts, *option.secondary_opts):
            assert "".join(text.split()) in flat, option.name


def test_help_has_a_short_name_too(runner: Runner) -> None:
    for name in ("", "connections", "connections set"):
        texts = [runner.run(Case((*name.split(), option))).out for option in ("-h", "--help")]
        assert texts[0] == texts[1] != ""


def test_help_without_a_verb_is_a_usage_error(runner: Runner) -> None:
    done = runner.run(Case(()))
    assert (done.code, done.out) == (2, "")
    assert "Setting up:" in done.err


# -- examples ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A gateway's directory with what the examples name, and the command under its name."""
    shell = Shell(tmp_path_factory.mktemp("examples"))
    scripts = shell.directory.parent / "scripts"
    scripts.mkdir()
    (scripts / "presign").write_text(f'#!/bin/sh\nexec {" ".join(MODULE)} "$@"\n')
    (scripts / "presign").chmod(0o755)
    shell.env["PATH"] = f"{scripts}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
    lines = (
        ("init",),
        ("connections", "add", "--preset", "openai"),
        ("connections", "add", "--preset", "github"),
        ("connections", "add", "conn_acme", *own),
        ("connections", "rotate", "conn_acme"),
        ("revoke", "--connection", "conn_github"),
        ("decrypt", "--out", "before.json"),
    )
    for line in lines:
        done = shell.presign(*line, stdin=KEY)
        assert done.code == 0, done.all
    (shell.directory / "audit.jsonl").touch()
    CertStore.from_store(Path(shell.env["HOME"], ".mitmproxy"), "mitmproxy", 2048)  # as its first start does
    url = shell.presign("sign", "conn_openai", "v1/models").out
    (shell.directory / "url.txt").write_text(url)
    shell.env["URL"] = url.strip()
    return shell


SPECIAL = {
    "presign connections import keys.env --preset OUR_KEY=gitlab": {"keys.env": "OUR_KEY=glpat-0123456789\n"},
    "presign connections import keys.env": {"keys.env": f"ANTHROPIC_API_KEY={KEY}\n"},
    "presign connections import keys.json": {"keys.json": f'{{"ANTHROPIC_API_KEY": "{KEY}"}}'},
    "presign run conn_openai -- python app.py": {"app.py": "import os; os.environ['OPENAI_API_KEY']\n"},
    "presign run conn_openai conn_github --expires '2 hours' -- sh ci.sh": {
        "ci.sh": 'test -n "$OPENAI_API_KEY" && test -n "$GITHUB_TOKEN"\n'
    },
}
"""Examples that read a file of their own."""
YES = ("import", "set", "remove")
"""Verbs that ask a question on a terminal."""
SERVING = {"serve", "demo", "--follow", "mitmdump"}
"""Words of examples that go on until they are stopped."""
ALONE = [
    pytest.param(name, line, marks=[pytest.mark.slow] if SERVING & set(line.split()) else [], id=line)
    for name, lines in EXAMPLES.items()
    for line in lines
    if name or line not in EXAMPLES.get(line.split()[1], ())
]


@pytest.mark.needs("bash")
@pytest.mark.parametrize(("name", "line"), ALONE)
def test_an_example_does_what_it_says(name: str, line: str, prepared: Shell, tmp_path: Path) -> None:
    place = tmp_path / "here"
    place.mkdir(mode=0o700)
    if not line.startswith("presign init"):
        for file in prepared.directory.iterdir():
            if file.is_file():
                (place / file.name).write_bytes(file.read_bytes())
                (place / file.name).chmod(0o600)
    if "encrypt plain.json" in line:
        (place / "before.json").rename(place / "plain.json")
    for file, text in SPECIAL.get(line, {}).items():
        (place / file).write_text(text)
        (place / file).chmod(0o600)
    if name == "run":
        line = line.replace(" -- ", " --no-check -- ")  # nothing listens here
        line = f"presign revoke --connection conn_github --undo && {line}"
    if name.startswith("connections") and name.split()[-1] in YES:
        line += " --yes"
    if SERVING & set(line.split()):
        line = started(line)
    if line.endswith("--preset openai"):
        line = f"presign connections remove conn_openai --yes && {line}"
    done = subprocess.run(
        ["bash", "-c", line],
        input=KEY,
        capture_output=True,
        text=True,
        cwd=place,
        env=prepared.env,
        timeout=60,
    )
    # The URL is expired at that time; no gateway runs.
    expected = 1 if line.startswith(("presign explain --at", "presign status")) else 0
    assert done.returncode == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def started(line: str) -> str:
    """The example with free ports, so that it can be told to end: its options are right if it begins."""
    if line == "presign demo":
        line += " --once"
    if "demo" in line:
        return f"{line} --port 0"
    line = re.sub(r"(presign serve)(?!.*--listen)", r"\1 --listen 127.0.0.1:0", line).replace(
        "'*:8443'", "127.0.0.1:0"
    )
    line = line.replace("mitmdump -s", "mitmdump --listen-port 0 --listen-host 127.0.0.1 -s")
    return f"timeout --preserve-status -s INT 40 {line}; code=$?; [ $code = 0 ] || [ $code = 130 ]"


# -- widths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", NARROW)
@pytest.mark.parametrize(
    "line", ["connections list", "presets", "revoke --list", "audit audit.jsonl"], ids=str.split
)
def test_a_table_is_whole_and_fits_into_the_terminal(
    line: str, columns: int, prepared: Shell, tmp_path: Path
) -> None:
    record = {"time": 1796044939.5, "client": "203.0.113.7", "method": "GET", "connection": "conn_openai"}
    record |= {"path": "v1/models/gpt-5-mini/with/a/path/that/is/long", "status": 200, "decision": "forward"}
    (prepared.directory / "audit.jsonl").write_text(json.dumps(record) + "\n")
    piped, narrow = (prepared.presign(*line.split(), **env) for env in ({}, {"COLUMNS": str(columns)}))
    (prepared.directory / "audit.jsonl").write_text("")
    assert piped.code == narrow.code == 0, narrow.all
    fits = max(map(len, piped.out.splitlines())) <= columns
    assert max(map(len, narrow.out.splitlines())) <= columns, narrow.out
    if fits:
        assert narrow.out == piped.out
    there, shown = (Counter("".join(done.out.split())) for done in (piped, narrow))
    head = (
        Counter("".join(piped.out.split("\n", 1)[0].split())) if not line.startswith("audit") else Counter()
    )
    assert not there - head - shown, "of what a pipe gets, something is not shown"
    assert "…" not in narrow.out


def test_nothing_of_a_line_is_lost_when_it_is_wrapped() -> None:
    text = "  a  word https://api.example.com/a/very/long/path?with=a&query and 0123456789abcdef"
    for width in range(20, 120):
        lines = wrapped(text, width, 4)
        assert max(map(len, lines)) <= width
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_wrapped_command_is_the_same_command_to_a_shell() -> None:
    line = "printf '%s|' revoke --undo --key 'a b  c/k1' \"d  e\" f --config /a/b/c.yaml"
    expected = subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout
    for width in range(24, 90):
        script = "\n".join(commands(line, width, 2))
        assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == expected


def test_a_table_of_any_content_fits() -> None:
    rows = [["ID", "WHAT"], ["x" * 50, "a b " * 30], ["", "y" * 90]]
    for width in range(20, 200, 7):
        lines = fitted(rows, width)
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        assert max(map(len, plain)) <= width
        assert "".join("".join(plain).split()).count("y") == 90


# -- colours -------------------------------------------------------------------------------------------


def coloured(shell: Shell, *argv: str, terminal: bool, **env: str) -> bool:
    env = {"TERM": "xterm", **env}
    done = shell.terminal([*MODULE, *argv], [], **env) if terminal else shell.presign(*argv, **env)
    return "\x1b[" in done.all


@pytest.mark.parametrize(("env", "terminal", "pipe"), [
    ({}, True, False),
    ({"NO_COLOR": "1"}, False, False),
    ({"NO_COLOR": ""}, True, False),
    ({"TERM": "dumb"}, False, False),
    ({"CLICOLOR": "0"}, False, False),
    ({"FORCE_COLOR": "1"}, True, True),
    ({"CLICOLOR_FORCE": "1", "TERM": "dumb"}, True, True),
    ({"FORCE_COLOR": "0"}, False, False),
    ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
], ids=str)  # fmt: skip
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(
    env: dict[str, str], terminal: bool, pipe: bool, prepared: Shell
) -> None:
    for argv in (("connections", "list"), ("sing",), ("connections", "show", "no")):
        assert coloured(prepared, *argv, terminal=True, **env) is terminal
        assert coloured(prepared, *argv, terminal=False, **env) is pipe


def test_json_is_never_coloured(prepared: Shell) -> None:
    for argv in (("connections", "list"), ("sing",), ("check",), ("verify", "$URL")):
        assert not coloured(prepared, *argv, "--json", terminal=True, FORCE_COLOR="1")


def test_every_character_of_help_has_a_width_of_one() -> None:
    """Else lines that are counted to fit would not."""
    for verb in ALL.values():
        assert all(unicodedata.east_asian_width(char) not in "WF" for char in verb.help or "")
