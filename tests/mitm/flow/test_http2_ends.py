"""What is left of streams and connections over HTTP/2 once they have ended: bounded, and in nobody's way."""

from __future__ import annotations

import h2.events
import pytest
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)

from presign_proxy.mitm.flow.http2_side import MAX_ENDED, OpenWindows
from support.h2frames import GOAWAY, PING, SETTINGS, frame
from support.h2sides import Side, answers, ask

MANY = 5 * MAX_ENDED


def test_a_thousand_requests_on_one_connection_leave_no_trace_at_the_client() -> None:
    """mitmproxy kept each of them, and told every one of the end of the connection: at once."""
    side = Side("client")
    side.side.gate._budget._tokens = 1e9
    for number in range(MANY):
        side.begin(2 * number + 1, end=True)
        side.side.h2_conn.send_headers(2 * number + 1, [(":status", "200")], end_stream=True)
        side.peer.receive_data(side.side.h2_conn.data_to_send())
        assert len(side.side.streams) <= 2 * MAX_ENDED + 2
    side.say(frame(GOAWAY, bytes(8)))
    assert len(side.told(RequestProtocolError)) <= 2 * MAX_ENDED + 2


@pytest.mark.parametrize("way", ["answered", "reset by us", "reset by the upstream"])
def test_a_thousand_requests_on_one_connection_leave_no_trace_at_the_upstream(way: str) -> None:
    side = Side("upstream")
    side.side.gate._budget._tokens = 1e9
    ask(side, 1)
    for number in range(1, MANY):
        theirs, ours = 2 * number + 1, 2 * number + 1
        ask(side, theirs)
        if way == "answered":
            side.side.handle_event(RequestData(theirs, b"x"))
            side.peer.send_headers(ours, [(":status", "200")], end_stream=True)
            side.flush()
        if way == "reset by the upstream":
            side.peer.reset_stream(ours)
            side.flush()
        else:
            side.handle(RequestProtocolError(theirs, "gone", RequestProtocolError.code))
    for kept in (side.side.streams, side.side.our_stream_id, side.side.their_stream_id):
        assert len(kept) <= 2 * MAX_ENDED + 10
    # The first of them is still under way, and is answered; and told of the end.
    answers(side, 1, b"late")
    assert [(one.stream_id, one.data) for one in side.told(ResponseData)] == [(1, b"late")]
    side.say(frame(GOAWAY, bytes(8)))
    assert side.told(ResponseProtocolError)[-1].stream_id >= 1


def test_an_upstream_that_stays_silent_is_not_remembered_for_each_request_that_was_taken_back() -> None:
    side = Side("upstream")
    for number in range(MANY):
        ask(side, 2 * number + 1)
        side.handle(RequestProtocolError(2 * number + 1, "gone", RequestProtocolError.code))
    for kept in (side.side.streams, side.side.our_stream_id, side.side.their_stream_id):
        assert len(kept) <= 2 * MAX_ENDED + 10


def test_what_comes_late_for_a_request_that_ended_is_not_taken_for_the_next_one() -> None:
    """A number was noted for whatever came, and the next request was given the same one."""
    side = Side("upstream")
    side.handle(RequestProtocolError(3, "gone", RequestProtocolError.code))
    ask(side, 5)
    side.handle(RequestProtocolError(3, "gone", RequestProtocolError.code))
    side.handle(RequestData(3, b"somebody else's"))
    answers(side, 1, b"x")
    side.peer.end_stream(1)
    side.flush()
    assert [one.stream_id for one in side.told(ResponseHeaders)] == [5]
    assert [one.stream_id for one in side.told(ResponseEndOfMessage)] == [5]
    assert side.told(ResponseProtocolError) == []


@pytest.mark.parametrize("of", ["client", "upstream"])
def test_a_peer_that_says_goodbye_behind_a_body_that_waits_is_opened_no_window(of: str) -> None:
    """A side that has ended does not know of windows: the client was cut off, with all that it had under way
    at other upstreams.
    """
    side = Side(of)
    side.layer.held.add(1)
    if of == "client":
        side.begin()
        side.peer.send_data(1, b"x")
    else:
        ask(side)
        side.peer.send_headers(1, [(":status", "200")])
        side.peer.send_data(1, b"x")
    said = side.peer.data_to_send() + frame(GOAWAY, bytes(8))
    side.say(said)
    assert side.closes()
    assert side.side.withheld == {}
    assert side.layer.withholding == set()
    side.layer.held.clear()


def test_only_a_side_that_owes_windows_is_told_that_something_has_moved() -> None:
    """Every layer of every connection of a client was looked at for each event."""
    side = Side("upstream")
    ask(side)
    answers(side, 1, b"x")
    assert side.layer.withholding == set()
    side.layer.held.add(1)
    side.peer.send_data(1, b"x")
    side.flush()
    assert side.layer.withholding == {side.conn}
    side.layer.held.clear()
    side.handle(OpenWindows())
    assert side.layer.withholding == set()


@pytest.mark.parametrize("of", ["client", "upstream"])
def test_what_waited_for_a_window_goes_with_its_connection(of: str) -> None:
    """Of a hundred uploads to an upstream that took nothing and hung up, 66 MB stayed with the gateway, and
    as much again of the next hundred, until all objects were searched for circles.
    """
    side = Side(of)
    side.hears = False
    if of == "client":
        side.begin(end=True)
        side.side.h2_conn.send_headers(1, [(":status", "200")])
        side.handle(ResponseData(1, bytes(200_000)))
    else:
        ask(side)
        side.handle(RequestData(1, bytes(200_000)))
    assert side.side.h2_conn.waiting > 100_000
    side.say(frame(PING, bytes(8))[:12])
    assert side.side.gate.waiting == 12
    side.handle(events.ConnectionClosed(side.conn))
    assert (side.side.h2_conn.waiting, side.side.h2_conn.stream_buffers) == (0, {})
    assert side.side.gate.waiting == 0


def goodbye(last: int) -> bytes:
    return frame(GOAWAY, last.to_bytes(4, "big") + bytes(4))


def test_a_request_that_waited_for_room_is_told_of_the_goodbye_and_never_sent() -> None:
    """It would have been sent as soon as another one had ended."""
    side = Side("upstream")
    side.say(frame(SETTINGS, b"\x00\x03" + (10).to_bytes(4, "big")))
    for number in range(11):
        ask(side, 2 * number + 1)
    assert list(side.side.stream_queue) == [21]
    side.say(goodbye(2**31 - 1))
    assert [one.stream_id for one in side.told(ResponseProtocolError)] == [21]
    side.handle(RequestData(21, b"for nobody"))
    ask(side, 23)
    assert [one.stream_id for one in side.told(ResponseProtocolError)] == [21, 23]
    for stream in range(1, 21, 2):
        assert not side.closes()
        side.handle(RequestEndOfMessage(stream))
        answers(side, stream)
        side.peer.end_stream(stream)
        side.flush()
    assert [one.stream_id for one in side.told(ResponseEndOfMessage)] == list(range(1, 21, 2))
    assert len(side.told(ResponseProtocolError)) == 2
    assert len(side.of(h2.events.RequestReceived)) == 10
    assert side.closes()
    assert (side.side.stream_queue, side.side.turned_away, side.side.streams) == ({}, [], {})


def test_a_connection_that_is_left_waits_for_an_upload_behind_its_answer() -> None:
    side = Side("upstream")
    ask(side)
    answers(side, 1, b"early")
    side.peer.end_stream(1)
    side.say(side.peer.data_to_send() + goodbye(1))
    assert not side.closes()
    side.handle(RequestEndOfMessage(1))
    assert len(side.of(h2.events.StreamEnded)) == 1
    assert side.closes()
    assert side.told(ResponseProtocolError) == []


def test_a_goodbye_that_names_fewer_streams_ends_those_and_one_that_names_more_none() -> None:
    side = Side("upstream")
    for stream in (1, 3, 5):
        ask(side, stream)
    for last, ended in ((2**31 - 1, []), (3, [5]), (2**31 - 1, [5]), (1, [5, 3]), (0, [5, 3, 1])):
        assert not side.closes()
        side.say(goodbye(last))
        assert [one.stream_id for one in side.told(ResponseProtocolError)] == ended
    assert side.closes()
