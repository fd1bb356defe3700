"""The gateway as the first process of a container (PID 1), and an audit log that several processes write."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.observe.audit_file import LineFile
from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection
from support.machine import needs_root
from support.process import free_port
from support.puppet import eventually
from support.serving import _processes, children_of, environment

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


@contextlib.contextmanager
def as_first(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*UNSHARE, sys.executable, "-m", "presign_proxy", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment()
    ) as outer:
        try:
            yield outer
        finally:
            outer.kill()  # and what it has started, with it


@needs_root
def test_sigterm_ends_the_first_process_before_it_serves(tmp_path: Path) -> None:
    """Linux drops signals that PID 1 does not handle: `docker stop` waited for its ten seconds."""
    write_config({"registry": {"file": "r.json"}}, tmp_path)
    with as_first("revoke", "-", "--config", str(tmp_path / "config.yaml")) as outer:
        assert eventually(lambda: children_of(outer.pid), 10)
        (first,) = children_of(outer.pid)
        assert eventually(lambda: _handles(first, signal.SIGTERM), 15)
        os.kill(first, signal.SIGTERM)
        assert outer.wait(10) == 128 + signal.SIGTERM


def _handles(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@needs_root
def test_what_a_program_of_a_secret_has_started_does_not_stay_a_zombie(tmp_path: Path) -> None:
    script = f"(sleep 0.2 &); (sleep 0.1 &); echo {SECRET}"
    given = bearer_connection("http://127.0.0.1:9", "sk-REALSECRET-0123456789")
    given["signing_keys"] = [{"secret": {"exec": ["sh", "-c", script]}}]
    config = write_config({"connections": {"conn": given}}, tmp_path)
    listen = f"127.0.0.1:{free_port()}"
    confdir = str(tmp_path / "confdir")
    with as_first("serve", "--config", str(config), "--listen", listen, "--confdir", confdir) as outer:
        assert outer.stdout
        for line in outer.stdout:
            if b"is in reserve" in line:
                break
        (first,) = children_of(outer.pid)
        assert eventually(
            lambda: not [one for one in _processes() if one.parent == first and one.state == "Z"]
        )
        os.kill(first, signal.SIGTERM)
        threading.Thread(target=outer.stdout.read, daemon=True).start()
        assert outer.wait(20) == 0


# -- the audit log ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@needs_root
def test_half_a_line_on_a_full_disk_spoils_no_line_of_the_next_process(small_disk: Path) -> None:
    audit, ballast = small_disk / "audit.jsonl", small_disk / "ballast"
    ballast.write_bytes(bytes(40_000))
    first = LineFile(audit)
    done, failure = first.append([_line(number, 900) for number in range(100)])
    assert failure
    assert 0 < done < 100
    first.close()  # the process ends, and with it what it knew of the half line
    assert not audit.read_bytes().endswith(b"\n")
    ballast.unlink()
    second = LineFile(audit)
    assert second.append([_line(number, 10) for number in range(1000, 1003)]) == (3, None)
    second.close()
    assert [one for one in _numbers(audit.read_bytes()) if one >= 1000] == [1000, 1001, 1002]


WRITER = """
import sys
from presign_proxy.observe.audit_file import LineFile
file = LineFile(None)
first = int(sys.argv[1])
texts = [b"x" * (9000 if at % 7 == 0 else 300) for at in range(400)]
lines = [b'{"number": %d, "text": "%s"}\\n' % (first + at, text) for at, text in enumerate(texts)]
print(first, flush=True)
sys.stdin.readline()
assert file.append(lines) == (400, None)
"""


def test_lines_of_several_workers_on_standard_error_are_not_mixed() -> None:
    ours, theirs = os.pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(1000 * at)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment(),
        )
        for at in range(3)
    ]
    os.close(theirs)
    for one in writers:
        assert one.stdout
        one.stdout.readline()
    for one in writers:
        assert one.stdin
        one.stdin.write(b"go\n")
        one.stdin.flush()
    with os.fdopen(ours, "rb") as reader:
        said = reader.read()
    assert [one.wait(10) for one in writers] == [0, 0, 0]
    numbers = _numbers(said)
    assert len(numbers) == said.count(b"\n") == 1200
    assert sorted(numbers) == [1000 * at + number for at in range(3) for number in range(400)]
    for one in writers:
        one.communicate()


def _line(number: int, size: int) -> bytes:
    return json.dumps({"number": number, "text": "x" * size}).encode() + b"\n"


def _numbers(written: bytes) -> list[int]:
    found: list[Any] = []
    for line in written.splitlines():
        try:
            found.append(json.loads(line)["number"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
