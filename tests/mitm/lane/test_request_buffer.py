"""What a client has sent and no exchange has taken: where the head in front ends, or that it never does."""

from __future__ import annotations

import pytest

from presign_proxy.http.message import MAX_HEAD
from presign_proxy.mitm.lane.request_buffer import RequestBuffer

HEAD = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


def holding(data: bytes) -> RequestBuffer:
    buffer = RequestBuffer()
    buffer.data = data
    return buffer


@pytest.mark.parametrize("more", [b"", b"G", HEAD])
def test_a_head_ends_with_its_blank_line_whatever_was_sent_ahead(more: bytes) -> None:
    assert holding(HEAD + more).next_head() == len(HEAD)


def test_a_head_may_come_byte_by_byte() -> None:
    buffer = RequestBuffer()
    for octet in HEAD[:-1]:
        buffer.data += bytes((octet,))
        assert buffer.next_head() == 0
    buffer.data += HEAD[-1:]
    assert buffer.next_head() == len(HEAD)


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"get /x", b"GET /x\nHost: x", b"GET /" + bytes(MAX_HEAD)])
def test_what_never_becomes_a_head_is_no_head_behind_one_either(data: bytes) -> None:
    buffer = RequestBuffer()
    for _ in range(2):
        buffer.data = data
        assert buffer.next_head() == -1
        buffer.data = HEAD[:-1]
        assert buffer.next_head() == 0
        buffer.data = HEAD
        assert buffer.next_head() == len(HEAD)


def test_a_blank_line_alone_is_a_head_that_nothing_grants() -> None:
    assert holding(b"\r\n\r\n").next_head() == 4


def test_what_is_dropped_is_gone() -> None:
    buffer = holding(HEAD)
    assert buffer.drop() == HEAD
    assert buffer.data == b""
