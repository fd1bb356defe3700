"""What is asked of a token endpoint, byte for byte, and what counts as its answer."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from presign_proxy.core.oauth2 import LIFETIME, MAX_LIFETIME, MintedSecret, TokenRequest, minted, written
from presign_proxy.errors import Denied
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import LateSecret, Secret
from support.private_keys import ISSUER, pem, rsa_key, service_account, verified

ORIGIN = Origin("https", "login.example.com", 443)
JSON = b"application/json"
NOW = 1_800_000_000


def request(**more: Any) -> TokenRequest:
    given = {"client_id": Secret("me"), "client_secret": Secret("s:e c+r&t")} | more
    return TokenRequest(ORIGIN, b"/token", given.pop("grant", "client_credentials"), **given)


def sent(found: TokenRequest, refresh_token: Secret | None = None) -> tuple[str | None, dict[str, str]]:
    fields, body = written(found, lambda secret: secret, refresh_token, NOW)
    pairs = parse_qsl(body.decode(), strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    basic = dict(fields).get(b"Authorization")
    return (base64.b64decode(basic[6:]).decode() if basic else None), dict(pairs)


def test_a_client_authenticates_in_the_header_or_in_the_body_and_never_in_both() -> None:
    assert sent(request()) == ("me:s%3Ae+c%2Br%26t", {"grant_type": "client_credentials"})
    assert sent(request(in_header=False)) == (
        None,
        {"grant_type": "client_credentials", "client_id": "me", "client_secret": "s:e c+r&t"},
    )
    public = request(client_secret=None, grant="refresh_token")
    assert sent(public, Secret("r")) == (
        None,
        {"grant_type": "refresh_token", "refresh_token": "r", "client_id": "me"},
    )


def test_parameters_are_escaped_and_cannot_add_others() -> None:
    plain = (("scope", "a b&grant_type=password"), ("audience", "https://x/"))
    assert sent(request(plain=plain))[1]["scope"] == "a b&grant_type=password"


def test_secrets_of_programs_are_named_and_filled() -> None:
    late = LateSecret(("vault", "read"), 60)
    found = request(client_secret=late)
    assert found.late == (late,)
    fields, _ = written(found, lambda secret: Secret("filled") if secret is late else secret, None, NOW)
    assert base64.b64encode(b"me:filled") in dict(fields)[b"Authorization"]
    assert MintedSecret(found, "mark").needs == (late,)
    with pytest.raises(LookupError):
        MintedSecret(found, "mark").reveal()


@pytest.mark.parametrize(
    ("more", "lifetime"),
    [
        ({}, LIFETIME),
        ({"expires_in": 1}, 1),
        ({"expires_in": 3599}, 3599),
        ({"expires_in": "3599"}, 3599),
        ({"expires_in": 3599.7}, 3599),
        ({"expires_in": 10**15}, MAX_LIFETIME),
        ({"expires_in": None}, LIFETIME),
    ],
)
def test_how_long_a_token_is_used(more: dict[str, Any], lifetime: int) -> None:
    body = json.dumps({"access_token": "abc", "token_type": "BEARER", **more}).encode()
    found = minted(200, b"Application/JSON ; charset=utf-8", body)
    assert (found.token.reveal(), found.lifetime) == ("abc", lifetime)


@pytest.mark.parametrize("value", [0, -1, True, "1e3", "", " 5", "٥", [5], {}, 0.5, "9" * 5000])
def test_an_odd_lifetime_is_refused(value: Any) -> None:
    with pytest.raises(Denied, match="upstream"):
        minted(200, JSON, json.dumps({"access_token": "abc", "expires_in": value}).encode())


def test_the_next_refresh_token_is_text_that_can_be_kept() -> None:
    def body(value: Any) -> bytes:
        return json.dumps({"access_token": "abc", "refresh_token": value}).encode()

    found = minted(200, JSON, body("next"))
    assert found.refresh_token is not None
    assert found.refresh_token.reveal() == "next"
    for value in ("", "a\nb", 7, ["x"]):
        with pytest.raises(Denied):
            minted(200, JSON, body(value))


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, "invalid_grant", "answers 400 invalid_grant"),
        (400, "my-secret", "answers 400"),
        (400, ["invalid_grant"], "answers 400"),
        (302, "invalid_grant", "redirects, which is not followed"),
        (201, "", "answers 201"),
    ],
)
def test_only_known_words_of_a_refusal_are_repeated(status: int, error: Any, said: str) -> None:
    with pytest.raises(Denied) as denied:
        minted(status, JSON, json.dumps({"error": error, "access_token": "abc"}).encode())
    assert denied.value.detail == f"the token endpoint {said}"
    assert denied.value.code == "upstream"


def test_an_assertion_speaks_for_the_service_account_to_this_endpoint_only() -> None:
    bearer = {"grant": "jwt_bearer", "client_id": None, "client_secret": None}
    found = request(**bearer, private_key=Secret(service_account()), plain=(("scope", "a b"), ("x", "y")))
    basic, form = sent(found)
    head, claims = verified(form.pop("assertion"), rsa_key())
    assert (basic, form) == (None, {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "x": "y"})
    assert claims["aud"] == "https://login.example.com/token"
    assert (claims["iss"], claims["scope"], head["alg"]) == (ISSUER, "a b", "RS256")
    named = request(
        **bearer | {"client_id": Secret("me")},
        private_key=Secret(pem(rsa_key())),
        claims=(("aud", "https://login.salesforce.com"), ("sub", "user@example.com")),
    )
    _, claims = verified(sent(named)[1]["assertion"], rsa_key())
    assert (claims["iss"], claims["aud"]) == ("me", "https://login.salesforce.com")
    assert claims["sub"] == "user@example.com"


def test_a_program_that_prints_no_key_is_answered_502() -> None:
    found = request(grant="jwt_bearer", client_id=None, client_secret=None, private_key=Secret("R3AL"))
    with pytest.raises(Denied) as denied:
        sent(found)
    assert denied.value.code == "upstream"
    assert "R3AL" not in denied.value.detail
