"""The upstream connections of one client: those that are asked for, those that have room, and their ends."""

from __future__ import annotations

from typing import Any

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpLayer, RegisterHttpConnection
from mitmproxy.proxy.layers.http._http2 import Http2Client

from .coalesce import Commands
from .layer_stack import descendants
from .stream_events import Departed, StillThere, StreamEvent
from .waiting_stream import WaitingStream


def _room(client: Http2Client) -> int:
    """Return how many streams may begin now, as mitmproxy counts them."""
    most = client.provisional_max_concurrency or client.h2_conn.remote_settings.max_concurrent_streams
    return most - client.h2_conn.open_outbound_streams


class WaitingHttpLayer(HttpLayer):
    """An HTTP layer that closes connections that no stream waits for, and forgets those that have ended."""

    closed: set[Connection]
    """Upstream connections that have ended, and that may still be known."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, StreamEvent):
            yield from self._to_stream(event)
        elif not self._is_of_forsaken(event):
            yield from super()._handle_event(event)
            if isinstance(event, events.ConnectionClosed) and event.connection is not self.context.client:
                self.closed.add(event.connection)

    def forget_closed(self) -> None:
        """Forget connections that have ended, before another one is opened.

        mitmproxy keeps each that there ever was, and looks at all of them for each request: one client that
        stays, and whose upstream does not, would take a worker to itself. Nothing more comes from a
        connection whose end was handled, and what is still sent to it goes nowhere. One that a stream refers
        to stays.
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

    def _to_stream(self, event: StreamEvent) -> Commands:
        """Lead an event to its stream, also at the other end of a tunnel."""
        for one in event.stream.context.layers:
            if isinstance(one, WaitingStream) and self.streams.get(one.stream_id) is one:
                yield from self.event_to_child(one, event)

    def _is_of_forsaken(self, event: events.Event) -> bool:
        """Return whether it comes from a connection that no stream waits for any more."""
        if isinstance(event, events.CommandCompleted):
            return event.command not in self.command_sources
        if not isinstance(event, events.ConnectionEvent):
            return False
        known = self.connections
        return event.connection not in known and event.connection is not self.context.server

    def forsake(self, command: GetHttpConnection) -> Commands:
        """Take back that a connection is asked for, and close it if no other stream waits for it."""
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
        """Do nothing: the client has gone, and `departures` end its streams one by one."""

    def departures(self) -> list[events.Event]:
        """Return the events that end each stream of a client that has gone."""
        return [Departed(one) for one in self.streams.values() if isinstance(one, WaitingStream)]

    def ask(self) -> events.Event | None:
        """Return an event that makes a stream ask the client whether it is there, or None."""
        return next(
            (StillThere(one) for one in self.streams.values() if isinstance(one, WaitingStream)), None
        )

    def is_answering(self) -> bool:
        """Return whether an answer has begun."""
        return any(isinstance(one, WaitingStream) and one.head_sent for one in self.streams.values())

    def _forget(self, connection: Connection) -> Connection:
        """Answer no request with a connection, and ignore what comes from it. Return what is dialled for it:
        another proxy, where one stands between.
        """
        dialled = self.dialled(connection)
        for one in {connection, dialled} - {self.context.server}:
            self.connections.pop(one, None)
        for command in [one for one in self.command_sources if getattr(one, "connection", None) is dialled]:
            del self.command_sources[command]
        return dialled

    def dialled(self, connection: Connection) -> Connection:
        """Return the connection below it where another proxy stands between, otherwise itself."""
        found: Connection = getattr(self.connections.get(connection), "tunnel_connection", connection)
        return found

    def may_serve(self, connection: Connection, event: GetHttpConnection) -> bool:  # noqa: ARG002
        """Return whether what is asked for may be sent on a connection that is there."""
        return True

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Commands:
        """Prefer a connection with room: mitmproxy takes the first that leads there, and queues the rest."""
        known = self.connections
        full = [one for one in known if not (self.has_room(one) and self.may_serve(one, event))]
        if reuse and full:
            free = {one: child for one, child in self.connections.items() if one not in full}
            self.connections = {**free, **{one: self.connections[one] for one in full}}
            # One that has ended serves no request: mitmproxy would go on to those that are full.
            reuse = any(self._is_there(one) and event.connection_spec_matches(one) for one in free)
        yield from super().get_connection(event, reuse=reuse)

    def _is_there(self, connection: Connection) -> bool:
        """Return whether a connection is open, or asked for."""
        asked_for = connection in self.waiting_for_establishment
        return asked_for or connection.connected or connection.error is not None

    def has_room(self, connection: Connection) -> bool:
        """Return whether one more request can be sent on a connection at once."""
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
