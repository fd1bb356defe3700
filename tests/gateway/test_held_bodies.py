"""Bodies that are held: what one may have, what all may have together, and what is given back."""

from __future__ import annotations

import hashlib
import tracemalloc

import pytest

from presign_proxy.errors import Denied
from presign_proxy.gateway.held_bodies import EMPTY, MAX_ALL, HeldBodies


def test_a_body_is_kept_with_its_hash() -> None:
    body = HeldBodies().begin(10, "one")
    assert (body.digest(), body.whole(), body.size) == (EMPTY, b"", 0)
    for piece in (b"abc", b"", b"defghij"):
        body.add(piece)
    assert body.whole() == b"abcdefghij"
    assert body.digest() == hashlib.sha256(b"abcdefghij").hexdigest().encode()
    assert body.size == 10


def test_a_body_that_comes_in_pieces_of_two_bytes_takes_little_more_than_its_bytes() -> None:
    body = HeldBodies().begin(1 << 20, "one")
    tracemalloc.start()
    try:
        for number in range(50_000):
            body.add(number.to_bytes(2, "big"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert body.size == 100_000
    assert taken < 2 * body.size


def test_one_byte_too_many_is_413_and_keeps_nothing() -> None:
    bodies = HeldBodies()
    body = bodies.begin(3, "one")
    body.add(b"abc")
    with pytest.raises(Denied) as denied:
        body.add(b"d")
    assert (denied.value.code, denied.value.status) == ("too_large", 413)
    assert (bodies.size, body.size, body.whole()) == (0, 0, b"")


def test_all_together_have_a_bound_and_each_gives_back_once() -> None:
    bodies = HeldBodies(20)
    first, second = bodies.begin(8, "one"), bodies.begin(8, "one")
    first.add(b"12345678")
    second.add(b"12")
    with pytest.raises(Denied) as denied:
        second.add(b"3")
    assert denied.value.code == "unavailable"
    assert (b"Retry-After", b"1") in denied.value.fields
    assert bodies.size == 8
    other = bodies.begin(8, "other")
    other.add(b"123456")
    with pytest.raises(Denied):
        other.add(b"7")
    assert bodies.size == 8
    for _ in range(2):
        first.let_go()
        second.let_go()
    assert bodies.size == 0
    third = bodies.begin(10, "one")
    third.add(b"0123456789")
    assert bodies.size == 10


def test_the_bound_of_a_worker_admits_the_largest_body_that_can_be_configured() -> None:
    from presign_proxy.config.schema.connections import MAX_HELD

    assert 2 * MAX_HELD <= MAX_ALL
