"""`presign connections rotate`: a leaked secret is replaced at once, and a key goes without a new one."""

from __future__ import annotations

import json
import re
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
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    write_config({"registry": {"file": "registry.json"}}, found.directory)
    put(found, "k2", "k1")
    return found


def put(shell: Shell, *keys: str, **more: Any) -> None:
    found = [{"id": key, "secret": f"{SECRET}{key}"} for key in keys]
    content = {"connections": {"conn": ENTRY | {"signing_keys": found} | more}}
    write_private(shell.directory / "registry.json", json.dumps(content).encode())


def registry(shell: Shell) -> Any:
    return json.loads((shell.directory / "registry.json").read_bytes())


def keys(shell: Shell) -> list[str]:
    return [key["id"] for key in registry(shell)["connections"]["conn"]["signing_keys"]]


def rotated(shell: Shell, *more: str) -> Any:
    done = shell.presign("connections", "rotate", "conn", *more, "--json")
    assert done.code == 0, done.all
    return json.loads(done.out)


def test_every_older_key_is_revoked_and_what_is_under_way_is_to_end(shell: Shell) -> None:
    said = rotated(shell, "--leaked")
    assert (said["signing_key"]["id"], said["revoked"], said["dropped"]) == ("k3", ["k2", "k1"], [])
    revoked = registry(shell)["revoked"]
    assert list(revoked["keys"]) == list(revoked["now"]["keys"]) == ["conn/k2", "conn/k1"]
    assert keys(shell) == ["k3", "k2", "k1"]


def test_the_new_secret_is_shown_once_and_no_old_one_is(shell: Shell) -> None:
    done = shell.presign("connections", "rotate", "conn", "--leaked")
    assert done.code == 0, done.all
    assert "Every URL, token and key token that was signed with k2 and k1 is refused" in done.out
    (secret,) = re.findall(r"sk_[A-Za-z0-9_-]{43}", done.out)
    assert secret == registry(shell)["connections"]["conn"]["signing_keys"][0]["secret"]
    assert SECRET not in done.all


def test_of_four_keys_the_oldest_is_removed_and_revoked_all_the_same(shell: Shell) -> None:
    put(shell, "k4", "k3", "k2", "k1")
    said = rotated(shell, "--leaked")
    assert said["dropped"] == ["k1"]
    assert keys(shell) == ["k5", "k4", "k3", "k2"]
    assert len(registry(shell)["revoked"]["keys"]) == 4


def test_a_fifth_key_asks_for_the_revoked_one_to_go(shell: Shell) -> None:
    put(shell, "k4", "k3", "k2", "k1")
    assert shell.presign("revoke", "--key", "conn/k2").code == 0
    done = shell.presign("connections", "rotate", "conn")
    assert (done.code, done.out) == (1, "")
    assert done.err == "presign: conn has 4 keys already: remove the revoked one with --drop k2\n"


def test_a_fifth_key_names_no_key_that_is_in_use(shell: Shell) -> None:
    put(shell, "k4", "k3", "k2", "k1")
    done = shell.presign("connections", "rotate", "conn")
    assert done.code == 1
    assert done.err.endswith("4 keys already, k4, k3, k2, k1: choose one that is removed, with --drop ID\n")


def test_a_key_that_has_ended_is_revoked_too_for_what_it_began_may_go_on(shell: Shell) -> None:
    ended = [{"id": "old", "secret": SECRET, "not_after": "2020-01-01T00:00:00Z"}]
    put(shell, "k1", signing_keys=ended)
    assert rotated(shell, "--leaked")["revoked"] == ["old"]


@pytest.mark.parametrize("more", [["--drop", "k1"], ["--retire-after", "1d"], ["--credential"]])
def test_a_leak_leaves_no_choice(shell: Shell, more: list[str]) -> None:
    before = registry(shell)
    assert shell.presign("connections", "rotate", "conn", "--leaked", *more).code == 2
    assert registry(shell) == before


def test_a_key_is_removed_and_no_other_one_is_made(shell: Shell) -> None:
    assert rotated(shell, "--drop", "k1") == {
        "id": "conn",
        "signing_key": None,
        "older": ["k2"],
        "dropped": ["k1"],
    }
    assert keys(shell) == ["k2"]


def test_the_id_of_a_removed_key_is_not_used_again(shell: Shell) -> None:
    """The audit log would show two secrets under one name."""
    rotated(shell, "--drop", "k2")
    assert keys(shell) == ["k1"]
    assert rotated(shell)["signing_key"]["id"] == "k3"


def test_a_connection_is_not_left_without_a_key_that_signs(shell: Shell) -> None:
    rotated(shell, "--leaked")
    said = rotated(shell, "--drop", "k3")  # the others are revoked
    assert (said["signing_key"]["id"], said["older"]) == ("k4", [])
    assert keys(shell) == ["k4", "k2", "k1"]
    assert rotated(shell, "--drop", "k4", "--drop", "k2", "--drop", "k1")["signing_key"]["id"] == "k5"


def test_what_is_left_signs_with_a_key_that_is_not_revoked(shell: Shell) -> None:
    put(shell, "k3", "k2", "k1")
    assert shell.presign("revoke", "--key", "conn/k2").code == 0
    assert rotated(shell, "--drop", "k3")["older"] == ["k1", "k2"]
    assert keys(shell) == ["k1", "k2"]


def test_a_connection_of_the_configuration_is_changed_there(shell: Shell) -> None:
    found = {"signing_keys": [{"secret": SECRET}]}
    write_config(
        {"registry": {"file": "registry.json"}, "connections": {"other": ENTRY | found}}, shell.directory
    )
    done = shell.presign("connections", "rotate", "other", "--leaked")
    assert (done.code, "change it there" in done.err) == (1, True)


def test_a_disabled_connection_is_marked_until_it_is_enabled(shell: Shell) -> None:
    assert shell.presign("connections", "disable", "conn", "--now").code == 0
    assert list(registry(shell)["revoked"]["now"]["connections"]) == ["conn"]
    assert shell.presign("connections", "enable", "conn").code == 0
    assert registry(shell).get("revoked", {}) == {}
    assert shell.presign("revoke", "--connection", "conn", "--now").code == 0
    assert shell.presign("connections", "enable", "conn").code == 0
    assert list(registry(shell)["revoked"]["now"]["connections"]) == ["conn"]


def test_the_list_says_which_keys_are_revoked(shell: Shell) -> None:
    assert shell.presign("revoke", "--key", "conn/k1").code == 0
    assert "k2,k1 (revoked)" in shell.presign("connections", "list").out
    assert "k1 revoked" in shell.presign("connections", "show", "conn").out.splitlines()[0]
    (row,) = json.loads(shell.presign("connections", "list", "--json").out)
    assert (row["keys"], row["revoked_keys"]) == (["k2", "k1"], ["k1"])
    assert shell.presign("revoke", "--undo", "--key", "conn/k1").code == 0
    assert "revoked" not in shell.presign("connections", "list").out
