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
REMARK = "Nothing shows that anybody has used conn/"
MEANING = "If the name is mistyped, what you meant to revoke still works."


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


def remarked(shell: Shell, name: str, *options: str) -> str:
    done = shell.presign("revoke", "--id", f"conn/{name}", *options)
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
    first, meaning, second, *commands, more = remarked(shell, "agent").splitlines()
    assert first == f"{REMARK}agent so far: the audit log has no request of that name."
    assert meaning == MEANING
    assert second == "The audit log has requests of similar names. To revoke one of those, too:"
    assert [line.split(" revoke ")[1] for line in commands] == [
        f"--id conn/agent-{n}" for n in ("b2", "c3", "d4")
    ]
    assert more == "  … and 1 more"


def test_who_types_now_in_the_incident_is_given_it_with_the_name_that_was_meant(shell: Shell) -> None:
    used(shell, "alice")
    assert " revoke --id conn/alice --now\n" in remarked(shell, "alic", "--now")


def test_the_doubt_about_a_name_is_said_before_what_was_done(shell: Shell) -> None:
    """ "Everything is revoked" would end the search for the leak, and nobody would read on."""
    used(shell, "alice")
    both = shell.bash("presign revoke --id conn/alic --now 2>&1").out
    assert both.index(f"{REMARK}alic so far") < both.index("Everything signed as conn/alic is revoked")


def test_who_types_a_name_without_its_option_is_told_the_option(shell: Shell) -> None:
    used(shell, "nightly2")
    for typed, meant in (("conn", "--connection conn"), ("nightly2", "--id conn/nightly2")):
        done = shell.presign("revoke", typed, "--now")
        assert (done.code, done.out) == (1, "")
        assert f" revoke {meant} --now`" in done.err
    assert "a signature id has 32 hex digits" in shell.presign("revoke", "nobody").err


def test_a_name_that_was_used_has_no_remark(shell: Shell) -> None:
    used(shell, "alice", "alice-1")
    assert remarked(shell, "alice") == ""


def test_a_name_that_is_like_none_is_said_to_be_unseen(shell: Shell) -> None:
    used(shell, "alice")
    assert (
        remarked(shell, "nobody")
        == f"{REMARK}nobody so far: the audit log has no request of that name.\n{MEANING}\n"
    )
    used(shell, "nobody", connection="other")
    assert (
        remarked(shell, "nobody")
        == f"{REMARK}nobody so far: the audit log has no request of that name.\n{MEANING}\n"
    )


def test_a_log_that_is_missing_or_no_file_stops_no_revocation(shell: Shell) -> None:
    assert (
        remarked(shell, "alice")
        == f"{REMARK}alice so far: no gateway has written an audit log yet.\n{MEANING}\n"
    )
    (shell.directory / "audit.jsonl").mkdir()
    assert remarked(shell, "alice") == f"{REMARK}alice so far: the audit log cannot be read.\n{MEANING}\n"
    (shell.directory / "audit.jsonl").rmdir()
    (shell.directory / "audit.jsonl").write_bytes(b'{"id":"x\xff\n[]\n"id":"\n')
    assert (
        remarked(shell, "alice")
        == f"{REMARK}alice so far: the audit log has no request of that name.\n{MEANING}\n"
    )


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
    assert said.startswith(f"{REMARK}alice so far: ")
    assert why in said


def test_only_the_end_of_a_large_log_is_read(shell: Shell) -> None:
    used(shell, "alice", *["bob"] * 3)
    line = json.dumps(
        {"time": 1, "connection": "conn", "id": "carol", "x": "y" * 4000}, separators=(",", ":")
    )
    with (shell.directory / "audit.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for _ in range(4200))  # more than 16 MiB
    assert remarked(shell, "alic") == (
        f"{REMARK}alic so far: the end of the audit log (16 MiB) has no request of that name.\n{MEANING}\n"
    )
    assert "conn/carol" in remarked(shell, "caro")
