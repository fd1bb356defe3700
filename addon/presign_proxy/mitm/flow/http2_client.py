"""HTTP/2 with upstreams: what an upstream sends is worked through no faster than its clients take it."""

from __future__ import annotations

from typing import Protocol

import h2.events
from h2.errors import ErrorCodes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.http._http2 import Http2Client

from ...http.response_head import MAX_RESPONSE_HEAD, NO_STATUS, TOO_LARGE
from .coalesce import Commands
from .endings import UnreadableResponse
from .goaway import NOT_TAKEN, Goodbye, report_goodbyes
from .http2_excess import Excess
from .http2_frames import FrameGate
from .http2_side import MAX_ENDED, Http2Side, Withholding
from .http2_status import has_status


class Downloads(Withholding, Protocol):
    """The HTTP layer, as an upstream's side asks it."""

    def is_behind(self, stream_id: int) -> bool:
        """Return whether the client does not take what has come for one of its streams."""


class GuardedHttp2Client(Http2Side, Http2Client):
    """The upstream's side."""

    interim: dict[int, int]
    """Bytes of interim heads before an answer that is waited for."""
    leaving = False
    """True if the upstream has said goodbye: no stream begins here, and those there are go on."""
    turned_away: list[int]
    """Streams of the client's that came too late for that, until their end is reported."""

    def __init__(self, context: Context, http_layer: Downloads) -> None:
        super().__init__(context)
        self.http_layer: Downloads = http_layer
        self.interim = {}
        self.turned_away = []
        report_goodbyes(self.h2_conn)
        self._bound(
            FrameGate(
                # Ended ones too: what is on its way when we reset one.
                lambda stream_id: stream_id in self.their_stream_id,
                preface=0,
                paced=False,
            )
        )

    def _is_held(self, stream_id: int) -> bool:
        theirs = self.their_stream_id.get(stream_id)
        return theirs is not None and self.http_layer.is_behind(theirs)

    def _handle_event(self, event: events.Event) -> Commands:
        """Let only a head begin a stream: mitmproxy notes a number for whatever comes, which the next request
        gets too.
        """
        if isinstance(event, RequestHeaders) and self.leaving:
            self.turned_away.append(event.stream_id)
            yield from self._leave()
            return
        if isinstance(event, RequestHeaders):
            self._forget_ended()
        elif isinstance(event, HttpEvent) and not self._knows(event.stream_id):
            return
        yield from super()._handle_event(event)
        if self.leaving:
            yield from self._leave()

    def _leave(self) -> Commands:
        """End the streams that came too late, and close once no stream is open: then no answer is on its way
        any more, and each that has come was passed on.
        """
        while self.turned_away:
            code = self.ReceiveProtocolError.code
            yield ReceiveHttp(UnreadableResponse(self.turned_away.pop(), NOT_TAKEN, code=code))
        if self.conn.connected and not self._in_frames and not self.h2_conn.open_outbound_streams:
            self.streams = {}  # all of them have ended: no stream needs to learn of this end
            yield from self.close_connection(NOT_TAKEN)

    def _take_goodbye(self, event: Goodbye) -> layer.CommandGenerator[bool]:
        """End what the upstream has not taken. It is not sent again: no grant allows that. A second goodbye
        may name fewer streams; what the first one has ended stays ended.
        """
        self.leaving = True
        if event.error_code != ErrorCodes.NO_ERROR:
            yield from self.close_connection("the upstream ended the connection")
            return True
        self.turned_away += self.stream_queue
        self.stream_queue.clear()
        for stream_id in [one for one in self.streams if one > event.last_stream_id]:
            yield from self._refuse(stream_id, NOT_TAKEN)
        return False

    def _knows(self, stream_id: int) -> bool:
        """Return whether a stream of the client's was begun here, or waits for that."""
        return stream_id in self.our_stream_id or stream_id in self.stream_queue

    def _forget_ended(self) -> None:
        super()._forget_ended()
        known = self.their_stream_id
        if self._in_frames or len(known) <= 2 * (MAX_ENDED + self.h2_conn.open_outbound_streams):
            return
        kept = set(list(known)[-MAX_ENDED:])
        self.their_stream_id = {
            ours: theirs
            for ours, theirs in known.items()
            if ours in kept or not self.is_closed(ours) or ours in self.withheld
        }
        self.our_stream_id = {theirs: ours for ours, theirs in self.their_stream_id.items()}
        self.streams = {ours: state for ours, state in self.streams.items() if ours in self.their_stream_id}

    def _end(self, excess: Excess) -> Commands:
        for command in self.protocol_error(excess.why, excess.code):
            if isinstance(command, ReceiveHttp):
                command.event.stream_id = self.their_stream_id[command.event.stream_id]
            yield command

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """Pass over interim heads, as many as on the lane. mitmproxy logs each of them."""
        if isinstance(event, Goodbye):
            return (yield from self._take_goodbye(event))
        if isinstance(event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived):
            stream_id, fields = event.stream_id, event.headers or ()
            size = self.interim.pop(stream_id, 0) + sum(len(name) + len(value) + 4 for name, value in fields)
            why = TOO_LARGE if size > MAX_RESPONSE_HEAD else "" if has_status(fields) else NO_STATUS
            if why and stream_id in self.streams:
                return (yield from self._refuse(stream_id, why))
            if isinstance(event, h2.events.InformationalResponseReceived):
                waiting = self.streams.keys() | {stream_id}
                self.interim = {one: sent for one, sent in self.interim.items() if one in waiting}
                self.interim[stream_id] = size
                return False
        if isinstance(event, h2.events.DataReceived):
            self._receive_data(event)
        return (yield from super().handle_h2_event(event))

    def _refuse(self, stream_id: int, why: str) -> layer.CommandGenerator[bool]:
        """End one stream. Other streams of the connection must not suffer for it."""
        del self.streams[stream_id]
        if not self.is_closed(stream_id):
            self.h2_conn.reset_stream(stream_id, ErrorCodes.CANCEL)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        code = self.ReceiveProtocolError.code
        yield ReceiveHttp(UnreadableResponse(stream_id, why, code=code))
        return False

    @property
    def backlog(self) -> int:
        """Bytes that wait for their turn."""
        return self.gate.waiting if self.gate.is_ready else 0
