"""The frames of an HTTP/2 client, counted before anything is made of them."""

from __future__ import annotations

import contextlib

import pytest
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.frames import (
    BURST,
    MAX_BLOCK_FIELDS,
    MAX_FRAME,
    MAX_RESETS,
    RATE,
    TURN_FRAMES,
    TURN_HEADS,
    Excess,
    FrameGate,
    count_fields,
)
from presign_proxy.message import MAX_HEAD
from support.h2frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    head_of,
    literal,
    number,
)
from support.work import steps


def opened(data: bytes = b"", *, live: frozenset[int] = frozenset()) -> FrameGate:
    """A gate with the preface behind it; the requests of the streams in `live` are under way."""
    gate = FrameGate(live.__contains__)
    gate.add(PREFACE + data)
    return gate


def let_through(gate: FrameGate, now: float = 0.0) -> bytes:
    found = gate.take(now)
    while gate.is_ready:
        found += gate.take(now)
    return found


PIECES = [
    frame(SETTINGS),
    frame(HEADERS, head_of(b"/"), END_HEADERS, 1),
    frame(HEADERS, head_of(b"/x"), 0, 3),
    frame(CONTINUATION, b"", END_HEADERS, 3),
    frame(DATA, b"x" * 100, 0, 1),
    frame(PING, bytes(8)),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_every_byte_comes_through_in_order_however_it_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    sent = PREFACE + b"".join(parts)
    gate, found, at = FrameGate(lambda _: True), b"", 0
    while at < len(sent):
        size = cuts[at % len(cuts)]
        gate.add(sent[at : at + size])
        at += size
        found += let_through(gate)
    assert found == sent
    assert gate.waiting == 0


def test_in_one_turn_a_bounded_number_of_frames_and_heads_goes_through() -> None:
    gate = opened(frame(PING, bytes(8)) * 200)
    assert len(gate.take(0)) == len(PREFACE) + TURN_FRAMES * 17
    assert gate.is_ready
    head = frame(HEADERS, head_of(b"/"), END_HEADERS | END_STREAM, 1)
    gate = opened(b"".join(frame(HEADERS, head_of(b"/"), 5, 2 * n + 1) for n in range(50)))
    assert len(gate.take(0)) == len(PREFACE) + TURN_HEADS * len(head)
    assert gate.is_ready


def test_a_frame_that_has_not_come_whole_is_not_ready() -> None:
    gate = opened(frame(PING, bytes(8))[:-1])
    assert gate.take(0) == PREFACE
    assert not gate.is_ready


@pytest.mark.parametrize(
    "kind", [PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, DATA, 0xBE]
)
def test_a_flood_of_frames_that_are_no_requests_is_refused(kind: int) -> None:
    with pytest.raises(Excess):
        let_through(opened(frame(kind) * (BURST + 1)))


def test_tokens_come_back_with_time_and_with_what_is_sent() -> None:
    gate = opened(frame(PING, bytes(8)) * BURST)
    let_through(gate, now=10.0)
    gate.add(frame(PING, bytes(8)) * RATE)
    let_through(gate, now=11.0)
    gate.earn(3)
    gate.add(frame(PING, bytes(8)) * 3)
    let_through(gate, now=11.0)
    gate.add(frame(PING, bytes(8)))
    with pytest.raises(Excess):
        let_through(gate, now=11.0)


def test_a_hundred_streams_may_be_reset_at_once() -> None:
    let_through(opened(frame(RST_STREAM, bytes(4), 0, 1) * 200))


def test_resets_are_counted_against_answers_however_slowly_they_come() -> None:
    gate = opened(frame(RST_STREAM, bytes(4), 0, 1) * MAX_RESETS)
    let_through(gate, now=0.0)
    for turn in range(100):
        gate.answered()
        gate.add(frame(RST_STREAM, bytes(4), 0, 1))
        let_through(gate, now=turn / 1000)
    gate.add(frame(RST_STREAM, bytes(4), 0, 1) * 4)
    with pytest.raises(Excess):
        let_through(gate, now=3.0)


def test_uploads_pay_nothing() -> None:
    let_through(opened(frame(DATA, b"x" * 10, 0, 1) * 20 * BURST, live=frozenset({1})))


def test_an_upload_in_the_turn_of_its_head_pays_nothing() -> None:
    head = frame(HEADERS, head_of(b"/"), END_HEADERS, 1)
    gate = opened(frame(PING, bytes(8)) * (BURST - 1))
    let_through(gate)
    gate.add(head + frame(DATA, b"x", 0, 1) * (TURN_FRAMES - 1))
    gate.take(0)
    assert gate.waiting == 0


@pytest.mark.parametrize(
    ("payload", "flags"), [(b"x", 0), (b"", END_STREAM), (b"\0", PADDED)], ids=["a byte", "an end", "padding"]
)
def test_data_of_a_stream_that_was_answered_pays(payload: bytes, flags: int) -> None:
    """It was free: 170,000 such frames a second cost a client ten bytes each, and a worker all its time."""
    with pytest.raises(Excess):
        let_through(opened(frame(DATA, payload, flags, 1) * (BURST + 1), live=frozenset({3})))


@pytest.mark.parametrize("size", [16, 50, 200, 1000])
def test_a_client_may_open_two_windows_and_ping_for_each_piece_that_it_is_sent(size: int) -> None:
    """Streams of small pieces, as of a language model, were cut after some seconds."""
    gate = opened()
    answer = frame(WINDOW_UPDATE, bytes(4), 0, 1) + frame(WINDOW_UPDATE, bytes(4)) + frame(PING, bytes(8))
    for _ in range(3 * BURST):
        gate.sent(frame(DATA, b"x" * size, 0, 1))
        gate.add(answer)
        let_through(gate)
    with pytest.raises(Excess):  # nothing for pieces of a byte: the client asked for those
        for _ in range(BURST):
            gate.sent(frame(DATA, b"x", 0, 1))
            gate.add(answer)
            let_through(gate)


def test_heads_pay_and_their_answers_bring_more() -> None:
    gate = opened()
    for n in range(3 * BURST):
        gate.add(frame(HEADERS, head_of(b"/"), END_HEADERS | END_STREAM, 2 * n + 1))
        let_through(gate)
        gate.answered()
    gate.add(b"".join(frame(HEADERS, head_of(b"/"), END_HEADERS | END_STREAM, 1) for _ in range(BURST + 1)))
    with pytest.raises(Excess):
        let_through(gate)


def test_a_frame_over_its_size_is_refused_before_it_has_come() -> None:
    with pytest.raises(Excess) as refused:
        opened((MAX_FRAME + 1).to_bytes(3, "big") + bytes(6)).take(0)
    assert refused.value.code == 6


def test_a_head_in_endless_continuations_is_refused() -> None:
    piece = frame(CONTINUATION, b"\x20" * 16000, 0, 1)
    with pytest.raises(Excess):
        let_through(opened(frame(HEADERS, b"", 0, 1) + piece * (MAX_HEAD // 16000 + 1)))


def test_ten_thousand_unknown_settings_are_refused() -> None:
    with pytest.raises(Excess):
        opened(frame(SETTINGS, b"".join(n.to_bytes(2, "big") + bytes(4) for n in range(2000)))).take(0)


def test_the_size_of_a_head_on_the_wire_is_known_by_its_stream() -> None:
    block = head_of(b"/") + literal(b"x", b"y" * 300)
    padded = bytes((5,)) + bytes(5) + block + bytes(5)
    gate = opened(frame(HEADERS, block[:50], 0, 1) + frame(CONTINUATION, block[50:], END_HEADERS, 1))
    gate.add(frame(HEADERS, padded, END_HEADERS | 0x28, 3))
    trailers = literal(b"a", b"b")
    gate.add(frame(HEADERS, trailers, END_HEADERS | 0x1, 1))
    gate.take(0)
    assert gate.sizes == {1: [len(block), len(trailers)], 3: [len(block)]}


# -- fields, counted without being decoded ----------------------------------------------------------------

NAMES = st.binary(min_size=0, max_size=200)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=30), st.booleans())
def test_fields_are_counted_as_an_encoder_wrote_them(
    fields: list[tuple[bytes, bytes]], huffman: bool
) -> None:
    encoder = H2Connection().encoder
    for _ in range(2):  # the second time, many stand in the table
        assert count_fields(encoder.encode(fields, huffman=huffman)) == len(fields)


@given(st.binary(max_size=300))
def test_any_bytes_are_counted_or_refused(block: bytes) -> None:
    with contextlib.suppress(Excess):
        assert 0 <= count_fields(block) <= MAX_BLOCK_FIELDS


@pytest.mark.parametrize(
    "block",
    [
        b"\x82" * MAX_BLOCK_FIELDS + b"\x82",
        b"\x20\x20\x20",
        b"\xff" + b"\x80" * 60_000 + b"\x01",
        b"\x00" + number(5, 7) + b"\xff" + b"\xff" * 1000,
        b"\x00\x00\x00" * 20_000,
    ],
    ids=[
        "fields",
        "sizes of the table",
        "a number without an end",
        "a length without an end",
        "empty fields",
    ],
)
def test_a_head_that_a_decoder_would_spend_its_time_on_is_refused(block: bytes) -> None:
    def count() -> None:
        with pytest.raises(Excess):
            count_fields(block)

    assert steps(count) < 40 * MAX_BLOCK_FIELDS


@pytest.mark.parametrize("size", [1024, 4 * 1024, 16 * 1024, 60 * 1024])
@pytest.mark.parametrize(
    "unit", [b"\x20", b"\x82", b"\xff", b"\x80", b"\x00\x00\x00", b"\x40\x01a\x01b", b"\x00"]
)
def test_counting_takes_a_bounded_number_of_steps(unit: bytes, size: int) -> None:
    def count() -> None:
        with contextlib.suppress(Excess):
            count_fields(unit * (size // len(unit)))

    assert steps(count) < 40 * MAX_BLOCK_FIELDS
