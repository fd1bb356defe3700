"""A connection read for its signer is the connection that the gateway has, whatever stands in its entry."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presign_proxy.cli import configured
from presign_proxy.cli.place import Failure, Place
from presign_proxy.cli.workspace import Workspace
from presign_proxy.config import signing_view
from presign_proxy.config.plain_entries import MEMBERS, REVOCABLE, SECTIONS
from presign_proxy.config.schema.config import Config
from presign_proxy.config.schema.connections import PresignConnection, SourceConnection
from presign_proxy.config.schema.registry import Revoked, RevokedNow
from presign_proxy.config.signing_view import SigningView
from presign_proxy.config_problems import ConfigError

SECRETS = ("sk_first_0123456789abcdef0123456789abcdef", "sk_second_0123456789abcdef0123456789abc")
PRESIGN: dict[str, Any] = {
    "upstream": "https://api.lab.test/v1",
    "upstreams": {"files": "https://files.lab.test", "git": {"url": "https://git.lab.test"}},
    "auth": {"type": "bearer", "token": {"env": "TOKEN"}},
    "signing_keys": [
        {"id": "new", "secret": SECRETS[0], "added": "2026-01-01T00:00:00Z"},
        {"secret": {"env": "SECOND"}, "not_after": "2027-01-01T00:00:00Z", "weak": False},
    ],
    "allow": {"methods": ["GET", "POST"], "paths": ["v1/*", "über/*"]},
    "max_lifetime": "7d",
    "allow_no_expiry": False,
    "head_as_get": True,
    "enabled": False,
    "limits": [{"rate": "60/minute"}],
}
SOURCE: dict[str, Any] = {
    "scheme": "source",
    "mode": "signed",
    "allowed_origins": ["https://cdn.acme.com"],
    "formats": ["jpg", "png"],
    "signing_keys": [{"secret": SECRETS[0]}],
}
PRESET: dict[str, Any] = {
    "preset": "openai",
    "auth": {"token": {"env": "TOKEN"}},
    "signing_keys": [{"secret": SECRETS[0]}],
}
ENVIRONMENT = {"TOKEN": "sk-KEY", "SECOND": SECRETS[1], "WEAK": "short", "SAME": SECRETS[0]}

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 5),
    st.sampled_from(
        ["", "*", "GET", "get", "a,b", "1h", "0s", "7d", "k2", "2026-02-30T00:00:00Z", "2026-02-01T00:00:00Z"]
    ),
    st.sampled_from(["2026-02-01", "signed", "allowlist", "source", "presign", "jpg", "j/pg", "v1/*", "on"]),
    st.sampled_from(
        [{}, [], ["*", "GET"], ["GET", "GET"], {"env": "WEAK"}, {"env": "SAME"}, {"env": "UNSET"}]
    ),
    st.sampled_from(
        [{"env": "1"}, {"file": "none"}, {"exec": ["true"]}, {"secret": SECRETS[1]}, [{}], [None]]
    ),
    st.sampled_from(
        [{"methods": ["*"]}, {"paths": []}, {"paths": [""]}, {"methods": ["GET", "*"]}, {"other": 1}]
    ),
).map(copy.deepcopy)  # a value that is drawn is changed
NAMES = sorted(
    {member for members in MEMBERS.values() for member in members}
    | {"id", "secret", "added", "not_after", "weak", "methods", "paths", "other"}
)


def places(found: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inside = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [at, *(place for key, value in inside for place in places(value, (*at, key)))]


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """A good entry of which up to two values were changed, removed or added."""
    entry: dict[str, Any] = copy.deepcopy(draw(st.sampled_from([PRESIGN, SOURCE, PRESET])))
    for _ in range(draw(st.integers(0, 2))):
        *above, last = draw(st.sampled_from(places(entry)[1:])) if places(entry)[1:] else ("other",)
        inside = entry
        for step in above:
            inside = inside[step]
        change = draw(st.sampled_from(("set", "remove", "add")))
        if change == "remove":
            del inside[last]
        elif change == "add" and isinstance(inside, dict):
            inside[draw(st.sampled_from(NAMES))] = draw(ODD)
        else:
            inside[last] = draw(ODD)
    return entry


REVOKED = st.fixed_dictionaries(
    {},
    optional={
        "keys": st.sampled_from([{}, {"conn_a/new": "2026-01-01T00:00:00Z"}, {"conn_a/new": 1}, None]),
        "ids": st.sampled_from([{"conn_a/job": "2026-01-01T00:00:00Z"}, []]),
        "connections": st.sampled_from(
            [{"conn_a": "2026-01-01T00:00:00Z"}, {"conn_b": "2026-01-01T00:00:00Z"}]
        ),
        "added_before": st.sampled_from([{"*": "2026-01-01T00:00:01Z"}, {"conn_a": "2020-01-01T00:00:00Z"}]),
        "urls": st.just({"0" * 32: {"at": "2026-01-01T00:00:00Z"}}),
        "now": st.sampled_from([{}, {"keys": {"conn_a/new": "2026-01-01T00:00:00Z"}}, None, {"other": {}}]),
    },
)


def written(directory: Path, entry: Any, revoked: Any = None, section: str = "registry") -> Place:
    """A configuration with this entry, in itself or in a plain registry."""
    connections = {"conn_a": entry}
    config: dict[str, Any] = {"connections": connections}
    if section == "registry":
        (directory / "plain.json").write_text(
            json.dumps({"connections": connections, "revoked": revoked or {}})
        )
        (directory / "plain.json").chmod(0o600)
        config = {"registry": {"file": "plain.json"}}
    (directory / "config.yaml").write_text(json.dumps(config))
    (directory / "config.yaml").chmod(0o600)
    return Place(directory / "config.yaml", ENVIRONMENT)


def short(place: Place) -> SigningView | None:
    return signing_view.view_of(place.path, place.environ, "conn_a")


def whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> SigningView:
    with monkeypatch.context() as patch:
        patch.setattr(signing_view, "view_of", lambda *_: None)
        return configured.view_of(place, "conn_a")


def comparable(view: SigningView) -> dict[str, Any]:
    keys = [(key.id, key.secret.reveal(), key.added, key.not_after, key.revoked) for key in view.keys.keys]
    return {**view._asdict(), "keys": keys, "preset": dict(view.preset)}


@pytest.mark.parametrize("section", ["registry", "connections"])
@pytest.mark.parametrize("entry", [PRESIGN, SOURCE, PRESET], ids=["presign", "source", "preset"])
def test_a_plain_entry_is_read_the_short_way(
    entry: dict[str, Any], section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = written(tmp_path, entry, section=section)
    found = short(place)
    assert found is not None
    assert comparable(found) == comparable(whole(place, monkeypatch))


def test_after_a_revocation_with_now_signing_is_as_fast_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rotate --leaked` made every later `sign` load the whole configuration: five times the time."""
    instants = {"conn_a/new": "2026-01-01T00:00:00Z"}
    place = written(tmp_path, PRESIGN, {"keys": instants, "now": {"keys": instants}})
    found = short(place)
    assert found is not None
    assert comparable(found) == comparable(whole(place, monkeypatch))


@settings(max_examples=400, deadline=None)
@given(entry=entries(), revoked=REVOKED)
def test_both_ways_of_reading_give_the_same_connection(
    entry: dict[str, Any], revoked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = written(tmp_path_factory.mktemp("view"), entry, revoked)
    found = short(place)
    if found is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        try:
            known = whole(place, patch)
        except (ConfigError, Failure) as error:
            # Only what no signature depends on may be wrong.
            members = ("signing_keys", "allow.", "max_lifetime", "enabled")
            assert not any(f"connections.conn_a.{member}" in str(error) for member in members)
            return
    assert comparable(found) == comparable(known)


@pytest.mark.parametrize(
    "change",
    [
        {"enabled": "yes"},
        {"max_lifetime": 3600},
        {"allow": {"methods": ["*", "GET"]}},
        {"signing_keys": []},
        {"signing_keys": [{"secret": "short"}]},
        {"signing_keys": [{"secret": SECRETS[0], "not_after": "2027-01-01"}]},
        {"signing_keys": [{"secret": SECRETS[0], "expires": "2027-01-01T00:00:00Z"}]},
        {"max_life_time": "1h"},
    ],
    ids=lambda change: json.dumps(change)[:60],
)
def test_a_mistake_in_the_entry_is_told_as_before(change: dict[str, Any], tmp_path: Path) -> None:
    place = written(tmp_path, {**PRESIGN, **change})
    assert short(place) is None
    with pytest.raises(ConfigError, match="conn_a"):
        configured.view_of(place, "conn_a")


def test_what_the_short_way_knows_is_what_the_schema_knows() -> None:
    assert set(Config.model_fields) == SECTIONS
    assert set(MEMBERS["presign"]) == set(PresignConnection.model_fields)
    assert set(MEMBERS["source"]) == set(SourceConnection.model_fields)
    assert set(Revoked.model_fields) == {*REVOCABLE, "now"}
    assert set(RevokedNow.model_fields) == REVOCABLE


def test_a_configuration_that_others_can_write_is_not_read_the_short_way(tmp_path: Path) -> None:
    place = written(tmp_path, PRESIGN)
    place.path.chmod(0o666)
    assert short(place) is None
    with pytest.raises(ConfigError, match="writable by others"):
        Workspace(place.path, place.environ).entry("conn_a")
