"""When a client over HTTP/2 begins with its streams, and which of them it may not begin at all."""

from __future__ import annotations

import h2.events
from h2.errors import ErrorCodes
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._events import (
    RequestData,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
)

from presign_proxy.limits.client_shares import Shares
from support.h2frames import END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, frame, head_of
from support.h2sides import HEAD, Side


def packet(*streams: int) -> bytes:
    return b"".join(frame(HEADERS, head_of(b"/"), END_HEADERS | END_STREAM, one) for one in streams)


def begun(side: Side) -> list[int]:
    return [one.stream_id for one in side.told(RequestHeaders)]


def test_of_a_client_that_begins_four_streams_in_one_packet_one_is_begun_with_in_each_turn() -> None:
    """Eight were, and each costs milliseconds."""
    side = Side("client")
    side.say(packet(1, 3, 5, 7), turns=False)
    assert begun(side) == [1]
    for count in (2, 3, 4):
        side.turn()
        assert begun(side) == [1, 3, 5, 7][:count]
    assert side.side.turn is None


def test_a_client_that_has_begun_in_this_turn_waits_with_its_next_packet() -> None:
    side = Side("client")
    side.say(packet(1), turns=False)
    side.say(packet(3), turns=False)
    assert begun(side) == [1]
    side.turn()
    assert begun(side) == [1, 3]


def test_clients_begin_by_turns_however_many_streams_each_of_them_has_sent() -> None:
    greedy, modest = Side("client"), Side("client")
    modest.layer.ends, modest.layer.called = greedy.layer.ends, greedy.layer.called
    modest.layer.starts = greedy.layer.starts
    greedy.say(packet(1, 3, 5, 7, 9), turns=False)
    modest.say(packet(1), turns=False)
    order = []
    while greedy.layer.ends:
        for end in list(greedy.layer.ends):
            greedy.layer.ends.remove(end)
            end()
        for turn in list(greedy.layer.called):
            greedy.layer.called.remove(turn)
            (greedy if turn.side is greedy.side else modest).handle(turn)
            order.append("greedy" if turn.side is greedy.side else "modest")
    assert order == ["greedy", "modest", "greedy", "greedy", "greedy"]
    assert (begun(greedy), begun(modest)) == ([1, 3, 5, 7, 9], [1])


def order_of(sides: dict[str, Side]) -> list[str]:
    """In which order clients that have one row are told that it is their turn."""
    layer = next(iter(sides.values())).layer
    names = {side.side: name for name, side in sides.items()}
    order = []
    while layer.ends:
        ends, layer.ends[:] = list(layer.ends), []
        for end in ends:
            end()
        called, layer.called[:] = list(layer.called), []
        for turn in called:
            sides[names[turn.side]].handle(turn)
            order.append(names[turn.side])
    return order


def test_a_client_that_has_nothing_yet_begins_before_the_next_streams_of_those_that_have() -> None:
    """It stood behind ninety that had ten downloads each: for two seconds."""
    sides = {name: Side("client") for name in ("one", "two", "three", "newcomer")}
    for name, side in sides.items():
        side.layer.starts = sides["one"].layer.starts
        side.layer.streams.update({} if name == "newcomer" else {99: object()})
    assert sides["one"].layer.starts.take()
    for name, streams in (("one", (1, 3)), ("two", (1,)), ("three", (1,)), ("newcomer", (1,))):
        sides[name].say(packet(*streams), turns=False)
    assert order_of(sides) == ["newcomer", "one", "two", "three", "one"]


def test_of_a_client_that_leaves_nothing_is_begun_with_that_waited() -> None:
    """Its streams were begun with one after the other, dialled, and sent with a credential, for nobody."""
    side = Side("client")
    side.say(packet(1, 3, 5, 7), turns=False)
    side.handle(events.ConnectionClosed(side.conn))
    assert side.side.gate.waiting == 0
    while side.layer.ends:
        side.turn()
    assert begun(side) == [1]
    assert [one.stream_id for one in side.told(RequestProtocolError)] == [1]


def test_of_a_client_that_leaves_when_its_turn_has_come_nothing_is_begun_with() -> None:
    side = Side("client")
    side.say(packet(1, 3), turns=False)
    (end,) = side.layer.ends
    end()
    (turn,) = side.layer.called
    side.handle(events.ConnectionClosed(side.conn))
    assert side.side.turn is not turn, "it is led nowhere"
    assert begun(side) == [1]


def test_a_client_that_breaks_the_protocol_behind_its_requests_is_served_no_more_of_them() -> None:
    side = Side("client")
    side.say(packet(1, 3) + frame(SETTINGS, bytes(7)) + packet(5), turns=False)
    while side.layer.ends:
        side.turn()
    assert begun(side) == [1]
    assert side.closes()
    assert side.side.turn is None


def test_trailers_wait_for_no_turn_to_begin() -> None:
    side = Side("client")
    side.begin(end=False)
    assert side.layer.starts.take()
    side.peer.send_headers(1, [("x-sum", "1")], end_stream=True)
    side.say(side.peer.data_to_send(), turns=False)
    assert len(side.told(RequestTrailers)) == 1


def test_a_client_is_told_of_a_hundred_streams_and_refused_the_hundred_and_first_alone() -> None:
    """h2 ends the connection of one that could not know of that yet."""
    side = Side("client")
    assert side.peer.remote_settings.max_concurrent_streams == 100
    side.hears = False
    for number in range(102):
        side.layer.streams[2 * number + 1] = object()
        side.say(packet(2 * number + 1))
    assert begun(side) == [*range(1, 201, 2)]
    sent = b"".join(one.data for one in side.commands if isinstance(one, commands.SendData))
    refused = (ErrorCodes.REFUSED_STREAM).to_bytes(4, "big")
    assert sent.count(frame(RST_STREAM, refused, 0, 201)) == 1
    assert sent.count(frame(RST_STREAM, refused, 0, 203)) == 1
    assert not side.closes()


def test_a_client_is_refused_streams_where_it_leaves_no_more_to_others() -> None:
    side = Side("client")
    side.layer.shares = Shares(lambda: 3)
    for stream, others in ((1, 0), (3, 1), (5, 2)):
        side.layer.shares.note(side.conn, others, 0)
        side.peer.send_headers(stream, HEAD, end_stream=True)
        side.flush()
        side.layer.streams[stream] = object()
    assert begun(side) == [1, 3]
    assert [(one.stream_id, one.error_code) for one in side.of(h2.events.StreamReset)] == [
        (5, ErrorCodes.REFUSED_STREAM)
    ]
    assert not side.closes()


def test_what_a_client_sends_of_a_body_that_was_refused_harms_nobody() -> None:
    side = Side("client")
    side.layer.shares = Shares(lambda: 0)
    side.layer.streams[99] = object()
    side.peer.send_headers(1, HEAD)
    side.peer.send_data(1, b"x" * 100)
    side.flush()
    assert begun(side) == []
    assert [one.error_code for one in side.of(h2.events.StreamReset)] == [ErrorCodes.REFUSED_STREAM]
    assert not side.told(RequestData)
    assert not side.closes()
