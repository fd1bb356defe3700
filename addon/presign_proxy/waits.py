"""Waiting: for an upstream connection, which can be given up, and for the answer, which cannot.

mitmproxy's stream sleeps until its connection is there. It does not hear that its client has reset it, it
has no deadline, and what was dialled for it goes on being dialled. Here it stops waiting when its client has
gone or its time is over, and a connection that nobody waits for any more is closed.
"""

from __future__ import annotations

from typing import Any

from h11._receivebuffer import ReceiveBuffer
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpLayer, HttpStream, RegisterHttpConnection
from mitmproxy.proxy.layers.http._events import RequestData, RequestEndOfMessage, RequestProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client

from .handlers import PROBE, may_be_there
from .ledger import Ledger
from .sending import Commands


class Overdue(events.Event):
    """A stream has waited for its connection for too long. Led to it by every layer above."""

    def __init__(self, stream: WaitingStream) -> None:
        self.stream = stream


class WaitingStream(HttpStream):
    """A stream that can be woken while it waits for its connection."""

    uploading = False
    queued = 0
    """Bytes of the body that mitmproxy keeps meanwhile."""

    @property
    def http_layer(self) -> Any:
        return self.context.layers[self.context.layers.index(self) - 1]

    @property
    def is_connecting(self) -> bool:
        return self._paused is not None and isinstance(self._paused.command, GetHttpConnection)

    def handle_event(self, event: events.Event) -> Commands:
        if self._paused is not None and isinstance(event, RequestData):
            self.queued += len(event.data)
        if isinstance(event, Overdue) and event.stream is self and not self.is_connecting:
            return
        if isinstance(event, Overdue | RequestProtocolError) and self.is_connecting:
            yield from self._stop_waiting()
        yield from super().handle_event(event)

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

    ledger: Ledger

    def wait(self, event: events.Event) -> Commands:
        """In the middle of an answer a client cannot be asked whether it is there: it is taken to be gone."""
        client = self.context.client
        told = self.response is not None and self.response.status_code >= 200
        askable = self.request is not None and self.request.is_http11 and not told
        if not isinstance(event, events.ConnectionClosed) or not askable or not may_be_there(client):
            yield from super().wait(event)
            return
        self.ledger.mute.add(client)
        yield commands.SendData(client, PROBE)

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        client = self.context.client
        if client in self.ledger.gone or not client.connected:
            self.buf = ReceiveBuffer()  # what it has sent ahead is for nobody, and would be ended by nobody
        yield from super().mark_done(request=request, response=response)
        if response and self.state == self.read_headers and self.context.client in self.ledger.mute:
            yield commands.CloseConnection(self.context.client)


class WaitingHttpLayer(HttpLayer):
    """An HTTP layer that lets go of connections nobody waits for."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, Overdue):
            yield from self._to_stream(event)
        elif not self._is_of_forsaken(event):
            yield from super()._handle_event(event)

    def _to_stream(self, event: Overdue) -> Commands:
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
        """The client has gone. Its streams are ended by the ledger."""

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
            reuse = any(map(event.connection_spec_matches, free))
        yield from super().get_connection(event, reuse=reuse)

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
