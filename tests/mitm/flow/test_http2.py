"""Both sides of HTTP/2 by themselves: what a peer may send, in how many turns, and when it may send more.

The peer is h2 itself; the layers are mitmproxy's, with our limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from h2.errors import ErrorCodes
from mitmproxy import http
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)

from presign_proxy.http.message import MAX_FIELDS, MAX_HEAD
from presign_proxy.mitm.flow import http2_side
from presign_proxy.mitm.flow.http2_budget import BURST, PER_ANSWER
from presign_proxy.mitm.flow.http2_encoder import BoundedEncoder
from presign_proxy.mitm.flow.http2_frames import TURN_FRAMES
from presign_proxy.mitm.flow.http2_side import OpenWindows
from presign_proxy.mitm.flow.http2_windows import all_unsent, unsent
from support.h2frames import END_HEADERS, END_STREAM, HEADERS, PING, frame, head_of, literal
from support.h2sides import HEAD, Side, answers, ask

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """No token comes back with time, unless a test says so."""
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(http2_side, "time", clock)
    yield clock


@pytest.mark.parametrize("of", ["client", "upstream"])
def test_a_peer_is_allowed_small_frames_and_a_mebibyte_of_a_stream(of: str) -> None:
    side = Side(of)
    assert side.peer.remote_settings.max_frame_size == 16 * 1024
    assert side.peer.remote_settings.initial_window_size == MIB
    assert side.side.h2_conn.max_inbound_frame_size == 16 * 1024
    if of == "client":
        side.begin()
    else:
        side.peer.remote_settings.acknowledge()
    assert side.side.h2_conn.local_settings.initial_window_size == MIB


def test_a_client_that_sends_a_frame_over_its_size_is_told_so_and_closed() -> None:
    side = Side("client")
    side.begin()
    side.say((16 * 1024 + 1).to_bytes(3, "big") + bytes((0, 0)) + (1).to_bytes(4, "big"))
    (end,) = side.of(h2.events.ConnectionTerminated)
    assert end.error_code == ErrorCodes.FRAME_SIZE_ERROR
    assert end.additional_data == b"a frame is too large"
    assert side.closes()


def test_a_client_that_floods_is_told_to_be_calm_and_its_requests_end() -> None:
    side = Side("client")
    side.begin()
    for _ in range(BURST // TURN_FRAMES):
        side.say(frame(PING, bytes(8)) * TURN_FRAMES)
        assert not side.closes()
    side.say(frame(PING, bytes(8)) * TURN_FRAMES)
    (end,) = side.of(h2.events.ConnectionTerminated)
    assert end.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert [one.stream_id for one in side.told(RequestProtocolError)] == [1]
    assert side.closes()


def test_what_a_client_did_wrong_is_told_without_what_it_sent() -> None:
    """h2 quotes it at any length."""
    side = Side("client")
    side.say(frame(HEADERS, head_of(b"/") + literal(b"X-Long-Name" * 30, b"y"), END_HEADERS | END_STREAM, 1))
    end = side.of(h2.events.ConnectionTerminated)[-1]  # h2 says so too, without a word
    assert end.error_code == ErrorCodes.PROTOCOL_ERROR
    assert end.additional_data == b"HTTP/2 protocol error"


# -- turns ------------------------------------------------------------------------------------------------


def test_what_is_behind_a_turn_waits_for_the_next() -> None:
    side = Side("client")
    side.begin(end=False)
    before = len(side.of(h2.events.PingAckReceived))
    assert before == 0
    pings = [frame(PING, n.to_bytes(8, "big")) for n in range(TURN_FRAMES + 5)]
    side.say(b"".join(pings[:-1]))
    assert len(side.of(h2.events.PingAckReceived)) == TURN_FRAMES
    (turn,) = side.wakeups()
    assert turn.delay == 0
    assert side.side.turn is turn
    side.say(pings[-1])
    assert len(side.of(h2.events.PingAckReceived)) == TURN_FRAMES
    side.handle(events.Wakeup(turn))
    assert len(side.of(h2.events.PingAckReceived)) == TURN_FRAMES + 5
    assert side.side.turn is None
    assert len(side.wakeups()) == 1


def test_an_upstream_that_closes_behind_its_answer_is_heard_to_the_end() -> None:
    side = Side("upstream")
    ask(side)
    answers(side)
    for _ in range(TURN_FRAMES):
        side.peer.send_data(1, b"x" * 2000)
    side.peer.end_stream(1)
    side.flush()
    assert side.side.turn is not None
    side.handle(events.ConnectionClosed(side.conn))
    assert not side.told(ResponseProtocolError)
    side.handle(events.Wakeup(side.side.turn))
    assert len(side.told(ResponseData)) == TURN_FRAMES
    assert [one.stream_id for one in side.told(ResponseEndOfMessage)] == [1]
    assert side.side.turn is None
    assert side.closes()


def test_the_end_of_a_client_that_waits_for_no_turn_is_told_at_once() -> None:
    side = Side("client")
    side.begin()
    side.handle(events.ConnectionClosed(side.conn))
    assert len(side.told(RequestProtocolError)) == 1


def test_an_answer_is_sent_while_frames_wait_for_their_turn() -> None:
    side = Side("client")
    side.begin(end=True)
    side.say(frame(PING, bytes(8)) * (TURN_FRAMES + 1))
    assert side.side.turn is not None
    respond(side, body=b"ok")
    assert [one.stream_id for one in side.of(h2.events.StreamEnded)] == [1]


def test_an_upstream_that_says_nothing_is_asked_whether_it_is_there() -> None:
    """That is another clock than the one of turns."""
    side = Side("upstream")
    (keeping,) = side.wakeups()
    side.side.last_activity = 0.0
    side.handle(events.Wakeup(keeping))
    assert len(side.of(h2.events.PingReceived)) == 1
    assert len(side.wakeups()) == 2


def test_half_a_frame_asks_for_no_turn() -> None:
    side = Side("client")
    side.say(frame(PING, bytes(8))[:-1])
    assert side.wakeups() == []
    assert side.side.turn is None
    side.say(b"\0")
    assert len(side.of(h2.events.PingAckReceived)) == 1


def test_tiny_pieces_of_a_body_wait_for_the_clock(clock: SimpleNamespace) -> None:
    side = Side("client")
    side.begin()
    side.layer.held.add(1)
    for _ in range(1200):
        side.peer.send_data(1, b"x")
    side.flush()
    while side.wakeups()[-1].delay == 0:
        side.handle(events.Wakeup(side.wakeups()[-1]))
    assert 0 < side.wakeups()[-1].delay < 1
    assert len(side.told(RequestData)) == 1000
    clock.now += 1
    while side.side.turn is not None:
        side.handle(events.Wakeup(side.side.turn))
    assert len(side.told(RequestData)) == 1200


# -- windows ----------------------------------------------------------------------------------------------


def upload(side: Side, stream: int = 1, size: int = 600_000) -> None:
    """More than half of a stream's window: below that h2 opens none."""
    for _ in range(size // 10_000):
        side.peer.send_data(stream, bytes(10_000))
        side.flush()


def opened(side: Side, stream: int = 1) -> int:
    """By how much the window of a stream was opened."""
    return sum(one.delta for one in side.of(h2.events.WindowUpdated) if one.stream_id == stream)


def processed(side: Side) -> int:
    """Bytes of the connection's window, of two gigabytes, that were given back."""
    found: int = side.side.h2_conn._inbound_flow_control_window_manager._bytes_processed
    return found


def test_a_client_whose_upload_waits_gets_no_further_window_until_it_moves_on() -> None:
    side = Side("client")
    side.begin()
    side.layer.held.add(1)
    upload(side)
    assert sum(len(one.data) for one in side.told(RequestData)) == 600_000
    assert (side.side.withheld, processed(side), opened(side)) == ({1: 600_000}, 0, 0)
    assert side.handle(OpenWindows()) == []
    assert side.side.withheld == {1: 600_000}
    side.layer.held.clear()
    side.handle(OpenWindows())
    assert (side.side.withheld, processed(side), opened(side)) == ({}, 600_000, 600_000)


def test_a_client_whose_upload_moves_has_its_window_at_once() -> None:
    side = Side("client")
    side.begin()
    upload(side)
    assert side.side.withheld == {}
    assert opened(side) > 500_000


def test_what_is_owed_to_a_stream_that_has_ended_fails_nothing() -> None:
    side = Side("client")
    side.begin()
    side.begin(3)
    side.layer.held |= {1, 3}
    for stream in (1, 3):
        upload(side, stream)
    side.peer.reset_stream(1)
    side.flush()
    side.layer.held.clear()
    side.handle(OpenWindows())
    assert side.side.withheld == {}
    assert not side.closes()
    assert (opened(side, 1), opened(side, 3)) == (0, 600_000)


def test_bytes_that_are_kept_back_by_a_closed_window_are_counted() -> None:
    side = Side("client")
    side.begin(end=True)
    side.begin(3, end=True)
    assert (unsent(side.side, 1), all_unsent(side.side)) == (0, 0)
    for stream, size in ((1, 100_000), (3, 1000)):
        respond(side, stream, bytes(size), end=False)
    assert unsent(side.side, 1) == 100_000 - 65_535
    assert unsent(side.side, 3) == 1000
    assert unsent(side.side, 5) == 0
    assert all_unsent(side.side) == 100_000 - 65_535 + 1000


# -- tokens -----------------------------------------------------------------------------------------------


def respond(side: Side, stream: int = 1, body: bytes = b"", *, end: bool = True) -> None:
    response = http.Response.make(200, b"", {"x": "y"})
    del response.headers["content-length"]
    side.handle(ResponseHeaders(stream, response, end and not body))
    if body:
        side.handle(ResponseData(stream, body))
    if end:
        side.handle(ResponseEndOfMessage(stream))


def tokens(side: Side) -> float:
    found: float = side.side.gate._budget._tokens
    return found


def test_an_answer_brings_tokens_and_one_that_nobody_hears_does_not() -> None:
    side = Side("client")
    side.begin(end=True)
    side.begin(3, end=True)
    side.side.gate._budget._tokens = 100.0
    respond(side)
    assert 100 + PER_ANSWER < tokens(side) < 100 + PER_ANSWER + 1
    side.peer.reset_stream(3)
    side.flush()
    before = tokens(side)
    respond(side, 3)
    assert tokens(side) == before


def test_what_is_sent_brings_tokens_by_its_size() -> None:
    side = Side("client")
    side.begin(end=True)
    respond(side, end=False)
    side.side.gate._budget._tokens = 0.0
    side.handle(ResponseData(1, bytes(40_960)))
    assert 40 < tokens(side) < 40 + 12
    assert tokens(side) < BURST


def test_windows_that_are_opened_bring_tokens_too() -> None:
    side = Side("client")
    side.begin()
    side.layer.held.add(1)
    upload(side)
    side.layer.held.clear()
    before = side.side.gate._budget._tokens = 10.0
    side.handle(OpenWindows())
    assert before < tokens(side) < before + 1


def test_the_request_that_an_upstream_is_sent_brings_it_tokens() -> None:
    side = Side("upstream")
    side.side.gate._budget._tokens = 100.0
    ask(side)
    assert 100 + PER_ANSWER < tokens(side) < 100 + PER_ANSWER + 1


# -- heads ------------------------------------------------------------------------------------------------


def too_large(side: Side, stream: int = 1, *, method: str = "GET", end: bool = True) -> list[Any]:
    fields = [(f"x-{number}", "y") for number in range(MAX_FIELDS + 1)]
    head = [(":method", method), *HEAD[1:], *fields]
    side.peer.send_headers(stream, head, end_stream=end)
    return side.flush()


def answer(side: Side, stream: int = 1) -> tuple[str, bytes]:
    (head,) = [one for one in side.of(h2.events.ResponseReceived) if one.stream_id == stream]
    body = b"".join(one.data for one in side.of(h2.events.DataReceived) if one.stream_id == stream)
    return dict(head.headers)[":status"], body


def test_a_head_of_too_many_fields_is_answered_and_nobody_hears_of_it() -> None:
    side = Side("client")
    too_large(side)
    status, body = answer(side)
    assert status == "431"
    assert json.loads(body)["error"]["code"] == "too_large"
    assert side.told(RequestHeaders) == []
    assert not side.closes()
    assert [one.stream_id for one in side.of(h2.events.StreamEnded)] == [1]
    side.begin(3, end=True)
    assert [one.stream_id for one in side.told(RequestHeaders)] == [3]


def test_a_head_with_as_many_fields_as_there_may_be_is_heard() -> None:
    side = Side("client")
    side.begin(fields=[(f"x-{number}", "y") for number in range(MAX_FIELDS)], end=True)
    assert len(side.told(RequestHeaders)) == 1


def test_the_refusal_of_a_head_request_has_no_body() -> None:
    side = Side("client")
    too_large(side, method="HEAD")
    assert answer(side) == ("431", b"")
    assert [one.stream_id for one in side.of(h2.events.StreamEnded)] == [1]


def test_an_upload_whose_head_was_refused_is_reset_and_its_body_is_for_nobody() -> None:
    side = Side("client")
    side.peer.send_headers(1, [*HEAD, *[(f"x-{n}", "y") for n in range(MAX_FIELDS + 1)]], end_stream=False)
    for _ in range(3):
        side.peer.send_data(1, bytes(16_000))
    side.flush()
    assert answer(side)[0] == "431"
    (end,) = side.of(h2.events.StreamReset)
    assert end.error_code == ErrorCodes.NO_ERROR
    assert side.told(RequestData) == []
    assert side.side.withheld == {}
    # The window of the connection is that of everybody else.
    assert processed(side) == 48_000


def test_a_second_head_that_is_too_large_ends_the_connection() -> None:
    side = Side("client")
    too_large(side)
    too_large(side, 3)
    (end,) = side.of(h2.events.ConnectionTerminated)
    assert end.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert end.additional_data == b"a head is too large"
    assert side.closes()


def test_nothing_behind_what_ended_the_connection_is_listened_to() -> None:
    side = Side("client")
    too_large(side)
    fields = [(f"x-{n}", "y") for n in range(MAX_FIELDS + 1)]
    side.peer.send_headers(3, [*HEAD, *fields], end_stream=True)
    side.peer.send_headers(5, HEAD, end_stream=True)
    side.flush()
    assert side.closes()
    assert side.told(RequestHeaders) == []


def test_trailers_that_are_too_large_end_the_connection() -> None:
    side = Side("client")
    side.begin()
    side.peer.send_headers(1, [(f"x-{n}", "y") for n in range(MAX_FIELDS + 5)], end_stream=True)
    side.flush()
    (end,) = side.of(h2.events.ConnectionTerminated)
    assert end.error_code == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_client_that_resets_its_refused_request_in_the_same_turn_harms_nobody() -> None:
    side = Side("client")
    side.begin(3)
    fields = [(f"x-{n}", "y") for n in range(MAX_FIELDS + 1)]
    side.peer.send_headers(5, [*HEAD, *fields], end_stream=True)
    side.peer.reset_stream(5)
    side.flush()
    assert not side.closes()
    assert side.told(RequestProtocolError) == []


@pytest.mark.parametrize(("size", "is_served"), [(8 * 1024 - 500, True), (9 * 1024, False)])
def test_a_head_that_becomes_far_more_than_was_sent_is_refused(size: int, is_served: bool) -> None:
    """One byte may stand for four thousand of an earlier head (RFC 7541, 6.1)."""
    side = Side("client")
    side.hears = False
    kept = literal(b"x", b"y" * 1000, kept=True)
    side.say(frame(HEADERS, head_of(b"/") + kept, END_HEADERS | END_STREAM, 1))
    assert len(side.told(RequestHeaders)) == 1
    again = bytes((0x80 | 62,)) * (size // 1005)
    side.say(frame(HEADERS, head_of(b"/") + again, END_HEADERS | END_STREAM, 3))
    assert (len(side.told(RequestHeaders)) == 2) is is_served


@pytest.mark.parametrize(("size", "is_served"), [(MAX_HEAD - 600, True), (MAX_HEAD - 40, False)])
def test_a_head_over_its_size_is_refused_though_all_of_it_was_sent(size: int, is_served: bool) -> None:
    side = Side("client")
    side.hears = False
    block = head_of(b"/") + literal(b"x", b"y" * size)
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    data = frame(HEADERS, pieces[0], END_STREAM, 1)
    for number, piece in enumerate(pieces[1:], 2):
        data += frame(9, piece, END_HEADERS if number == len(pieces) else 0, 1)
    side.say(data)
    assert (len(side.told(RequestHeaders)) == 1) is is_served


def test_a_request_that_ends_and_is_reset_in_one_segment_is_told_to_be_over() -> None:
    """mitmproxy had forgotten the stream by then: it went on at the upstream, for nobody."""
    side = Side("client")
    side.peer.send_headers(1, HEAD, end_stream=True)
    side.layer.streams[1] = object()
    reset = frame(3, int(ErrorCodes.CANCEL).to_bytes(4, "big"), 0, 1)
    side.say(side.peer.data_to_send() + reset)
    assert len(side.told(RequestHeaders)) == 1
    assert len(side.told(RequestEndOfMessage)) == 1
    assert [one.stream_id for one in side.told(RequestProtocolError)] == [1]


def test_a_reset_of_a_stream_that_is_over_is_told_to_nobody() -> None:
    side = Side("client")
    side.begin(end=True)
    respond(side)
    side.layer.streams.clear()
    side.say(frame(3, bytes(4), 0, 1))
    assert side.told(RequestProtocolError) == []


def bounded(slack: int) -> tuple[bytes, bytes]:
    """A head that fills the table, and one that names that: so many bytes below what it may become."""
    for size in range(1900, 2100):
        for more in range(1, 20):
            again = head_of(b"/") + bytes((0x80 | 62,)) * 4 + literal(b"z", b"w" * more)
            pseudo = sum(map(len, (b":methodGET", b":schemehttps", b":authoritypresign.local", b":path/")))
            becomes = pseudo + 4 * 4 + 4 * (1 + size + 4) + (1 + more + 4)
            if 2 * len(again) + 8 * 1024 - becomes == slack:
                return literal(b"x", b"y" * size, kept=True), again
    raise AssertionError


@pytest.mark.parametrize("slack", [0, -1])
def test_a_head_may_become_twice_what_was_sent_and_eight_kib_and_no_byte_more(slack: int) -> None:
    side = Side("client")
    side.hears = False
    kept, again = bounded(slack)
    side.say(frame(HEADERS, head_of(b"/") + kept, END_HEADERS | END_STREAM, 1))
    side.say(frame(HEADERS, again, END_HEADERS | END_STREAM, 3))
    assert (len(side.told(RequestHeaders)) == 2) is (slack == 0)


def test_a_head_is_measured_by_itself_and_not_by_its_trailers() -> None:
    side = Side("client")
    side.peer.send_headers(1, [*HEAD, ("x", "ab" * 4800)])
    side.peer.send_headers(1, [("y", "z")], end_stream=True)
    side.flush()
    assert len(side.told(RequestHeaders)) == 1
    assert len(side.told(RequestTrailers)) == 1
    assert not side.closes()


@pytest.mark.parametrize(("copies", "closes"), [(25, False), (41, True)])
def test_a_head_that_is_far_too_large_is_not_even_decoded(copies: int, closes: bool) -> None:
    """Up to 128 KiB it is, so that it can be answered."""
    side = Side("client")
    side.hears = False
    kept = literal(b"x", b"y" * 4000, kept=True)
    side.say(frame(HEADERS, head_of(b"/") + kept, END_HEADERS | END_STREAM, 1))
    again = head_of(b"/") + bytes((0x80 | 62,)) * copies
    side.say(frame(HEADERS, again, END_HEADERS | END_STREAM, 3))
    assert side.closes() is closes
    assert len(side.told(RequestHeaders)) == 1


def test_trailers_of_a_request_that_was_refused_are_for_nobody() -> None:
    side = Side("client")
    fields = [(f"x-{n}", "y") for n in range(MAX_FIELDS + 1)]
    side.peer.send_headers(1, [*HEAD, *fields])
    side.peer.send_headers(1, [("y", "z")], end_stream=True)
    side.flush()
    assert answer(side)[0] == "431"
    assert side.told(RequestTrailers) == []
    assert side.told(RequestEndOfMessage) == []


def test_a_request_that_is_over_for_us_and_is_reset_is_told_to_nobody() -> None:
    side = Side("client")
    side.peer.send_headers(1, HEAD, end_stream=True)
    side.say(side.peer.data_to_send() + frame(3, int(ErrorCodes.CANCEL).to_bytes(4, "big"), 0, 1))
    assert side.told(RequestProtocolError) == []


# -- the table of what was sent ---------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["client", "upstream"])
def test_of_what_a_peer_is_sent_four_kib_are_kept_however_much_it_allows(of: str) -> None:
    side = Side(of)
    assert isinstance(side.side.h2_conn.encoder, BoundedEncoder)
    side.peer.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
    side.flush()
    assert side.side.h2_conn.encoder.header_table_size == 4096
    side.peer.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 100})
    side.flush()
    assert side.side.h2_conn.encoder.header_table_size == 100


def test_a_smaller_table_is_told_of_as_the_protocol_wants_it() -> None:
    encoder = BoundedEncoder()
    encoder.header_table_size = 50
    decoder = hpack.Decoder()
    decoder.decode(encoder.encode([(b"x", b"y")]))
    assert decoder.header_table_size == 50


# -- an upstream ------------------------------------------------------------------------------------------


def test_an_upstream_whose_answer_is_not_taken_gets_no_further_window_until_it_is() -> None:
    """The stream has another number there than at the client."""
    side = Side("upstream")
    ask(side, 7)
    side.layer.held.add(7)
    answers(side, 1, bytes(16_000))
    assert side.side.withheld == {1: 16_000}
    upload(side)
    assert (side.side.withheld, opened(side)) == ({1: 616_000}, 0)
    assert {one.stream_id for one in side.told(ResponseData)} == {7}
    side.layer.held.clear()
    side.handle(OpenWindows())
    assert (side.side.withheld, opened(side)) == ({}, 616_000)


def test_an_upstream_that_floods_ends_the_very_requests_of_its_client() -> None:
    side = Side("upstream")
    ask(side, 7)
    ask(side, 9)
    for _ in range(BURST):
        if side.closes():
            break
        side.say(frame(PING, bytes(8)) * TURN_FRAMES)
        if side.side.turn is not None and not side.closes():
            side.handle(events.Wakeup(side.side.turn))
    (end,) = side.of(h2.events.ConnectionTerminated)
    assert end.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert sorted(one.stream_id for one in side.told(ResponseProtocolError)) == [7, 9]


def test_letters_of_an_upstream_do_not_wait_for_the_clock() -> None:
    side = Side("upstream")
    ask(side)
    answers(side)
    for _ in range(1200):
        side.peer.send_data(1, b"x")
    side.flush()
    while side.side.turn is not None:
        assert side.side.turn.delay == 0
        side.handle(events.Wakeup(side.side.turn))
    assert len(side.told(ResponseData)) == 1200


def test_what_an_upstream_sends_on_a_stream_that_was_given_up_costs_it_nothing() -> None:
    """It is on its way when we reset one."""
    side = Side("upstream")
    ask(side)
    answers(side)
    side.handle(RequestProtocolError(1, "gone", RequestProtocolError.code))
    side.side.gate._budget._tokens = 3.0
    for _ in range(10):
        side.say(frame(0, bytes(2000), 0, 1))
    assert not side.closes()


def test_the_backlog_of_an_upstream_is_what_waits_for_its_turn() -> None:
    side = Side("upstream")
    ask(side)
    assert side.side.backlog == 0
    side.say(frame(PING, bytes(8)) * (TURN_FRAMES + 3))
    assert side.side.backlog == 3 * 17
    side.handle(events.Wakeup(side.side.turn))
    assert side.side.backlog == 0
    side.say(frame(PING, bytes(8))[:-1])
    assert side.side.backlog == 0, "half a frame waits for its other half"
