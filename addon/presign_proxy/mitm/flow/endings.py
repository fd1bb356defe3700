"""How a stream ends, on every way: its upstream first, then its slot, then what refers back to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import DropStream, SendHttp
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHook
from mitmproxy.proxy.layers.http._http2 import Http2Server

from ...core.answers import Answer, refusal
from ...core.grpc_answer import end_of_call, trailers_only
from ...errors import STATUS
from ...gateway import unreachable
from ...gateway.request_id import new_request_id
from .arrival import Arrival
from .coalesce import Commands
from .flow_display import hide
from .http2_windows import unsent
from .raw_message import headers_of, is_h1
from .response import response_of
from .state import FlowState, FlowStates
from .upstream_sharing import SharingHttp1Client
from .waiting_stream import WaitingStream

UPSTREAM_FAILED: Final = "the upstream could not be reached or gave no usable answer"
LINGER: Final = 2.0
"""Seconds in which a client that is still uploading may read our answer before its connection closes."""


@dataclass
class UnreadableResponse(ResponseProtocolError):
    """An answer that can be read in more than one way. Its text says why, and quotes nothing."""


class EndingStream(WaitingStream):
    """A stream that leaves nothing behind: no upstream at work, no slot held, no cycle."""

    states: FlowStates
    flow_state: FlowState | None = None
    arrival: Arrival | None = None
    answered = False
    invalid = False
    """True if it is unknown where the next request begins."""

    def come_apart(self) -> None:
        """Undo what refers back to the stream, once no events are led here any more: the circle would keep
        the stream and its flow until the garbage collector finds it. A wake-up may still come.
        """
        if self.flow_state is not None:
            self.flow_state.leave_stream()
        if self.child_layer is None:
            self.client_state = self.server_state = nothing
            self.context.layers.clear()

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> Commands:
        """Note for the audit log which name did not resolve, or why nothing could be connected to."""
        if event.code is ErrorCode.CONNECT_FAILED and self.flow_state is not None:
            if why := unreachable.of_text(self.flow.request.host, event.message):
                self.flow_state.progress.explain(why)
        yield from super().handle_protocol_error(event)

    def _has_uploaded(self) -> None:
        """Note that the body has come in full."""
        self.uploading = False
        if self.flow_state is not None:
            self.flow_state.progress.upload.end()

    def _cancel(self, flow_state: FlowState) -> Commands:
        """End the upstream connection: it must not be used again with an answer still in it."""
        self.states.end_upstream(flow_state)
        if (server := flow_state.progress.server) is not None:
            yield SendHttp(_cancelled(self.stream_id), server)
            flow_state.progress.leave_server()

    def _refuse_switch(self) -> Commands:
        """Answer in the place of an upstream that leaves HTTP unasked. mitmproxy would relay to it all that
        the client sends from now on: presigned requests for others, with their signatures.
        """
        yield SendHttp(_cancelled(self.stream_id), self.context.server)
        yield from self._answer(self._refusal("upstream"))

    def _spare(self, command: commands.Command) -> Commands:
        """Close a connection that was opened for a request that is refused: no other request would use it."""
        if isinstance(command, SendHttp) and isinstance(command.event, RequestHeaders):
            yield SendHttp(_cancelled(self.stream_id), command.connection)

    def _after(self, command: commands.Command) -> Commands:
        """End a flow that was killed: mitmproxy forgets its upstream, and never drops its stream."""
        if not isinstance(command, SendHttp) or not isinstance(command.event, ResponseProtocolError):
            return
        if command.event.code is ErrorCode.KILL and not self.answered:
            if self.flow_state is not None:
                yield from self._cancel(self.flow_state)
            self._leave()
            yield DropStream(self.stream_id)
        elif command.connection is self.context.client and self.uploading and self.head_sent:
            if isinstance(self.http_layer.connections.get(self.context.client), Http2Server):
                yield from self._stop_upload()

    def _broken_off(self, command: SendHttp) -> SendHttp:
        """Return what ends an answer half-way: over HTTP/2 a reset, which gRPC shows as a fault of its own.

        A call of gRPC ends with a status instead, if its client has taken what there was. No status that is
        not 0 can be taken for a success.
        """
        server, event = self.http_layer.connections.get(self.context.client), command.event
        is_call = self.arrival is not None and self.arrival.is_grpc and self.arrival.takes_trailers
        killed = isinstance(event, ResponseProtocolError) and event.code is ErrorCode.KILL
        if not is_call or killed or not isinstance(server, Http2Server):
            return command
        if self.flow_state is None or unsent(server, self.stream_id):
            return command
        trailers = headers_of(end_of_call(self.flow_state.progress.failed or "upstream"))
        return SendHttp(ResponseTrailers(self.stream_id, trailers), command.connection)

    def _leave(self) -> None:
        """Free the slot: nothing more comes of this stream. What was still uploaded has held it until now."""
        flow_state = self.flow_state
        if flow_state is not None and flow_state.granted is not None:
            if flow_state.progress.upload.is_open:
                self.states.end_upstream(flow_state)
            flow_state.limit_hold.let_go()
        self.answered = True  # what mitmproxy has queued meanwhile goes nowhere
        self.http_layer.ended.append(self)

    def _stop_upload(self) -> Commands:
        """Stop a client that is still uploading. Over HTTP/1 the rest is read and dropped for a moment,
        because closing at once may destroy our answer in the client's buffers. Over HTTP/2 the stream is
        reset without error (RFC 9113, 8.1).
        """
        server = self.http_layer.connections[self.context.client]
        if isinstance(server, Http2Server):
            server.streams.pop(self.stream_id, None)
            if not server.is_closed(self.stream_id):
                server.h2_conn.reset_stream(self.stream_id, 0)
                yield commands.SendData(self.context.client, server.h2_conn.data_to_send())
        else:
            server.state = server.drop
            yield commands.RequestWakeup(LINGER)

    def _end_upload(self, flow_state: FlowState) -> Commands:
        """End the request: its answer is complete, and the rest of its body is not awaited."""
        yield from self._cancel(flow_state)
        server = self.http_layer.connections[self.context.client]
        yield from self._stop_upload() if isinstance(server, Http2Server) else self._hang_up()
        self._leave()
        yield DropStream(self.stream_id)

    def _refusal(self, code: str, status: int | None = None, sentence: str | None = None) -> Answer:
        """Return the answer to a request that is refused, and note its code for the audit log."""
        flow_state = self.flow_state
        if flow_state is None or (granted := flow_state.granted) is None:
            return refusal(code, new_request_id(), "json", status, sentence=sentence)
        flow_state.progress.fail(code)
        request_id = granted.request_id or new_request_id()
        return refusal(code, request_id, granted.style, status, more=granted.readable, sentence=sentence)

    def _answer(self, answer: Answer) -> Commands:
        """Answer now, whatever of the request is still to come. Nothing of it is kept."""
        self.answered = True
        if self.head_sent:
            error = ResponseProtocolError(self.stream_id, UPSTREAM_FAILED, ErrorCode.GENERIC_SERVER_ERROR)
            yield self._broken_off(SendHttp(error, self.context.client))
            return
        if self.flow_state is None or self.flow_state.decision is None:
            hide(self.flow)  # none of our hooks has run for it
        # The rest of a small body may have come while the hook was running.
        if any(isinstance(event, RequestEndOfMessage) for event in self._paused_event_queue):
            self.uploading = False
        if self.arrival is not None and self.arrival.is_grpc:
            answer = trailers_only(answer)
        over_h1 = is_h1(self.flow.request.data.http_version)
        # After a request that is invalid as HTTP it is unknown where the next one begins.
        last = (
            answer.status == STATUS["malformed"] or self.flow_state is None or self.flow_state.ends_connection
        )
        close = over_h1 and (self.uploading or self.invalid or last)
        response = response_of(answer, close=close)
        self.flow.response = response
        if self.flow.error is None:
            yield HttpResponseHook(self.flow)
        head_only = self.flow.request.data.method == b"HEAD" or not answer.body
        client = self.context.client
        # What is sent is the answer, not what other addons have made of the flow by now.
        response = response_of(answer, close=close)
        yield SendHttp(ResponseHeaders(self.stream_id, response, end_stream=head_only), client)
        if not head_only:
            yield SendHttp(ResponseData(self.stream_id, answer.body), client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), client)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        if close and (self.invalid or not self.uploading):
            yield commands.CloseConnection(client)
        elif self.uploading:
            yield from self._stop_upload()
        self.http_layer.ended.append(self)
        yield DropStream(self.stream_id)

    def _hang_up(self) -> Commands:
        yield commands.CloseConnection(self.context.client)


class EndingHttp1Client(SharingHttp1Client):
    """The upstream's side of HTTP/1, where an answer may end before its request was sent in full."""

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        yield from super().mark_done(request=request, response=response)
        if self.response_done and not self.request_done:
            self.state = self.has_answered

    def has_answered(self, event: events.Event) -> Commands:
        """Close the connection when the upstream sends more after its answer, or ends. mitmproxy would take
        that for a second end of the answer, and fail at it, with all streams of the client.
        """
        self.buf, self.state = ReceiveBuffer(), self.done
        yield commands.CloseConnection(self.conn)
        if isinstance(event, events.ConnectionEvent) and self.stream_id is not None:
            code = self.ReceiveProtocolError.code
            error = self.ReceiveProtocolError(self.stream_id, "it goes on after its answer", code=code)
            yield ReceiveHttp(error)


def _cancelled(stream_id: int) -> RequestProtocolError:
    return RequestProtocolError(stream_id, "cancelled", ErrorCode.CANCEL)


def nothing(event: events.Event) -> Commands:  # noqa: ARG001 - as a state of mitmproxy's stream
    """Do nothing: the state of a stream that is over."""
    yield from ()
