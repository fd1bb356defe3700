"""`presign explain req_…`: somebody was refused, and reads the request id out to the operator."""

from __future__ import annotations

import bz2
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.errors import STATUS
from presign_proxy.explain.advice import ADVICE
from support.asking import Grant, ask
from support.config import write_config
from support.puppet import eventually
from support.recorder import Recorder
from support.serving import CONN, Serve, config_for
from support.shell import Done, Shell

LINE = {
    "time": 1_795_881_540.5,
    "decision": "deny",
    "scheme": "presign",
    "carrier": "query",
    "connection": "conn",
    "key": "k1",
    "signature": "0123456789abcdef" * 2,
    "id": "nightly",
    "method": "GET",
    "path": "/v1/models",
    "client": "203.0.113.9",
    "code": "expired",
    "detail": "expired 12 s ago",
    "status": 403,
    "upstream_status": None,
    "bytes_in": 0,
    "bytes_out": 0,
    "duration": 0.001,
    "upstream_duration": None,
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path, TZ="UTC")
    write_config({"audit": {"file": "audit.jsonl"}}, found.directory)
    return found


def text(request: str, **changed: Any) -> bytes:
    return json.dumps({"request_id": request, **LINE, **changed}).encode() + b"\n"


def test_each_code_has_something_to_do() -> None:
    assert ADVICE.keys() == STATUS.keys()


def test_a_real_refusal_is_explained_by_its_request_id(
    make_served: Callable[..., Serve], upstream: Recorder, tmp_path: Path
) -> None:
    gateway = make_served(config_for(upstream, audit={"file": "audit.jsonl"}))
    shell = Shell(tmp_path, PRESIGN_CONFIG=str(gateway.config))
    late = ask(gateway.port, Grant(CONN, expires=1_700_000_000).target("v1/models"))
    good = ask(gateway.port, Grant(CONN).target("v1/models"))
    ids = [answer.header("x-presign-request-id") or "" for answer in (late, good)]

    def told(request: str) -> Done:
        eventually(lambda: shell.presign("explain", request).code == 0)
        return shell.presign("explain", request)

    refused = told(ids[0])
    assert refused.out.startswith("Refused: 403 expired.\n"), refused.all
    for part in (CONN, "signed with key", "127.0.0.1", "has expired", "What to do: Sign again", "ago"):
        assert part in refused.out, part
    granted = told(ids[1])
    assert granted.out.startswith("Granted: the client got 200.\n")
    assert "What to do" not in granted.out


def test_who_has_used_a_url_up_is_not_told_to_wait(shell: Shell) -> None:
    limited = {"code": "limited", "status": 429}
    log = shell.directory / "audit.jsonl"
    log.write_bytes(text("req_a", **limited, detail="uses") + text("req_b", **limited, detail="rate-60s-url"))
    spent = shell.presign("explain", "req_a").out
    assert "What to do: No use is left of this URL, and waiting does not help: sign a new one" in spent
    assert "Retry-After" not in spent
    assert "Wait for Retry-After" in shell.presign("explain", "req_b").out


def test_it_is_found_in_every_file_that_logrotate_has_made(shell: Shell) -> None:
    log = shell.directory / "audit.jsonl"
    log.write_bytes(text("req_new"))
    (shell.directory / "audit.jsonl.1").write_bytes(text("req_one") + text("req_cut")[:-1])
    with gzip.open(shell.directory / "audit.jsonl.2.gz", "wb") as packed:
        packed.write(text("req_two"))
    with bz2.open(shell.directory / "audit.jsonl-20261101.bz2", "wb") as other:
        other.write(text("req_three"))
    (shell.directory / "audit-20261102.jsonl").write_bytes(text("req_four"))
    (shell.directory / "audit.jsonl.bak.txt").write_bytes(text("req_none"))
    for request, name in (
        ("req_new", "audit.jsonl"),
        ("req_one", "audit.jsonl.1"),
        ("req_cut", "audit.jsonl.1"),
        ("req_two", "audit.jsonl.2.gz"),
        ("req_three", "audit.jsonl-20261101.bz2"),
        ("req_four", "audit-20261102.jsonl"),
    ):
        done = shell.presign("explain", request, "--json")
        assert done.code == 0, done.all
        found = json.loads(done.out)
        assert found["request"]["request_id"] == request
        assert Path(found["file"]).name == name
        assert found["advice"] == ADVICE["expired"]
    gone = shell.presign("explain", "req_none")
    assert (gone.code, gone.out) == (1, "")
    assert "there is no request req_none" in gone.err
    assert "audit.jsonl.2.gz" in gone.err


def test_a_rotated_file_that_is_cut_off_hides_no_other(shell: Shell) -> None:
    whole = gzip.compress(b"".join(text(f"req_{number}") for number in range(2000)))
    cut = shell.directory / "audit.jsonl.1.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    old = shell.directory / "audit.jsonl.2"
    old.write_bytes(text("req_old"))
    os.utime(old, (1, 1))
    (shell.directory / "audit.jsonl").write_bytes(b"")
    done = shell.presign("explain", "req_old")
    assert done.code == 0, done.all
    assert "audit.jsonl.1.gz could not be read to its end" in done.err


def test_only_the_request_itself_is_meant_not_a_text_that_holds_its_id(shell: Shell) -> None:
    (shell.directory / "audit.jsonl").write_bytes(text("req_a", detail="req_b") + b'{"request_id": "req_b"\n')
    assert shell.presign("explain", "req_b").code == 1


def test_a_failure_of_the_upstream_is_no_refusal(shell: Shell) -> None:
    changed = {"decision": "forward", "code": "upstream", "detail": "it broke off", "status": 502}
    (shell.directory / "other.jsonl").write_bytes(text("req_a", **changed, bytes_out=2048))
    done = shell.presign("explain", "req_a", "--log", "other.jsonl")
    assert done.out.startswith("Granted, but it failed: upstream; the client got 502.\n"), done.all
    assert "2.0 KiB sent" in done.out
    assert "Why: It broke off." in done.out


def test_no_terminal_obeys_what_is_in_a_line(shell: Shell) -> None:
    (shell.directory / "audit.jsonl").write_bytes(text("req_a", detail="\x1b[2J", path="/\x1b]0;x\x07"))
    done = shell.presign("explain", "req_a")
    assert done.code == 0
    assert "\x1b" not in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("req_a", "--method", "GET"), 2, "stands for itself"),
        (("req_", "--log", "a"), 2, "a request id is req_"),
        (("https://a.example/", "--log", "a"), 2, "--log needs a request id"),
        (("req_a", "--log", "gone.jsonl"), 1, "there is no audit log"),
        (("req_a", "--log", "gone/gone.jsonl"), 1, "no such file"),
    ],
)
def test_mistakes_are_named(shell: Shell, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = shell.presign("explain", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_without_a_log_it_says_where_to_look(shell: Shell) -> None:
    write_config({"audit": {"file": "-"}}, shell.directory)
    assert "give --log FILE" in shell.presign("explain", "req_a").err
    (shell.directory / "config.yaml").unlink()
    assert "give --log FILE, or a configuration" in shell.presign("explain", "req_a").err
