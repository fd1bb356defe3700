"""The frames of an HTTP/2 client, counted before anything is made of them."""

from __future__ import annotations

import contextlib

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.http.message import MAX_HEAD
from presign_proxy.mitm.flow.hpack_fields import MAX_BLOCK_FIELDS, count_fields
from presign_proxy.mitm.flow.http2_budget import (
    BURST,
    BYTES_PER_TOKEN,
    MAX_RESETS,
    MAX_TINY,
    PER_ANSWER,
    RATE,
    TINY_RATE,
)
from presign_proxy.mitm.flow.http2_excess import ENHANCE_YOUR_CALM, Excess
from presign_proxy.mitm.flow.http2_frames import (
    LEAST_DATA,
    MAX_FRAME,
    PER_DATA,
    SHORT,
    TINY,
    TURN_FRAMES,
    TURN_HEADS,
    TURN_PIECES,
    FrameGate,
)
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
        now += gate.delay
        found += gate.take(now)
    return found


def test_the_bounds_are_those_that_the_documents_name() -> None:
    assert (TURN_FRAMES, TURN_HEADS, MAX_FRAME, MAX_BLOCK_FIELDS) == (64, 8, 16_384, 256)
    assert (BURST, RATE, BYTES_PER_TOKEN, PER_DATA, LEAST_DATA, PER_ANSWER) == (1000, 200, 1024, 3, 16, 5)
    assert (MAX_RESETS, SHORT, TINY, MAX_TINY, TINY_RATE) == (200, 1024, 16, 1000, 500)
    assert ENHANCE_YOUR_CALM == ErrorCodes.ENHANCE_YOUR_CALM


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
    gate._budget.earn(3)
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
    gate.add(head + frame(DATA, b"x" * SHORT, 0, 1) * (TURN_FRAMES - 1))
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
    with pytest.raises(Excess, match=r"^a frame is too large$") as refused:
        opened((MAX_FRAME + 1).to_bytes(3, "big") + bytes(6)).take(0)
    assert refused.value.code == 6
    largest = frame(DATA, bytes(MAX_FRAME), 0, 1)
    assert opened(largest, live=frozenset({1})).take(0) == PREFACE + largest


def test_answers_and_seconds_before_any_reset_allow_for_no_more_of_them() -> None:
    """Neither stores up what was not used."""
    for answers, now in ((0, 0.0), (50, 0.0), (0, 500.0), (50, 500.0)):
        gate = opened()
        gate.take(0.0)
        for _ in range(answers):
            gate.answered()
        gate.take(now)
        gate.add(frame(RST_STREAM, bytes(4), 0, 1) * MAX_RESETS)
        let_through(gate, now)
        gate.add(frame(RST_STREAM, bytes(4), 0, 1))
        with pytest.raises(Excess, match=r"^too many requests are reset$"):
            gate.take(now)


def test_an_empty_frame_alone_is_ready() -> None:
    gate = opened(frame(SETTINGS) * (TURN_FRAMES + 1))
    gate.take(0)
    assert gate.waiting == len(frame(SETTINGS))
    assert gate.is_ready
    assert gate.take(0) == frame(SETTINGS)


def test_behind_as_many_heads_as_a_turn_has_other_frames_still_go_through() -> None:
    heads = b"".join(frame(HEADERS, head_of(b"/"), 5, 2 * n + 1) for n in range(TURN_HEADS))
    assert opened(heads + frame(PING, bytes(8))).take(0) == PREFACE + heads + frame(PING, bytes(8))


def test_a_continuation_of_no_head_is_none() -> None:
    gate = opened(frame(CONTINUATION, b"\x82", END_HEADERS, 1))
    gate.take(0)
    assert gate.heads.sizes == {}


def test_the_sizes_of_a_turn_are_forgotten_with_the_next() -> None:
    gate = opened(frame(HEADERS, head_of(b"/"), END_HEADERS, 1))
    gate.take(0)
    assert gate.heads.sizes
    gate.take(0)
    assert gate.heads.sizes == {}


def test_a_head_that_ends_its_stream_is_not_whole_by_that() -> None:
    block = head_of(b"/")
    gate = opened(frame(HEADERS, block[:9], END_STREAM, 1))
    gate.take(0)
    assert gate.heads.sizes == {}
    gate.add(frame(CONTINUATION, block[9:], END_HEADERS, 1))
    gate.take(0)
    assert gate.heads.sizes == {1: [len(block)]}


def test_streams_with_large_numbers_are_told_apart() -> None:
    """A body is free only on the stream that is under way; the first bit means nothing (RFC 9113, 4.1)."""
    live = 0x0100_0001
    piece = b"x" * SHORT
    let_through(opened(frame(DATA, piece, 0, live | 1 << 31) * 2 * BURST, live=frozenset({live})))
    with pytest.raises(Excess):
        let_through(opened(frame(DATA, piece, 0, 1) * (BURST + 1), live=frozenset({live})))


def test_empty_pieces_of_a_body_pay_and_its_end_does_not() -> None:
    """There is no end to those that hold nothing."""
    with pytest.raises(Excess, match=r"^too many frames that are no requests$"):
        let_through(opened(frame(DATA, b"", 0, 1) * (BURST + 1), live=frozenset({1})))
    let_through(opened(frame(DATA, b"", END_STREAM, 1) * (BURST + 1), live=frozenset({1})))


def test_the_last_piece_of_a_body_does_not_wait_for_the_clock() -> None:
    """Nothing comes behind it, so there is no end to it that has to be slowed down."""
    last = frame(DATA, b"x", END_STREAM, 1)
    let_through(gate := opened(frame(DATA, b"x", 0, 1) * MAX_TINY, live=frozenset({1})))
    gate.add(last)
    assert gate.take(0.0) == last
    assert gate.delay == 0


def test_two_hundred_settings_are_let_through_at_once() -> None:
    let_through(gate := opened(frame(SETTINGS) * 200))
    gate.add(frame(SETTINGS))
    with pytest.raises(Excess):
        gate.take(0.0)


def test_a_settings_frame_holds_sixty_four_at_most() -> None:
    opened(frame(SETTINGS, bytes(6 * 64))).take(0)
    with pytest.raises(Excess, match=r"^a SETTINGS frame holds too many settings$"):
        opened(frame(SETTINGS, bytes(6 * 65))).take(0)
    with pytest.raises(Excess):
        opened(frame(SETTINGS, bytes(6 * 64 + 1))).take(0)


def test_a_number_of_five_bytes_is_counted_and_one_of_six_is_refused() -> None:
    assert count_fields(b"\xff" + b"\x80" * 4 + b"\x01") == 1
    with pytest.raises(Excess, match=r"^a head holds a number that is too large$"):
        count_fields(b"\xff" + b"\x80" * 5 + b"\x01")


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
    assert gate.heads.sizes == {1: [len(block), len(trailers)], 3: [len(block)]}


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


# -- pieces of bodies ------------------------------------------------------------------------------------

TINY_FRAMES = {
    "one byte": frame(DATA, b"x", 0, 1),
    "padding alone": frame(DATA, bytes([255]) + bytes(255), PADDED, 1),
}


def turns(gate: FrameGate, now: float) -> list[int]:
    """Bytes that go through, turn by turn, until none do."""
    found = []
    while data := gate.take(now):
        found.append(len(data))
    return found


@pytest.mark.parametrize("kind", ["one byte", "padding alone"])
def test_a_body_in_single_bytes_goes_on_by_the_clock_and_ends_nothing(kind: str) -> None:
    piece = TINY_FRAMES[kind]
    gate = opened(piece * 3000 + frame(PING, bytes(8)), live=frozenset({1}))
    assert sum(turns(gate, 0.0)) == len(PREFACE) + MAX_TINY * len(piece)
    assert gate.is_ready
    assert gate.delay > 0
    assert sum(turns(gate, 1.0)) == TINY_RATE * len(piece)
    passed = sum(sum(turns(gate, float(second))) for second in range(2, 6))
    assert passed == (3000 - MAX_TINY - TINY_RATE) * len(piece) + len(frame(PING, bytes(8)))
    assert not gate.is_ready


def test_short_pieces_of_a_body_go_through_a_few_at_a_time() -> None:
    piece = frame(DATA, b"x" * TINY, 0, 1)
    gate = opened(piece * 100, live=frozenset({1}))
    assert turns(gate, 0.0) == [len(PREFACE) + TURN_PIECES * len(piece)] + [TURN_PIECES * len(piece)] * 11 + [
        4 * len(piece)
    ]
    assert gate.delay == 0


def test_long_pieces_of_a_body_go_through_many_at_a_time() -> None:
    piece = frame(DATA, b"x" * SHORT, 0, 1)
    gate = opened(piece * TURN_FRAMES, live=frozenset({1}))
    assert turns(gate, 0.0) == [len(PREFACE) + TURN_FRAMES * len(piece)]


def test_a_head_of_too_many_fields_ends_the_connection_before_it_is_decoded() -> None:
    with pytest.raises(Excess, match=r"^a head has too many fields$"):
        opened(frame(HEADERS, b"\x82" * (MAX_BLOCK_FIELDS + 1), END_HEADERS, 1)).take(0)


@pytest.mark.parametrize("more", [0, 1])
def test_a_head_of_such_a_size_is_let_through(more: int) -> None:
    block = literal(b"x", b"y" * (MAX_HEAD - 10))
    block = literal(b"x", b"y" * (2 * MAX_HEAD - 10 - len(block) + more))
    assert len(block) == MAX_HEAD + more
    pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    data = frame(HEADERS, pieces[0], 0, 1)
    data += b"".join(frame(CONTINUATION, piece, 0, 1) for piece in pieces[1:])
    data += frame(CONTINUATION, b"", END_HEADERS, 1)
    if more:
        with pytest.raises(Excess, match=r"^a head is too large$"):
            let_through(opened(data))
    else:
        assert let_through(opened(data)) == PREFACE + data


def test_what_continues_a_head_that_is_whole_is_no_part_of_it() -> None:
    gate = opened(frame(HEADERS, b"\x82", END_HEADERS, 1) + frame(CONTINUATION, b"\x82", END_HEADERS, 1))
    gate.take(0)
    assert gate.heads.sizes == {1: [1]}


def test_a_head_that_says_to_be_padded_and_holds_nothing_is_let_through() -> None:
    """h2 says what is wrong with it."""
    empty = frame(HEADERS, b"", END_HEADERS | PADDED, 1)
    assert opened(empty).take(0) == PREFACE + empty


@pytest.mark.parametrize(
    ("sent", "tokens"),
    [
        (frame(DATA, bytes(16), 0, 1), 3),
        (frame(DATA, bytes(16), END_STREAM, 1), 3),
        (frame(DATA, bytes(15), 0, 1), 0),
        (frame(HEADERS, bytes(16), 0, 1), 0),
        (frame(HEADERS, bytes(16), END_HEADERS, 1), 0),
        (frame(DATA, bytes(16), 0, 1) + frame(PING, bytes(8)) + frame(DATA, bytes(16), 0, 3), 6),
        (frame(DATA, bytes(2 * 1024 - 9), 0, 1), 5),
    ],
)
def test_only_pieces_of_bodies_bring_tokens_by_themselves(sent: bytes, tokens: int) -> None:
    """Three of them each, and one for each KiB of all that is sent."""
    let_through(gate := opened(frame(PING, bytes(8)) * BURST))
    gate.sent(sent)
    gate.add(frame(PING, bytes(8)) * tokens)
    let_through(gate)
    gate.add(frame(PING, bytes(8)))
    with pytest.raises(Excess):
        gate.take(0.0)


def passes_at_once(piece: bytes, *, paced: bool = True) -> bool:
    """Whether half again as many of a piece as of tiny ones go through without waiting for the clock."""
    gate = FrameGate(lambda _: True, preface=0, paced=paced)
    gate.add(piece * (MAX_TINY + MAX_TINY // 2))
    turns(gate, 0.0)
    assert (gate.waiting == 0) == (gate.delay == 0)
    return gate.waiting == 0


@pytest.mark.parametrize(("size", "passes"), [(TINY, True), (TINY - 1, False)])
@pytest.mark.parametrize("padding", [None, 0, 3, 255])
def test_a_piece_of_sixteen_bytes_is_none_of_the_tiny_ones_whatever_surrounds_it(
    padding: int | None, size: int, passes: bool
) -> None:
    """Its first byte is not the length of any padding where there is none."""
    body = b"\xff" * size
    if padding is None:
        assert passes_at_once(frame(DATA, body, 0, 1)) is passes
    else:
        padded = bytes((padding,)) + body + bytes(padding)
        assert passes_at_once(frame(DATA, padded, PADDED, 1)) is passes


def test_an_upstream_may_stream_letter_by_letter() -> None:
    assert passes_at_once(frame(DATA, b"x", 0, 1), paced=False)


def test_an_end_that_says_to_be_padded_and_holds_nothing_is_let_through() -> None:
    """h2 says what is wrong with it."""
    end = frame(DATA, b"", END_STREAM | PADDED, 1)
    assert opened(end, live=frozenset({1})).take(0.0) == PREFACE + end


def test_what_stands_between_the_frames_of_a_head_is_no_part_of_it() -> None:
    block = head_of(b"/")
    gate = opened(frame(HEADERS, block[:9], 0, 1) + frame(PING, bytes(8)))
    gate.add(frame(CONTINUATION, block[9:], END_HEADERS, 1))
    gate.take(0)
    assert gate.heads.sizes == {1: [len(block)]}


def test_a_long_frame_of_another_kind_is_no_settings() -> None:
    other = frame(0xBE, bytes(1000))
    assert opened(other).take(0.0) == PREFACE + other


HEADS = {
    "two sizes of the table": (b"\x20\x20\x82", 1),
    "a size of the table of one byte": (b"\x3e\x82", 1),
    "an odd size of the table": (b"\x21\x82\x82\x82", 3),
    "a size of the table of two bytes": (b"\x3f\x01\x82", 1),
    "an index of one byte": (b"\xfe\x82", 2),
    "an index whose second byte is the largest": (b"\xff\x7f\x82", 2),
    "an index of two bytes": (b"\xff\x01\x82", 2),
    "a name by an index of four bits": (b"\x0e\x01v\x82", 2),
    "a name by an index of four bits and a byte": (b"\x0f\x10\x01v\x82", 2),
    "the same for a field that nobody may keep": (b"\x1f\x10\x01v\x82", 2),
    "a name by an index of six bits": (b"\x7e\x01v\x82", 2),
    "a name by an index of six bits and a byte": (b"\x7f\x10\x01v\x82", 2),
    "a name in full": (b"\x00\x01n\x01v\x82", 2),
    "a name in full that is kept": (b"\x40\x01n\x01v\x82", 2),
    "a value of 126 bytes": (b"\x0e\x7e" + b"v" * 126 + b"\x82", 2),
    "a value of 127 bytes": (b"\x0e\x7f\x00" + b"v" * 127 + b"\x82", 2),
    "a value of 300 bytes": (b"\x0e\x7f\xad\x01" + b"v" * 300 + b"\x82", 2),
    "as many fields as there may be": (b"\x82" * MAX_BLOCK_FIELDS, MAX_BLOCK_FIELDS),
    "a field that is cut off": (b"\x82\x0f", 2),
    "a value that is cut off": (b"\x82\x0e\x05v", 2),
}


@pytest.mark.parametrize("what", HEADS)
def test_each_form_of_a_field_is_counted_as_one(what: str) -> None:
    """A field that is read too short or too long hides those behind it."""
    block, count = HEADS[what]
    assert count_fields(block) == count


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x20\x20\x20", "a head changes the size of its table again and again"),
        (b"\x82" * 257, "a head has too many fields"),
    ],
)
def test_what_is_too_much_in_a_head_is_told_in_words_of_ours(block: bytes, why: str) -> None:
    with pytest.raises(Excess) as refused:
        count_fields(block)
    assert (refused.value.why, str(refused.value), refused.value.code) == (why, why, ENHANCE_YOUR_CALM)
