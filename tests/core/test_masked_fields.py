"""Fields without a credential, and those that hold bytes are still base64 to their reader."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.masked_fields import Field, masked_fields
from presign_proxy.core.masking import Mask

KEY = b"sk-REAL-0123456789"
MASK = Mask([KEY])
STARS = b"*" * len(KEY)


def masked(*fields: Field) -> list[Field]:
    names, values = [name for name, _ in fields], [value for _, value in fields]
    return list(masked_fields(fields, b"\n".join([*names, b"", *values]), MASK))


def decoded(value: bytes) -> bytes:
    return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)


def test_text_is_masked_in_place() -> None:
    assert masked((b"a", b"x" + KEY), (KEY, b"y"), (b"b", b"z")) == [
        (b"a", b"x" + STARS),
        (STARS, b"y"),
        (b"b", b"z"),
    ]


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"\0\xff\x12"])
@pytest.mark.parametrize("after", [b"", b"x", b"xy"])
@pytest.mark.parametrize("padded", [True, False])
def test_bytes_are_masked_and_stay_readable(before: bytes, after: bytes, padded: bool) -> None:
    value = base64.b64encode(before + KEY + after)
    ((_, found),) = masked((b"x-bin", value if padded else value.rstrip(b"=")))
    assert decoded(found) == before + STARS + after


def test_a_form_within_bytes_is_masked_too() -> None:
    ((_, found),) = masked((b"x-bin", base64.b64encode(b"?" + KEY.hex().encode())))
    assert decoded(found) == b"?" + b"*" * len(KEY.hex())


def test_each_of_several_values_is_masked() -> None:
    ((_, found),) = masked((b"x-bin", b"AAA, " + base64.b64encode(KEY) + b",AA=="))
    first, second, third = found.split(b",")
    assert (first, decoded(second), third) == (b"AAA", STARS, b"AA==")


@pytest.mark.parametrize("name", [b"x", b"bin", b"x-binary"])
def test_other_fields_are_masked_as_text(name: bytes) -> None:
    ((_, found),) = masked((name, base64.b64encode(b"xyz" + KEY)))
    assert found.startswith(b"eHl6**")


@pytest.mark.parametrize("value", [b"%" + KEY, b"a" + KEY, KEY + b"\xff", b"!" + KEY])
def test_what_is_no_base64_is_masked_as_text(value: bytes) -> None:
    ((_, found),) = masked((b"x-bin", value))
    assert KEY not in found
    assert STARS in found


def test_base64_with_something_else_in_it_is_masked_as_text() -> None:
    ((_, found),) = masked((b"x-bin", b"!" + base64.b64encode(KEY)))
    assert found.startswith(b"!**")


def test_what_holds_no_secret_is_not_written_anew() -> None:
    fields = ((b"x-bin", b"AA=="), (b"y-bin", b"AA"), (b"z-bin", b"not base64!"), (b"z-bin", b"AA , AAA"))
    assert masked(*fields) == list(fields)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_around_it_hide_a_secret(before: bytes, after: bytes) -> None:
    ((_, found),) = masked((b"x-bin", base64.b64encode(before + KEY + after)))
    assert KEY not in decoded(found)
    assert len(decoded(found)) == len(before + KEY + after)


def test_the_shortest_name_of_bytes_is_one_too() -> None:
    ((_, found),) = masked((b"-bin", base64.b64encode(KEY)))
    assert decoded(found) == STARS


def test_what_is_not_masked_is_the_same_object() -> None:
    fields = [(b"a", b"1")]
    assert masked_fields(fields, b"a\n1", MASK) is fields


def test_there_may_be_none() -> None:
    assert masked() == []
    assert masked_fields([], KEY, MASK) == []  # those that held it were removed
