"""Tokens: four fields and a signature, found wherever they stand, and in one spelling only."""

import pytest

from presign_proxy.errors import Malformed
from presign_proxy.signing.tokens import format_token, has_start, holds_token, parse_token, split_shape
from support.deciding import code, request
from support.signing import base64url as encoded
from support.work import steps

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


# -- shapes -----------------------------------------------------------------------------------------------

_WHOLE = b"ps1_" + b"QUJD" * 8 + b"." + b"0" * 64


@pytest.mark.parametrize(("text", "shape"), [
    (_WHOLE, b""),
    (b"ps1_", b""),
    (b"sk-ant-api03-" + _WHOLE, b"sk-ant-api03-"),
    (b"SG." + _WHOLE, b"SG."),
    (b"a" + _WHOLE, b"a"),
    (b"a" * 32 + _WHOLE, b"a" * 32),
    (b"a" * 33 + _WHOLE, None),
    (b"-a" + _WHOLE, None),
    (b"a " + _WHOLE, None),
    (b"a:" + _WHOLE, None),
    (b"sk-" + _WHOLE[:-1], None),
    (b"sk-" + _WHOLE + b"x", None),
    (b"sk-ps1_ABC", None),
    (b"sk-", None),
    (b"", None),
])  # fmt: skip
def test_a_shape_is_told_from_a_whole_token(text: bytes, shape: bytes | None) -> None:
    found = split_shape(text)
    assert found == (None if shape is None else (shape, text[len(shape) :]))


def test_a_text_of_many_beginnings_takes_linear_time() -> None:
    def cost(size: int) -> int:
        text = b"a-" + b"ps1_" * size
        return steps(lambda: split_shape(text))

    assert cost(16_000) == cost(1_000)
