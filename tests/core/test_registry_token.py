"""What a registry's token service is sent: the password in its header, and nothing that could mean more."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl

import pytest

from presign_proxy.core.credentials import filling
from presign_proxy.core.oauth2 import MintedSecret, TokenRequest, mark_of
from presign_proxy.core.registry_token import TOKEN_SERVICES, RegistryTokenRequest, written_for_registry
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import LateSecret, Secret

PASSWORD = "p:ss wörd"


def asked(**changes: Any) -> RegistryTokenRequest:
    found: dict[str, Any] = {
        "origin": Origin("https", "auth.example.com", 443),
        "target": b"/token",
        "service": "registry.example.com",
        "username": Secret("me"),
        "password": Secret(PASSWORD),
    }
    return RegistryTokenRequest(**found | changes)


def test_user_and_password_are_in_the_header_and_the_scope_in_the_query() -> None:
    target, fields = written_for_registry(asked(scope="repository:a/b:pull,push"), filling({}))
    path, _, query = target.partition(b"?")
    assert path == b"/token"
    assert parse_qsl(query.decode()) == [
        ("service", "registry.example.com"),
        ("scope", "repository:a/b:pull,push"),
    ]
    pair = base64.b64encode(f"me:{PASSWORD}".encode())
    assert dict(fields) == {
        b"Accept": b"application/json",
        b"Accept-Encoding": b"identity",
        b"User-Agent": b"presign-proxy",
        b"Authorization": b"Basic " + pair,
    }
    assert b"scope" not in written_for_registry(asked(), filling({}))[0]


def test_a_service_cannot_add_a_parameter() -> None:
    target, _ = written_for_registry(asked(service="x&scope=registry:catalog:*"), filling({}))
    assert parse_qsl(target.partition(b"?")[2].decode()) == [("service", "x&scope=registry:catalog:*")]


def test_a_password_that_a_program_prints_is_named_and_filled() -> None:
    late = LateSecret(("pass", "show"), 60)
    request = asked(password=late)
    assert MintedSecret(request, "mark").needs == (late,)
    _, fields = written_for_registry(request, filling({late.key: Secret("printed")}))
    assert dict(fields)[b"Authorization"] == b"Basic " + base64.b64encode(b"me:printed")


def test_a_mark_differs_with_whatever_is_asked() -> None:
    marks = [
        mark_of(one)
        for one in (
            asked(),
            asked(service="other"),
            asked(username=Secret("you")),
            asked(password=Secret("other")),
            asked(target=b"/other"),
            asked(origin=Origin("https", "other.example.com", 443)),
            asked(direct=True),
        )
    ]
    assert len(set(marks)) == len(marks)
    assert mark_of(asked()) == marks[0]


def test_only_a_token_of_a_registry_has_scopes() -> None:
    token = MintedSecret(asked(), "mark")
    assert token.at("x").key == ("registry_token", "mark", "x")
    assert token.at("x").family == token.family
    other = MintedSecret(
        TokenRequest(Origin("https", "id.example.com", 443), b"/", "client_credentials", Secret("me")), "mark"
    )
    assert other.family == other.key
    with pytest.raises(LookupError):
        other.at("x")


def test_the_token_services_of_public_registries_are_those_that_they_name() -> None:
    """Realm and service of each, as its documentation and its clients have them; none was asked from here."""
    assert TOKEN_SERVICES == {
        "registry-1.docker.io": ("https://auth.docker.io/token", "registry.docker.io"),
        "ghcr.io": ("https://ghcr.io/token", "ghcr.io"),
        "quay.io": ("https://quay.io/v2/auth", "quay.io"),
        "registry.gitlab.com": ("https://gitlab.com/jwt/auth", "container_registry"),
    }
