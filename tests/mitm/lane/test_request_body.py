"""The body of a request on its way: what is passed on, what is the next request's, what is no body."""

from __future__ import annotations

import pytest

from presign_proxy.http.message import MAX_HEAD
from presign_proxy.mitm.lane import request_body
from presign_proxy.mitm.lane.request_body import Chunked, Sized, UploadError, upload_of


class Now:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Now:
    found = Now()
    monkeypatch.setattr(request_body, "time", found)
    return found


def test_a_length_is_a_body_of_that_length_and_none_is_one_in_chunks() -> None:
    assert isinstance(upload_of(5), Sized)
    assert isinstance(upload_of(0), Sized)
    assert isinstance(upload_of(None), Chunked)


def test_a_body_ends_with_its_last_byte_and_what_follows_is_the_next_request() -> None:
    body = upload_of(5)
    assert (body.done, body.size) == (False, 0)
    assert body.feed(b"ab") == (b"ab", b"")
    assert (body.done, body.size) == (False, 2)
    assert body.feed(b"") == (b"", b"")
    assert body.feed(b"cdeGET /") == (b"cde", b"GET /")
    assert (body.done, body.size) == (True, 5)


def test_a_body_that_comes_at_once_is_whole_and_nothing_more() -> None:
    body = upload_of(3)
    assert body.feed(b"abc") == (b"abc", b"")
    assert (body.done, body.size) == (True, 3)
    assert upload_of(3).feed(b"abcd") == (b"abc", b"d")


def test_a_request_without_a_body_has_come_in_full() -> None:
    body = upload_of(0)
    assert (body.done, body.size) == (True, 0)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 8, 100])
def test_chunks_are_written_anew_without_extensions_and_trailers(cut: int) -> None:
    body = upload_of(None)
    wire = b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Trailer: evil\r\n\r\nGET /next"
    sent, rest = b"", b""
    for start in range(0, len(wire), cut):
        if body.done:
            rest += wire[start : start + cut]
            continue
        mine, rest = body.feed(wire[start : start + cut])
        sent += mine
    assert body.done
    assert (body.size, rest) == (13, b"GET /next")
    assert b"evil" not in sent
    assert b"ext" not in sent
    assert sent.endswith(b"\r\n0\r\n\r\n")
    again = Chunked()
    assert again.feed(sent) == (b"d\r\nabc0123456789\r\n0\r\n\r\n", b"")
    assert again.size == 13


def test_a_chunk_goes_on_before_it_is_whole_and_the_end_only_with_its_end() -> None:
    body = upload_of(None)
    assert body.feed(b"6\r\nabc") == (b"3\r\nabc\r\n", b"")
    assert body.feed(b"def\r\n") == (b"3\r\ndef\r\n", b"")
    assert body.feed(b"0\r\n") == (b"", b"")
    assert not body.done
    assert body.feed(b"\r\nrest") == (b"0\r\n\r\n", b"rest")


@pytest.mark.parametrize("wire", [
    b"x\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"3\nabc\n", b" 3\r\nabc\r\n", b"\r\n", b"3\r\nabc\n\r",
    b"0\r\n\n",
    b"0\r\nX: a\n\r\n", b"g\r\n", b"fffffffffffffffffffff\r\n",
])  # fmt: skip
def test_what_is_no_chunk_is_refused(wire: bytes) -> None:
    with pytest.raises(UploadError, match=r"^the body is not framed as HTTP/1 has it$"):
        upload_of(None).feed(wire + b"0\r\n\r\n")


@pytest.mark.parametrize("start", [b"1;", b"0\r\nX: ", b"00000000000"])
def test_a_line_without_an_end_is_kept_up_to_the_size_of_a_head_at_most(start: bytes) -> None:
    body, kept = upload_of(None), 0
    with pytest.raises(UploadError):
        for piece in (start, *[b"0" * 1000] * 1000):
            kept += len(piece)
            assert body.feed(piece) == (b"", b"")
    assert kept <= MAX_HEAD + 1000


@pytest.mark.parametrize("length", [5, None])
def test_it_stalls_once_nothing_has_moved_for_as_long_as_is_waited(length: int | None, clock: Now) -> None:
    body = upload_of(length)
    assert not body.is_held
    body.move()
    clock.now += 10
    assert not body.stalls(clock.now, (10, 1))
    assert body.stalls(clock.now + 0.001, (10, 1))
    body.move()
    assert not body.stalls(clock.now + 0.001, (10, 1))


@pytest.mark.parametrize("length", [5, None])
def test_it_is_the_upstreams_turn_while_it_takes_nothing(length: int | None, clock: Now) -> None:
    body = upload_of(length)
    body.move()
    clock.now += 9
    body.hold(True)
    assert body.is_held
    assert not body.stalls(clock.now + 3, (1, 3))
    assert body.stalls(clock.now + 3.001, (1, 3))
    clock.now += 2
    body.hold(False)
    assert not body.is_held
    assert not body.stalls(clock.now + 1, (1, 3))
    assert body.stalls(clock.now + 1.001, (1, 3))
