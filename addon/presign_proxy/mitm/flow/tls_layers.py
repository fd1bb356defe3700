"""mitmproxy's TLS layers, which decrypt short records by turns, towards clients and upstreams."""

from __future__ import annotations

import time
from typing import Any, Final

from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.layers.tls import TLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from ..backpressure import GatedReader
from ..sockets import handler_of, unannounced
from ..tls_records import RecordGate, slots
from .coalesce import Commands

MAX_HELLO: Final = 16 * 1024
"""Bytes of a ClientHello; with post-quantum key shares they have about two thousand."""


class _ByTurns(TLSLayer):
    """A TLS layer that reads no more from its peer while records of it wait for their turn."""

    gate: RecordGate
    turn: commands.RequestWakeup | None
    """The next turn, until it has come: a layer below takes a wakeup that it does not know for its own."""

    @classmethod
    def guard(cls, stock: TLSLayer) -> None:
        """Give this class to a layer that has not begun."""
        stock.__class__ = cls
        vars(stock).update(gate=RecordGate(), turn=None)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Wakeup) and event.command is self.turn:
            self.turn = None
            yield from self._take_turn()
        elif not isinstance(event, events.ConnectionEvent) or event.connection is not self.tunnel_connection:
            yield from super()._handle_event(event)
        elif isinstance(event, events.DataReceived) and event.data:
            self.gate.add(event.data)
            if self.turn is None:
                yield from self._take_turn()
        else:
            if isinstance(event, events.ConnectionClosed) and (rest := self.gate.take_all()):
                yield from self._decrypt(rest)
            yield from super()._handle_event(event)

    def _take_turn(self) -> Commands:
        began = time.monotonic()
        if data := self.gate.take():
            yield from self._decrypt(data)
        if self.turn is not None:
            return
        if self.gate.is_ready:
            self._hold(on=True)
            now = time.monotonic()
            self.turn = wakeup = commands.RequestWakeup(slots.delay(now, now - began))
            yield wakeup
        else:
            self._hold(on=False)

    def _decrypt(self, data: bytes) -> Commands:
        if self.tunnel_state is not TunnelState.CLOSED:  # else the handshake has failed meanwhile
            yield from super()._handle_event(events.DataReceived(self.tunnel_connection, data))

    def _hold(self, *, on: bool) -> None:
        handler = handler_of(self.context.client)
        io = handler.transports.get(self.tunnel_connection) if handler is not None else None
        reader: Any = io.reader if io is not None else None
        if isinstance(reader, GatedReader):
            reader.hold(on, self)


class GuardedClientTLSLayer(_ByTurns, layers.ClientTLSLayer):
    """TLS with clients. The ClientHello is bounded: mitmproxy parses all of it again with every byte."""

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        try:
            if not self.client_hello_parsed and len(self.recv_buffer) + len(data) > MAX_HELLO:
                self.recv_buffer.clear()
                return False, "the ClientHello is too large"
            return (yield from super().receive_handshake_data(data))
        except Exception as error:
            return False, f"presign: failed at the handshake ({type(error).__name__})"


class GuardedServerTLSLayer(_ByTurns, layers.ServerTLSLayer):
    """TLS with upstreams. Notes an end without a closure alert, which mitmproxy takes for any other end."""

    has_told_end = False

    def event_to_child(self, event: events.Event) -> Commands:
        if isinstance(event, events.ConnectionClosed) and event.connection is self.conn:
            self.has_told_end = True
        yield from super().event_to_child(event)

    def receive_close(self) -> Commands:
        closed = self.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
        if not closed:
            unannounced.add(self.conn)
        elif not self.has_told_end:
            # A fatal alert, as for a missing client certificate in TLS 1.3. mitmproxy takes it for a closure
            # alert that it has passed on, and the request would wait for an answer for as long as it may.
            unannounced.add(self.conn)
            yield from self.event_to_child(events.ConnectionClosed(self.conn))
            return
        yield from super().receive_close()
