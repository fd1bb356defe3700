"""One side of HTTP/2 by itself, and its peer. The peer is h2; the layer is mitmproxy's, with our limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
from mitmproxy import http
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders

from presign_proxy.limits.client_shares import Shares
from presign_proxy.mitm.flow.http2_client import GuardedHttp2Client
from presign_proxy.mitm.flow.http2_server import GuardedHttp2Server
from presign_proxy.mitm.http2_turns import Turns

HEAD = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/")]


class Layer:
    """Says of streams what the HTTP layer would."""

    def __init__(self) -> None:
        self.streams: dict[int, Any] = {}
        self.held: set[int] = set()
        self.withholding: set[Any] = set()
        self.shares = Shares()
        self.called: list[Any] = []
        """Those whose turn has come, and who were not told yet."""
        self.ends: list[Any] = []
        """What is called at the end of this turn of the event loop."""
        self.starts = Turns(self.called.append, later=self.ends.append)

    @property
    def clients(self) -> Any:
        return SimpleNamespace(fairness=self)

    def is_full(self, stream_id: int) -> bool:
        return stream_id in self.held

    is_behind = is_full


class Side:
    """One of the two, and its peer."""

    def __init__(self, of: str) -> None:
        options = Options()
        Proxyserver().load(options)
        client = Client(
            peername=("192.0.2.1", 1), sockname=("192.0.2.2", 2), state=ConnectionState.OPEN, alpn=b"h2"
        )
        context = Context(client, options)
        self.layer = Layer()
        self.side: Any
        if of == "client":
            self.side = GuardedHttp2Server(context, self.layer)  # type: ignore[arg-type]
        else:
            context.server = Server(address=("api.example", 443))
            context.server.peername = ("192.0.2.3", 443)
            context.server.alpn, context.server.state = b"h2", ConnectionState.OPEN
            self.side = GuardedHttp2Client(context, self.layer)
        self.conn = self.side.conn
        self.peer = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=of == "client", header_encoding="latin-1")
        )
        self.hears = True
        """Whether the peer makes something of what it is sent; h2 knows nothing of what is said by hand."""
        self.commands: list[Any] = []
        self.heard: list[Any] = []
        self.peer.initiate_connection()
        self.handle(events.Start())
        self.flush()

    def handle(self, event: events.Event) -> list[Any]:
        """The commands that it has for an event; what it sends is heard by its peer."""
        found = list(self.side.handle_event(event))
        for one in found:
            if isinstance(one, commands.SendData):
                assert one.connection is self.conn
                self.heard += self.peer.receive_data(one.data) if self.hears else []
        self.commands += found
        return found

    def say(self, data: bytes, *, turns: bool = True) -> list[Any]:
        """Args: turns: whether the turns of the event loop pass that this takes."""
        found = self.handle(events.DataReceived(self.conn, data))
        while turns and self.layer.ends:
            found += self.turn()
        return found

    def turn(self) -> list[Any]:
        """The next turn of the event loop, as far as streams are begun with in it."""
        ends, self.layer.ends[:] = list(self.layer.ends), []
        for end in ends:
            end()
        called, self.layer.called[:] = list(self.layer.called), []
        return [command for one in called for command in self.handle(one)]

    def flush(self) -> list[Any]:
        return self.say(self.peer.data_to_send())

    def begin(self, stream: int = 1, fields: Any = (), *, end: bool = False) -> list[Any]:
        self.peer.send_headers(stream, [*HEAD, *fields], end_stream=end)
        self.layer.streams[stream] = object()
        return self.flush()

    def told(self, kind: type) -> list[Any]:
        """What the HTTP layer was told of that kind."""
        return [
            one.event for one in self.commands if isinstance(one, ReceiveHttp) and isinstance(one.event, kind)
        ]

    def of(self, kind: type) -> list[Any]:
        """What its peer has heard of that kind."""
        return [one for one in self.heard if isinstance(one, kind)]

    def closes(self) -> bool:
        return any(isinstance(one, commands.CloseConnection) for one in self.commands)

    def wakeups(self) -> list[Any]:
        return [one for one in self.commands if isinstance(one, commands.RequestWakeup)]


def ask(side: Side, stream: int = 1) -> None:
    request = http.Request.make("POST", "https://api.example/", b"", {})
    request.http_version, request.authority = "HTTP/2.0", "api.example"
    side.handle(RequestHeaders(stream, request, end_stream=False))


def answers(side: Side, stream: int = 1, body: bytes = b"") -> None:
    side.peer.send_headers(stream, [(":status", "200")])
    if body:
        side.peer.send_data(stream, body)
    side.flush()
