"""mitmproxy's HTTP/2 connections, held to limits before anything is made of what comes, on both sides."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders, ResponseHeaders
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Connection, Http2Server, StreamState

from ...core.answers import refusal
from ...gateway.request_id import new_request_id
from ...http.message import MAX_FIELDS, MAX_HEAD
from ...http.response_head import MAX_RESPONSE_HEAD, NO_STATUS, TOO_LARGE
from ...limits.client_shares import MAX_STREAMS
from ..backpressure import MAX_HELD
from ..client_state import ClientStates
from .coalesce import Commands
from .endings import UnreadableResponse
from .goaway import NOT_TAKEN, Goodbye, hear_goodbyes
from .http2_encoder import BoundedEncoder
from .http2_excess import ENHANCE_YOUR_CALM, Excess
from .http2_frames import MAX_FRAME, FrameGate
from .http2_status import has_status
from .http2_windows import make_windowed, windowed

PSEUDO: Final = 4
"""Fields of a request over HTTP/2 that are none of its header."""
_FREE: Final = 8 * 1024
"""Bytes that a head over HTTP/2 may become, however few of it are sent."""
_UNCOUNTED: Final = 2**31 - 1
MAX_WINDOW: Final = MAX_HELD
"""Bytes of one stream that a peer may send before any of them was passed on."""
MAX_ENDED: Final = 100
"""Streams of a connection that have ended and are still known: what its peer had sent by then is no flood."""


class Uploads(Protocol):
    """What a client's side asks of the HTTP layer."""

    clients: ClientStates
    owing: set[Connection]

    @property
    def streams(self) -> Mapping[int, Any]: ...

    def is_full(self, stream_id: int) -> bool:
        """Whether the upstream does not take what has come for a stream."""


class Client(Protocol):
    """What an upstream's side asks of the HTTP layer."""

    owing: set[Connection]

    def is_behind(self, stream_id: int) -> bool:
        """Whether the client does not take what has come for one of its streams."""


class Settle(events.Event):
    """What waited may have moved on: the windows of streams that move again are to be opened."""


class Turn(events.Event):
    """It is the turn of a client to begin with a stream."""

    def __init__(self, side: GuardedHttp2Server) -> None:
        self.side = side


class _ByTurns(Http2Connection):
    """Handles a bounded number of frames; the others once everybody else has had a turn. A stream gets no
    further window while what has come for it is not taken.
    """

    gate: FrameGate
    owed: dict[int, int]
    """By stream, the bytes that its peer was not told to be taken."""
    turn: commands.RequestWakeup | Turn | None = None
    """The next one, while whole frames wait for it."""
    http_layer: Uploads | Client
    _telling: bool = False
    """Whether frames are being handled: h2 knows of their ends, and the streams do not yet."""
    _closed: events.ConnectionClosed | None = None
    """Told to mitmproxy once all that came before was handled."""

    def _bound(self, gate: FrameGate) -> None:
        """Set the limits, before the first byte is sent."""
        self.gate = gate
        self.owed = {}
        make_windowed(self.h2_conn)
        self.h2_conn.encoder.__class__ = BoundedEncoder
        settings = self.h2_conn.local_settings
        # mitmproxy takes frames eight times as large, of which a head may have dozens, and opens windows
        # of two gigabytes, so that it would have to keep what nobody takes.
        settings.max_frame_size = self.h2_conn.max_inbound_frame_size = MAX_FRAME
        settings.initial_window_size = MAX_WINDOW
        settings.acknowledge()

    def _is_held(self, stream_id: int) -> bool:
        """Whether what comes for a stream only waits."""
        raise NotImplementedError

    def _receive_data(self, event: h2.events.DataReceived) -> None:
        """Keep account of a piece of a body, whose window is opened later where it only waits."""
        if self._is_held(event.stream_id):
            length = event.flow_controlled_length
            self.owed[event.stream_id] = self.owed.get(event.stream_id, 0) + length
            self.http_layer.owing.add(self.conn)
            event.flow_controlled_length = 0

    def _settle(self) -> Commands:
        """Open the windows of streams that move again."""
        for stream_id in [one for one in self.owed if not self._is_held(one)]:
            # A stream that has ended gives back what it holds of the connection's window.
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2_conn.acknowledge_received_data(self.owed.pop(stream_id), stream_id)
        if not self.owed:
            self.http_layer.owing.discard(self.conn)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, Settle):
            yield from self._sent(self._settle())
        elif isinstance(event, events.DataReceived):
            self.gate.add(event.data)
            if self.turn is None:
                yield from self._take_turn()
        elif isinstance(event, events.Wakeup) and event.command is self.turn:
            self.turn = None
            yield from self._take_turn()
        elif isinstance(event, events.ConnectionClosed) and self.turn is not None:
            self._closed = event
        else:
            if isinstance(event, RequestHeaders) or (
                isinstance(event, ResponseHeaders) and self.is_open_for_us(event.stream_id)
            ):
                self.gate.answered()
            yield from self._sent(super()._handle_event(event))

    def close_connection(self, msg: str) -> Commands:
        """Nothing is told to a side that has ended, nor does it open a window. What waited to be sent is for
        nobody: it would be kept until all objects are searched for circles.
        """
        self.owed.clear()
        self.http_layer.owing.discard(self.conn)
        self.gate.forget()
        self._closed = None
        yield from super().close_connection(msg)
        windowed(self).forget()

    def _forget_ended(self) -> None:
        """mitmproxy keeps each stream that there ever was, for as long as its connection lasts."""
        if not self._telling and len(self.streams) > 2 * MAX_ENDED:
            for stream_id in list(self.streams):
                if self.is_closed(stream_id):
                    del self.streams[stream_id]

    def _take_turn(self) -> Commands:
        try:
            data = self.gate.take(time.monotonic())
        except Excess as excess:
            yield from self._end(excess)
            return
        if data:
            self._forget_ended()
            self._telling = True
            yield from self._sent(super()._handle_event(events.DataReceived(self.conn, data)))
            self._telling = False
        if self.gate.is_ready:
            yield from self._wait()
        elif self._closed is not None:
            closed, self._closed = self._closed, None
            yield from super()._handle_event(closed)

    def _wait(self) -> Commands:
        self.turn = wakeup = commands.RequestWakeup(self.gate.delay)
        yield wakeup

    def _end(self, excess: Excess) -> Commands:
        yield from self.protocol_error(excess.why, excess.code)

    def _sent(self, stock: Commands) -> Commands:
        """Count what the peer is sent: it opens windows for that."""
        for command in stock:
            if isinstance(command, commands.SendData):
                self.gate.sent(command.data)
            yield command


class GuardedHttp2Server(_ByTurns, Http2Server):
    """The client's side: heads of bounded size, and windows that open as uploads move on."""

    def __init__(self, context: Context, http_layer: Uploads) -> None:
        super().__init__(context)
        self.http_layer: Uploads = http_layer
        self.h2_conn.local_settings.max_concurrent_streams = MAX_STREAMS
        self._bound(FrameGate(lambda stream_id: stream_id in http_layer.streams, begins=self._may_begin))
        self._called = self._begun = False
        self._refused: int | None = None
        """The stream whose head was too large; nothing more of it is listened to."""
        # Up to here a head is decoded, so that a larger one can be answered.
        self.h2_conn.decoder.max_header_list_size = 2 * MAX_HEAD

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, Turn):
            self.turn, self._called = None, True
            yield from self._take_turn()
            return
        if isinstance(event, events.ConnectionClosed):
            # Nobody takes an answer any more: what waited for its turn is not begun with.
            self.gate.forget()
            self._leave_row()
        yield from super()._handle_event(event)
        if isinstance(event, events.Start):
            # The client was told of MAX_STREAMS. h2 would cut off one that has not heard of that yet.
            self.h2_conn.local_settings.max_concurrent_streams = _UNCOUNTED
            self.h2_conn.local_settings.acknowledge()

    def _take_turn(self) -> Commands:
        self._begun = False
        yield from super()._take_turn()
        self._called = False

    def _may_begin(self) -> bool:
        """Whether this is a turn to begin with a stream, and none was begun with in it."""
        if self._begun:
            return False
        self._begun = self._called or self.http_layer.clients.fairness.starts.take()
        return self._begun

    def _wait(self) -> Commands:
        if not self.gate.barred:
            return (yield from super()._wait())
        self.turn = turn = Turn(self)
        self.http_layer.clients.fairness.starts.wait(turn, new=not self.http_layer.streams)

    def _leave_row(self) -> None:
        if isinstance(self.turn, Turn):
            self.http_layer.clients.fairness.starts.leave(self.turn)
        self.turn = None

    def close_connection(self, msg: str) -> Commands:
        self._leave_row()
        yield from super().close_connection(msg)

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        if isinstance(event, h2.events.RequestReceived) and not self._has_room():
            return self._turn_away(event)
        if isinstance(event, h2.events.RequestReceived | h2.events.TrailersReceived):
            if self._is_too_large(event):
                return (yield from self._refuse_head(event))
        if self._refused is not None and getattr(event, "stream_id", None) == self._refused:
            self._pass_over(event)
            return False
        if isinstance(event, h2.events.DataReceived):
            self._receive_data(event)
        if isinstance(event, h2.events.StreamReset) and event.stream_id in self.http_layer.streams:
            # Of a request that ends and is reset in one segment mitmproxy has forgotten the stream by now:
            # it would go on for nobody, and HTTP/2 does not count it among those it allows at a time.
            self.streams.setdefault(event.stream_id, StreamState.HEADERS_RECEIVED)
        return (yield from super().handle_h2_event(event))

    def _has_room(self) -> bool:
        """Whether one more stream may be begun with. h2 has counted it."""
        if self.h2_conn.open_inbound_streams > MAX_STREAMS:
            return False
        return self.http_layer.clients.fairness.shares.may_begin(len(self.http_layer.streams))

    def _turn_away(self, event: Any) -> bool:
        """Refuse a stream in such a way that its client knows it may ask again (RFC 9113, 8.7)."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2_conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
        return False

    def _is_too_large(self, event: Any) -> bool:
        """Whether a head, or the trailers, became more than is served, or than what was sent accounts for.

        A table of 4 KiB and Huffman's five bits make at most twice what is on the wire and 4 KiB of a head,
        unless it names one field of the table again and again.
        """
        fields = event.headers
        size = sum(len(name) + len(value) + 4 for name, value in fields)
        sizes = self.gate.heads.sizes.get(event.stream_id)
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

    def _is_held(self, stream_id: int) -> bool:
        return self.http_layer.is_full(stream_id)


class GuardedHttp2Client(_ByTurns, Http2Client):
    """The upstream's side. What it sends is worked through no faster than others wait."""

    interim: dict[int, int]
    """Bytes of interim heads before an answer that is waited for."""
    leaving = False
    """Whether the upstream has said goodbye: no stream is begun here, and those there are go on."""
    turned_away: list[int]
    """Streams of the client's that came too late for that, until they are told."""

    def __init__(self, context: Context, http_layer: Client) -> None:
        super().__init__(context)
        self.http_layer: Client = http_layer
        self.interim = {}
        self.turned_away = []
        hear_goodbyes(self.h2_conn)
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
        """Only a head begins a stream: mitmproxy notes a number for whatever comes, which the next request
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
        """Tell those who came too late, and close once no stream is open: no answer is on its way any more,
        and none that has come is still to be told.
        """
        while self.turned_away:
            code = self.ReceiveProtocolError.code
            yield ReceiveHttp(UnreadableResponse(self.turned_away.pop(), NOT_TAKEN, code=code))
        if self.conn.connected and not self._telling and not self.h2_conn.open_outbound_streams:
            self.streams = {}  # all of them have ended: there is nobody to be told
            yield from self.close_connection(NOT_TAKEN)

    def _hear_goodbye(self, event: Goodbye) -> layer.CommandGenerator[bool]:
        """End what the upstream has not taken; it is not sent again, which nobody has granted. A second
        goodbye may name fewer streams: what the first one has ended stays so.
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
        """Whether a stream of the client's was begun here, or waits for that."""
        return stream_id in self.our_stream_id or stream_id in self.stream_queue

    def _forget_ended(self) -> None:
        super()._forget_ended()
        known = self.their_stream_id
        if self._telling or len(known) <= 2 * (MAX_ENDED + self.h2_conn.open_outbound_streams):
            return
        kept = set(list(known)[-MAX_ENDED:])
        self.their_stream_id = {
            ours: theirs
            for ours, theirs in known.items()
            if ours in kept or not self.is_closed(ours) or ours in self.owed
        }
        self.our_stream_id = {theirs: ours for ours, theirs in self.their_stream_id.items()}
        self.streams = {ours: state for ours, state in self.streams.items() if ours in self.their_stream_id}

    def _end(self, excess: Excess) -> Commands:
        for command in self.protocol_error(excess.why, excess.code):
            if isinstance(command, ReceiveHttp):
                command.event.stream_id = self.their_stream_id[command.event.stream_id]
            yield command

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """Interim heads are passed over, as many as on the lane; mitmproxy logs each of them."""
        if isinstance(event, Goodbye):
            return (yield from self._hear_goodbye(event))
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
        """End one stream; others on the connection are not to suffer for it."""
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
