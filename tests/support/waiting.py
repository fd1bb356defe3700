"""An HTTP layer with streams that can be woken, without sockets: the test says what happens, and sees what is
done about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.mode_specs import ProxyMode

from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.flow.http1_server import WaitingHttp1Server
from presign_proxy.mitm.flow.stream_events import StreamEvent
from presign_proxy.mitm.flow.upstream_connections import WaitingHttpLayer
from presign_proxy.mitm.flow.waiting_stream import WaitingStream


def context_of(client: Client) -> Context:
    options = Options()
    Proxyserver().load(options)
    return Context(client, options)


class Stream(WaitingStream):
    """Notes what it is told beside mitmproxy's own events."""

    def _handle_event(self, event: events.Event) -> Iterator[Any]:
        if isinstance(event, StreamEvent):
            self.told.append(event)
        else:
            yield from super()._handle_event(event)

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.told: list[Any] = []


class Server(WaitingHttp1Server):
    pass


class Layer(WaitingHttpLayer):
    def __init__(self, context: Context, clients: ClientStates) -> None:
        super().__init__(context, HTTPMode.regular)
        self.closed = set()
        self.full: set[tuple[int, int]] = set()
        server = Server(context.fork())
        server.clients = clients
        self.connections[context.client] = server

    def make_stream(self, stream_id: int) -> Iterator[Any]:
        stream = Stream(self.context.fork(), stream_id)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())

    def is_full(self, stream_id: int, most: int) -> bool:
        return (stream_id, most) in self.full


class Lab:
    """A client of HTTP/1 that uses the gateway as its proxy."""

    def __init__(self) -> None:
        self.client = Client(
            peername=("192.0.2.1", 1),
            sockname=("192.0.2.2", 2),
            state=ConnectionState.OPEN,
            proxy_mode=ProxyMode.parse("regular"),
        )
        self.clients = ClientStates()
        self.layer: Any = Layer(context_of(self.client), self.clients)
        self.hooks = True
        """Whether hooks end at once."""
        self.hooked: list[Any] = []
        self.opening: list[Any] = []
        self.done: list[Any] = []
        self.handle(events.Start())

    @property
    def server(self) -> Any:
        return self.layer.connections[self.client]

    def handle(self, event: events.Event) -> list[Any]:
        """What is done about an event, but for hooks that end at once."""
        return self.play(self.layer.handle_event(event))

    def play(self, found: Iterator[Any]) -> list[Any]:
        first = len(self.done)
        for command in list(found):
            if isinstance(command, commands.StartHook):
                self.hooked.append(command)
                if self.hooks and command.blocking:
                    self.handle(events.HookCompleted(command))
            elif isinstance(command, commands.OpenConnection):
                self.opening.append(command)
            elif not isinstance(command, commands.Log):
                self.done.append(command)
        return self.done[first:]

    def say(self, text: str) -> list[Any]:
        data = text.replace("\n", "\r\n").encode()
        return self.handle(events.DataReceived(self.client, data))

    def ask(self, *fields: str, version: str = "1.1", host: str = "api.example", path: str = "/") -> Any:
        """A request whose stream waits for its connection, unless it has a body."""
        lines = [f"GET http://{host}{path} HTTP/{version}", f"Host: {host}", *fields, "", ""]
        self.say("\n".join(lines))
        return self.layer.streams[max(self.layer.streams)]

    def opened(self, index: int = -1, err: str | None = None) -> list[Any]:
        """The upstream is connected, or cannot be."""
        command = self.opening.pop(index)
        if err is None:
            command.connection.state = ConnectionState.OPEN
        else:
            command.connection.error = err
        return self.handle(events.OpenConnectionCompleted(command, err))

    def shut(self) -> list[Any]:
        """The client says no more."""
        self.client.state &= ~ConnectionState.CAN_READ
        return self.handle(events.ConnectionClosed(self.client))

    def answer(self, data: bytes, server: Any) -> list[Any]:
        return self.handle(events.DataReceived(server, data))


def sent(found: list[Any]) -> bytes:
    return b"".join(one.data for one in found if isinstance(one, commands.SendData))


def closed(found: list[Any]) -> list[Any]:
    return [one.connection for one in found if isinstance(one, commands.CloseConnection)]
