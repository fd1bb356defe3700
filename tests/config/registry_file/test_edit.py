"""The registry's file as data: what is taken for one, what is written, and what is said of anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from presign_proxy.config.registry_file import edit as module
from presign_proxy.config.registry_file.edit import Draft, changing, from_json, shaped
from presign_proxy.config.registry_file.encryption import new_key, parse_key
from presign_proxy.config.registry_file.storage import PrivateFileError
from presign_proxy.config_problems import ConfigError

KEY, OTHER = parse_key(new_key()), parse_key(new_key())
PATH = Path("/nowhere/connections.json")
ONE = {"connections": {"conn_1": {"upstream": "https://a.example"}, "conn_2": {}}}


def told(error: ConfigError, path: Path = PATH) -> list[tuple[str, str]]:
    """Where in the file, and what; of the file as a whole, for no line of it is known."""
    assert {one[:3] for one in error.problems} == {(str(path), 0, 0)}
    return [one[3:] for one in error.problems]


def refused(data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        shaped(data, PATH)
    return told(caught.value)


@pytest.mark.parametrize("data", [
    {"connections": {}}, {"revoked": {}}, {"connections": None}, {"revoked": None, "connections": {"a": {}}},
    {"connections": {"A-z_0": {}, "x" * 64: {}}, "revoked": {"urls": {}, "keys": None}},
])  # fmt: skip
def test_the_outline_of_a_registry_is_taken(data: Any) -> None:
    assert shaped(data, PATH) is data


@pytest.mark.parametrize("data", [None, [], "x", 1, {}, {"conections": {}}, [("connections", {})]])
def test_what_has_no_connections_is_no_registry(data: Any) -> None:
    assert refused(data) == [("", "is not a registry: it has no connections")]


@pytest.mark.parametrize(("data", "said"), [
    ({"connections": [], "revoked": 1}, [
        ("connections", "has to be a mapping"), ("revoked", "has to be a mapping")]),
    ({"connections": {}, "extra": 1}, [("extra", "is not a key of a registry")]),
    ({"connections": {"a b": {}}}, [("connections", "a connection id is 1 to 64 of A-Z a-z 0-9 _ -")]),
    ({"connections": {"": {}}}, [("connections", "a connection id is 1 to 64 of A-Z a-z 0-9 _ -")]),
    ({"connections": {"x" * 65: {}}}, [("connections", "a connection id is 1 to 64 of A-Z a-z 0-9 _ -")]),
    ({"connections": {"a\n": {}}}, [("connections", "a connection id is 1 to 64 of A-Z a-z 0-9 _ -")]),
    ({"connections": {"a": []}}, [("connections.a", "has to be a mapping")]),
    ({"connections": {"a": None}}, [("connections.a", "has to be a mapping")]),
    ({"revoked": {"urls": []}}, [("revoked.urls", "has to be a mapping")]),
    ({"connections": {"b": 1}, "revoked": {"urls": 2}, "z": 3, "a": 4}, [
        ("a", "is not a key of a registry"), ("connections.b", "has to be a mapping"),
        ("revoked.urls", "has to be a mapping"), ("z", "is not a key of a registry")]),
])  # fmt: skip
def test_all_that_is_wrong_with_an_outline_is_told_at_once(data: Any, said: list[tuple[str, str]]) -> None:
    assert refused(data) == said


@pytest.mark.parametrize(("payload", "said"), [
    (b"\xff{}", "is not UTF-8"),
    (b'{"connections": {"a": {"x": "\\ud800"}}}', "is not UTF-8"),
    (b'{"connections": {"a": {"x": "\\uDC00"}}}', "is not UTF-8"),
    (b'{"connections":\n{"a" 1}}', "is not JSON at line 2, column 6: Expecting"),
    (b'X{"connections": {}}', "is not JSON at line 1, column 1: Expecting"),
    (b'{"connections": {}} x', "is not JSON at line 1, column 20: "),
    (b'{"connections": {"a": {}, "a": {}}}', "is not accepted: "),
    (b"", "is not JSON at line 1, column 1: "),
])  # fmt: skip
def test_a_payload_that_is_no_json_is_told_of_without_being_shown(payload: bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(payload, PATH)
    ((where, why),) = told(caught.value)
    assert (where, why[: len(said)]) == ("", said)


def test_json_is_read_with_blanks_around_it_and_a_whole_character_in_two_escapes() -> None:
    assert from_json(b' \t\r\n{"a": "\\ud83d\\ude00"} \n', PATH) == {"a": "\N{GRINNING FACE}"}


def test_a_payload_that_is_no_text_is_told_so_and_nothing_more() -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(b"\xff", PATH)
    assert told(caught.value) == [("", "is not UTF-8")]
    with pytest.raises(ConfigError) as caught:
        from_json(b'{"a": {}, "a": {}}', PATH)
    ((_, why),) = told(caught.value)
    assert why.startswith("is not accepted: ")
    assert not why.startswith("is not accepted: X")


def test_a_file_is_read_as_its_name_says(tmp_path: Path) -> None:
    for name, said in (("a.json", "is not JSON at line 1"), ("a.yaml", ""), ("a.yml", "")):
        path = tmp_path / name
        path.write_bytes(b"connections: {a: {}}\n")
        path.chmod(0o600)
        if said:
            with pytest.raises(ConfigError) as caught:
                Draft.read(path, None)
            assert told(caught.value, path)[0][1].startswith(said)
        else:
            assert list(Draft.read(path, None).connections) == ["a"]


def test_what_is_encrypted_is_so_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    Draft(path, [KEY], dict(ONE)).write()
    assert b"https://a.example" not in path.read_bytes()
    assert Draft.read(path, [KEY]).connections == ONE["connections"]


def test_yaml_keeps_the_order_of_keys_and_letters_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    entry = {"upstream": "https://a.example", "auth": "ü"}
    Draft(path, None, {"connections": {"a": entry}}).write()
    text = path.read_text("utf-8")
    assert list(yaml.safe_load(text)["connections"]["a"]) == ["upstream", "auth"]
    assert "ü" in text


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml", "a.enc"])
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    openers = [KEY] if name == "a.enc" else None
    path = tmp_path / name
    first = Draft(path, openers, json.loads(json.dumps(ONE)))
    first.revoked("urls")["u"] = {"at": "2026-01-01T00:00:00Z", "é": "ü"}
    first.write()
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert content.startswith(b"# Written by") == (name[2] == "y")
    assert (b"https://a.example" in content) == (name != "a.enc")
    again = Draft.read(path, openers)
    assert again.path == path
    assert again.openers is openers
    assert again.connections == ONE["connections"]
    assert list(again.connections) == ["conn_1", "conn_2"]
    assert again.revoked("urls") == {"u": {"at": "2026-01-01T00:00:00Z", "é": "ü"}}
    assert again.revoked("keys") == {}


def test_each_connection_has_a_line_and_what_is_empty_none() -> None:
    found = Draft(PATH, None, {**ONE, "revoked": {"urls": {}, "keys": {"k": 1}}, "note": "é"})
    assert found.payload.decode() == (
        '{"connections":{\n"conn_1":{"upstream":"https://a.example"},\n"conn_2":{}\n},\n'
        '"note":"é",\n"revoked":{"keys":{"k":1}}\n}\n'
    )
    assert (
        Draft(PATH, None, {"connections": {}, "revoked": {"urls": {}}}).payload
        == b'{"connections":{\n\n}\n}\n'
    )


def test_a_section_that_is_not_there_is_made_where_it_is_changed_and_nowhere_else() -> None:
    data: dict[str, Any] = {"connections": None}
    found = Draft(PATH, None, data)
    assert found.content("revoked") == {}
    assert "revoked" not in data
    assert found.content("connections") == {}
    found.connections["a"] = {}
    assert found.content("connections") == {"a": {}}
    found.revoked("urls")["u"] = 1
    assert data == {"connections": {"a": {}}, "revoked": {"urls": {"u": 1}}}


def test_what_occurs_twice_is_written_twice_in_yaml(tmp_path: Path) -> None:
    same = {"upstream": "https://a.example"}
    Draft(tmp_path / "a.yaml", None, {"connections": {"a": same, "b": same}}).write()
    text = (tmp_path / "a.yaml").read_text()
    assert "&" not in text
    assert "*" not in text
    assert yaml.safe_load(text) == {"connections": {"a": same, "b": same}}
    assert list(yaml.safe_load(text)["connections"]) == ["a", "b"]


def test_a_file_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(ConfigError) as caught:
        Draft.read(path, None)
    assert told(caught.value, path)[0][0] == ""
    there = Draft(tmp_path / "no" / "such" / "a.json", None, dict(ONE))
    with pytest.raises(ConfigError) as caught:
        there.write()
    assert told(caught.value, there.path)[0][0] == ""


def test_the_wrong_key_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.enc"
    Draft(path, [KEY], dict(ONE)).write()
    with pytest.raises(ConfigError) as caught:
        Draft.read(path, [OTHER])
    assert told(caught.value, path)[0][0] == ""


def test_it_is_sealed_with_the_first_key_and_read_with_any(tmp_path: Path) -> None:
    path = tmp_path / "a.enc"
    Draft(path, [KEY, OTHER], dict(ONE)).write()
    assert Draft.read(path, [OTHER, KEY]).connections == ONE["connections"]
    with pytest.raises(ConfigError):
        Draft.read(path, [OTHER])


def test_a_change_that_fails_leaves_the_old_file_and_the_lock_free(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.json"
    Draft(path, None, json.loads(json.dumps(ONE))).write()
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), changing(path, None) as found:
        found.connections["conn_3"] = {}
        raise ZeroDivisionError
    assert path.read_bytes() == before

    def full(*_: Any) -> None:
        raise PrivateFileError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(ConfigError) as caught:
        patch.setattr(module, "write_private", full)
        with changing(path, None) as found:
            found.connections["conn_3"] = {}
            found.write()
    assert told(caught.value, path) == [("", "the disk is full")]
    with changing(path, None) as found:
        found.connections["conn_3"] = {}
        found.write()
    assert list(Draft.read(path, None).connections) == ["conn_1", "conn_2", "conn_3"]


def test_a_file_that_somebody_else_changes_is_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.json"
    Draft(path, None, json.loads(json.dumps(ONE))).write()
    held: list[Path] = []
    real = module.lock

    def noting(one: Path) -> Any:
        held.append(one)
        return real(one)

    monkeypatch.setattr(module, "lock", noting)
    with changing(path, None):
        assert held == [path]
