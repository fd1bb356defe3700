"""One HTTP exchange inside mitmproxy, between its own stream and the wire.

mitmproxy's `HttpStream` stays in charge of the protocol. This subclass reads along the events that go in
and the commands that come out, and has its own say at four places: a request is refused before its body
is read; it leaves as a copy that carries the credential, if it still is what was granted; its response is
masked before any flow holds it; and no error page of mitmproxy's answers a request of ours.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HTTPMode,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._hooks import (
    HttpConnectHook,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)

from ...core import rewrite_response
from ...core.answers import Answer
from ...core.decision import PassThrough
from ...core.masking import Mask
from ...core.policy import body_too_large, body_too_late
from ...core.response_body import Body
from ...errors import Denied
from ...http.response_head import UNFRAMED
from ..hook_dispatch import Begin
from . import adapter
from .coalesce import Commands
from .downloads import DownloadingStream
from .endings import UPSTREAM_FAILED, UnreadableResponse, nothing
from .state import Arrival, FlowState
from .waits import Drained, Overdue, Stalled

logger = logging.getLogger(__name__)

_PROMPT: Final = frozenset(
    (HttpRequestHeadersHook, HttpRequestHook, HttpResponseHeadersHook, HttpResponseHook)
)
_FRAMED_OTHERWISE: Final = "the body is not framed as HTTP/1.1 has it"


class GuardedStream(DownloadingStream):
    """A stream that forwards only what the ledger says may be forwarded."""

    begin: Begin | None = None
    arrival: Arrival | None = None
    bodiless = False
    """Whether its answer ends with its head."""

    def handle_event(self, event: events.Event) -> Commands:
        """Also while a hook is run, which keeps all else waiting."""
        if isinstance(event, RequestProtocolError) and self.flow_state is not None:
            if not self._is_body_broken(event):
                self.flow_state.leave()
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, RequestHeaders):
            self._arrive(event)
        elif isinstance(event, RequestEndOfMessage):
            self._has_uploaded()
        elif isinstance(event, RequestData):
            self.queued -= min(self.queued, len(event.data))
        elif isinstance(event, ResponseHeaders):
            adapter.unframe(event.response)
            self.bodiless = event.response.status_code in UNFRAMED
        elif isinstance(event, ResponseData) and self.bodiless:
            return nothing(event)  # over HTTP/2 it comes all the same, and would stand before the next answer
        if isinstance(event, events.Wakeup):
            return self._prompt() if event.command is self.prompting else self._hang_up()
        if isinstance(event, Drained):
            return self._resume()
        if self.answered:
            return nothing(event)
        if isinstance(event, Overdue):
            return self._answer_late()
        if isinstance(event, Stalled):
            return self._end_stalled()
        flow_state = self.flow_state
        if self._is_body_broken(event):
            return self._refuse_body(event, flow_state)
        if flow_state is not None and flow_state.guarded:
            return self._granted(event, flow_state)
        if isinstance(event, ResponseHeaders) and flow_state is not None and flow_state.is_second:
            if event.response.status_code == 101:
                return self._answer(self._refusal("upstream"))  # of no protocol that was let through
            event.response.stream = True
        return self._guard(super()._handle_event(event))

    def _answer_late(self) -> Commands:
        """Its connection is not there in time."""
        if self.flow_state is not None:
            self.flow_state.why = "the upstream was not connected to in time"
        yield from self._answer(self._refusal("upstream", 504))

    def _end_stalled(self) -> Commands:
        """The client sends no more of its body."""
        flow_state = self.flow_state
        if flow_state is not None and self.uploading:
            why = body_too_late(flow_state.patience[0])
            yield from (
                self._end_upload(flow_state) if flow_state.replied else self._cut_upload(flow_state, why)
            )

    def _arrive(self, event: RequestHeaders) -> None:
        """Note how the request came, before mitmproxy changes it. Without that it is refused."""
        self.uploading = not event.end_stream
        try:
            tunnelled = self.mode is HTTPMode.transparent
            self.arrival = adapter.arrival_of(event.request, tunnelled=tunnelled, has_body=self.uploading)
            self.states.paid_head(self.context.client)
        except Exception as error:
            logger.error("presign: failed at an arrival (%s); the request is refused", type(error).__name__)
            self.arrival = None

    # -- commands that come out ---------------------------------------------------------------------

    def _guard(self, stock: Commands) -> Commands:
        """Pass on the commands of mitmproxy's own stream, until one of them calls for an answer of ours."""
        reply = None
        while True:
            try:
                command = stock.send(reply)
            except StopIteration:
                return
            reply = None
            checked = self._checked(command)
            if checked is None:
                continue
            if isinstance(checked, commands.Command):
                if not self._is_over_at_once(checked):
                    reply = yield checked
                if isinstance(command, HttpConnectHook):
                    checked = self._tunnelled()
                elif isinstance(command, HttpRequestHeadersHook):
                    checked = self._decided()
                else:
                    yield from self._after(command)
                    continue
            if checked is not None:
                # Whatever mitmproxy was going to do with this request, it does not.
                stock.close()
                yield from self._spare(command)
                yield from self._answer(checked)
                return

    def _is_over_at_once(self, command: commands.Command) -> bool:
        """Whether a hook was run, here and now. Only a hook of this stream itself: one of a layer below has
        paused that layer. Not before the body of a request, whose refusal depends on what has come of it; nor
        for a request that was sent ahead, and begins inside the end of the answer before it: the upstream's
        connection has not come to the end of that answer yet. Nor for one that was taken back in the same
        breath, of which mitmproxy learns while a hook is under way: nothing is dialled for it.
        """
        if self.begin is None or type(command) not in _PROMPT or command.blocking is not True:
            return False
        if type(command) is HttpRequestHeadersHook and (self.uploading or not self.http_layer.listening):
            return False
        return not self.http_layer.is_reset(self.stream_id) and self.begin(command)

    def _checked(self, command: commands.Command) -> commands.Command | Answer | None:
        """The command, its replacement, None to drop it, or the answer that takes its place. Never raises."""
        try:
            if isinstance(command, SendHttp):
                return self._send(command)
            if isinstance(command, HttpRequestHeadersHook | HttpConnectHook):
                if self.arrival is None:
                    return self._refusal("internal")
                flow_state = self.states.open(self.flow, self.arrival)
                if isinstance(command, HttpRequestHeadersHook):
                    self.flow_state = flow_state
                    flow_state.stream, flow_state.uploading = self, self.uploading
            elif isinstance(command, GetHttpConnection):
                return self._connect(command)
            elif isinstance(command, commands.Log):
                return None  # "Streaming response from …", for every one
            elif isinstance(command, DropStream):
                self._leave()
        except Exception as error:
            logger.error("presign: failed at the wire (%s); the request is refused", type(error).__name__)
            return self._refusal("internal")
        return command

    def _decided(self) -> Answer | None:
        """The answer to give now that the hook has run; None to go on."""
        flow_state = self.flow_state
        if flow_state is not None and flow_state.decision is None and flow_state.left:
            return None  # mitmproxy looks for the end of its client next, and goes no further
        if flow_state is None or flow_state.decision is None:
            return self._refusal("internal")  # the hook did not run or did not finish
        if flow_state.answer is not None:
            self.invalid = self.flow.error is not None
            return flow_state.answer
        if flow_state.grant is not None and any(map(self._is_body_broken, self._paused_event_queue)):
            flow_state.why = _FRAMED_OTHERWISE  # it came while the hook ran; mitmproxy would just hang up
            return self._refusal("malformed")
        response = self.flow.response
        if flow_state.grant is not None and response is not None:
            # Another addon answered, such as proxyauth; a streamed request cannot wait for its body.
            data = response.data
            return Answer(data.status_code, data.reason, data.headers.fields, data.content or b"")
        if flow_state.grant is not None:
            # A body that is kept, or goes through somebody's function, need not be the one that was sent.
            self.flow.request.stream = True
        return None

    def _tunnelled(self) -> Answer | None:
        """The answer to a CONNECT that nobody has judged; None to go on, be it with a refusal."""
        flow_state, response = self.states.get(self.flow), self.flow.response
        if flow_state is not None and isinstance(flow_state.decision, PassThrough):
            return None
        if response is not None and not 200 <= response.status_code < 300:
            return None
        self.invalid = True
        return self._refusal("internal")

    def _connect(self, command: GetHttpConnection) -> commands.Command | Answer:
        flow_state = self.flow_state
        if flow_state is None or flow_state.decision is None:
            return self._refusal("internal")
        if flow_state.grant is not None and not adapter.is_unchanged(self.flow.request, flow_state.snapshot):
            return self._changed(flow_state)
        if flow_state.grant is not None and self.flow.server_conn.via is not None:
            if why := adapter.why_not_through_another(flow_state.grant):
                flow_state.why = why
                return self._refusal("upstream")
        flow_state.enter("connecting")
        return command

    def _send(self, command: SendHttp) -> commands.Command | Answer | None:
        event, flow_state = command.event, self.flow_state
        if isinstance(event, RequestHeaders):
            return self._send_head(command, event)
        if isinstance(event, RequestData) and not event.data:
            return None  # mitmproxy would write it as the chunk that ends the body
        if isinstance(event, RequestTrailers | ResponseTrailers):
            # mitmproxy has no way to write them over HTTP/1.
            return command if getattr(command.connection, "alpn", None) == b"h2" else None
        if (
            isinstance(event, RequestData | ResponseData)
            and flow_state is not None
            and flow_state.bodies is not None
        ):
            shown = (
                flow_state.bodies.request if isinstance(event, RequestData) else flow_state.bodies.response
            )
            shown.add(event.data)
        if (
            isinstance(event, RequestEndOfMessage)
            and flow_state is not None
            and flow_state.stage == "sending"
        ):
            flow_state.enter("waiting")
        elif isinstance(event, ResponseHeaders):
            self.head_sent = event.response.status_code >= 200
            if flow_state is not None and flow_state.links:
                sent, flow_state.links = adapter.linked_response(event.response, flow_state.links), ()
                return SendHttp(ResponseHeaders(event.stream_id, sent, event.end_stream), command.connection)
        elif isinstance(event, ResponseProtocolError):
            return self._error_page(command, event, flow_state)
        return command

    def _send_head(self, command: SendHttp, event: RequestHeaders) -> commands.Command | Answer:
        """The last moment before a request leaves: is it what was granted, and does it go there?"""
        flow_state = self.flow_state
        if flow_state is None or flow_state.decision is None:
            return self._refusal("internal")
        grant = flow_state.grant
        if grant is None and isinstance(flow_state.decision, PassThrough):
            server = command.connection
            if flow_state.is_second and not (isinstance(server, Server) and server.tls and not server.via):
                return self._refusal("upstream")  # another proxy would resolve its name, which nobody judged
            self.http_layer.own(server, "")
            return command
        if grant is None:
            return self._refusal("internal")
        same = adapter.is_unchanged(self.flow.request, flow_state.snapshot)
        same &= event.end_stream or flow_state.arrival.has_body
        server = command.connection
        if not same or not isinstance(server, Server) or not adapter.reaches(server, grant):
            return self._changed(flow_state)
        if not self.http_layer.has_room(server):
            return self._refusal("unavailable")  # it would leave later, when nobody asks any more
        flow_state.withdrawn = self.states.confirm(flow_state)
        if flow_state.withdrawn is not None or (grant := flow_state.grant) is None:
            why = flow_state.withdrawn or Denied("internal", "there is no grant")
            return self._refusal(why.code, why.status)
        self.http_layer.quiet = True
        self.http_layer.own(server, grant.connection.id)
        flow_state.enter("sending")
        flow_state.server = server
        copy = adapter.wire_request(self.flow.request, grant, server, has_body=not event.end_stream)
        return SendHttp(RequestHeaders(event.stream_id, copy, event.end_stream), server)

    def _changed(self, flow_state: FlowState) -> Answer:
        """Somebody edited the request after it was verified: what would leave is not what was signed."""
        flow_state.withdrawn = Denied("invalid", "it was changed after it was verified")
        logger.warning("presign: a request was changed after it was verified; it is refused")
        return self._refusal("invalid")

    def _error_page(
        self, command: SendHttp, event: ResponseProtocolError, flow_state: FlowState | None
    ) -> commands.Command | Answer:
        """An answer of ours in place of mitmproxy's page, which shows its version and upstream bytes."""
        status = event.code.http_status_code()
        passed = flow_state is not None and isinstance(flow_state.decision, PassThrough)
        if command.connection is not self.context.client or status is None or self.head_sent:
            return command
        if event.code is ErrorCode.REQUEST_VALIDATION_FAILED:
            self.invalid = True
            return self._refusal("malformed")
        if passed:
            return command
        if event.code is ErrorCode.REQUEST_TOO_LARGE:
            return self._refusal("too_large", 413)
        if flow_state is None or not flow_state.guarded:
            return self._refusal("malformed")
        return self._refusal("upstream", 504 if flow_state.timed_out else None)

    # -- events that go in ----------------------------------------------------------------------------

    def _granted(self, event: events.Event, flow_state: FlowState) -> Commands:
        if isinstance(event, RequestTrailers | ResponseTrailers):
            return  # fields that nobody stripped or masked
        if isinstance(event, ResponseHeaders):
            answer = self._receive_head(event, flow_state)
            if answer is not None:
                yield from self._cancel(flow_state)
                yield from self._answer(answer)
                return
        elif isinstance(event, ResponseData):
            flow_state.moved = time.monotonic()
            yield from self._receive(flow_state, event)
            return
        elif isinstance(event, ResponseEndOfMessage):
            flow_state.replied = True
            yield from self._receive(flow_state, event)
            return
        elif isinstance(event, ResponseProtocolError):
            if isinstance(event, UnreadableResponse):
                flow_state.why = event.message
            # mitmproxy's message quotes what the upstream sent, and with it an echoed credential.
            event = ResponseProtocolError(event.stream_id, UPSTREAM_FAILED, event.code)
        elif isinstance(event, RequestEndOfMessage) and self._is_short(flow_state):
            yield from self._cut_upload(
                flow_state, Denied("malformed", "the body is not as long as announced")
            )
            return
        elif isinstance(event, RequestData):
            flow_state.uploaded += len(event.data)
            flow_state.moved = time.monotonic()
            self.flow.request.stream = True
            if flow_state.overruns:
                yield from self._cut_upload(flow_state, body_too_large(flow_state.max_body or 0))
                return
        yield from self._guard(super()._handle_event(event))

    def _is_short(self, flow_state: FlowState) -> bool:
        """Whether a body ends too early: where trailers follow, h2 does not hold it against its length."""
        data = self.flow.request.data
        if adapter.is_h1(data.http_version) or not flow_state.arrival.has_body:
            return False  # its own framing says so
        length = adapter.announced(data.headers.fields)
        return length is not None and flow_state.uploaded < length

    def _is_body_broken(self, event: events.Event) -> bool:
        """Whether a body over HTTP/1 is not framed as it has to be; its client is still there to hear so."""
        if not isinstance(event, RequestProtocolError) or event.code is not ErrorCode.GENERIC_CLIENT_ERROR:
            return False
        client = self.context.client
        return client.connected and client.alpn != b"h2"

    def _refuse_body(self, event: events.Event, flow_state: FlowState | None) -> Commands:
        """Answer, if nothing of an answer has begun, and close: nobody can tell where the next request is."""
        if flow_state is not None and flow_state.guarded and not self.head_sent:
            flow_state.why = _FRAMED_OTHERWISE
            yield from self._cancel(flow_state)
            yield from self._answer(self._refusal("malformed"))
        else:
            yield from self._guard(super()._handle_event(event))
            yield from self._hang_up()

    def _receive_head(self, event: ResponseHeaders, flow_state: FlowState) -> Answer | None:
        """Rewrite a response head before any flow holds it; the answer to give where that cannot be."""
        grant = flow_state.grant
        if grant is None:
            return self._refusal("internal")
        try:
            flow_state.heard(event.response.status_code)
            mask = flow_state.mask or Mask(())
            reply = rewrite_response.rewrite(adapter.reply_of(event.response), grant, mask)
            flow_state.body, flow_state.links = Body(mask, encoded=reply.encoded), reply.links
            adapter.put_reply(event, reply, client_version=self.flow.request.data.http_version)
        except Denied as denied:
            logger.info("presign: %s: a response is refused: %s", grant.request_id, denied.detail)
            flow_state.why = denied.detail
            return self._refusal(denied.code)
        except Exception as error:
            logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
            return self._refusal("internal")
        flow_state.enter("receiving")
        return None

    def _cut_upload(self, flow_state: FlowState, why: Denied) -> Commands:
        """Refuse a body half-way: the upstream never gets the end of it."""
        flow_state.withdrawn = why
        if self.head_sent:
            yield from self._abort(flow_state)
            return
        yield from self._cancel(flow_state)
        yield from self._answer(self._refusal(why.code, why.status))
