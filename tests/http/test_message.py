"""Heads that two parsers would read differently, and heads that are too large."""

import pytest

from support.deciding import (
    code,
    request,
    signed,
)


def test_two_hosts_or_none_are_malformed() -> None:
    assert code(request(signed(), (b"host", b"presign.local"))) == "malformed"
    assert code(request(signed())._replace(fields=())) == "malformed"


HEADS = [
    (b"X-A", b"a\x00b"),
    (b"X-A", b"a\r\n b"),
    (b"X-A", b"a\nb"),
    (b"", b"x"),
    (b"X A", b"x"),
    (b"X\nA", b"x"),
    (b"X:A", b"x"),
    (b"Transfer-Encoding", b"gzip, chunked"),
    (b"Transfer-Encoding", b"chunked, chunked"),
    (b"transfer-encoding", b"identity"),
    (b"Transfer-Encoding", b""),
]


@pytest.mark.parametrize("field", HEADS)
def test_a_head_that_two_parsers_read_differently_is_malformed(field: tuple[bytes, bytes]) -> None:
    assert code(request(signed(), field)) == "malformed"


def test_two_codings_are_malformed_and_one_is_not() -> None:
    coding = (b"Transfer-Encoding", b"Chunked")
    assert code(request(signed(), coding)) == "forward"
    assert code(request(signed(), coding, coding)) == "malformed"


def test_a_head_over_its_caps_is_too_large() -> None:
    many = tuple((f"X-{n}".encode(), b"1") for n in range(100))
    assert code(request(signed(), *many)) == "too_large"
    assert code(request(signed(), (b"X-A", b"a" * 65536))) == "too_large"
