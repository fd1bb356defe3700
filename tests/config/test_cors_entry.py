"""`cors` in a file: which origins and names are taken, and what is told of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import load
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.cors import Cors
from support.asking import SECRET
from support.config import write_config


def rules(tmp_path: Path, cors: dict[str, Any], **more: Any) -> Cors | None:
    auth = {"type": "header", "headers": {"X-Api-Key": "key-0123456789"}}
    entry = {"upstream": "https://api.example.com", "auth": auth, "signing_keys": [{"secret": SECRET}]}
    path = write_config({"connections": {"conn": entry | {"cors": cors} | more}}, tmp_path)
    return load(path, {}).registry.connections["conn"].conduct.cors


@pytest.mark.parametrize(("written", "read"), [
    ("https://app.example.com", b"https://app.example.com"),
    ("https://App.Example.COM:443", b"https://app.example.com"),
    ("http://localhost:5173", b"http://localhost:5173"),
    ("http://localhost:80", b"http://localhost"),
    ("https://localhost:80", b"https://localhost:80"),
    ("http://[::1]:8000", b"http://[::1]:8000"),
    ("chrome-extension://abcdefghijklmnop", b"chrome-extension://abcdefghijklmnop"),
    ("*", b"*"),
])  # fmt: skip
def test_an_origin_is_kept_as_a_browser_writes_it(tmp_path: Path, written: str, read: bytes) -> None:
    found = rules(tmp_path, {"origins": [written]})
    assert found == Cors(frozenset((read,)))


@pytest.mark.parametrize(
    "wrong",
    [
        "app.example.com", "https://app.example.com/", "https://app.example.com/x", "https://*.example.com",
        "null", "", "https://", "https://a b", "https://app.example.com:99999", "https://user@app.example.com",
        "https://bücher.example", "https://app.example.com?x", 5,
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused_with_what_to_write(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        rules(tmp_path, {"origins": [wrong]})
    (problem,) = error.value.problems
    assert "connections.conn.cors.origins" in str(problem)
    assert "origin of" in str(problem)


@pytest.mark.parametrize(("cors", "said"), [
    ({}, "cors.origins: is required"),
    ({"origins": []}, "cors.origins"),
    ({"origins": ["*"], "headers": ["a b"]}, "has to be the name of a header"),
    ({"origins": ["*"], "expose": ["*"]}, "has to be the name of a header"),
    ({"origins": ["*"], "max_age": "long"}, "cors.max_age"),
    ({"origins": ["*"], "credentials": True}, "cors.credentials"),
])  # fmt: skip
def test_a_mistake_in_the_rules_is_named(tmp_path: Path, cors: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        rules(tmp_path, cors)
    assert any(said in str(problem) for problem in error.value.problems)


def test_a_narrow_list_of_headers_still_admits_what_clients_of_the_connection_send(tmp_path: Path) -> None:
    cors = {"origins": ["*"], "headers": ["X-Mine"], "expose": ["X-Total"], "max_age": "1h"}
    found = rules(tmp_path, cors, default_headers={"X-Version": "2"}, cookies="pass")
    headers = frozenset((b"x-mine", b"x-api-key", b"x-version"))
    assert found == Cors(frozenset((b"*",)), headers, (b"X-Total",), 3600, True)
