"""A stream that waits for its upstream connection, which it may give up, and for its answer.

mitmproxy's stream sleeps until its connection is there. It does not notice that its client has reset it, it
has no deadline, and what was dialled for it goes on being dialled. Here it stops waiting when its client has
gone or its time is over, and a connection that no stream waits for any more is closed.
"""

from __future__ import annotations

from typing import Any

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpStream
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
)

from ..half_closed import PROBE
from .coalesce import Commands
from .stream_events import Departed, Overdue, Revoked, StillThere


class WaitingStream(HttpStream):
    """A stream that can be woken while it waits for its connection."""

    uploading = False
    forsaken = False
    """True if it knows that its client has gone, or wants no answer any more."""
    head_sent = False
    """True if the answer has begun."""
    queued = 0
    """Bytes of the body that mitmproxy keeps meanwhile."""

    @property
    def http_layer(self) -> Any:
        return self.context.layers[self.context.layers.index(self) - 1]

    @property
    def is_held(self) -> bool:
        """True if the body waits for a hook, a connection or a window, and not for the client."""
        return bool(self.http_layer.is_full(self.stream_id, 0))

    @property
    def is_connecting(self) -> bool:
        """True if it waits for its upstream connection."""
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
        if isinstance(event, Overdue | Revoked | RequestProtocolError) and self.is_connecting:
            yield from self._stop_waiting()
        yield from super().handle_event(event)

    def _depart(self) -> Commands:
        """End the stream as mitmproxy does when its client ends. mitmproxy did not for a half-closed client,
        which might have been there. Where a tunnel goes on from here, this stream has nothing to end.
        """
        if not self.forsaken and self.child_layer is None:
            code = ErrorCode.CLIENT_DISCONNECTED
            yield from self.handle_event(RequestProtocolError(self.stream_id, "Client disconnected.", code))

    def _ask(self) -> Commands:
        """Ask the client whether it is there, in front of its answer."""
        if not self.head_sent and self.flow.request.is_http11:
            yield commands.SendData(self.context.client, PROBE)

    def _stop_waiting(self) -> Commands:
        """Put the stream back to before it asked for a connection, so that it handles events again."""
        paused, self._paused = self._paused, None
        if paused is None:
            return
        paused.generator.close()
        if any(isinstance(event, RequestEndOfMessage) for event in self._paused_event_queue):
            self.uploading = False
        # mitmproxy would report the end to an upstream that it does not talk to yet.
        self.client_state = self.state_consume_request_body
        yield from self.http_layer.forsake(paused.command)
