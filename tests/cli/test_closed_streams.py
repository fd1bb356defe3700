"""A reader that has enough, and standard streams that are not there: every verb ends quietly, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.shell import MODULE, Shell

KEY = "sk-KEY-0123456789"
SIGNED = "http://127.0.0.1:8080/api/proxy/conn_a/v1/a?X-Presign-Expires=1&X-Presign-Methods=GET"
VERBS = (
    ("--help",),
    ("sign", "--help"),
    ("--version",),
    ("connections", "list"),
    ("presets",),
    ("sign", "conn_a", "v1/a"),
    ("sign", "conn_a", "v1/a", "--json"),
    ("verify", f"{SIGNED}&X-Presign-Paths=a&X-Presign-Signature={'0' * 64}"),
    ("explain", f"{SIGNED}&X-Presign-Paths=a&X-Presign-Signature={'0' * 64}"),
    ("check",),
    ("decrypt",),
    ("completion", "bash"),
    ("schema",),
    ("example",),
    ("script-path",),
    ("demo", "--once", "--port", "0"),
)
SECONDS = 60.0
"""In which a verb ends on a machine that has much else to do."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("streams"))
    assert shell.presign("init").code == 0
    api = ("--upstream", "http://127.0.0.1:9", "--auth", "bearer")
    assert shell.presign("connections", "add", "conn_a", *api, stdin=KEY).code == 0
    return shell


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_verb_ends_as_by_sigpipe_where_nobody_reads(verb: tuple[str, ...], home: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.Popen(
        [*MODULE, *verb],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=home.directory,
        env=home.env,
    )
    os.close(writing)
    _, said = child.communicate(timeout=SECONDS)
    assert (child.returncode, said) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("verb", [
    pytest.param(("check",), id="check"),
    # It starts a gateway each time.
    pytest.param(("demo", "--once", "--port", "0"), id="demo", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_verb_does_its_work_where_a_stream_is_closed(
    verb: tuple[str, ...], closed: str, home: Shell
) -> None:
    script = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *MODULE, *verb],
        capture_output=True,
        timeout=SECONDS,
        check=False,
        cwd=home.directory,
        env=home.env,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (not closed.startswith(">&-") and " >&-" not in closed)


@pytest.mark.slow
def test_a_demo_that_serves_ends_once_its_reader_has_gone(home: Shell, tmp_path: Path) -> None:
    """As under `| head -6`: all was read, and nothing more is written."""
    (left_at := tmp_path / "temporary").mkdir()
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [*MODULE, "demo", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=home.directory,
        env=home.env | {"TMPDIR": str(left_at)},
    )
    os.close(writing)
    seen = b""
    while b"Ctrl-C stops." not in seen:
        seen += (piece := os.read(reading, 4096))
        assert piece, child.communicate()
    assert child.poll() is None
    os.close(reading)
    _, said = child.communicate(timeout=SECONDS)
    assert (child.returncode, said) == (-signal.SIGPIPE, b"")
    assert list(left_at.iterdir()) == []
