"""mitmproxy's HTTP/2 connections, held to limits before anything is made of what comes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._events import ResponseHeaders
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server, StreamState

from .answers import refusal
from .frames import ENHANCE_YOUR_CALM, MAX_FRAME, Excess, FrameGate
from .gates import MAX_HELD
from .identity import new_request_id
from .message import MAX_FIELDS, MAX_HEAD
from .sending import Commands

if TYPE_CHECKING:
    from .wire import GuardedHttpLayer

PSEUDO: Final = 4
"""Fields of a request over HTTP/2 that are none of its header."""
_FREE: Final = 8 * 1024
"""Bytes that a head over HTTP/2 may become, however few of it are sent."""


class GuardedHttp2Server(Http2Server):
    """The client's side: frames by turns, heads of bounded size, and windows that open as uploads move on."""

    def __init__(self, context: Context, http_layer: GuardedHttpLayer) -> None:
        super().__init__(context)
        self.http_layer = http_layer
        self.owed: dict[int, int] = {}
        self.gate = FrameGate(lambda stream_id: stream_id in http_layer.streams)
        self.turn: commands.RequestWakeup | None = None
        """The next one, while whole frames wait for it."""
        self._refused: int | None = None
        """The stream whose head was too large; nothing more of it is listened to."""
        settings = self.h2_conn.local_settings
        # mitmproxy takes frames eight times as large, of which a head may have dozens, and opens windows
        # of two gigabytes, so that it would have to keep what no upstream takes.
        settings.max_frame_size = self.h2_conn.max_inbound_frame_size = MAX_FRAME
        settings.initial_window_size = MAX_HELD
        settings.acknowledge()
        # Up to here a head is decoded, so that one that is too large can be answered.
        self.h2_conn.decoder.max_header_list_size = 2 * MAX_HEAD

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            self.gate.add(event.data)
            if self.turn is None:
                yield from self._take_turn()
        elif isinstance(event, events.Wakeup):
            self.turn = None
            yield from self._take_turn()
        else:
            if isinstance(event, ResponseHeaders) and self.is_open_for_us(event.stream_id):
                self.gate.answered()
            yield from self._sent(super()._handle_event(event))

    def _take_turn(self) -> Commands:
        """Handle a bounded number of frames; the others once everybody else has had a turn."""
        try:
            data = self.gate.take(time.monotonic())
        except Excess as excess:
            yield from self.protocol_error(excess.why, excess.code)
            return
        if data:
            yield from self._sent(super()._handle_event(events.DataReceived(self.conn, data)))
        if self.gate.is_ready:
            self.turn = commands.RequestWakeup(0)
            yield self.turn

    def _sent(self, stock: Commands) -> Commands:
        """Count what the client is sent: it opens windows for that."""
        for command in stock:
            if isinstance(command, commands.SendData):
                self.gate.sent(command.data)
            yield command

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        if isinstance(event, h2.events.RequestReceived | h2.events.TrailersReceived):
            if self._is_too_large(event):
                return (yield from self._refuse_head(event))
        if self._refused is not None and getattr(event, "stream_id", None) == self._refused:
            self._pass_over(event)
            return False
        if isinstance(event, h2.events.DataReceived) and self.http_layer.is_full(event.stream_id):
            length = event.flow_controlled_length
            self.owed[event.stream_id] = self.owed.get(event.stream_id, 0) + length
            event.flow_controlled_length = 0
        if isinstance(event, h2.events.StreamReset) and event.stream_id in self.http_layer.streams:
            # Of a request that ends and is reset in one segment mitmproxy has forgotten the stream by now:
            # it would go on for nobody, and HTTP/2 does not count it among those it allows at a time.
            self.streams.setdefault(event.stream_id, StreamState.HEADERS_RECEIVED)
        return (yield from super().handle_h2_event(event))

    def _is_too_large(self, event: Any) -> bool:
        """Whether a head, or the trailers, became more than is served, or than what was sent accounts for.

        A table of 4 KiB and Huffman's five bits make at most twice what is on the wire and 4 KiB of a head,
        unless it names one field of the table again and again.
        """
        fields = event.headers
        size = sum(len(name) + len(value) + 4 for name, value in fields)
        sizes = self.gate.sizes.get(event.stream_id)
        sent = sizes.pop(0) if sizes else 0
        return len(fields) > MAX_FIELDS + PSEUDO or size > min(MAX_HEAD, 2 * sent + _FREE)

    def _refuse_head(self, event: Any) -> layer.CommandGenerator[bool]:
        """Answer a head that is too large, without a flow. The second one ends the connection.

        h2 has handled all frames of this turn by now: the client may have ended the stream, reset it, or said
        goodbye. Others on the connection are not to suffer for that.
        """
        if self._refused is not None or isinstance(event, h2.events.TrailersReceived):
            yield from self.protocol_error("a head is too large", ENHANCE_YOUR_CALM)
            return True
        self._refused = event.stream_id
        answer = refusal("too_large", new_request_id())
        head = [
            (b":status", b"%d" % answer.status),
            *[(name.lower(), value) for name, value in answer.fields],
        ]
        bodyless = (b":method", b"HEAD") in event.headers
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2_conn.send_headers(event.stream_id, head, end_stream=bodyless)
            if not bodyless:
                self.h2_conn.send_data(event.stream_id, answer.body, end_stream=True)
            if not self.is_closed(event.stream_id):
                self.h2_conn.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        return False

    def _pass_over(self, event: h2.events.Event) -> None:
        """Of what comes for a stream that was refused, only the connection's window is kept open."""
        if isinstance(event, h2.events.DataReceived):
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2_conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def protocol_error(self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR) -> Commands:
        """End the connection. What h2 says behind a colon quotes what the client sent, at any length."""
        yield from super().protocol_error(message.partition(":")[0], error_code)

    def settle(self) -> Commands:
        """Open the windows of uploads that move again."""
        for stream_id in [one for one in self.owed if not self.http_layer.is_full(one)]:
            length = self.owed.pop(stream_id)
            if length and not self.is_closed(stream_id):
                self.h2_conn.acknowledge_received_data(length, stream_id)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)


class GuardedHttp2Client(Http2Client):
    """The upstream's side: frames no longer than was agreed. h2 looks at a length only once all of the frame
    is there, 16 MiB.
    """

    def _handle_event(self, event: events.Event) -> Commands:
        yield from super()._handle_event(event)
        if isinstance(event, events.DataReceived) and self._waits_for_too_much():
            self.h2_conn.incoming_buffer._data = bytearray()
            yield from self.protocol_error("a frame is too large", ErrorCodes.FRAME_SIZE_ERROR)

    def _waits_for_too_much(self) -> bool:
        """What is left over begins with the frame whose end has not come yet."""
        begun = self.h2_conn.incoming_buffer._data
        return len(begun) >= 3 and int.from_bytes(begun[:3], "big") > self.h2_conn.max_inbound_frame_size


def unsent(side: Http2Connection, stream_id: int) -> int:
    """Bytes that a peer's window keeps from being sent."""
    return sum(len(piece.data) for piece in side.h2_conn.stream_buffers.get(stream_id, ()))
