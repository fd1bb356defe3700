"""When another parser may read behind mitmproxy's: whatever is still here of a client's keeps it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.proxy.layers.http._http1 import Http1Server

from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.flow.http1_server import GuardedHttp1Server
from presign_proxy.mitm.flow.http_layer import GuardedHttpLayer
from support.waiting import context_of

SERVER = Server(address=("api.example", 80))


def resting() -> tuple[Any, Any]:
    """A layer between two requests, and its client's side."""
    client = Client(peername=("192.0.2.1", 1), sockname=("192.0.2.2", 2), state=ConnectionState.OPEN)
    context = context_of(client)
    top: Any = GuardedHttpLayer(context, HTTPMode.regular)
    server: Any = GuardedHttp1Server(context.fork(), ClientStates())
    list(server.handle_event(events.Start()))
    top.connections[client] = server
    top.connections[SERVER] = object()
    return top, server


def test_between_two_requests_another_parser_may_read_on() -> None:
    top, server = resting()
    assert server.is_between_requests
    assert top.is_between_requests()
    woken = commands.RequestWakeup(1)
    top.command_sources[woken] = object()  # of a stream that is over, which it does not concern any more
    assert top.is_between_requests()


@pytest.mark.parametrize(
    "change",
    [
        lambda server: setattr(server, "state", server.read_body),
        lambda server: setattr(server, "state", server.wait),
        lambda server: setattr(server, "state", server.done),
        lambda server: setattr(server, "state", server.drop),
        lambda server: setattr(server, "state", server.passthrough),
        lambda server: server.buf.__iadd__(b"G"),
        lambda server: setattr(server, "request", http.Request.make("GET", "http://x/")),
        lambda server: setattr(server, "response", http.Response.make(100)),
        lambda server: setattr(server, "request_done", True),
        lambda server: setattr(server, "response_done", True),
        lambda server: setattr(server, "_empty_lines", 1),
        lambda server: setattr(server, "_endless", 1),
        lambda server: setattr(server, "_stays", True),
        lambda server: setattr(server, "_paused", object()),
        lambda server: server._paused_event_queue.append(events.Start()),
    ],
)
def test_what_the_clients_side_has_keeps_the_client(change: Callable[[Any], object]) -> None:
    top, server = resting()
    change(server)
    assert not server.is_between_requests
    assert not top.is_between_requests()


@pytest.mark.parametrize(
    "change",
    [
        lambda top: top.streams.update({1: object()}),
        lambda top: top.waiting_for_establishment.update({SERVER: []}),
        lambda top: top.command_sources.update({HttpRequestHook(None): object()}),  # type: ignore[arg-type]
        lambda top: top.command_sources.update({commands.OpenConnection(SERVER): object()}),
        lambda top: setattr(top, "broken", True),
        lambda top: setattr(top, "_paused", object()),
        lambda top: top._paused_event_queue.append(events.Start()),
        lambda top: top.connections.clear(),
        lambda top: top.connections.update({top.context.client: Http1Server(top.context.fork())}),
    ],
)
def test_what_goes_on_beside_keeps_the_client(change: Callable[[Any], object]) -> None:
    top, _ = resting()
    change(top)
    assert not top.is_between_requests()


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nuPGRADE: h2c\r\n\r\n", True),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_behind_what_may_be_no_http_nobody_else_reads(head: bytes, stays: bool) -> None:
    _, server = resting()
    list(server.handle_event(events.DataReceived(server.conn, head)))
    assert server._stays is stays
    server.state = server.read_headers
    server.request_done, server.request = False, None
    assert server.is_between_requests is not stays


def test_only_what_was_asked_for_here_is_awaited_here() -> None:
    top, _ = resting()
    woken = commands.RequestWakeup(1)
    assert not top.awaits(events.Wakeup(woken))
    top.command_sources[woken] = object()
    assert top.awaits(events.Wakeup(woken))
    assert top.awaits(events.ConnectionClosed(SERVER))
    assert not top.awaits(events.ConnectionClosed(Server(address=("other.example", 80))))
    assert not top.awaits(events.DataReceived(top.context.client, b"GET"))
    assert not top.awaits(events.Start())
