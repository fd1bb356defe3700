"""Tokens: four fields and a signature, found wherever they stand, and in one spelling only."""

import pytest

from presign_proxy.errors import Malformed
from presign_proxy.signing.tokens import format_token, has_start, holds_token, parse_token
from support.deciding import code, request
from support.signing import base64url as encoded

SIGNATURE = "0123456789abcdef" * 4


def test_a_token_is_what_it_says_and_back() -> None:
    made = format_token("conn", "1", "GET", "v1/*", SIGNATURE)
    assert parse_token(made.encode()) == {
        "connection_id": "conn",
        "expires": "1",
        "methods": "GET",
        "paths": "v1/*",
        "signature": SIGNATURE,
    }


@pytest.mark.parametrize(
    "fields", ["", "conn", "conn\n1\nGET", "conn\n1\nGET\nv1/*\nmore", "conn\n1\nGET\nv1/*\n"]
)
def test_a_token_of_other_than_four_fields_is_malformed(fields: str) -> None:
    with pytest.raises(Malformed, match=r"exactly four fields|of the form"):
        parse_token(f"ps1_{encoded(fields)}.{SIGNATURE}".encode())


@pytest.mark.parametrize("start", ["ps1_", "ps2_"])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_token_is_found_through_two_rounds_of_percent_encoding(start: str, times: int) -> None:
    text = f"x{start}abc.{SIGNATURE}"
    for _ in range(times):
        text = text.replace("%", "%25").replace("_", "%5f")
    assert holds_token(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ps1_",
        f".{SIGNATURE}",
        f".{SIGNATURE} ps1_",
        f".{SIGNATURE}ps2_x",
        f"ps1_abc.{SIGNATURE[1:]}",
        "a%20b",
        "a%25252520b",
    ],
)
def test_what_is_no_token_is_found_nowhere(text: str) -> None:
    assert holds_token(text.encode()) is False


def test_a_token_that_no_encoder_makes_is_told_as_a_token() -> None:
    with pytest.raises(Malformed, match="the base64url of the token is not canonical"):
        parse_token(f"ps1_YR.{SIGNATURE}".encode())


def test_both_versions_begin_a_token() -> None:
    assert has_start(b"a ps1_") and has_start(b"a ps2_")
    assert not has_start(b"a ps3_")


@pytest.mark.parametrize("version", ["ps1_", "ps2_"])
@pytest.mark.parametrize("name", [b"X-Custom", b"Accept"])
def test_a_token_of_any_version_that_went_astray_is_malformed(version: str, name: bytes) -> None:
    field = (name, f"{version}{encoded('a')}.{SIGNATURE}".encode())
    assert code(request("/open", field, host="elsewhere.test")) == "malformed"
