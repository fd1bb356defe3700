"""mitmproxy's HTTP layer with guarded streams, and connections that keep to limits.

Installed by giving a layer that mitmproxy has chosen another class, never by patching mitmproxy: client
replay and everything else that builds a layer of its own gets the stock one, and with it no credential.
"""

from __future__ import annotations

import logging

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HttpClient, HttpLayer
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server

from ..backpressure import MAX_HELD
from ..hook_dispatch import Begin
from ..lane.layer import LaneEvent
from ..waker import Waker
from .backlog import BackloggedHttpLayer
from .coalesce import Commands, in_one_piece
from .http1_server import GuardedHttp1Server
from .http2_client import GuardedHttp2Client
from .http2_server import GuardedHttp2Server
from .http2_side import OpenWindows, Turn
from .http2_windows import all_unsent, unsent
from .layer_stack import descendants
from .routes import note
from .state import FlowStates
from .stream import GuardedStream
from .tls_layers import GuardedClientTLSLayer, GuardedServerTLSLayer
from .upstream_protocol import GuardedHttpClient, offer

logger = logging.getLogger(__name__)


class GuardedHttpLayer(BackloggedHttpLayer):
    """mitmproxy's HTTP layer, whose streams are guarded."""

    states: FlowStates
    begin: Begin | None = None
    ended: list[GuardedStream]
    withholding: set[Connection]
    """Connections over HTTP/2 whose peers wait for windows."""
    quiet = False
    """True if a credential has been sent from here: log lines may quote an upstream that echoes it."""
    broken = False

    def _handle_event(self, event: events.Event) -> Commands:
        """Cut the client off where our code fails: mitmproxy would leave it waiting for ever."""
        try:
            if not self.broken:
                yield from self._handle(event)
        except Exception as error:
            self.broken = True
            logger.error("presign: failed at the protocol (%s); the client is cut off", type(error).__name__)
            yield commands.CloseConnection(self.context.client)
            self.clients.cut_off.add(self.context.client)

    def _handle(self, event: events.Event) -> Commands:
        client = self.context.client
        self.listening = self._is_of_client(event)
        if isinstance(event, events.Start):
            self.clients.attach(client, self)
            # mitmproxy keeps a server that is already there.
            if client.alpn == b"h2":
                self.connections.setdefault(client, GuardedHttp2Server(self.context.fork(), self))
            elif client.transport_protocol == "tcp":
                self.connections.setdefault(client, GuardedHttp1Server(self.context.fork(), self.clients))
        for command in in_one_piece(self._lead(event)):
            if self.quiet and isinstance(command, commands.Log):
                command.message = "presign: a message of the protocol layer is withheld"
            elif isinstance(command, commands.OpenConnection):
                self.forget_closed()
            yield command
        yield from self._open_windows()
        if self.ended or self.may_open(event):
            self.waker.wake()
        while self.ended:
            self.ended.pop().come_apart()
        if isinstance(server := self.connections.get(client), GuardedHttp2Server):
            gone = client.state is ConnectionState.CLOSED
            streams, waiting = (0, 0) if gone else (len(self.streams), all_unsent(server))
            self.clients.fairness.shares.note(client, streams, waiting)

    def _lead(self, event: events.Event) -> Commands:
        """Lead an event to where it belongs."""
        if isinstance(event, LaneEvent):
            yield from self._to_streams(event, event.lane.context)
        elif isinstance(event, Turn) and self.connections.get(self.context.client) is not event.side:
            yield from self._to_streams(event, event.side.context)
        elif isinstance(event, Turn):
            if event.side.turn is event:  # otherwise its client has gone meanwhile
                yield from self.event_to_child(event.side, event)
        else:
            yield from super()._handle_event(event)

    def _open_windows(self) -> Commands:
        """Open the windows of streams that move again, on both sides."""
        for one in list(self.withholding):
            if (top := self.connections.get(one)) is not None:
                yield from self.event_to_child(top, OpenWindows())
            else:
                self.withholding.discard(one)

    def event_to_child(self, child: Layer, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            for one in descendants(child):
                if type(one) is HttpClient:
                    note(one.context.server, self.waiting_for_establishment.get(one.context.server, []))
                    GuardedHttpClient.guard(one, self)
                elif type(one) is layers.ServerTLSLayer:
                    GuardedServerTLSLayer.guard(one)
                    offer(self.context.client, one.conn)
        yield from super().event_to_child(child, event)

    def _is_of_client(self, event: events.Event) -> bool:
        """Return whether an event stems from something that the client has sent."""
        client = self.context.client
        if isinstance(event, events.DataReceived):
            return event.connection is client
        turn = getattr(self.connections.get(client), "turn", None)
        return turn is not None and turn in (event, getattr(event, "command", None))

    def _to_streams(self, event: events.Event, context: Context) -> Commands:
        """Lead an event to the layer at the other end of a tunnel."""
        for one in context.layers:
            if isinstance(one, GuardedStream) and self.streams.get(one.stream_id) is one:
                yield from self.event_to_child(one, event)

    def is_idle(self) -> bool:
        """Return whether no request is under way, and the client has taken its answers.

        Over HTTP/2, the rest of an answer waits here for a window of the client, also without its stream.
        """
        server = self.connections.get(self.context.client)
        return not self.streams and not (isinstance(server, GuardedHttp2Server) and all_unsent(server))

    def is_between_requests(self) -> bool:
        """Return whether another parser may read what a client over HTTP/1 sends next.

        All that it has asked for is answered in full, nothing more of it is here, and nothing that goes on
        here can write to it: no stream, no hook, no connection that is being opened.
        """
        server = self.connections.get(self.context.client)
        return (
            isinstance(server, GuardedHttp1Server)
            and server.is_between_requests
            and not (self.broken or self.streams or self.waiting_for_establishment)
            and not (self._paused or self._paused_event_queue)
            and all(isinstance(one, commands.RequestWakeup) for one in self.command_sources)
        )

    def awaits(self, event: events.Event) -> bool:
        """Return whether an event is of an upstream connection that is kept here, or was asked for here."""
        if isinstance(event, events.CommandCompleted):
            return event.command in self.command_sources
        if not isinstance(event, events.ConnectionEvent) or event.connection is self.context.client:
            return False
        return event.connection in self.connections

    def is_idle_stranger(self) -> bool:
        """Return whether none was ever granted, and no request is under way but such as are refused.

        A refusal that the client does not take is nothing that it would miss. Requests that are sent ahead
        and refused, one after the other, cost their client nothing: they must not keep its place.
        """
        streams = self.streams.values()
        return not self.quiet and all(isinstance(one, GuardedStream) and one.is_refused for one in streams)

    def holds_too_much(self) -> bool:
        """Return whether so much of the client waits here that no more of it is to be read.

        Bodies over HTTP/2 have their windows.
        """
        server = self.connections.get(self.context.client)
        if isinstance(server, GuardedHttp2Server):
            return server.gate.waiting > MAX_HELD
        return sum(getattr(stream, "queued", 0) for stream in self.streams.values()) > MAX_HELD

    def has_room(self, connection: Connection) -> bool:
        """Return whether one more request can be sent at once: also not after a goodbye of the upstream."""
        return super().has_room(connection) and not any(one.leaving for one in self._guarded(connection))

    def _guarded(self, connection: Connection) -> list[GuardedHttp2Client]:
        return [one for one in self._over_http2(connection) if isinstance(one, GuardedHttp2Client)]

    def is_full(self, stream_id: int, most: int = MAX_HELD) -> bool:
        """Return whether an upload waits: for a hook, for a connection, or for its upstream's window."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return False
        if stream._paused is not None:
            return True
        upstream = self.connections.get(stream.context.server)
        for one in descendants(upstream):
            if isinstance(one, Http2Client):
                waiting = unsent(one, one.our_stream_id.get(stream_id, 0))
                return waiting > most or stream_id in one.stream_queue
        return False

    def is_reset(self, stream_id: int) -> bool:
        """Return whether a client has reset a stream: h2 knows that before the stream does."""
        client = self.connections.get(self.context.client)
        return isinstance(client, Http2Server) and client.is_closed(stream_id)

    def make_stream(self, stream_id: int) -> Commands:
        stream = GuardedStream(self.context.fork(), stream_id)
        stream.states, stream.begin = self.states, self.begin
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


def adopt(context: Context, states: FlowStates, begin: Begin | None = None) -> None:
    """Guard every stock HTTP layer of a connection.

    Args:
        begin: runs a hook synchronously; None where each takes a task of mitmproxy's.
    """
    for one in context.layers:
        if type(one) is HttpLayer:
            one.__class__ = GuardedHttpLayer
            vars(one).update(ended=[], closed=set(), withholding=set(), waker=Waker())
        elif type(one) is layers.ClientTLSLayer:
            GuardedClientTLSLayer.guard(one)
        if isinstance(one, GuardedHttpLayer):
            one.states, one.clients, one.begin = states, states.clients, begin
