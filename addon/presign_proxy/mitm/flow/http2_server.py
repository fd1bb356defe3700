"""HTTP/2 with clients: heads of bounded size, streams by turns, and windows that open as uploads move on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._http2 import Http2Server, StreamState

from ...core.answers import refusal
from ...core.grpc_answer import is_grpc, trailers_only
from ...gateway.request_id import new_request_id
from ...http.message import MAX_FIELDS, MAX_HEAD
from ...limits.client_shares import MAX_STREAMS
from ..client_state import ClientStates
from .coalesce import Commands
from .http2_excess import ENHANCE_YOUR_CALM
from .http2_frames import FrameGate
from .http2_side import Http2Side, Turn, Withholding

PSEUDO: Final = 4
"""Fields of a request over HTTP/2 that are none of its header."""
_FREE: Final = 8 * 1024
"""Bytes that a head over HTTP/2 may become, however few of it are sent."""
_UNCOUNTED: Final = 2**31 - 1


class Uploads(Withholding, Protocol):
    """The HTTP layer, as the client's side asks it."""

    clients: ClientStates

    @property
    def streams(self) -> Mapping[int, Any]: ...

    def is_full(self, stream_id: int) -> bool:
        """Return whether the upstream does not take what has come for a stream."""


class GuardedHttp2Server(Http2Side, Http2Server):
    """The client's side."""

    def __init__(self, context: Context, http_layer: Uploads) -> None:
        super().__init__(context)
        self.http_layer: Uploads = http_layer
        self.h2_conn.local_settings.max_concurrent_streams = MAX_STREAMS
        self._bound(FrameGate(lambda stream_id: stream_id in http_layer.streams, begins=self._may_begin))
        self._called = self._begun = False
        self._refused: int | None = None
        """The stream whose head was too large; what else comes for it is dropped."""
        # Up to here a head is decoded, so that a larger one can be answered.
        self.h2_conn.decoder.max_header_list_size = 2 * MAX_HEAD

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, Turn):
            self.turn, self._called = None, True
            yield from self._take_turn()
            return
        if isinstance(event, events.ConnectionClosed):
            # No answer is taken any more: what waited for its turn is not begun.
            self.gate.forget()
            self._leave_row()
        yield from super()._handle_event(event)
        if isinstance(event, events.Start):
            # The client was sent MAX_STREAMS. h2 would cut off a client that has not read that yet.
            self.h2_conn.local_settings.max_concurrent_streams = _UNCOUNTED
            self.h2_conn.local_settings.acknowledge()

    def _take_turn(self) -> Commands:
        self._begun = False
        yield from super()._take_turn()
        self._called = False

    def _may_begin(self) -> bool:
        """Return whether this is a turn to begin a stream, and none was begun in it."""
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
        """Give up the place among those who wait to begin a stream."""
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
            # mitmproxy has forgotten the stream of a request that ends and is reset in one segment. The
            # request would go on without a client, and HTTP/2 would not count it among those that it allows
            # at a time.
            self.streams.setdefault(event.stream_id, StreamState.HEADERS_RECEIVED)
        return (yield from super().handle_h2_event(event))

    def _has_room(self) -> bool:
        """Return whether one more stream may begin. h2 has counted it."""
        if self.h2_conn.open_inbound_streams > MAX_STREAMS:
            return False
        return self.http_layer.clients.fairness.shares.may_begin(len(self.http_layer.streams))

    def _turn_away(self, event: Any) -> bool:
        """Refuse a stream in such a way that the client knows it may ask again (RFC 9113, 8.7)."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2_conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
        return False

    def _is_too_large(self, event: Any) -> bool:
        """Return whether a head, or the trailers, became more than is served, or more than its bytes on the
        wire account for.

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
        goodbye. Other streams of the connection must not suffer for that.
        """
        if self._refused is not None or isinstance(event, h2.events.TrailersReceived):
            yield from self.protocol_error("a head is too large", ENHANCE_YOUR_CALM)
            return True
        self._refused = event.stream_id
        answer = refusal("too_large", new_request_id())
        if is_grpc(event.headers):
            answer = trailers_only(answer)
        head = [
            (b":status", b"%d" % answer.status),
            *[(name.lower(), value) for name, value in answer.fields],
        ]
        bodyless = not answer.body or (b":method", b"HEAD") in event.headers
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2_conn.send_headers(event.stream_id, head, end_stream=bodyless)
            if not bodyless:
                self.h2_conn.send_data(event.stream_id, answer.body, end_stream=True)
            if not self.is_closed(event.stream_id):
                self.h2_conn.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        return False

    def _pass_over(self, event: h2.events.Event) -> None:
        """Drop what comes for the refused stream, but keep the connection's window open."""
        if isinstance(event, h2.events.DataReceived):
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2_conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def protocol_error(self, message: str, error_code: int = ErrorCodes.PROTOCOL_ERROR) -> Commands:
        """End the connection. What h2 writes behind a colon quotes what the client sent, at any length."""
        yield from super().protocol_error(message.partition(":")[0], error_code)

    def _is_held(self, stream_id: int) -> bool:
        return self.http_layer.is_full(stream_id)
