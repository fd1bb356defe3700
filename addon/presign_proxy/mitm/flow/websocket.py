"""A WebSocket on the flow path: bytes both ways behind a 101, and its end.

mitmproxy's own layer for WebSocket keeps every message on the flow, takes each apart, and knows one extension
only. Here the bytes pass as they came, and no flow holds them.
"""

from __future__ import annotations

import time
from typing import Final

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import DropStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.websocket import WebsocketEndHook, WebsocketStartHook
from mitmproxy.websocket import WebSocketData

from ...core import under_way
from ...core.masking import Mask
from ...core.policy import body_too_large
from ...core.response_body import Body
from ...core.upgrade import SWITCHING
from ..sockets import reset
from .coalesce import Commands
from .outgoing_messages import SendingStream
from .response import begins_websocket
from .state import FlowState
from .stream_events import Expired, Revoked

PATIENCE: Final = 1.0
"""Seconds in which the other side has to end too, or to send more, once one side has ended."""
TOO_LONG: Final = "the WebSocket lasted as long as the connection allows"
UNMASKED: Final = Mask(())
"""Frames are not masked: a client masks its own (RFC 6455, 5.3), and compression hides the rest."""
_OF_CLIENT: Final = (RequestEndOfMessage, RequestProtocolError)
_OF_SERVER: Final = (ResponseEndOfMessage, ResponseProtocolError)


class WebSocketStream(SendingStream):
    """A stream that goes on behind a 101 to the handshake that was granted."""

    _half = False
    """True if one side says no more."""

    @property
    def _switches(self) -> bool:
        return self.flow_state is not None and begins_websocket(self.flow, self.flow_state)

    def send_response(self, already_streamed: bool = False) -> Commands:
        if self._switches:
            self.flow.websocket = WebSocketData()  # before the hook: `-w` waits for the end
        yield from super().send_response(already_streamed)

    def flow_done(self) -> Commands:
        """Begin to pass on bytes, those first that each side has sent ahead."""
        flow_state, status = self.flow_state, self.flow.response and self.flow.response.status_code
        if flow_state is None or flow_state.granted is None or status != SWITCHING:
            yield from super().flow_done()
            return
        if not self._switches or (grant := flow_state.grant) is None:
            yield from self._end_both()  # a 101 of another addon's making: nothing was agreed on
            return
        response = flow_state.progress.response
        response.begin(Body(UNMASKED), ())
        response.set_until(time.monotonic() + grant.connection.conduct.max_duration)
        self._handle_event = self.passthrough
        yield WebsocketStartHook(self.flow)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        if self.context.client in self.states.clients.half_closed:
            yield from self.passthrough(RequestEndOfMessage(self.stream_id))

    def passthrough(self, event: events.Event) -> Commands:
        flow_state = self.flow_state
        if flow_state is None or flow_state.granted is None:  # a tunnel, or not ours
            yield from super().passthrough(event)
        elif self.answered:
            return
        elif isinstance(event, RequestData):
            yield from self._frames_of_client(event, flow_state)
        elif isinstance(event, ResponseData):
            yield from self._frames_of_server(event, flow_state)
        elif isinstance(event, Revoked):
            yield from self._revoke(flow_state)
        elif isinstance(event, Expired):
            if not self._half:
                flow_state.progress.explain(TOO_LONG)
            yield from self._end_both()
        elif isinstance(event, _OF_CLIENT):
            yield from self._end_of(self.context.client, self.context.server, flow_state)
        elif isinstance(event, _OF_SERVER):
            yield from self._end_of(self.context.server, self.context.client, flow_state)

    def _frames_of_client(self, event: RequestData, flow_state: FlowState) -> Commands:
        flow_state.progress.upload.add(len(event.data))
        if (signed := flow_state.exceeded) is not None:
            flow_state.progress.withdraw(body_too_large(signed))
            yield from self._end_both()
            return
        self._move(flow_state)
        yield SendHttp(event, self.context.server)

    def _frames_of_server(self, event: ResponseData, flow_state: FlowState) -> Commands:
        body = flow_state.progress.response.body
        self._move(flow_state)
        for piece in body.feed(event.data) if body is not None else ():
            yield SendHttp(ResponseData(self.stream_id, piece), self.context.client)

    def _move(self, flow_state: FlowState) -> None:
        if self._half:
            flow_state.progress.response.set_until(time.monotonic() + PATIENCE)

    def _end_of(self, ended: Connection, other: Connection, flow_state: FlowState) -> Commands:
        """Pass on that one side says no more. TLS ends in both directions, and so does what is cut here."""
        whole = ended.state is ConnectionState.CLOSED or other.tls or other.state is not ConnectionState.OPEN
        if self._half or whole:
            yield from self._end_both()
            return
        self._half = True
        self._move(flow_state)
        yield commands.CloseTcpConnection(other, half_close=True)

    def _revoke(self, flow_state: FlowState) -> Commands:
        """End what was revoked with `now`: nothing more of it leaves, in either direction."""
        flow_state.progress.explain(under_way.WHY)
        flow_state.progress.fail(under_way.CODE)
        self.states.end_upstream(flow_state)
        client = self.context.client
        yield from self._end_both()
        reset(client)

    def _end_both(self) -> Commands:
        """End both connections, which have nothing more to say, and then the exchange."""
        self.answered = True
        client, server, code = self.context.client, self.context.server, ErrorCode.PASSTHROUGH_CLOSE
        yield SendHttp(RequestProtocolError(self.stream_id, "EOF", code), server)
        yield SendHttp(ResponseProtocolError(self.stream_id, "EOF", code), client)
        if self.flow.websocket is not None:
            self.flow.websocket.timestamp_end = time.time()
            yield WebsocketEndHook(self.flow)
        self.flow.live = False
        vars(self).pop("_handle_event", None)
        self._leave()
        yield DropStream(self.stream_id)
