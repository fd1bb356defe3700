"""`presign revoke --id`: a name that no request had is answered with the one that was meant."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file.storage import write_private
from support.asking import SECRET
from support.config import write_config
from support.shell import Shell

ENTRY: dict[str, Any] = {
    "upstream": "https://api.example.com",
    "auth": {"type": "bearer", "token": "sk-REALSECRET-0123456789"},
    "signing_keys": [{"id": "k1", "secret": SECRET}],
}
REMARK = "Nothing shows that anybody has signed as conn/"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    write_config({"registry": {"file": "registry.json"}, "audit": {"file": "audit.jsonl"}}, found.directory)
    write_private(found.directory / "registry.json", json.dumps({"connections": {"conn": ENTRY}}).encode())
    return found


def used(shell: Shell, *names: str, connection: str = "conn") -> None:
    lines = [{"time": time.time(), "connection": connection, "id": name} for name in names]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (shell.directory / "audit.jsonl").write_text(text, "utf-8")


def remarked(shell: Shell, name: str) -> str:
    done = shell.presign("revoke", "--id", f"conn/{name}")
    assert done.code == 0, done.all
    assert f"Everything signed as conn/{name} is revoked" in done.out
    return done.err


def test_who_revokes_the_name_of_a_run_is_told_what_runs_are_named(shell: Shell) -> None:
    """`presign run --id agent` adds a random part: `agent` alone would leave the agent at work."""
    used(shell, "agent-0a1b2c3d", "nightly", "agent-4e5f6a7b")
    said = remarked(shell, "agent")
    assert REMARK in said
    assert " revoke --id conn/agent-0a1b2c3d" in said
    assert " revoke --id conn/agent-4e5f6a7b" in said
    assert "nightly" not in said


def test_a_mistyped_name_is_answered_with_the_nearest(shell: Shell) -> None:
    used(shell, "alice")
    assert " revoke --id conn/alice" in remarked(shell, "alic")


def test_similar_names_are_commands_of_a_line_each(shell: Shell) -> None:
    used(shell, *(f"agent-{part}" for part in ("a1", "b2", "c3", "d4")))
    first, second, *commands, more = remarked(shell, "agent").splitlines()
    assert first == f"{REMARK}agent: the audit log has no request of that name."
    assert second == "It has requests of similar names. To revoke one of those, too:"
    assert [line.split(" revoke ")[1] for line in commands] == [
        f"--id conn/agent-{n}" for n in ("b2", "c3", "d4")
    ]
    assert more == "  … and 1 more"


def test_a_name_that_was_used_has_no_remark(shell: Shell) -> None:
    used(shell, "alice", "alice-1")
    assert remarked(shell, "alice") == ""


def test_a_name_that_is_like_none_is_said_to_be_unseen(shell: Shell) -> None:
    used(shell, "alice")
    assert remarked(shell, "nobody") == f"{REMARK}nobody: the audit log has no request of that name.\n"
    used(shell, "nobody", connection="other")
    assert remarked(shell, "nobody") == f"{REMARK}nobody: the audit log has no request of that name.\n"


def test_a_log_that_is_missing_or_no_file_stops_no_revocation(shell: Shell) -> None:
    assert remarked(shell, "alice") == f"{REMARK}alice: no gateway has written an audit log yet.\n"
    (shell.directory / "audit.jsonl").mkdir()
    assert remarked(shell, "alice") == f"{REMARK}alice: the audit log cannot be read.\n"
    (shell.directory / "audit.jsonl").rmdir()
    (shell.directory / "audit.jsonl").write_bytes(b'{"id":"x\xff\n[]\n"id":"\n')
    assert remarked(shell, "alice") == f"{REMARK}alice: the audit log has no request of that name.\n"


@pytest.mark.parametrize(
    ("audit", "why"),
    [
        ({}, "the configuration names no audit log"),
        ({"audit": {"file": "-"}}, "goes to the gateway's standard"),
    ],
)
def test_without_a_log_here_nothing_shows_any_name(shell: Shell, audit: dict[str, Any], why: str) -> None:
    write_config({"registry": {"file": "registry.json"}, **audit}, shell.directory)
    said = remarked(shell, "alice")
    assert said.startswith(f"{REMARK}alice: ")
    assert why in said


def test_only_the_end_of_a_large_log_is_read(shell: Shell) -> None:
    used(shell, "alice", *["bob"] * 3)
    line = json.dumps(
        {"time": 1, "connection": "conn", "id": "carol", "x": "y" * 4000}, separators=(",", ":")
    )
    with (shell.directory / "audit.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for _ in range(4200))  # more than 16 MiB
    assert remarked(shell, "alic") == (
        f"{REMARK}alic: the end of the audit log (16 MiB) has no request of that name.\n"
    )
    assert "conn/carol" in remarked(shell, "caro")
