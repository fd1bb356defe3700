"""The protocol that was agreed on with an upstream is spoken, with our limits from the first byte."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpClient, RegisterHttpConnection
from mitmproxy.proxy.layers.http._http3 import Http3Client

from presign_proxy.mitm.flow.http1_client import GuardedHttp1Client
from presign_proxy.mitm.flow.http2_client import GuardedHttp2Client
from presign_proxy.mitm.flow.upstream_protocol import GuardedHttpClient


class Above:
    """The HTTP layer, as far as an upstream's side asks it."""

    def __init__(self) -> None:
        self.withholding: set[Any] = set()

    def is_behind(self, _: int) -> bool:
        return False


def guarded(alpn: bytes | None, state: ConnectionState) -> tuple[Any, Above]:
    options = Options()
    Proxyserver().load(options)
    client = Client(peername=("192.0.2.1", 1), sockname=("192.0.2.2", 2), state=ConnectionState.OPEN)
    context = Context(client, options)
    context.server = Server(address=("api.example", 443))
    context.server.peername = ("192.0.2.3", 443)
    context.server.alpn, context.server.state = alpn, state
    stock, above = HttpClient(context), Above()
    GuardedHttpClient.guard(stock, above)
    return stock, above


def registered(found: list[Any]) -> str | None:
    (one,) = [one for one in found if isinstance(one, RegisterHttpConnection)]
    error: str | None = one.err
    return error


@pytest.mark.parametrize(
    ("alpn", "kind"),
    [
        (b"h2", GuardedHttp2Client),
        (b"http/1.1", GuardedHttp1Client),
        (b"http/1.0", GuardedHttp1Client),
        (b"", GuardedHttp1Client),
        (None, GuardedHttp1Client),
    ],
)
def test_what_was_agreed_on_is_spoken(alpn: bytes | None, kind: type) -> None:
    side, _ = guarded(alpn, ConnectionState.OPEN)
    found = list(side.handle_event(events.Start()))
    assert type(side.child_layer) is kind
    assert isinstance(found[-1], RegisterHttpConnection)
    assert found[-1].connection is side.context.server
    assert registered(found) is None
    assert not [one for one in found if isinstance(one, commands.OpenConnection)]


def test_http3_is_left_to_mitmproxy() -> None:
    side, _ = guarded(b"h3", ConnectionState.OPEN)
    assert isinstance(side._choose(b"h3"), Http3Client)


def test_the_first_that_an_upstream_over_http2_hears_are_our_limits() -> None:
    """mitmproxy opens windows of two gigabytes, which cannot be taken back."""
    side, above = guarded(b"h2", ConnectionState.OPEN)
    found = list(side.handle_event(events.Start()))
    assert side.child_layer.http_layer is above
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    for one in found:
        if isinstance(one, commands.SendData):
            server.receive_data(one.data)
    assert server.remote_settings.initial_window_size == 1024 * 1024
    assert server.remote_settings.max_frame_size == 16 * 1024


@pytest.mark.parametrize("error", [None, "refused"])
def test_a_connection_is_opened_first_and_nothing_is_said_where_that_fails(error: str | None) -> None:
    side, _ = guarded(b"http/1.1", ConnectionState.CLOSED)
    (opening,) = side.handle_event(events.Start())
    assert isinstance(opening, commands.OpenConnection)
    assert opening.connection is side.context.server
    if error is None:
        side.context.server.state = ConnectionState.OPEN
    found = list(side.handle_event(events.OpenConnectionCompleted(opening, error)))
    assert registered(found) == error
    assert isinstance(getattr(side, "child_layer", None), GuardedHttp1Client) is (error is None)


def test_what_comes_later_is_led_to_the_protocol() -> None:
    side, _ = guarded(b"http/1.1", ConnectionState.OPEN)
    list(side.handle_event(events.Start()))
    assert side._handle_event == side.child_layer.handle_event
