"""`presign revoke --list`: everything that is revoked is seen, and each line undoes exactly what it names."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file.storage import write_private
from support.asking import SECRET
from support.config import write_config
from support.shell import Done, Shell

SID = "0123456789abcdef" * 2
AT = "2026-01-02T03:04:05Z"
EVERYTHING: dict[str, Any] = {
    "urls": {SID: {"at": AT, "expires": 1_900_000_000}, "f" * 32: {"at": "2026-01-01T00:00:00Z"}},
    "ids": {"conn/nightly": AT, "gone/-x": AT},
    "keys": {"conn/k1": AT, "-odd/.k": AT},
    "connections": {"conn": "2026-01-02T05:04:05+02:00", "--list": AT},
    "added_before": {"*": AT, "conn": "2026-02-01T00:00:00.5Z"},
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    write_config({"registry": {"file": "registry.json"}}, found.directory)
    put(found, EVERYTHING)
    return found


def put(shell: Shell, revoked: Any) -> None:
    entry = {
        "upstream": "https://api.example.com",
        "auth": {"type": "bearer", "token": "sk-REALSECRET-0123456789"},
        "signing_keys": [{"id": "k1", "secret": SECRET}],
    }
    content = {"connections": {"conn": entry}, "revoked": revoked}
    write_private(shell.directory / "registry.json", json.dumps(content).encode())


def revoked(shell: Shell) -> Any:
    return json.loads((shell.directory / "registry.json").read_bytes()).get("revoked", {})


def listed(shell: Shell) -> list[dict[str, Any]]:
    done = shell.presign("revoke", "--list", "--json")
    assert done.code == 0, done.all
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def undone(shell: Shell, line: str) -> Done:
    done = shell.bash(line)
    assert done.code == 0, done.all
    return done


def test_each_revocation_is_cancelled_by_its_own_line_and_no_other_one_is(shell: Shell) -> None:
    left = listed(shell)
    assert len(left) == sum(map(len, EVERYTHING.values()))
    while left:
        first, *rest = left
        undone(shell, first["undo"])
        assert first["id"] not in revoked(shell).get(first["what"], {})
        left = listed(shell)
        assert left == rest
    assert revoked(shell) == {}


def test_a_person_reads_when_it_was_revoked_and_what_to_type(shell: Shell) -> None:
    put(shell, {"urls": {SID: {"at": AT}}, "keys": {"conn/k1": AT}, "added_before": {"conn": AT}})
    done = shell.presign("revoke", "--list")
    assert done.code == 0, done.all
    head, *rows = [line.split(maxsplit=1) for line in done.out.splitlines()]
    assert head == ["SINCE", "TO CANCEL IT"]
    assert [(at, shlex.split(line)[-4:]) for at, line in rows] == [
        (AT, [*shlex.split(rows[0][1])[-4:-1], SID]),
        (AT, ["revoke", "--undo", "--key", "conn/k1"]),
        ("-", ["--connection", "conn", "--added-before", AT]),
    ]


def test_json_says_of_each_what_it_is_since_when_and_until_when(shell: Shell) -> None:
    found = [{name: value for name, value in one.items() if name != "undo"} for one in listed(shell)]
    assert found[:2] == [
        {"what": "urls", "id": "f" * 32, "at": "2026-01-01T00:00:00Z", "expires": None},
        {"what": "urls", "id": SID, "at": AT, "expires": 1_900_000_000},
    ]
    assert {"what": "connections", "id": "conn", "at": AT} in found
    assert found[-1] == {
        "what": "added_before",
        "id": "conn",
        "at": None,
        "before": "2026-02-01T00:00:00Z",
    }


def test_where_nothing_is_revoked_that_is_said(shell: Shell) -> None:
    put(shell, {"keys": {}})
    assert shell.presign("revoke", "--list") == Done(0, "Nothing is revoked.\n")
    assert listed(shell) == []


def test_the_list_names_the_configuration_it_was_asked_of(shell: Shell) -> None:
    (shell.directory / "config.yaml").rename(shell.directory / "other.yaml")
    done = shell.presign("revoke", "--list", "--json", "--config", "other.yaml")
    for one in json.loads(done.out):
        undone(shell, one["undo"])
    assert revoked(shell) == {}


def test_a_list_that_is_asked_for_changes_nothing(shell: Shell) -> None:
    before = (shell.directory / "registry.json").read_bytes()
    listed(shell)
    assert (shell.directory / "registry.json").read_bytes() == before
    for more in (["--undo"], [SID], ["--key", "conn/k1"], ["--connection", "conn"], ["--added-before", AT]):
        done = shell.presign("revoke", "--list", *more)
        assert (done.code, "--list lists every revocation" in done.err) == (2, True)
    assert (shell.directory / "registry.json").read_bytes() == before


def test_a_url_that_expired_long_ago_can_be_undone_while_it_is_listed(shell: Shell) -> None:
    put(shell, {"urls": {name * 32: {"at": AT, "expires": 1_767_400_000} for name in "abc"}})
    for one in listed(shell):
        undone(shell, one["undo"])
    assert revoked(shell) == {}


def test_an_instant_in_the_future_that_somebody_wrote_there_can_be_taken_out(shell: Shell) -> None:
    future = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 10_000_000))
    bounds = {"*": future, "conn": "9999-12-31T23:59:59-12:00", "old": "0001-01-01T00:00:00+14:00"}
    put(shell, {"added_before": bounds})
    found = listed(shell)
    assert [one["before"] for one in found] == ["0001-01-01T00:00:00Z", future, "9999-12-31T23:59:59Z"]
    for one in found:
        undone(shell, one["undo"])
    assert revoked(shell) == {}


def test_no_secret_is_in_the_list_of_an_encrypted_registry(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    added = shell.presign(
        "connections", "add", "conn", "--preset", "openai", "--json", stdin="sk-KEY-0123456789\n"
    )
    secret = json.loads(added.out)["signing_key"]["secret"]
    assert shell.presign("revoke", "--key", "conn/k1").code == 0
    done = shell.presign("revoke", "--list")
    assert "--key conn/k1" in done.out
    assert secret not in done.all
    assert "sk-KEY" not in done.all
    assert shell.bash(done.out.splitlines()[1].split(maxsplit=1)[1]).code == 0
    assert listed(shell) == []


def test_a_registry_that_is_wrong_is_told_of_and_there_is_no_half_a_list(shell: Shell) -> None:
    put(shell, {"urls": {SID: 7}, "keys": {"conn/k1": AT}})
    done = shell.presign("revoke", "--list")
    assert (done.code, done.out) == (1, "")
    assert "revoked.urls" in done.err
    (shell.directory / "config.yaml").unlink()
    assert shell.presign("revoke", "--list").code == 1


@pytest.mark.parametrize("line", ["presign revoke --", "presign revoke --l"])
def test_a_shell_completes_the_option(line: str, shell: Shell) -> None:
    words = line.split()
    done = shell.presign(_PRESIGN_COMPLETE="zsh_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert "--list" in done.out.splitlines()


def test_what_was_ended_under_way_is_listed_as_such_and_undone_like_the_others(shell: Shell) -> None:
    put(shell, {"ids": {"conn/old": AT}})
    for target in ([SID], ["--key", "conn/k1"], ["--connection", "conn"], ["--added-before", AT]):
        done = shell.presign("revoke", *target, "--now")
        assert done.code == 0, done.all
        assert "end what is under way" in done.out
    found = listed(shell)
    assert [one["id"] for one in found if "now" not in one] == ["conn/old"]
    assert [one["now"] for one in found if "now" in one] == [True] * 4
    head, *rows = shell.presign("revoke", "--list").out.splitlines()
    assert head.split() == ["SINCE", "UNDER", "WAY", "TO", "CANCEL", "IT"]
    assert sorted(row.split()[1] for row in rows) == ["ended"] * 4 + ["went"]
    for one in found:
        undone(shell, one["undo"])
    assert revoked(shell) == {}


def test_a_mark_goes_with_the_url_that_was_forgotten_after_its_end(shell: Shell) -> None:
    url = {"at": AT, "expires": 1_577_940_000}
    put(shell, {"urls": {name * 32: url for name in "abc"}, "now": {"urls": {"a" * 32: AT}}})
    assert shell.presign("revoke", "--key", "conn/k1", "--now").code == 0
    assert "urls" not in revoked(shell)
    assert list(revoked(shell)["now"]) == ["keys"]


@pytest.mark.parametrize("more", [["--undo", SID], ["--list"]])
def test_now_ends_things_and_does_nothing_else(shell: Shell, more: list[str]) -> None:
    before = (shell.directory / "registry.json").read_bytes()
    assert shell.presign("revoke", "--now", *more).code == 2
    assert (shell.directory / "registry.json").read_bytes() == before


def used(shell: Shell, *requests: dict[str, Any]) -> None:
    """Let a gateway have written these to its audit log."""
    config = {"registry": {"file": "registry.json"}, "audit": {"file": "audit.jsonl"}}
    write_config(config, shell.directory)
    usual = {"time": time.time(), "at": AT, "connection": "conn", "key": "k1", "id": None, "method": "GET"}
    text = "".join(json.dumps(usual | one, separators=(",", ":")) + "\n" for one in requests)
    (shell.directory / "audit.jsonl").write_text(text, "utf-8")


def test_a_url_is_told_by_what_was_asked_with_it(shell: Shell) -> None:
    """Nobody knows a URL by a hash."""
    put(shell, {"urls": {SID: {"at": AT}, "f" * 32: {"at": AT}}, "keys": {"conn/k1": AT}})
    used(
        shell,
        {"signature": SID, "path": "/v1/models", "id": "agent-1a2b"},
        {"signature": SID, "path": "/v1/chat", "id": "agent-1a2b"},
        {"signature": "e" * 32, "path": "/v1/other"},
        {"signature": None, "path": None, "detail": f'"signature":"{SID}"'},
    )
    head, *rows = shell.presign("revoke", "--list").out.splitlines()
    assert head.split("  ")[0] == "SINCE"
    assert "LAST SEEN AS" in head
    [seen] = [row for row in rows if SID in row]
    assert "GET conn/v1/chat (id agent-1a2b)" in seen
    [unseen] = [row for row in rows if "f" * 32 in row]
    assert unseen.split()[1] == "-"
    told = {one["id"]: one.get("last_seen") for one in listed(shell)}
    assert told == {
        SID: {
            "request": "GET conn/v1/chat (id agent-1a2b)",
            "at": AT,
            "connection": "conn",
            "key": "k1",
            "id": "agent-1a2b",
            "method": "GET",
            "path": "/v1/chat",
        },
        "f" * 32: None,
        "conn/k1": None,
    }
    narrow = shell.presign("revoke", "--list", COLUMNS="60").out
    assert max(map(len, narrow.splitlines())) <= 60
    assert "last seen as" in narrow


def test_a_terminal_obeys_nothing_that_stands_in_the_log(shell: Shell) -> None:
    put(shell, {"urls": {SID: {"at": AT}}})
    used(shell, {"signature": SID, "path": "/\x1b[2J", "id": "\x1b]0;x\x07"})
    done = shell.presign("revoke", "--list")
    assert done.code == 0, done.all
    assert "LAST SEEN AS" in done.out
    assert "\x1b" not in done.all


@pytest.mark.parametrize("text", ["", "half a line", '{"signature":"' + SID, "[]\n"])
def test_a_log_that_says_nothing_of_it_changes_no_line(text: str, shell: Shell) -> None:
    put(shell, {"urls": {SID: {"at": AT}}})
    used(shell)
    (shell.directory / "audit.jsonl").write_text(text)
    done = shell.presign("revoke", "--list")
    assert (done.code, done.out.splitlines()[0].split()) == (0, ["SINCE", "TO", "CANCEL", "IT"])


@pytest.mark.needs("bash")
def test_what_the_old_registry_lists_is_repeated_in_a_restored_one_beside_it(shell: Shell) -> None:
    """The page about backups lists it from the old directory: no line names the old configuration."""
    put(shell, {"urls": {SID: {"at": AT}}, "ids": {"conn/nightly": AT}, "keys": {"conn/k1": AT}})
    before = revoked(shell)
    undone(shell, "mkdir -m 700 restored && cp -p config.yaml registry.json restored/")
    restored = shell.directory / "restored/registry.json"
    content = json.loads(restored.read_bytes())
    write_private(restored, json.dumps(content | {"revoked": {}}).encode())
    lines = undone(shell, "cd restored && (cd .. && presign revoke --list)").out.splitlines()[1:]
    for line in lines:
        command = line[line.index("presign revoke") :]
        undone(shell, f"cd restored && {command.replace('--undo ', '')}")
    assert revoked(shell) == before
    after = json.loads(restored.read_bytes())["revoked"]
    assert {what: set(names) for what, names in after.items()} == {
        what: set(names) for what, names in before.items()
    }
