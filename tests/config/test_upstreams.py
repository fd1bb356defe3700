"""`upstreams` in a file: which credential each gets, what a preset adds, and what is told of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import load
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.aws_sigv4 import SigV4Credential
from presign_proxy.core.connection import Connection
from presign_proxy.core.credentials import Injector, NoCredential, Outgoing
from support.asking import SECRET
from support.config import write_config

KEY = "key-0123456789-real"
BEARER = {"type": "bearer", "token": KEY}
PLAIN = Outgoing(b"/b/x", None, ())


def one(tmp_path: Path, entry: dict[str, Any]) -> Connection:
    entry = {"signing_keys": [{"secret": SECRET}]} | entry
    return load(write_config({"connections": {"conn": entry}}, tmp_path), {}).registry.connections["conn"]


def several(tmp_path: Path, upstreams: Any, auth: Any = None, **more: Any) -> Connection:
    entry = {"upstream": "https://api.example.com", "auth": auth or BEARER, "upstreams": upstreams}
    return one(tmp_path, entry | more)


def problems(tmp_path: Path, upstreams: Any, auth: Any = None, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        several(tmp_path, upstreams, auth, **more)
    found = [str(problem) for problem in error.value.problems]
    assert KEY not in str(found)
    return found


def added(injector: Injector, path: bytes = b"/b/x") -> tuple[bytes, bytes | None, list[tuple[bytes, bytes]]]:
    sent = injector.inject(PLAIN._replace(path=path))
    assert isinstance(sent, Outgoing)
    return sent.path, sent.query, list(sent.fields)


@pytest.mark.parametrize(("form", "sent"), [
    (None, (b"/b/x", None, [(b"Authorization", f"Bearer {KEY}".encode())])),
    ({"type": "none"}, (b"/b/x", None, [])),
    ({"type": "bearer"}, (b"/b/x", None, [(b"Authorization", f"Bearer {KEY}".encode())])),
    ({"type": "basic", "username": "u"},
     (b"/b/x", None, [(b"Authorization", b"Basic dTprZXktMDEyMzQ1Njc4OS1yZWFs")])),
    ({"type": "basic", "password": "x"},
     (b"/b/x", None, [(b"Authorization", b"Basic a2V5LTAxMjM0NTY3ODktcmVhbDp4")])),
    ({"type": "header", "header": "X-K", "prefix": "key "},
     (b"/b/x", None, [(b"X-K", f"key {KEY}".encode())])),
    ({"type": "query", "param": "k"}, (b"/b/x", f"k={KEY}".encode(), [])),
    ({"type": "path", "template": "/bot{token}"}, (f"/b/bot{KEY}/x".encode(), None, [])),
])  # fmt: skip
def test_each_form_takes_the_secret_of_the_connection(tmp_path: Path, form: Any, sent: Any) -> None:
    other = {"url": "https://files.example.com/b"} | ({"auth": form} if form else {})
    for auth in (
        BEARER,
        {"type": "header", "headers": {"X-Api-Key": KEY}},
        {"type": "query", "params": {"key": KEY}},
        {"type": "basic", "username": "somebody", "password": KEY},
        {"type": "basic", "username": KEY, "password": "X"},
        {"type": "path", "template": "/t/{token}", "token": KEY},
    ):
        found = several(tmp_path, {"files": other}, auth)
        if form is not None:
            assert added(found.upstreams["files"].injector) == sent
    if form is None:
        assert added(several(tmp_path, {"files": other}).upstreams["files"].injector) == sent


def test_a_credential_in_the_path_stands_behind_each_base_path(tmp_path: Path) -> None:
    auth = {"type": "path", "template": "/bot{token}", "token": KEY}
    entry = {"upstream": "https://api.example.com/api", "upstreams": {"f": "https://f.example.com/file"}}
    found = one(tmp_path, entry | {"auth": auth})
    assert added(found.injector, b"/api/x")[0] == f"/api/bot{KEY}/x".encode()
    assert added(found.upstreams["f"].injector, b"/file/x")[0] == f"/file/bot{KEY}/x".encode()


def test_aws_is_signed_for_the_service_and_the_region_of_each_host(tmp_path: Path) -> None:
    auth = {"type": "aws_sigv4", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": KEY * 2}
    others = {
        "west": "https://bedrock-runtime.us-west-2.amazonaws.com",
        "other": {"url": "https://minio.example", "auth": {"type": "aws_sigv4", "service": "s3"}},
    }
    entry = {"upstream": "https://bedrock-runtime.eu-west-1.amazonaws.com", "upstreams": others, "auth": auth}
    found = one(tmp_path, entry)
    scopes = [(one.injector.service, one.injector.region) for one in found.upstreams.values()
              if isinstance(one.injector, SigV4Credential)]  # fmt: skip
    assert scopes == [("bedrock", "eu-west-1"), ("bedrock", "us-west-2"), ("s3", "eu-west-1")]


def test_what_any_upstream_fills_is_taken_off_at_all_of_them(tmp_path: Path) -> None:
    forms = {
        "a": {"url": "https://a.example", "auth": {"type": "header", "header": "X-Odd_Key"}},
        "b": {"url": "https://b.example", "auth": {"type": "query", "param": "sesame"}},
    }
    found = several(tmp_path, forms)
    assert found.slots.headers == {b"authorization", b"x-odd-key"}
    assert found.slots.params == {b"sesame"}


def test_the_ceiling_names_each_upstream_unless_it_says_which_paths(tmp_path: Path) -> None:
    upstreams = {"files": "https://files.example.com"}
    paths = several(tmp_path, upstreams).ceiling.paths
    assert [one.text for one in paths] == ["*", "@files/*"]
    paths = several(tmp_path, upstreams, allow={"methods": ["GET"]}).ceiling.paths
    assert [one.text for one in paths] == ["*", "@files/*"]
    paths = several(tmp_path, upstreams, allow={"paths": ["*"]}).ceiling.paths
    assert [one.text for one in paths] == ["*"]


@pytest.mark.parametrize(("upstreams", "said"), [
    ({"files": "https://api.example.com"}, "upstreams.files: is where upstream, the default one, leads too"),
    ({"files": "https://API.example.com:443/"}, "upstreams.files: is where upstream, the default one, leads"),
    ({"a": "https://f.example.com/x", "b": {"url": "https://f.example.com/x/"}},
     "upstreams.b.url: is where @a leads too"),
    ({"files": "http://files.example.com"}, "upstreams.files: is not https"),
    ({"files": "files.example.com"}, "upstreams.files: is not an http(s) URL"),
    ({"files": {"url": "https://f.example.com?x=1"}}, "upstreams.files.url: is not an http(s) URL"),
    ({"files": {}}, "upstreams.files.url: is required"),
    ({"files": 5}, "upstreams.files: has to be a mapping"),
    ({"files": {"url": "https://f.example.com", "token": "x"}}, "upstreams.files.token: is not a key"),
    ({"files": {"url": "https://f.example.com", "auth": {"type": "oauth2"}}}, "upstreams.files.auth.type"),
    ({"files": {"url": "https://f.example.com", "auth": {"type": "header"}}}, "type: header needs header"),
    ({"files": {"url": "https://f.example.com", "auth": {"type": "bearer", "param": "k"}}},
     "param does not belong to type: bearer"),
    ({"files": {"url": "https://f.example.com", "auth": {"type": "basic", "username": "a", "password": "b"}}},
     "leave no place for the secret"),
    ({"files": {"url": "https://f.example.com", "auth": {"type": "aws_sigv4"}}}, "auth is of type aws_sigv4"),
    ({"Files": "https://f.example.com"}, "upstreams"),
    ({"@files": "https://f.example.com"}, "upstreams"),
    ({"a/b": "https://f.example.com"}, "upstreams"),
    ({"": "https://f.example.com"}, "upstreams"),
    ({"a" * 32: "https://f.example.com"}, "upstreams"),
])  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, upstreams: Any, said: str) -> None:
    found = problems(tmp_path, upstreams)
    assert any(said in problem for problem in found), found
    assert all(problem.split(":")[1].isdigit() and problem.split(":")[2].isdigit() for problem in found)


@pytest.mark.parametrize("path", ["@fils/*", "@*", "/@Files/x", "@files"])
def test_a_ceiling_that_names_no_upstream_is_told(tmp_path: Path, path: str) -> None:
    upstreams = {"files": "https://files.example.com"}
    (found,) = problems(tmp_path, upstreams, allow={"paths": ["v1/*", path]})
    assert "allow.paths.1: begins with the name of no upstream: there are @files" in found
    assert one(tmp_path, {"upstream": "https://a.example", "auth": BEARER, "allow": {"paths": [path]}})


def test_a_connection_with_several_secrets_has_none_to_put_elsewhere(tmp_path: Path) -> None:
    two = {"type": "header", "headers": {"X-A": KEY, "X-B": KEY + "2"}}
    form = {"url": "https://f.example.com", "auth": {"type": "bearer"}}
    assert any("needs a connection with one secret" in one for one in problems(tmp_path, {"f": form}, two))
    assert len(several(tmp_path, {"f": "https://f.example.com"}, two).upstreams) == 2


def test_a_preset_brings_the_other_hosts_of_its_provider(tmp_path: Path) -> None:
    entry = {"preset": "github", "auth": {"token": KEY}}
    found = one(tmp_path, entry)
    assert [str(one.upstream.origin) for one in found.upstreams.values()][:3] == [
        "https://api.github.com",
        "https://release-assets.githubusercontent.com",
        "https://codeload.github.com",
    ]
    assert isinstance(found.upstreams["assets"].injector, NoCredential)
    mine = one(
        tmp_path, entry | {"upstreams": {"raw": "https://raw.example.com", "pages": "https://p.example"}}
    )
    assert str(mine.upstreams["raw"].upstream.origin) == "https://raw.example.com"
    assert {"pages", "git"} <= mine.upstreams.keys()
    # They belong to the provider's own upstream, and to a connection with one secret.
    assert not one(tmp_path, entry | {"upstream": "https://ghe.example/api/v3"}).upstreams
    two = {"type": "header", "headers": {"X-A": KEY, "X-B": KEY + "2"}}
    assert not one(tmp_path, {"preset": "github", "auth": two}).upstreams
