"""What counts as the answer of a token endpoint, and what of it is repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from presign_proxy.core.token_answer import (
    LIFETIME,
    MAX_LIFETIME,
    Minted,
    ScopeRefused,
    issued,
    issued_for_registry,
)
from presign_proxy.errors import Denied

JSON = b"application/json"
NOW = 1_800_000_000  # 2027-01-15T08:00:00Z


def minted(status: int, content_type: bytes, body: bytes) -> Minted:
    return issued("client_credentials", status, content_type, body, NOW)


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


@pytest.mark.parametrize("body", ['"expires_in": Infinity', '"x": -Infinity', '"x": {"y": [NaN]}'])
def test_a_number_that_json_does_not_have_is_refused(body: str) -> None:
    with pytest.raises(Denied, match="broken JSON"):
        minted(200, JSON, f'{{"access_token": "abc", {body}}}'.encode())


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


def of_app(status: int = 201, **members: Any) -> Minted:
    return issued("github_app", status, JSON, json.dumps(members).encode(), NOW)


@pytest.mark.parametrize(
    ("expires_at", "lifetime"),
    [
        ("2027-01-15T09:00:00Z", 3600),
        ("2027-01-15T09:00:00.5z", 3600),
        ("2027-01-15t10:00:00+01:00", 3600),
        ("2027-01-15T08:00:01Z", 1),
        ("2099-01-01T00:00:00Z", MAX_LIFETIME),
    ],
)
def test_the_token_of_an_installation_ends_when_github_says(expires_at: str, lifetime: int) -> None:
    found = of_app(token="ghs_abc", expires_at=expires_at, permissions={"contents": "read"})
    assert (found.token.reveal(), found.lifetime, found.refresh_token) == ("ghs_abc", lifetime, None)


@pytest.mark.parametrize(
    "expires_at",
    [
        None, "", 7, "soon", "2027-01-15", "2027-01-15T09:00:00", "2027-13-15T09:00:00Z",
        "2027-W03-5T09:00:00Z", "2027-01-15T08:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59",
        "20270115T090000Z", "2027-01-15T09:00:00Z\n", "٢٠٢٧-01-15T09:00:00Z", ["2027-01-15T09:00:00Z"],
        "2027-01-15T09:00:00+99:99",
    ],
)  # fmt: skip
def test_an_odd_end_of_the_token_of_an_installation_is_refused(expires_at: Any) -> None:
    with pytest.raises(Denied) as denied:
        of_app(token="ghs_abc", expires_at=expires_at)
    assert denied.value.code == "upstream"


@pytest.mark.parametrize(
    ("status", "members"),
    [
        (200, {"token": "ghs_abc", "expires_at": "2027-01-15T09:00:00Z"}),
        (404, {"message": "Not Found"}),
        (201, {"access_token": "ghs_abc", "expires_at": "2027-01-15T09:00:00Z"}),
        (201, {"token": "a\r\nX: 1", "expires_at": "2027-01-15T09:00:00Z"}),
        (302, {"token": "ghs_abc", "expires_at": "2027-01-15T09:00:00Z"}),
    ],
)
def test_only_what_github_documents_is_the_token_of_an_installation(
    status: int, members: dict[str, Any]
) -> None:
    with pytest.raises(Denied) as denied:
        of_app(status, **members)
    assert "Not Found" not in denied.value.detail


def of_registry(status: int = 200, **members: Any) -> Minted:
    return issued_for_registry(status, JSON, json.dumps(members).encode(), NOW)


@pytest.mark.parametrize(
    ("members", "lifetime"),
    [
        ({"token": "abc"}, 60),
        ({"access_token": "abc"}, 60),
        ({"token": "abc", "access_token": "abc"}, 60),
        ({"token": "abc", "access_token": None, "expires_in": None, "issued_at": None}, 60),
        ({"token": "abc", "expires_in": 300}, 300),
        ({"token": "abc", "expires_in": 10_000_000}, 86_400),
        ({"token": "abc", "expires_in": 300, "issued_at": "2027-01-15T07:59:00Z"}, 240),
        ({"token": "abc", "expires_in": 300, "issued_at": "2027-01-15T07:59:00.123456789+00:00"}, 240),
        ({"token": "abc", "expires_in": 300, "issued_at": "2027-01-15T09:00:00Z"}, 300),  # another clock
        ({"token": "abc", "refresh_token": "xyz", "token_type": 7}, 60),
    ],
)
def test_the_token_of_a_registry_ends_when_its_service_says(members: dict[str, Any], lifetime: int) -> None:
    found = of_registry(**members)
    assert (found.token.reveal(), found.lifetime, found.refresh_token) == ("abc", lifetime, None)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"token": ""},
        {"token": None},
        {"token": ["abc"]},
        {"token": "a b"},
        {"token": "abc", "access_token": "def"},
        {"token": "abc", "access_token": 7},
        {"token": "abc", "expires_in": 0},
        {"token": "abc", "expires_in": True},
        {"token": "abc", "issued_at": "2027-01-15T07:58:59Z"},
        {"token": "abc", "issued_at": "2027-01-15"},
        {"token": "abc", "issued_at": 1_800_000_000},
    ],
)
def test_an_odd_answer_of_a_registry_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(Denied) as denied:
        of_registry(**members)
    assert not isinstance(denied.value, ScopeRefused)
    assert "abc" not in denied.value.detail


@pytest.mark.parametrize(("status", "told"), [(400, None), (401, None), (403, 403), (404, 403)])
def test_a_refusal_of_a_registry_is_of_one_scope(status: int, told: int | None) -> None:
    with pytest.raises(ScopeRefused) as denied:
        of_registry(status, errors=[{"code": "DENIED", "message": "what it was sent"}])
    assert (denied.value.code, denied.value.status) == ("upstream", told)
    assert denied.value.detail == f"the token endpoint answers {status}"


@pytest.mark.parametrize("status", [201, 204, 307, 405, 429, 500, 503])
def test_any_other_failure_of_a_registry_is_of_its_whole_service(status: int) -> None:
    with pytest.raises(Denied) as denied:
        of_registry(status, token="abc")
    assert not isinstance(denied.value, ScopeRefused)
