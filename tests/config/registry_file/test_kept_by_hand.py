"""Registries that a person keeps: in YAML, in JSON, with mistakes; what is read again, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import Loaded, load
from presign_proxy.config.registry_file.build import revocations_of
from presign_proxy.config.registry_file.encryption import new_key, parse_key, seal
from presign_proxy.config.registry_file.memory import Memory
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.config_problems import ConfigError, Problem
from support.config import write_config

SECRET = "sk_0123456789abcdef0123456789abcdef"
YAML = f"""
connections:  # what the command manages
  conn:
    upstream: https://api.example.com
    auth: {{type: bearer, token: sk-KEY}}
    signing_keys: [{{id: k1, secret: {SECRET}}}]
"""


def entry(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "upstream": "https://api.example.com",
        "auth": {"type": "bearer", "token": "sk-KEY"},
        "signing_keys": [{"id": "k1", "secret": SECRET}],
    }
    return plain | changes


def place(directory: Path, name: str, content: str) -> Path:
    write_private(directory / name, content.encode())
    return write_config({"registry": {"file": name}}, directory)


def read(directory: Path, name: str, content: str, memory: Memory | None = None) -> Loaded:
    return load(place(directory, name, content), {}, memory=memory or Memory())


def problems(directory: Path, name: str, content: str) -> list[Problem]:
    with pytest.raises(ConfigError) as error:
        read(directory, name, content)
    return error.value.problems


@pytest.mark.parametrize("name", ["plain.yaml", "plain.yml"])
def test_a_registry_in_yaml_is_read_anew_each_time(tmp_path: Path, name: str) -> None:
    memory = Memory()
    first, second = [read(tmp_path, name, YAML, memory).registry.connections for _ in range(2)]
    assert set(first) == set(second) == {"conn"}
    assert first["conn"] is not second["conn"]


def test_of_a_registry_in_json_only_what_changed_is_read_again(tmp_path: Path) -> None:
    memory = Memory()
    content = {"connections": {name: entry() for name in ("a", "b")}}
    before = read(tmp_path, "plain.json", json.dumps(content), memory).registry.connections
    assert set(before) == {"a", "b"}
    one_a_line = (
        '{"connections":{\n'
        + ",\n".join(f'"{name}":{json.dumps(entry(), separators=(",", ":"))}' for name in ("a", "b"))
        + "\n}}\n"
    )
    for same in (False, True, True):
        now = read(tmp_path, "plain.json", one_a_line, memory).registry.connections
        assert [now[name] is before[name] for name in ("a", "b")] == [same, same]
        before = now


def test_json_that_is_no_yaml_is_read(tmp_path: Path) -> None:
    content = json.dumps({"connections": {"conn": entry()}}, indent="\t")
    assert set(read(tmp_path, "plain.json", content).registry.connections) == {"conn"}


def test_a_file_that_cannot_be_read_is_told_of_without_a_line(tmp_path: Path) -> None:
    path = place(tmp_path, "plain.yaml", YAML)
    (tmp_path / "plain.yaml").chmod(0o644)
    with pytest.raises(ConfigError) as error:
        load(path, {})
    (found,) = error.value.problems
    assert (found.line, found.column) == (0, 0)
    assert "readable by others" in found.message


@pytest.mark.parametrize("name", ["plain.yaml", "plain.json"])
def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, name: str) -> None:
    """One has another shape, one lacks its secret: who mends the first must not find the second then."""
    content = {
        "connections": {
            "shape": entry(upstream=7),
            "secret": entry(auth={"type": "bearer", "token": {"env": "MISSING"}}),
            "good": entry(),
        }
    }
    told = [f"{one.path}: {one.message}" for one in problems(tmp_path, name, json.dumps(content))]
    assert any("connections.shape.upstream" in one for one in told)
    assert any("connections.secret" in one and "MISSING" in one for one in told)
    assert not any("good" in one for one in told)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("plain.yaml", "# nothing\n", "is empty"),
        ("plain.yaml", "[]", ""),
        ("plain.yaml", "connections: []", ""),
        ("plain.json", "[]", ""),
        ("plain.json", '{"connections": []}', ""),
        ("plain.json", '{"connections": {}} x', ""),
        ("plain.json", '{"connections": {"conn": 7}}', ""),
        ("plain.json", '{"other": {}}', ""),
        ("plain.json", '{"revoked": {"urls": 7}}', ""),
    ],
)
def test_what_is_no_registry_is_refused(tmp_path: Path, name: str, content: str, why: str) -> None:
    found = problems(tmp_path, name, content)
    assert found
    assert all(one.file.endswith(name) for one in found)
    assert why in found[0].message
    if why:
        assert (found[0].line, found[0].column) == (0, 0)


@pytest.mark.parametrize("name", ["plain.yaml", "plain.json"])
def test_what_is_revoked_is_read_from_either(tmp_path: Path, name: str) -> None:
    at = "2026-01-01T00:00:00Z"
    revoked = {"urls": {"0" * 32: {"at": at}}, "connections": {"conn": at}}
    loaded = read(tmp_path, name, json.dumps({"connections": {"conn": entry()}, "revoked": revoked}))
    assert loaded.registry.revoked.urls == {"0" * 32}
    assert loaded.registry.connections["conn"].revoked
    assert revocations_of(revoked, tmp_path).connections == {"conn"}
    with pytest.raises(ConfigError, match="revoked"):
        revocations_of({"urls": 7}, tmp_path)


def test_what_is_wrong_in_an_encrypted_registry_has_no_line_that_people_could_look_at(
    tmp_path: Path,
) -> None:
    key = new_key()
    write_private(tmp_path / "connections.enc", seal(b'{"connections": {}', parse_key(key)))
    registry = {"file": "connections.enc", "key": {"env": "KEY"}}
    path = write_config({"registry": registry}, tmp_path)
    with pytest.raises(ConfigError) as error:
        load(path, {"KEY": key.reveal()})
    (found,) = error.value.problems
    assert (found.line, found.column) == (0, 0)
    assert found.message.startswith("is not JSON at line 1")


PRESET = {"preset": "azure-openai", "auth": {"token": "sk-KEY"}, "vars": {"resource": "mine"}}
PRESET |= {"signing_keys": [{"id": "k1", "secret": SECRET}]}


@pytest.mark.parametrize("name", ["plain.yaml", "plain.json"])
def test_a_preset_and_its_variables_are_filled_in(tmp_path: Path, name: str) -> None:
    content = {"connections": {"conn": PRESET}}
    upstream = read(tmp_path, name, json.dumps(content)).registry.connections["conn"].upstream
    assert upstream is not None
    assert upstream.origin.host == "mine.openai.azure.com"


def test_a_variable_without_a_preset_and_a_preset_that_there_is_not_are_told_of(tmp_path: Path) -> None:
    for change in ({"vars": {"resource": "mine"}}, {"preset": "no-such"}):
        content = json.dumps({"connections": {"conn": entry(**change)}})
        (found,) = {one.path for one in problems(tmp_path, "plain.json", content)}
        assert found.startswith("connections.conn")
