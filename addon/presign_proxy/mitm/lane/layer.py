"""The lane as mitmproxy sees it: a layer that speaks HTTP/1.1 with one client."""

from __future__ import annotations

import contextlib
from typing import Any

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from ..client_connection import FlowPath
from ..sockets import handler_of, speaks_h1
from ..waker import Waker
from .client_gate import MAX_AHEAD
from .pipeline import Pipeline, log_failure
from .shared import LaneShared
from .websocket import WebSocketExchange

Commands = layer.CommandGenerator[None]


class LaneEvent(events.Event):
    """What a lane is called with when something has happened beside the client's connection.

    Every layer above leads it to its lane.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane


class Lane(layer.Layer):
    """Serves presigned requests itself, and hands all others to mitmproxy's own layer, one at a time.

    Once mitmproxy has answered in full, and holds no byte of the client's, the lane reads the next head. What
    was sent ahead of that stays with mitmproxy, as does a client after a CONNECT or a handshake.
    """

    waker: Waker | None = None
    """None: the answers to a client over HTTP/1 wait in its socket."""

    def __init__(self, context: Context, stock: FlowPath, shared: LaneShared) -> None:
        """
        Args:
            stock: the guarded HTTP layer that would have been here, not yet started.
        """
        super().__init__(context)
        context.layers.remove(self)  # what looks at the stack shall find mitmproxy's own layer
        self.client = context.client
        self._stock = stock
        self._stock_has_begun = False
        self._shared = shared
        self.pipeline = Pipeline(context.client, shared, self)

    def handle_event(self, event: events.Event) -> Commands:
        if self.pipeline.phase == "handed over":
            if not isinstance(event, LaneEvent) or event.lane is not self:  # of another one, in a tunnel
                yield from self._to_stock(event)
            return
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        if self.pipeline.phase == "handed over":  # the event was waiting when the client was handed over
            yield from self._to_stock(event)
            return
        try:
            yield from self._handle(event)
        except Exception as error:
            self.pipeline.collapse(error)
            writer = self.pipeline.writer
            with contextlib.suppress(Exception):
                writer.flush()
            yield from writer.commands()
            yield commands.CloseConnection(self.client)

    def _handle(self, event: events.Event) -> Commands:
        pipeline = self.pipeline
        if isinstance(event, events.Start):
            yield from self._start()
        elif isinstance(event, events.DataReceived) and event.connection is self.client:
            if pipeline.phase != "closing":
                pipeline.take(event.data)
                yield from self._next()
                pipeline.take_over()
        elif isinstance(event, events.ConnectionClosed) and event.connection is self.client:
            if not self._end_input():
                pipeline.give_up()
                yield commands.CloseConnection(self.client)
        elif isinstance(event, LaneEvent):
            yield from self._next()
        elif self._stock.awaits(event):
            yield from self._beside(event)
        elif isinstance(event, events.Wakeup):
            yield commands.CloseConnection(self.client)
        yield from pipeline.writer.commands()

    def _start(self) -> Commands:
        peer: Any = self.client.peername
        if peer is None:  # it was gone before it was accepted, and nothing is sent for it
            self.pipeline.give_up()
            yield commands.CloseConnection(self.client)
            return
        self._shared.clients.attach(self.client, self)
        self.pipeline.start(handler_of(self.client), self.context.server)
        if not speaks_h1(self.client):
            yield from self._hand_over()

    def _end_input(self) -> bool:
        """Note that the client says no more. Return whether its connection goes on, if only to be closed."""
        pipeline, exchange = self.pipeline, self.pipeline.exchange
        if not isinstance(exchange, WebSocketExchange):
            return pipeline.end_input()
        pipeline.advance()  # with what was sent ahead of the end
        if not exchange.is_switched:
            return False  # it has left before the 101
        pipeline.has_ended = True
        exchange.end_input()
        return True

    def _next(self) -> Commands:
        """Begin with what has come, or hand it over."""
        if not self.pipeline.advance():
            yield from self._hand_over()

    def _hand_over(self) -> Commands:
        """Leave the client to mitmproxy, until that has answered it."""
        yield from self.pipeline.writer.commands()  # what was asked before comes before
        data = self.pipeline.hand_over()
        self._stock.quiet |= self.pipeline.buffer.served  # it is no stranger there either
        if self._stock_has_begun:
            self._shared.clients.attach(self.client, self._stock)
        else:
            self._stock_has_begun = True
            yield from self._stock.handle_event(events.Start())
        if data:
            yield from self._stock.handle_event(events.DataReceived(self.client, data))
        if self.pipeline.has_ended:
            yield from self._stock.handle_event(events.ConnectionClosed(self.client))
        yield from self._take_back()

    def _to_stock(self, event: events.Event) -> Commands:
        """Lead an event to mitmproxy, which has the client, and look whether it has done its part."""
        yield from self._stock.handle_event(event)
        yield from self._take_back()

    def _take_back(self) -> Commands:
        """Have the client again, where the boundary between two requests is certain. If not, it stays."""
        client, clients = self.client, self._shared.clients
        try:
            if (
                self._shared.open
                and client.state is ConnectionState.OPEN
                and self._stock.is_between_requests()
                and clients.awaits_head_since(client) is None
                and not clients.has_departed(client)
            ):
                clients.attach(client, self)
                self.pipeline.take_back()
        except Exception as error:
            log_failure(error)
            yield commands.CloseConnection(client)

    def _beside(self, event: events.Event) -> Commands:
        """Lead an event to mitmproxy, which has the client no more, but still has upstream connections.

        Raises RuntimeError where that writes to the client: its bytes would stand among those of the lane.
        """
        for command in self._stock.handle_event(event):
            if isinstance(command, commands.ConnectionCommand) and command.connection is self.client:
                raise RuntimeError
            yield command

    # -- beside mitmproxy's calls ---------------------------------------------------------------------

    def poke(self) -> None:
        """Have mitmproxy call this layer, to go on and for what the writer asks of it."""
        self._shared.run(self.call())

    async def call(self) -> None:
        """Call this layer as mitmproxy does. Where that fails, cut the client off."""
        try:
            handler = handler_of(self.client)
            may = self.pipeline.phase != "handed over" and self.client.state is not ConnectionState.CLOSED
            if handler is not None and may:
                await handler.server_event(LaneEvent(self))
        except Exception as error:
            log_failure(error)
            self.pipeline.writer.abort()

    # -- what the states of all clients ask -----------------------------------------------------------

    def ask(self) -> None:
        """Ask a client that says no more whether it is there, in front of its answer."""
        self.pipeline.ask()

    def is_answering(self) -> bool:
        """Return whether an answer has begun."""
        return self.pipeline.is_answering()

    def give_up(self) -> None:
        """End what the client has asked for: it has gone."""
        self.pipeline.give_up()

    def departures(self) -> list[events.Event]:
        """Return the events of a client that has gone, for other layers: none."""
        return []

    def is_idle(self) -> bool:
        """Return whether no request is being served."""
        return self.pipeline.exchange is None

    def is_idle_stranger(self) -> bool:
        """Return whether no request of the client was ever granted."""
        return not (self.pipeline.buffer.served or self._stock.quiet)

    def holds_too_much(self) -> bool:
        """Return whether so much of the client is held that no more of it is to be read."""
        return len(self.pipeline.buffer.data) > MAX_AHEAD

    def backlog_of(self, server: Any) -> int:  # noqa: ARG002 - none of mitmproxy's servers answers now
        """Return how many bytes of an upstream connection wait for the client."""
        return 0

    def is_shut(self, server: Any) -> bool:  # noqa: ARG002
        """Return whether an upstream connection may not be read."""
        return False

    def is_unanswered(self, server: Any) -> bool:  # noqa: ARG002
        """Return whether an upstream's answer to this client has not begun: none of mitmproxy's was asked."""
        return False
