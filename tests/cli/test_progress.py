"""What a long command shows of its progress: on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.places import ROOT
from support.process import free_port
from support.puppet import eventually
from support.shell import MODULE, Shell, Terminal

MANY = 20_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A registry of so many connections that each command takes more than a second."""
    shell = Shell(tmp_path_factory.mktemp("many"))
    assert shell.presign("init").code == 0
    one = {"upstream": "https://a.test", "auth": {"type": "bearer", "token": "sk-KEY-0123456789"}}
    keys = [{"id": "k1", "secret": "sk_imported_0123456789abcdef0123456789"}]
    registry = {"connections": {f"conn_{number}": {**one, "signing_keys": keys} for number in range(MANY)}}
    (shell.directory / "plain.json").write_text(json.dumps(registry))
    (shell.directory / "plain.json").chmod(0o600)
    assert shell.presign("encrypt", "plain.json").code == 0
    return shell


def on_a_terminal(shell: Shell, *argv: str, **env: str) -> str:
    line = " ".join([*MODULE, *argv]) + " > out.txt"
    done = shell.terminal(["sh", "-c", line], [], **{"TERM": "xterm", **env})
    assert done.code == 0, done.all
    return done.all


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "said"), [
    (("connections", "list"), f"of {MANY:,}"),
    (("check",), "checking the configuration and all connections: "),
    (("encrypt", "plain.json", "--replace"), "checking connections: "),
])  # fmt: skip
def test_a_long_command_tells_a_terminal_what_it_does(argv: tuple[str, ...], said: str, home: Shell) -> None:
    screen = on_a_terminal(home, *argv)
    assert said in screen
    # The line is removed in the end; what remains is what the command says in any case.
    assert said not in screen.rpartition("\x1b[K")[2]


@pytest.mark.slow
@pytest.mark.parametrize("argv", [("connections", "list"), ("check",)], ids=" ".join)
def test_a_long_command_tells_nobody_else(argv: tuple[str, ...], home: Shell) -> None:
    piped = home.presign(*argv)
    assert (piped.code, piped.err) == (0, "")
    assert "\r" not in piped.out
    assert on_a_terminal(home, *argv, TERM="dumb") == ""


WORKING = """
import sys, time
from presign_proxy.cli.progress import counting, working
with working("thinking"):
    time.sleep({first})
for one in counting("counting", range(1000), 1000):
    time.sleep({each})
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    yield Shell(tmp_path)


def screen_of(shell: Shell, first: float, each: float) -> str:
    done = shell.terminal([sys.executable, "-c", WORKING.format(first=first, each=each)], [], TERM="xterm")
    assert done.code == 0, done.all
    return done.all


def test_what_takes_more_than_a_second_is_shown_and_then_removed(shell: Shell) -> None:
    screen = screen_of(shell, 1.6, 0.0018)
    assert "thinking: 1 s" in screen
    assert "counting: " in screen
    assert " of 1,000" in screen
    assert screen.endswith("\r\x1b[K")


def test_what_is_done_within_a_second_shows_nothing(shell: Shell) -> None:
    assert screen_of(shell, 0.1, 0.0) == ""


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_gateway_that_starts_slowly_tells_a_terminal_that_it_starts(tmp_path: Path, terminal: bool) -> None:
    """Its first start after an installation is slow, because Python compiles what it imports."""
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    slow = tmp_path / "slow"
    slow.touch()
    env = shell.env | {
        "PYTHONPATH": f"{ROOT / 'tests/support/slowimport'}:{ROOT / 'addon'}",
        "SLOW_IMPORT": str(slow),
        "TERM": "xterm",
    }
    line = [*MODULE, "serve", "--listen", f"127.0.0.1:{free_port()}"]
    said = "starting: the first start after an installation takes longer, as Python compiles it"
    if terminal:
        with Terminal(line, shell.directory, env) as shown:
            shown.wait_for(said)
        return
    with subprocess.Popen(line, cwd=shell.directory, env=env, stderr=subprocess.PIPE, text=True) as serving:
        assert eventually(slow.read_text, 60)  # a worker imports, and goes on doing so
        time.sleep(3)
        serving.kill()
        assert serving.stderr is not None
        assert serving.stderr.read() == ""
