"""Assertions: signed as RFC 7515 and 7518 say, with keys that are strong enough and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from presign_proxy.core.jwt_assertion import LIFETIME, SKEW, assertion, read_key
from support.private_keys import ISSUER, ec_key, pem, rsa_key, service_account, verified

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("key", "name"), [(rsa_key(), "RS256"), (ec_key(), "ES256"), (ec_key("SECP384R1"), "ES384")]
)
def test_an_assertion_is_a_signed_jwt(key: Any, name: str) -> None:
    for _ in range(20):  # numbers of an EC signature may begin with zeros
        head, claims = verified(assertion(read_key(pem(key)), {"iss": "me", "aud": "https://x/"}, NOW), key)
        assert head == {"alg": name, "typ": "JWT"}
        assert claims == {"iss": "me", "aud": "https://x/", "iat": NOW - SKEW, "exp": NOW + LIFETIME}


def test_the_file_of_a_service_account_names_its_issuer_and_its_key() -> None:
    found = read_key(service_account())
    assert (found.issuer, found.key_id) == (ISSUER, "0123456789abcdef")
    jwt = assertion(found, {"iss": "x"}, NOW)
    assert verified(jwt, rsa_key())[0]["kid"] == "0123456789abcdef"
    assert "=" not in jwt


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-R3AL-not-a-key",
        "-----BEGIN PRIVATE KEY-----\nR3AL\n-----END PRIVATE KEY-----\n",
        "{",
        "[]",
        "{}",
        "[" * 60_000,
        "{" * 60_000,
        service_account(type="authorized_user"),
        service_account(client_email=None),
        service_account(private_key=None),
        service_account(private_key="R3AL"),
        service_account(private_key=7),
        pem(rsa_key(1024)),
        pem(ec_key("SECP256K1")),
        pem(ed25519.Ed25519PrivateKey.generate()),
        rsa_key()
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
        .decode(),
    ],
)
def test_what_is_no_usable_key_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(ValueError) as error:
        read_key(text)
    assert "R3AL" not in str(error.value)
    assert "BEGIN" not in str(error.value)
    assert error.value.__cause__ is None


def test_claims_are_json_and_cannot_add_others() -> None:
    jwt = assertion(read_key(pem(ec_key())), {"iss": 'a","admin":"b', "scope": "é"}, NOW)
    claims = json.loads(base64.urlsafe_b64decode(jwt.split(".")[1] + "=="))
    assert claims.keys() == {"iss", "scope", "iat", "exp"}
