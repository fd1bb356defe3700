"""A stream that waits for its connection can be woken, and who says no more may still be answered."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.http import Response
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestProtocolError
from mitmproxy.proxy.layers.http._hooks import HttpErrorHook

from presign_proxy.mitm.flow.layer_stack import descendants
from presign_proxy.mitm.flow.stream_events import Departed, Overdue, Stalled, StillThere
from presign_proxy.mitm.half_closed import PROBE
from support.waiting import Lab, closed, sent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def gone(stream: Any) -> RequestProtocolError:
    return RequestProtocolError(stream.stream_id, "it was reset", ErrorCode.CLIENT_DISCONNECTED)


def errors(lab: Lab) -> list[str]:
    return [one.flow.error.msg for one in lab.hooked if isinstance(one, HttpErrorHook)]


# -- while it waits for its connection --------------------------------------------------------------------


def test_a_request_is_answered_by_the_upstream_that_it_waited_for() -> None:
    lab = Lab()
    stream = lab.ask()
    assert (stream.uploading, stream.forsaken, stream.head_sent, stream.queued) == (False, False, False, 0)
    assert stream.is_connecting is True
    server = lab.opening[0].connection
    assert sent(lab.opened()).startswith(b"GET / HTTP/1.1\r\n")
    assert stream.is_connecting is False
    assert sent(lab.answer(OK, server)) == OK
    assert lab.layer.streams == {}


def test_a_stream_knows_the_layer_that_leads_it_and_asks_it_whether_its_body_is_held() -> None:
    lab = Lab()
    stream = lab.ask()
    assert stream.http_layer is lab.layer
    assert stream.is_held is False
    lab.layer.full.add((1, 0))
    assert stream.is_held is True


def test_a_stream_that_waits_for_a_hook_does_not_connect() -> None:
    lab = Lab()
    lab.hooks = False
    stream = lab.ask()
    assert stream.is_connecting is False
    paused = stream._paused
    list(stream.handle_event(Overdue(stream)))
    list(stream.handle_event(gone(stream)))
    assert stream._paused is paused, "a hook is waited for all the same"


def test_what_comes_of_a_body_while_a_stream_waits_is_counted() -> None:
    lab = Lab()
    lab.hooks = False
    lab.say("POST http://api.example/ HTTP/1.1\nHost: api.example\nContent-Length: 9\n\nabc")
    stream = lab.layer.streams[1]
    lab.say("de")
    assert stream.queued == 5
    lab.hooks = True
    lab.handle(events.HookCompleted(lab.hooked[-1]))
    lab.say("fg")
    assert stream.queued == 5


def test_a_client_that_resets_its_stream_takes_the_connection_along() -> None:
    lab = Lab()
    stream = lab.ask()
    server, paused = lab.opening[0].connection, stream._paused
    found = lab.play(lab.layer.event_to_child(stream, gone(stream)))
    assert closed(found) == [server]
    assert server not in lab.layer.connections
    assert stream.forsaken is True
    assert stream._paused is None
    assert inspect.getgeneratorstate(paused.generator) == inspect.GEN_CLOSED
    assert errors(lab) == ["it was reset"]
    assert lab.handle(events.OpenConnectionCompleted(lab.opening[0], None)) == [], "nobody waits for it"
    assert sent(lab.done) == b""


def test_a_stream_that_was_reset_stays_so() -> None:
    lab = Lab()
    stream = lab.ask()
    list(stream.handle_event(gone(stream)))
    list(stream.handle_event(Stalled(stream)))
    assert stream.forsaken is True


def test_a_stream_that_is_overdue_waits_no_more_and_is_told() -> None:
    lab = Lab()
    stream = lab.ask()
    server = lab.opening[0].connection
    found = lab.handle(event := Overdue(stream))
    assert closed(found) == [server]
    assert stream.told == [event]
    assert (stream.is_connecting, stream.forsaken) == (False, False)


def test_a_stream_that_does_not_connect_is_not_overdue() -> None:
    lab = Lab()
    stream = lab.ask()
    lab.opened()
    assert lab.handle(Overdue(stream)) == []
    assert stream.told == []


def test_a_stream_that_goes_on_waiting_hears_of_nothing_else() -> None:
    lab = Lab()
    stream = lab.ask()
    assert lab.handle(Stalled(stream)) == []
    assert stream.is_connecting
    assert stream.told == []
    lab.opened()
    assert [type(one) for one in stream.told] == [Stalled]


@pytest.mark.parametrize("whole", [False, True])
def test_a_body_that_has_come_in_full_while_it_waited_is_not_waited_for(whole: bool) -> None:
    lab = Lab()
    lab.hooks = False
    lab.say("POST http://api.example/ HTTP/1.1\nHost: api.example\nContent-Length: 5\n\nabc")
    lab.layer.streams[1].flow.request.stream = True
    lab.hooks = True
    lab.handle(events.HookCompleted(lab.hooked[-1]))
    stream = lab.layer.streams[1]
    stream.uploading = True
    assert stream.is_connecting
    lab.say("de" if whole else "d")
    lab.handle(Overdue(stream))
    assert stream.uploading is not whole


def test_what_is_for_a_stream_in_a_tunnel_is_passed_on_and_not_taken() -> None:
    lab = Lab()
    stream = lab.ask()
    lab.opened()
    other: Any = SimpleNamespace()
    given = [kind(other) for kind in (Departed, StillThere, Overdue, Stalled)]
    for event in given:
        assert list(stream.handle_event(event)) == []
    assert stream.told == given
    assert not stream.forsaken


# -- a client that has gone, or may have ------------------------------------------------------------------


def test_a_stream_whose_client_has_gone_is_told_once() -> None:
    lab = Lab()
    stream = lab.ask()
    server = lab.opening[0].connection
    assert closed(lab.handle(Departed(stream))) == [server]
    assert errors(lab) == ["Client disconnected."]
    assert stream.forsaken
    lab.play(stream.handle_event(Departed(stream)))
    assert errors(lab) == ["Client disconnected."]


def test_a_stream_that_was_forsaken_is_not_told_again() -> None:
    lab = Lab()
    stream = lab.ask()
    lab.opened()
    stream.forsaken = True
    assert lab.play(stream.handle_event(Departed(stream))) == []
    assert errors(lab) == []


def test_a_stream_from_which_a_tunnel_goes_on_has_nothing_to_end() -> None:
    lab = Lab()
    stream = lab.ask()
    stream.child_layer = lab.server
    lab.handle(Departed(stream))
    assert errors(lab) == []
    assert stream.is_connecting
    assert not stream.forsaken


@pytest.mark.parametrize(("begun", "version", "asks"), [
    (False, "1.1", True), (True, "1.1", False), (False, "1.0", False), (True, "1.0", False),
])  # fmt: skip
def test_a_client_is_asked_in_front_of_its_answer_only(begun: bool, version: str, asks: bool) -> None:
    lab = Lab()
    stream = lab.ask(version=version)
    stream.head_sent = begun
    assert sent(lab.handle(StillThere(stream))) == (PROBE if asks else b"")
    assert stream.told == []


def test_a_client_that_says_no_more_behind_its_request_is_asked_and_answered() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    found = lab.shut()
    assert (sent(found), closed(found)) == (PROBE, [])
    assert lab.client in lab.clients.half_closed
    lab.opened()
    found = lab.answer(OK, server)
    assert sent(found) == OK
    assert closed(found) == [lab.client], "it has asked for nothing else"


def test_a_client_that_says_no_more_in_its_answer_is_not_asked() -> None:
    lab = Lab()
    stream = lab.ask()
    server = lab.opening[0].connection
    lab.opened()
    lab.hooks = False
    lab.answer(OK[:-1], server)
    stream.flow.response.stream = True
    lab.handle(events.HookCompleted(lab.hooked[-1]))
    assert lab.shut() == []
    assert lab.client in lab.clients.half_closed


@pytest.mark.parametrize("why", ["1.0", "closed", "nothing is asked"])
def test_a_client_that_cannot_be_there_any_more_is_taken_to_be_gone(why: str) -> None:
    lab = Lab()
    stream = lab.ask(version="1.0" if why == "1.0" else "1.1")
    server = lab.opening[0].connection
    if why == "closed":
        lab.client.state = ConnectionState.CLOSED
    if why == "nothing is asked":
        lab.server.request = None
    found = lab.shut()
    assert closed(found) == ([] if why == "closed" else [lab.client]) + [server]
    assert sent(found) == b""
    assert stream.forsaken
    assert lab.client not in lab.clients.half_closed


def test_what_is_sent_ahead_waits_for_its_turn() -> None:
    lab = Lab()
    lab.ask()
    assert lab.say("GET http://api.example/2 HTTP/1.1\n") == []
    assert lab.client not in lab.clients.half_closed
    assert bytes(lab.server.buf) == b"GET http://api.example/2 HTTP/1.1\r\n"


def test_all_that_was_sent_ahead_is_answered_before_the_end() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    lab.say("GET http://api.example/2 HTTP/1.1\nHost: api.example\n\n")
    lab.shut()
    lab.opened()
    found = lab.answer(OK, server)
    assert closed(found) == []
    assert b"GET /2 " in sent(found)
    found = lab.answer(OK, server)
    assert sent(found) == OK
    assert closed(found) == [lab.client]


def test_a_client_that_says_more_may_ask_again() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    lab.opened()
    assert closed(lab.answer(OK, server)) == []


def test_half_a_head_behind_an_answer_is_not_waited_for_after_the_end() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    lab.say("GET http://api.exa")
    lab.shut()
    lab.opened()
    assert closed(lab.answer(OK, server)) == [lab.client]


def test_half_a_body_behind_an_answer_is_not_waited_for_after_the_end() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    lab.say("POST http://api.example/2 HTTP/1.1\nHost: api.example\nContent-Length: 5\n\nabc")
    lab.shut()
    lab.opened()
    found = lab.answer(OK, server)
    assert {*closed(found)} == {lab.client}
    assert lab.client not in lab.clients.half_closed, "it has gone: nobody asks it"
    assert lab.layer.streams == {}
    assert len(errors(lab)) == 1
    assert b"POST" not in sent(found)


def test_the_end_of_a_request_ends_no_answer_of_a_client_that_says_no_more() -> None:
    lab = Lab()
    lab.ask()
    lab.clients.half_closed.add(lab.client)
    lab.server.state = lab.server.read_headers
    assert lab.play(lab.server.mark_done(request=True)) == []
    assert lab.play(lab.server.mark_done()) == []


def test_a_body_behind_an_early_answer_is_not_taken_for_the_next_request() -> None:
    lab = Lab()
    lab.say("POST http://api.example/ HTTP/1.1\nHost: api.example\nContent-Length: 99\n\nabc")
    lab.server.response = Response.make(413)
    assert lab.play(lab.server.mark_done(response=True)) == []
    assert lab.server.request is not None
    lab.say("GET http://api.example/smuggled HTTP/1.1\nHost: api.example\n\n")
    assert list(lab.layer.streams) == [1]


def test_what_a_client_that_has_gone_has_sent_ahead_is_for_nobody() -> None:
    lab = Lab()
    lab.ask()
    server = lab.opening[0].connection
    lab.say("GET http://api.example/2 HTTP/1.1\nHost: api.example\n\n")
    lab.opened()
    lab.clients.gone.add(lab.client)
    lab.answer(OK, server)
    assert lab.layer.streams == {}
    assert bytes(lab.server.buf) == b""


def test_the_rest_of_a_refused_upload_is_dropped() -> None:
    lab = Lab()
    lab.server.state = lab.server.drop
    lab.server.buf += b"more of it"
    assert lab.say("and more") == []
    assert bytes(lab.server.buf) == b""


def test_the_layers_below_one_are_found() -> None:
    lab = Lab()
    stream = lab.ask()
    top: Any = lab.layer.connections[lab.opening[0].connection]
    assert descendants(None) == []
    assert descendants(top) == [top]
    lab.opened()
    assert descendants(top) == [top, top.child_layer]
    assert stream is not top
