"""`auth: {type: oauth2}` in a file: what belongs together, and what changes the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import load
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.oauth2 import MintedSecret
from support.asking import SECRET
from support.config import write_config
from support.private_keys import certificate, ec_key, pem, rsa_key

CLIENT_SECRET = "client-s3cret-0123456789"
AUTH = {
    "type": "oauth2",
    "token_url": "https://id.example.com/token",
    "client_id": "me",
    "client_secret": CLIENT_SECRET,
}

ASSERTION = {"client_auth": "assertion", "client_secret": None, "private_key": pem(rsa_key())}
APP = {"grant": "github_app", "client_secret": None, "private_key": pem(rsa_key())}
BELONGS = "auth: a private_key belongs to grant: jwt_bearer or github_app, or to client_auth: assertion"


def written(tmp_path: Path, auth: dict[str, Any], **more: Any) -> Path:
    auth = {key: value for key, value in auth.items() if value is not None}
    entry = {"upstream": "https://api.example.com", "auth": auth, "signing_keys": [{"secret": SECRET}]} | more
    return write_config({"connections": {"conn": entry}}, tmp_path)


def minted(tmp_path: Path, **changes: Any) -> MintedSecret:
    found = load(written(tmp_path, AUTH | changes), {"A": CLIENT_SECRET, "B": "another-secret"})
    (late,) = found.registry.connections["conn"].late
    assert isinstance(late, MintedSecret)
    return late


def problems(tmp_path: Path, auth: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(written(tmp_path, auth, **more), {})
    found = [str(problem) for problem in error.value.problems]
    assert CLIENT_SECRET not in str(found)
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token_url": "http://id.example.com/token"}, "auth.token_url: is not https"),
        ({"token_url": "https://u:p@id.example.com/"}, "auth.token_url: has to be an http(s) URL"),
        ({"token_url": "https://id.example.com/#x"}, "auth.token_url: has to be an http(s) URL"),
        ({"token_url": None}, "auth.token_url: is required"),
        ({"client_id": None}, "auth: needs a client_id"),
        ({"private_key": "x"}, BELONGS),
        ({"grant": "jwt_bearer"}, BELONGS),
        ({"subject": "x"}, "auth: audience and subject are claims of signed assertions"),
        ({"grant": "jwt_bearer", "private_key": CLIENT_SECRET}, "auth.private_key: has to be a private key"),
        (
            {"grant": "jwt_bearer", "private_key": pem(rsa_key()), "client_id": None, "client_secret": None},
            "auth.private_key: needs a client_id, the issuer of its assertions",
        ),
        ({"client_auth": "assertion"}, BELONGS),
        (
            {"client_auth": "assertion", "private_key": pem(rsa_key())},
            "auth: client_auth: assertion replaces the client_secret",
        ),
        ({"certificate": certificate(rsa_key())}, "auth: a certificate belongs to client_auth: assertion"),
        (
            ASSERTION | {"certificate": certificate(ec_key())},
            "auth.private_key: has a certificate that is not the certificate of the private key",
        ),
        (ASSERTION | {"certificate": CLIENT_SECRET}, "auth.private_key: has a certificate that has to be"),
        (
            ASSERTION | {"grant": "jwt_bearer"},
            "auth: client_auth: assertion is for other grants than jwt_bearer",
        ),
        (APP | {"private_key": None}, BELONGS),
        (APP | {"client_id": None}, "auth: needs a client_id"),
        (APP | {"scope": "repo"}, "auth: grant: github_app takes only token_url, client_id and private_key"),
        (APP | {"client_secret": CLIENT_SECRET}, "auth: grant: github_app takes only"),
        (
            APP | {"private_key": pem(ec_key())},
            "auth.private_key: has to be an RSA key: GitHub takes no other",
        ),
        ({"client_secret": None}, "auth: grant: client_credentials needs a client_secret"),
        ({"refresh_token": "abc"}, "auth: grant: refresh_token and a refresh_token belong together"),
        ({"grant": "refresh_token"}, "auth: grant: refresh_token and a refresh_token belong together"),
        (
            {"grant": "password"},
            "auth.grant: has to be client_credentials, refresh_token, jwt_bearer or github_app",
        ),
        ({"client_auth": "jwt"}, "auth.client_auth: has to be basic, post or assertion"),
        ({"extra": {"grant_type": "password"}}, "auth.extra: grant_type is a parameter"),
        ({"extra": {"client_secret": "x"}}, "auth.extra: client_secret is a parameter"),
        ({"scope": "a\nb"}, "auth.scope: has to be"),
        ({"client_secret": {"env": "NOT_SET"}}, "auth.client_secret: "),
        ({"grant": "refresh_token", "refresh_token": {"file": "gone"}}, "auth.refresh_token: "),
        ({"tokenurl": "x"}, "auth.tokenurl: is not a key that is known here: did you mean token_url?"),
    ],
)
def test_what_excludes_or_lacks_each_other_is_one_clear_error(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    (line,) = problems(tmp_path, AUTH | changes)
    assert f"connections.conn.{said}" in line
    assert "config.yaml:" in line


def test_an_endpoint_without_tls_is_for_loopback_or_who_says_so(tmp_path: Path) -> None:
    assert minted(tmp_path, token_url="http://127.0.0.1:1/token")
    auth = AUTH | {"token_url": "http://id.example.com/token"}
    assert load(written(tmp_path, auth, insecure_upstream=True), {})


def test_a_signing_secret_that_is_the_secret_of_the_client_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, AUTH, signing_keys=[{"secret": CLIENT_SECRET}])
    assert any("is the credential itself" in line for line in found)


def test_equal_requests_share_their_mark_and_any_other_value_changes_it(tmp_path: Path) -> None:
    """A token of another client, scope or endpoint is never taken for this one after a reload."""
    mark = minted(tmp_path).key
    assert minted(tmp_path).key == mark
    assert minted(tmp_path, client_secret={"env": "A"}).key == mark
    others = [
        {"client_secret": {"env": "B"}},
        {"client_id": "you"},
        {"scope": "x"},
        {"token_url": "https://id.example.com/token2"},
        {"token_url": "https://id2.example.com/token"},
        {"client_auth": "post"},
        {"extra": {"scope2": "x"}},
        {"client_secret": {"exec": ["echo", CLIENT_SECRET]}},
        {"grant": "refresh_token", "refresh_token": "a"},
        {"grant": "refresh_token", "refresh_token": "b"},
        {"grant": "jwt_bearer", "private_key": pem(rsa_key())},
        {"grant": "jwt_bearer", "private_key": pem(ec_key())},
        {"grant": "jwt_bearer", "private_key": pem(ec_key()), "subject": "x"},
        {"grant": "jwt_bearer", "private_key": pem(ec_key()), "audience": "x"},
        APP,
        ASSERTION,
        ASSERTION | {"certificate": certificate(rsa_key())},
        ASSERTION | {"certificate": certificate(rsa_key(), "other")},
    ]
    marks = {mark, *(minted(tmp_path, **other).key for other in others)}
    assert len(marks) == len(others) + 1
    assert CLIENT_SECRET not in str(marks)
