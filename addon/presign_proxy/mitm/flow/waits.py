"""Waiting: for an upstream connection, which can be given up, and for the answer, which cannot.

mitmproxy's stream sleeps until its connection is there. It does not hear that its client has reset it, it
has no deadline, and what was dialled for it goes on being dialled. Here it stops waiting when its client has
gone or its time is over, and a connection that nobody waits for any more is closed.
"""

from __future__ import annotations

from typing import Any

from h11._receivebuffer import ReceiveBuffer
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpLayer, HttpStream, RegisterHttpConnection
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client

from ..client_state import ClientStates
from ..half_closed import PROBE, may_be_there
from .coalesce import Commands


class _ForStream(events.Event):
    """Led to its stream by every layer above."""

    def __init__(self, stream: WaitingStream) -> None:
        self.stream = stream


class Overdue(_ForStream):
    """A stream has waited for its connection for too long."""


class StillThere(_ForStream):
    """The client of a stream has long said no more: ask whether it is there."""


class Departed(_ForStream):
    """The client of a stream has gone."""


class Stalled(_ForStream):
    """Nothing more of the body of a request has come for too long."""


class Drained(_ForStream):
    """Others have had their turn, and the client has taken what there was of its answer."""


class WaitingStream(HttpStream):
    """A stream that can be woken while it waits for its connection."""

    uploading = False
    forsaken = False
    """Whether it was told that its client has gone, or wants no answer any more."""
    head_sent = False
    """Whether the answer has begun."""
    queued = 0
    """Bytes of the body that mitmproxy keeps meanwhile."""

    @property
    def http_layer(self) -> Any:
        return self.context.layers[self.context.layers.index(self) - 1]

    @property
    def is_held(self) -> bool:
        """Whether the body waits for a hook, a connection or a window, and not for the client."""
        return bool(self.http_layer.is_full(self.stream_id, 0))

    @property
    def is_connecting(self) -> bool:
        return self._paused is not None and isinstance(self._paused.command, GetHttpConnection)

    def handle_event(self, event: events.Event) -> Commands:
        if self._paused is not None and isinstance(event, RequestData):
            self.queued += len(event.data)
        if isinstance(event, Departed) and event.stream is self:
            yield from self._depart()
            return
        self.forsaken |= isinstance(event, RequestProtocolError)
        if isinstance(event, StillThere) and event.stream is self:
            yield from self._ask()
            return
        if isinstance(event, Overdue) and event.stream is self and not self.is_connecting:
            return
        if isinstance(event, Overdue | RequestProtocolError) and self.is_connecting:
            yield from self._stop_waiting()
        yield from super().handle_event(event)

    def _depart(self) -> Commands:
        """What mitmproxy tells a stream where its client ends; of one that said no more nobody knew then
        whether it has gone. Where a tunnel goes on from here, this stream has nothing to end.
        """
        if not self.forsaken and self.child_layer is None:
            code = ErrorCode.CLIENT_DISCONNECTED
            yield from self.handle_event(RequestProtocolError(self.stream_id, "Client disconnected.", code))

    def _ask(self) -> Commands:
        if not self.head_sent and self.flow.request.is_http11:
            yield commands.SendData(self.context.client, PROBE)

    def _stop_waiting(self) -> Commands:
        """From here on the stream is as it was before it asked for a connection, and hears events again."""
        paused, self._paused = self._paused, None
        if paused is None:
            return
        paused.generator.close()
        if any(isinstance(event, RequestEndOfMessage) for event in self._paused_event_queue):
            self.uploading = False
        # mitmproxy would tell an upstream of the end that it does not talk to yet.
        self.client_state = self.state_consume_request_body
        yield from self.http_layer.forsake(paused.command)


def descendants(top: Layer | None) -> list[Layer]:
    found: list[Layer] = []
    while isinstance(top, Layer):
        found.append(top)
        top = getattr(top, "child_layer", None)
    return found


def _room(client: Http2Client) -> int:
    """How many streams may be begun now, as mitmproxy counts them."""
    most = client.provisional_max_concurrency or client.h2_conn.remote_settings.max_concurrent_streams
    return most - client.h2_conn.open_outbound_streams


class WaitingHttp1Server(Http1Server):
    """The client's side of HTTP/1. A client that ends what it says may still wait for an answer."""

    clients: ClientStates

    def wait(self, event: events.Event) -> Commands:
        """A client of HTTP/1.0 cannot be asked whether it is there: it is taken to be gone."""
        client = self.context.client
        askable = self.request is not None and self.request.is_http11
        if not isinstance(event, events.ConnectionClosed) or not askable or not may_be_there(client):
            yield from super().wait(event)
            return
        self.clients.half_closed.add(client)
        if self.response is None:
            yield commands.SendData(client, PROBE)

    def drop(self, event: events.Event) -> Commands:  # noqa: ARG002 - as a state of mitmproxy's
        """The rest of a refused upload comes: nobody takes it apart any more."""
        self.buf = ReceiveBuffer()
        yield from ()

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        client = self.context.client
        if self.clients.has_departed(client):
            self.buf = ReceiveBuffer()  # what it has sent ahead is for nobody, and would be ended by nobody
        yield from super().mark_done(request=request, response=response)
        if client in self.clients.half_closed:
            yield from self._end_reading()

    def _end_reading(self) -> Commands:
        """All that had come is read: a client that says no more has asked for nothing else, or for half."""
        if self.state == self.read_headers:
            yield commands.CloseConnection(self.context.client)
        elif self.state == self.read_body:
            self.clients.half_closed.discard(self.context.client)
            yield from self.state(events.ConnectionClosed(self.context.client))


class WaitingHttpLayer(HttpLayer):
    """An HTTP layer that lets go of connections nobody waits for, and of those that have ended."""

    closed: set[Connection]
    """Upstream connections whose end was told, and that may still be known."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, _ForStream):
            yield from self._to_stream(event)
        elif not self._is_of_forsaken(event):
            yield from super()._handle_event(event)
            if isinstance(event, events.ConnectionClosed) and event.connection is not self.context.client:
                self.closed.add(event.connection)

    def forget_closed(self) -> None:
        """Let go of connections that have ended, before another one is opened.

        mitmproxy keeps each that there ever was, and looks at all of them for each request: one client that
        stays, and whose upstream does not, would take a worker to itself. Nothing more comes of a connection
        whose end was told, and what is still sent to it goes nowhere. One that a stream refers to stays.
        """
        ended = {one for one in self.closed if one.state is ConnectionState.CLOSED}
        if not ended:
            return
        used: set[Any] = set(self.waiting_for_establishment)
        for stream in self.streams.values():
            used |= {stream.context.server, getattr(getattr(stream, "flow", None), "server_conn", None)}
        for one in list(self.connections):
            if one not in used and self.dialled(one) in ended:
                self._forget(one)
        self.closed.intersection_update(map(self.dialled, self.connections))

    def _to_stream(self, event: _ForStream) -> Commands:
        """Lead an event to its stream, be it at the other end of a tunnel."""
        for one in event.stream.context.layers:
            if isinstance(one, WaitingStream) and self.streams.get(one.stream_id) is one:
                yield from self.event_to_child(one, event)

    def _is_of_forsaken(self, event: events.Event) -> bool:
        """Whether it comes from a connection that nobody waits for any more."""
        if isinstance(event, events.CommandCompleted):
            return event.command not in self.command_sources
        if not isinstance(event, events.ConnectionEvent):
            return False
        known = self.connections
        return event.connection not in known and event.connection is not self.context.server

    def forsake(self, command: GetHttpConnection) -> Commands:
        """Take back that a connection is asked for, and close it if nobody else waits for it."""
        self.command_sources.pop(command, None)
        for connection, waiting in list(self.waiting_for_establishment.items()):
            kept = [one for one in waiting if one is not command]
            if len(kept) == len(waiting):
                continue
            self.waiting_for_establishment[connection] = kept
            if not kept:
                del self.waiting_for_establishment[connection]
                yield commands.CloseConnection(self._forget(connection))

    def give_up(self) -> None:
        """The client has gone. Its streams are told of it, one by one."""

    def departures(self) -> list[events.Event]:
        """What tells them."""
        return [Departed(one) for one in self.streams.values() if isinstance(one, WaitingStream)]

    def ask(self) -> events.Event | None:
        """What asks whether the client is there, in front of its answer."""
        return next(
            (StillThere(one) for one in self.streams.values() if isinstance(one, WaitingStream)), None
        )

    def is_answering(self) -> bool:
        """Whether an answer has begun."""
        return any(isinstance(one, WaitingStream) and one.head_sent for one in self.streams.values())

    def _forget(self, connection: Connection) -> Connection:
        """Answer no request with it, and hear nothing from it. Returns what is dialled for it, which is
        another proxy where one stands between.
        """
        dialled = self.dialled(connection)
        for one in {connection, dialled} - {self.context.server}:
            self.connections.pop(one, None)
        for command in [one for one in self.command_sources if getattr(one, "connection", None) is dialled]:
            del self.command_sources[command]
        return dialled

    def dialled(self, connection: Connection) -> Connection:
        """The connection below it, where another proxy stands between."""
        found: Connection = getattr(self.connections.get(connection), "tunnel_connection", connection)
        return found

    def may_serve(self, connection: Connection, event: GetHttpConnection) -> bool:  # noqa: ARG002
        """Whether what is asked for may be sent on a connection that is there."""
        return True

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Commands:
        """mitmproxy takes the first connection that leads there, and queues what has no room on it."""
        known = self.connections
        full = [one for one in known if not (self.has_room(one) and self.may_serve(one, event))]
        if reuse and full:
            free = {one: child for one, child in self.connections.items() if one not in full}
            self.connections = {**free, **{one: self.connections[one] for one in full}}
            # One that has ended serves nobody: mitmproxy would go on to those that are full.
            reuse = any(self._is_there(one) and event.connection_spec_matches(one) for one in free)
        yield from super().get_connection(event, reuse=reuse)

    def _is_there(self, connection: Connection) -> bool:
        """Whether a connection is open, or asked for."""
        asked_for = connection in self.waiting_for_establishment
        return asked_for or connection.connected or connection.error is not None

    def has_room(self, connection: Connection) -> bool:
        """Whether one more request can be sent on a connection at once."""
        return all(_room(one) > 0 for one in self._over_http2(connection))

    def _over_http2(self, connection: Connection) -> list[Http2Client]:
        layers = descendants(self.connections.get(connection))
        return [one for one in layers if isinstance(one, Http2Client)]

    def register_connection(self, command: RegisterHttpConnection) -> Commands:
        waiting = self.waiting_for_establishment[command.connection]
        room = sum(map(_room, self._over_http2(command.connection))) or len(waiting)
        others = waiting[room:]
        del waiting[room:]
        yield from super().register_connection(command)
        for one in others:
            yield from self.get_connection(one)
        if command.err:
            # mitmproxy would answer every later request of this client with the same error.
            self._forget(command.connection)
