"""What both sides of HTTP/1 have in common: bounded lines, and one reading of a body."""

from __future__ import annotations

from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestProtocolError, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Connection, Http1Server

from ...http.message import MAX_HEAD
from ..backpressure import MAX_HELD
from .coalesce import Commands


class TamedHttp1(Http1Connection):
    """mitmproxy's HTTP/1 with the bounds that it lacks on both sides."""

    most = MAX_HEAD
    """Bytes that are kept of a head, or of what frames a body."""
    Fault: type[RequestProtocolError | ResponseProtocolError] = RequestProtocolError
    """The event for the stream when HTTP/1 is not as it has to be. Its text is a constant of ours."""
    framed_otherwise = "the body is not framed as HTTP/1.1 has it"

    def _handle_event(self, event: events.Event) -> Commands:
        stock = super()._handle_event(event)
        return self._bounded(stock) if isinstance(event, events.DataReceived) else stock

    def _bounded(self, stock: Commands) -> Commands:
        yield from stock
        # Chunk sizes, trailers and response heads are lines without an end, until they end.
        if len(self.buf) <= self.most:
            return
        # No honest client sends a megabyte of requests ahead.
        ahead = self.state == self.wait and len(self.buf) > MAX_HELD
        if ahead or self.state in (self.read_headers, self.read_body):
            yield from self._break("a line without an end")

    def _break(self, why: str) -> Commands:
        """Close the connection: it is unknown where the next message would begin."""
        yield commands.CloseConnection(self.conn)
        self.buf = ReceiveBuffer()
        self.state = self.done
        if self.stream_id is not None and self.request is not None:
            yield ReceiveHttp(self.Fault(self.stream_id, why, code=self.ReceiveProtocolError.code))

    def read_body(self, event: events.Event) -> Commands:
        """Drop the trailers of a chunked body, which nothing has checked: mitmproxy crashes on them. Replace
        its text about a body that is not well-formed: it quotes a line, maybe that of the next request.
        """
        try:
            for command in super().read_body(event):
                if isinstance(command, ReceiveHttp) and isinstance(command.event, self.ReceiveProtocolError):
                    error = command.event
                    # A peer that ends within its body has sent nothing wrong: the body is broken off.
                    broken_off = isinstance(event, events.ConnectionClosed)
                    fault = self.ReceiveProtocolError if broken_off else self.Fault
                    command = ReceiveHttp(fault(error.stream_id, self.framed_otherwise, code=error.code))
                yield command
        except NotImplementedError:
            yield ReceiveHttp(self.ReceiveEndOfMessage(self.stream_id or 0))
            is_request = isinstance(self, Http1Server)
            yield from self.mark_done(request=is_request, response=not is_request)
