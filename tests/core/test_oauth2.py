"""What is asked of a token endpoint, byte for byte, and what counts as its answer."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl

import pytest

from presign_proxy.core.oauth2 import MintedSecret, TokenRequest, written
from presign_proxy.errors import Denied
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import LateSecret, Secret
from support.private_keys import (
    ISSUER,
    certificate,
    ec_key,
    pem,
    rsa_key,
    service_account,
    thumbprint,
    verified,
)

ORIGIN = Origin("https", "login.example.com", 443)
NOW = 1_800_000_000


def request(**more: Any) -> TokenRequest:
    given = {"client_id": Secret("me"), "client_secret": Secret("s:e c+r&t")} | more
    return TokenRequest(ORIGIN, b"/token", given.pop("grant", "client_credentials"), **given)


def sent(found: TokenRequest, refresh_token: Secret | None = None) -> tuple[str | None, dict[str, str]]:
    fields, body = written(found, lambda secret: secret, refresh_token, NOW, "id-1")
    pairs = parse_qsl(body.decode(), strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    basic = dict(fields).get(b"Authorization")
    return (base64.b64decode(basic[6:]).decode() if basic else None), dict(pairs)


def test_a_client_authenticates_in_the_header_or_in_the_body_and_never_in_both() -> None:
    assert sent(request()) == ("me:s%3Ae+c%2Br%26t", {"grant_type": "client_credentials"})
    assert sent(request(client_auth="post")) == (
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
    fields, _ = written(
        found, lambda secret: Secret("filled") if secret is late else secret, None, NOW, "id-1"
    )
    assert base64.b64encode(b"me:filled") in dict(fields)[b"Authorization"]
    assert MintedSecret(found, "mark").needs == (late,)
    with pytest.raises(LookupError):
        MintedSecret(found, "mark").reveal()


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


def test_a_client_with_a_certificate_signs_who_it_is_for_this_endpoint_only() -> None:
    """As Entra ID wants it: PS256, the thumbprint of the certificate, an id for each assertion."""
    key, proof = rsa_key(), certificate(rsa_key())
    client = {"client_secret": None, "client_auth": "assertion", "plain": (("scope", "x/.default"),)}
    for given in (
        {"private_key": Secret(pem(key)), "certificate": Secret(proof)},
        {"private_key": Secret(proof + pem(key))},
    ):
        basic, form = sent(request(**client, **given))
        assert basic is None
        head, claims = verified(form.pop("client_assertion"), key)
        assert head == {"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint(proof)}
        assert (claims["iss"], claims["sub"], claims["aud"]) == (
            "me",
            "me",
            "https://login.example.com/token",
        )
        assert claims["jti"] == "id-1"
        assert form == {
            "grant_type": "client_credentials",
            "scope": "x/.default",
            "client_id": "me",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }


def test_a_client_without_a_certificate_signs_as_its_key_is_registered() -> None:
    client = {"client_secret": None, "client_auth": "assertion"}
    _, form = sent(request(**client, private_key=Secret(pem(ec_key()))))
    assert verified(form["client_assertion"], ec_key())[0] == {"alg": "ES256", "typ": "JWT"}


def test_a_certificate_of_another_key_is_answered_502() -> None:
    found = request(
        client_secret=None,
        client_auth="assertion",
        private_key=Secret(pem(rsa_key())),
        certificate=Secret(certificate(ec_key())),
    )
    with pytest.raises(Denied) as denied:
        sent(found)
    assert denied.value.detail == (
        "the private key has a certificate that is not the certificate of the private key"
    )


def test_a_github_app_sends_its_assertion_and_nothing_else() -> None:
    found = TokenRequest(
        ORIGIN, b"/app/installations/7/access_tokens", "github_app", Secret("Iv1.app"),
        private_key=Secret(pem(rsa_key())),
    )  # fmt: skip
    fields, body = written(found, lambda secret: secret, None, NOW, "id-1")
    assert body == b""
    found_fields = dict(fields)
    head, claims = verified(found_fields[b"Authorization"].removeprefix(b"Bearer ").decode(), rsa_key())
    assert head == {"alg": "RS256", "typ": "JWT"}
    assert set(claims) == {"iss", "iat", "exp"}
    assert claims["iss"] == "Iv1.app"
    assert claims["exp"] - claims["iat"] <= 600  # GitHub allows ten minutes
    assert claims["exp"] - NOW < 600
    assert found_fields[b"Accept"] == b"application/vnd.github+json"
