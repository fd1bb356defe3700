"""The section `revoked.now`: read with the rest, believed when the rest is wrong, and refused where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import Loaded, load
from presign_proxy.config.registry_file.revoked_entries import said
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.revocations import Revocations
from support.config import write_config

AT = "2026-01-02T03:04:05Z"
SID = "0123456789abcdef" * 2
NOW = {
    "urls": {SID: AT},
    "ids": {"conn/nightly": AT},
    "keys": {"conn/k1": AT},
    "connections": {"conn": AT},
    "added_before": {"*": AT},
}
READ = Revocations(
    frozenset({SID}),
    frozenset({"conn/k1"}),
    frozenset({"conn"}),
    {"*": 1767323045},
    frozenset({"conn/nightly"}),
)


def loaded(directory: Path, file: str, revoked: Any) -> Loaded:
    directory.chmod(0o700)
    if file.endswith(".yaml"):
        write_config({"revoked": revoked}, directory, file)
    else:
        write_private(directory / file, json.dumps({"revoked": revoked}).encode())
    write_config({"registry": {"file": file}}, directory)
    return load(directory / "config.yaml", {})


@pytest.mark.parametrize("file", ["registry.json", "registry.yaml"])
def test_what_stands_there_ends_what_is_under_way_and_revokes_nothing(tmp_path: Path, file: str) -> None:
    found = loaded(tmp_path, file, {"keys": {"conn/k2": AT}, "now": NOW})
    assert found.now == READ
    assert found.registry.revoked.urls == frozenset()
    assert found.registry.revoked.ids == frozenset()


def test_without_it_nothing_is_ended(tmp_path: Path) -> None:
    assert not loaded(tmp_path, "registry.json", {"keys": {"conn/k2": AT}}).now


@pytest.mark.parametrize(
    "wrong", [{"now": {"keys": {"k1": AT}}}, {"now": {"later": {}}}, {"now": {"now": NOW}}]
)
def test_a_mistake_in_it_is_told(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"revoked\.now"):
        loaded(tmp_path, "registry.json", wrong)


def test_it_is_believed_before_the_rest_is_read() -> None:
    found = said({"revoked": {"keys": {"conn/k1": AT}, "now": NOW}})
    assert found.keys == {"conn/k1"}
    assert found.now == READ


@pytest.mark.parametrize("now", [7, [], "now", {"keys": 7, "now": {"now": 7}}, {"keys": ["conn/k1"]}])
def test_a_form_that_is_not_known_takes_nothing_of_the_rest_away(now: Any) -> None:
    """An older gateway reads a newer file in the same way: it refuses what is revoked."""
    found = said({"revoked": {"keys": {"conn/k1": AT}, "now": now}})
    assert found.keys == {"conn/k1"}
    assert not found.now
