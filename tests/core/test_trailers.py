"""Trailers on their way to the client: what stays, what is removed, what is masked, and what is refused."""

import pytest

from presign_proxy.core.masking import Mask
from presign_proxy.core.rewrite_response import NOT_IN_TRAILERS
from presign_proxy.core.trailers import MAX_TRAILERS, cleaned
from presign_proxy.errors import Denied
from presign_proxy.http.message import Fields

KEY = b"sk-REAL-0123456789"
MASK = Mask([KEY])
STARS = b"*" * len(KEY)


def clean(*fields: tuple[bytes, bytes], named: frozenset[bytes] = frozenset()) -> Fields:
    return cleaned(fields, named, MASK)


def test_the_status_of_a_call_and_fields_of_the_api_stay_in_their_order() -> None:
    fields = (
        (b"grpc-status", b"0"),
        (b"x-cost", b"7"),
        (b"grpc-message", b""),
        (b"x-cost", b"8"),
        (b"digest", b"d"),
    )
    assert clean(*fields) == fields


@pytest.mark.parametrize("name", sorted(NOT_IN_TRAILERS))
def test_what_no_head_brings_no_trailer_brings(name: bytes) -> None:
    assert clean((name, b"1"), (name.replace(b"-", b"_"), b"1"), (name.upper(), b"1")) == ()


@pytest.mark.parametrize(
    "name",
    [
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"host",
        b"location",
        b"cache-control",
        b"content-security-policy",
        b"access-control-anything",
        b"x-presign-error",
        b"x_presign_error",
        b"sec-websocket-accept",
        b"proxy-status",
        b"acme-cdn-cache-control",
        b"date",
        b"retry-after",
        b"x-frame-options",
        b"operation-location",
    ],
)
def test_what_frames_or_controls_an_answer_is_removed(name: bytes) -> None:
    assert clean((name, b"1"), (b"x-cost", b"7")) == ((b"x-cost", b"7"),)


def test_a_header_whose_urls_are_led_through_the_gateway_is_removed() -> None:
    assert clean((b"x-next", b"https://api/"), named=frozenset((b"x-next",))) == ()
    assert clean((b"x_next", b"https://api/"), named=frozenset((b"x_next",))) == ()
    assert clean((b"x_next", b"https://api/"), named=frozenset((b"x-next",))) == ()


def test_a_credential_is_masked_in_values_and_names() -> None:
    assert clean((b"x-echo", b"<" + KEY + b">"), (KEY, b"1")) == (
        (b"x-echo", b"<" + STARS + b">"),
        (STARS, b"1"),
    )


@pytest.mark.parametrize(
    "field",
    [
        (b":status", b"200"),
        (b"", b"1"),
        (b"a b", b"1"),
        (b"a\nb", b"1"),
        (b"a:", b"1"),
        (b"a", b"1\n2"),
        (b"a", b"1\r"),
        (b"a", b"\0"),
        (b"a", b"\x7f"),
    ],
)
def test_what_is_no_field_is_refused(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(Denied) as caught:
        clean((b"grpc-status", b"0"), field)
    assert caught.value.code == "upstream"


def test_so_many_fields_pass_and_one_more_is_refused() -> None:
    assert MAX_TRAILERS == 1000
    fields = ((b"a", b"1"),) * MAX_TRAILERS
    assert clean(*fields) == fields
    with pytest.raises(Denied, match="too many") as caught:
        clean(*fields, (b"a", b"1"))
    assert caught.value.code == "upstream"


def test_there_may_be_none() -> None:
    assert clean() == ()
