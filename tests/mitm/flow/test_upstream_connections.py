"""The upstream connections of one client: which serve whom, and that none is kept that nobody waits for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import GetHttpConnection, RegisterHttpConnection
from mitmproxy.proxy.layers.http._http2 import Http2Client

from presign_proxy.mitm.flow.stream_events import Departed, Stalled, StillThere
from support.waiting import Lab, closed, context_of, sent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def other(lab: Lab, stream_id: int = 9) -> Any:
    """A second stream, as a client of HTTP/2 has them."""
    list(lab.layer.make_stream(stream_id))
    return lab.layer.streams[stream_id]


def wanted(host: str = "api.example") -> GetHttpConnection:
    return GetHttpConnection((host, 80), False, None, "tcp")


def want(lab: Lab, stream: Any, host: str = "api.example") -> GetHttpConnection:
    """Ask for a connection in the name of a stream."""
    command = wanted(host)
    lab.layer.command_sources[command] = stream
    lab.play(lab.layer.get_connection(command))
    return command


def open_server(host: str = "api.example") -> Server:
    server = Server(address=(host, 80))
    server.state = ConnectionState.OPEN
    return server


def kept(lab: Lab, host: str = "api.example", *, room: int | None = None) -> Server:
    """A connection that is there; over HTTP/2 with room for so many streams where that is said."""
    server = open_server(host)
    if room is None:
        lab.layer.connections[server] = SimpleNamespace()
        return server
    server.alpn = b"h2"
    context = context_of(lab.client)
    context.server = server
    lab.layer.connections[server] = client = Http2Client(context)
    client.provisional_max_concurrency = room
    return server


class Asked:
    """A stream that notes what comes of its asking."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def handle_event(self, event: Any) -> Any:
        self.told.append(event)
        return iter(())

    @property
    def got(self) -> list[Any]:
        return [event.reply for event in self.told]


# -- events of what nobody waits for ----------------------------------------------------------------------


def test_what_a_forsaken_connection_says_reaches_nobody() -> None:
    lab = Lab()
    stranger = open_server()
    assert lab.handle(events.DataReceived(stranger, OK)) == []
    assert lab.handle(events.OpenConnectionCompleted(commands.OpenConnection(stranger), None)) == []


def test_the_end_of_an_upstream_is_kept_in_mind_and_the_clients_is_not() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    lab.opened()
    lab.answer(OK, server)
    assert lab.layer.closed == set()
    server.state = ConnectionState.CLOSED
    lab.handle(events.ConnectionClosed(server))
    assert lab.layer.closed == {server}
    lab.shut()
    assert lab.layer.closed == {server}


def test_the_server_that_a_tunnel_came_with_is_heard() -> None:
    lab = Lab()
    server = lab.layer.context.server
    server.state = ConnectionState.CLOSED
    assert closed(lab.handle(events.ConnectionClosed(server))) == [server]


def test_an_event_that_is_of_no_connection_is_never_of_a_forsaken_one() -> None:
    lab = Lab()
    assert lab.layer._is_of_forsaken(events.Start()) is False


# -- connections that have ended --------------------------------------------------------------------------


def ended(lab: Lab, host: str) -> Server:
    server = kept(lab, host)
    server.state = ConnectionState.CLOSED
    lab.layer.closed.add(server)
    return server


def test_a_client_that_stays_while_its_upstreams_come_and_go_does_not_pile_them_up() -> None:
    lab = Lab()
    gone, there = ended(lab, "a"), kept(lab, "b")
    lab.layer.forget_closed()
    assert gone not in lab.layer.connections
    assert there in lab.layer.connections
    assert lab.layer.closed == set()


def test_a_connection_that_has_half_ended_is_kept() -> None:
    lab = Lab()
    half = kept(lab)
    half.state = ConnectionState.CAN_WRITE
    lab.layer.closed.add(half)
    gone = ended(lab, "a")
    lab.layer.forget_closed()
    assert half in lab.layer.connections
    assert gone not in lab.layer.connections
    assert lab.layer.closed == {half}


@pytest.mark.parametrize("by", ["context", "flow", "waiting"])
def test_an_ended_connection_that_a_stream_refers_to_stays(by: str) -> None:
    lab = Lab()
    used, gone = ended(lab, "a"), ended(lab, "b")
    stream = lab.layer.streams[1] = SimpleNamespace(context=SimpleNamespace(server=None))
    lab.layer.streams[3] = SimpleNamespace(context=SimpleNamespace(server=None))
    if by == "context":
        stream.context.server = used
    if by == "flow":
        stream.flow = SimpleNamespace(server_conn=used)
    if by == "waiting":
        lab.layer.waiting_for_establishment[used] = [wanted()]
    lab.layer.forget_closed()
    assert used in lab.layer.connections
    assert gone not in lab.layer.connections
    assert lab.layer.closed == {used}


def test_what_was_dialled_for_a_connection_is_forgotten_with_it() -> None:
    """Another proxy stands between: the one that ended is the connection to it."""
    lab = Lab()
    server, proxy = kept(lab, "a"), Server(address=("proxy", 3128), state=ConnectionState.CLOSED)
    tunnel = SimpleNamespace(tunnel_connection=proxy)
    lab.layer.connections[server] = lab.layer.connections[proxy] = tunnel
    dialling, another = commands.OpenConnection(proxy), commands.OpenConnection(kept(lab, "b"))
    lab.layer.command_sources = {dialling: tunnel, another: tunnel}
    lab.layer.closed.add(proxy)
    assert lab.layer.dialled(server) is proxy
    lab.layer.forget_closed()
    assert server not in lab.layer.connections
    assert proxy not in lab.layer.connections
    assert lab.layer.command_sources == {another: tunnel}
    assert lab.layer.closed == set()


def test_the_server_that_a_tunnel_came_with_is_not_forgotten() -> None:
    lab = Lab()
    server = lab.layer.context.server
    lab.layer.connections[server] = SimpleNamespace()
    assert lab.layer._forget(server) is server
    assert server in lab.layer.connections


def test_nothing_is_looked_through_where_nothing_has_ended() -> None:
    lab = Lab()
    lab.layer.streams[1] = None  # would fail
    lab.layer.forget_closed()


# -- what a stream gives up -------------------------------------------------------------------------------


def test_a_connection_that_others_wait_for_stays_where_one_gives_it_up() -> None:
    lab = Lab()
    first, second = Asked(), Asked()
    mine, theirs = want(lab, first), want(lab, second)
    server = lab.opening[0].connection
    assert len(lab.opening) == 1
    elsewhere = want(lab, second, "b.example")
    assert lab.play(lab.layer.forsake(mine)) == []
    assert lab.layer.waiting_for_establishment[server] == [theirs]
    assert mine not in lab.layer.command_sources
    assert lab.layer.waiting_for_establishment[lab.opening[1].connection] == [elsewhere]
    assert closed(lab.play(lab.layer.forsake(theirs))) == [server]
    assert server not in lab.layer.waiting_for_establishment
    assert server not in lab.layer.connections
    assert not [one for one in lab.layer.command_sources if getattr(one, "connection", None) is server]


def test_what_is_given_up_is_found_among_those_of_other_places() -> None:
    lab = Lab()
    one = Asked()
    want(lab, one, "a.example")
    mine = want(lab, one, "b.example")
    assert closed(lab.play(lab.layer.forsake(mine))) == [lab.opening[1].connection]
    assert lab.opening[0].connection in lab.layer.waiting_for_establishment


def test_a_connection_that_failed_is_tried_again_by_the_next_request() -> None:
    lab = Lab()
    first, second = Asked(), Asked()
    want(lab, first)
    lab.opened(err="refused")
    assert first.got == [(None, "refused")]
    want(lab, second)
    assert second.got == []
    assert len(lab.opening) == 1
    server = lab.opening[0].connection
    lab.opened()
    assert second.got == [(server, None)]
    assert server in lab.layer.connections


# -- who is told ------------------------------------------------------------------------------------------


def test_each_stream_of_a_client_that_has_gone_is_told_and_one_is_asked() -> None:
    lab = Lab()
    assert (lab.layer.departures(), lab.layer.ask(), lab.layer.is_answering()) == ([], None, False)
    lab.layer.streams[1] = plain = SimpleNamespace(head_sent=True)
    assert (lab.layer.departures(), lab.layer.ask(), lab.layer.is_answering()) == ([], None, False)
    first, second = other(lab, 3), other(lab, 5)
    found = lab.layer.departures()
    assert [(type(one), one.stream) for one in found] == [(Departed, first), (Departed, second)]
    asks = lab.layer.ask()
    assert (type(asks), asks.stream) == (StillThere, first)
    assert lab.layer.is_answering() is False
    second.head_sent = True
    assert lab.layer.is_answering() is True
    assert plain is lab.layer.streams[1]
    lab.layer.give_up()


def test_an_event_reaches_its_stream_alone() -> None:
    lab = Lab()
    one, another = other(lab, 1), other(lab, 3)
    event = Stalled(one)
    lab.handle(event)
    assert (one.told, another.told) == ([event], [])
    del lab.layer.streams[1]
    lab.handle(Stalled(one))
    assert one.told == [event], "its end was told before"
    lab.layer.streams[1] = other(lab, 5)
    lab.layer.streams[1].stream_id = 1
    lab.handle(Stalled(one))
    assert (one.told, lab.layer.streams[1].told) == ([event], [])


def test_an_event_passes_over_layers_that_are_no_streams() -> None:
    lab = Lab()
    one = other(lab, 1)
    stranger: Any = SimpleNamespace(stream_id=7)
    lab.layer.streams[7] = stranger
    one.context.layers.insert(0, stranger)
    lab.handle(event := Stalled(one))
    assert one.told == [event]


# -- room on a connection ---------------------------------------------------------------------------------


def test_a_connection_over_http1_has_room_as_far_as_is_known_here() -> None:
    lab = Lab()
    server = kept(lab)
    assert lab.layer.has_room(server) is True
    assert lab.layer.may_serve(server, wanted()) is True
    one = Asked()
    want(lab, one)
    assert one.got == [(server, None)]
    assert lab.opening == []


@pytest.mark.parametrize(("room", "used", "has"), [(2, 1, True), (2, 2, False), (2, 3, False), (1, 0, True)])
def test_a_connection_over_http2_has_room_for_so_many_streams(
    room: int, used: int, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab()
    server = kept(lab, room=room)
    client = lab.layer.connections[server]
    monkeypatch.setattr(type(client.h2_conn), "open_outbound_streams", used)
    assert lab.layer.has_room(server) is has
    one = Asked()
    want(lab, one)
    assert one.got == ([(server, None)] if has else [])
    assert len(lab.opening) == (0 if has else 1)


def test_an_upstream_that_has_said_how_many_streams_it_takes_is_believed() -> None:
    lab = Lab()
    server = kept(lab, room=0)
    client: Any = lab.layer.connections[server]
    client.provisional_max_concurrency = None
    client.h2_conn = SimpleNamespace(
        remote_settings=SimpleNamespace(max_concurrent_streams=3), open_outbound_streams=2
    )
    assert lab.layer.has_room(server)
    client.h2_conn.open_outbound_streams = 3
    assert not lab.layer.has_room(server)
    client.provisional_max_concurrency = 4
    assert lab.layer.has_room(server)


def test_who_finds_the_first_connection_full_gets_another_one_that_is_not() -> None:
    lab = Lab()
    full, free = kept(lab, room=-1), kept(lab, room=1)
    one = Asked()
    want(lab, one)
    assert one.got == [(free, None)]
    assert {full, free} < set(lab.layer.connections)


def test_who_is_not_served_by_a_connection_gets_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    theirs = kept(lab)
    monkeypatch.setattr(lab.layer, "may_serve", lambda connection, _: connection is not theirs)
    one = Asked()
    want(lab, one)
    assert one.got == []
    assert lab.opening[0].connection is not theirs
    assert theirs in lab.layer.connections


def test_who_is_to_have_a_new_connection_gets_one() -> None:
    lab = Lab()
    kept(lab)
    command = wanted()
    lab.layer.command_sources[command] = Asked()
    lab.play(lab.layer.get_connection(command, reuse=False))
    assert len(lab.opening) == 1


def test_who_is_to_have_a_new_connection_gets_one_also_where_another_one_is_full() -> None:
    lab = Lab()
    kept(lab, room=-1)
    kept(lab, room=5)
    one = Asked()
    command = wanted()
    lab.layer.command_sources[command] = one
    lab.play(lab.layer.get_connection(command, reuse=False))
    assert one.got == []
    assert len(lab.opening) == 1


def test_streams_of_http2_share_no_connection_over_http1() -> None:
    lab = Lab()
    lab.client.alpn = b"h2"
    waiting = [Asked() for _ in range(3)]
    for one in waiting:
        want(lab, one)
    server = lab.opening[0].connection
    lab.opened()
    assert waiting[0].got == [(server, None)]
    assert [one.got for one in waiting[1:]] == [[], []]
    assert len(lab.opening) == 2


def test_order_is_kept_where_nothing_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    kept(lab, "b.example")
    before = lab.layer.connections
    want(lab, Asked(), "b.example")
    assert lab.layer.connections is before


@pytest.mark.parametrize(("room", "served"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_a_connection_that_is_there_serves_as_many_as_it_has_room_for(room: int, served: int) -> None:
    lab = Lab()
    lab.client.alpn = b"h2"
    waiting = [Asked() for _ in range(3)]
    for one in waiting:
        want(lab, one)
    assert len(lab.opening) == 1
    server = lab.opening[0].connection
    server.alpn, server.state = b"h2", ConnectionState.OPEN
    context = context_of(lab.client)
    context.server = server
    lab.layer.connections[server] = client = Http2Client(context)
    client.provisional_max_concurrency = room

    class Conn:
        @property
        def open_outbound_streams(self) -> int:
            return sum(map(len, (one.told for one in waiting)))

    client.h2_conn = Conn()  # type: ignore[assignment]
    lab.play(lab.layer.register_connection(RegisterHttpConnection(server, None)))
    assert [one.got for one in waiting[:served]] == [[(server, None)]] * served
    assert [one.got for one in waiting[served:]] == [[]] * (3 - served)


def test_all_who_wait_for_a_connection_over_http1_are_told_of_it() -> None:
    lab = Lab()
    waiting = [Asked() for _ in range(3)]
    for one in waiting:
        want(lab, one)
    server = lab.opening[0].connection
    assert sent(lab.opened()) == b""
    assert [one.got for one in waiting] == [[(server, None)]] * 3
    assert server in lab.layer.connections
