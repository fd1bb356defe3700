"""One HTTP exchange inside mitmproxy, between its own stream and the wire.

mitmproxy's `HttpStream` stays in charge of the protocol. This subclass reads along the events that go in
and the commands that come out, and has its own say at four places: a request is refused before its body
is read; it leaves as a copy that carries the credential, if it still is what was granted; its response is
masked before any flow holds it; and no error page of mitmproxy's answers a request of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
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

from . import flows, replies
from .answers import Answer, refusal
from .bodies import Body
from .decisions import PassThrough
from .dispatch import Begin
from .endings import EndingStream, nothing
from .errors import STATUS, Denied
from .identity import new_request_id
from .ledger import Arrival, Entry
from .masking import Mask
from .policy import body_too_large
from .sending import Commands
from .waits import Overdue

logger = logging.getLogger(__name__)

_PROMPT: Final = frozenset(
    (HttpRequestHeadersHook, HttpRequestHook, HttpResponseHeadersHook, HttpResponseHook)
)
_FRAMED_OTHERWISE: Final = "the body is not framed as HTTP/1.1 has it"
_UPSTREAM_FAILED: Final = "the upstream could not be reached or gave no usable answer"


class GuardedStream(EndingStream):
    """A stream that forwards only what the ledger says may be forwarded."""

    begin: Begin | None = None
    arrival: Arrival | None = None
    invalid = False
    head_sent = False

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, RequestHeaders):
            self._arrive(event)
        elif isinstance(event, RequestEndOfMessage):
            self._has_uploaded()
        elif isinstance(event, RequestData):
            self.queued -= min(self.queued, len(event.data))
        if isinstance(event, events.Wakeup):
            return self._hang_up()
        if self.answered:
            return nothing(event)
        if isinstance(event, Overdue):
            return self._answer_late()
        entry = self.entry
        if self._is_body_broken(event):
            return self._refuse_body(event, entry)
        if entry is not None and entry.guarded:
            return self._granted(event, entry)
        return self._guard(super()._handle_event(event))

    def _answer_late(self) -> Commands:
        """Its connection is not there in time."""
        if self.entry is not None:
            self.entry.why = "the upstream was not connected to in time"
        yield from self._answer(self._refusal("upstream", 504))

    def _arrive(self, event: RequestHeaders) -> None:
        """Note how the request came, before mitmproxy changes it. Without that it is refused."""
        self.uploading = not event.end_stream
        try:
            tunnelled = self.mode is HTTPMode.transparent
            self.arrival = flows.arrival_of(event.request, tunnelled=tunnelled, has_body=self.uploading)
            self.ledger.paid_head(self.context.client)
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
                entry = self.ledger.open(self.flow, self.arrival)
                if isinstance(command, HttpRequestHeadersHook):
                    self.entry = entry
                    entry.stream, entry.uploading = self, self.uploading
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
        entry = self.entry
        if entry is None or entry.decision is None:
            return self._refusal("internal")  # the hook did not run or did not finish
        if entry.answer is not None:
            self.invalid = self.flow.error is not None
            return entry.answer
        if entry.grant is not None and any(map(self._is_body_broken, self._paused_event_queue)):
            entry.why = _FRAMED_OTHERWISE  # it came while the hook ran; mitmproxy would just hang up
            return self._refusal("malformed")
        response = self.flow.response
        if entry.grant is not None and response is not None:
            # Another addon answered, such as proxyauth; a streamed request cannot wait for its body.
            data = response.data
            return Answer(data.status_code, data.reason, data.headers.fields, data.content or b"")
        if entry.grant is not None:
            # A body that is kept, or goes through somebody's function, need not be the one that was sent.
            self.flow.request.stream = True
        return None

    def _tunnelled(self) -> Answer | None:
        """The answer to a CONNECT that nobody has judged; None to go on, be it with a refusal."""
        entry, response = self.ledger.get(self.flow), self.flow.response
        if entry is not None and isinstance(entry.decision, PassThrough):
            return None
        if response is not None and not 200 <= response.status_code < 300:
            return None
        self.invalid = True
        return self._refusal("internal")

    def _connect(self, command: GetHttpConnection) -> commands.Command | Answer:
        entry = self.entry
        if entry is None or entry.decision is None:
            return self._refusal("internal")
        if entry.grant is not None and not flows.is_unchanged(self.flow.request, entry.snapshot):
            return self._changed(entry)
        entry.enter("connecting")
        return command

    def _send(self, command: SendHttp) -> commands.Command | Answer | None:
        event, entry = command.event, self.entry
        if isinstance(event, RequestHeaders):
            return self._send_head(command, event)
        if isinstance(event, RequestData) and not event.data:
            return None  # mitmproxy would write it as the chunk that ends the body
        if isinstance(event, RequestTrailers) and getattr(command.connection, "alpn", None) != b"h2":
            return None  # mitmproxy has no way to write them over HTTP/1
        if isinstance(event, RequestData | ResponseData) and entry is not None and entry.bodies is not None:
            shown = entry.bodies.request if isinstance(event, RequestData) else entry.bodies.response
            shown.add(event.data)
        if isinstance(event, RequestEndOfMessage) and entry is not None and entry.stage == "sending":
            entry.enter("waiting")
        elif isinstance(event, ResponseHeaders):
            self.head_sent = event.response.status_code >= 200
        elif isinstance(event, ResponseProtocolError):
            return self._error_page(command, event, entry)
        return command

    def _send_head(self, command: SendHttp, event: RequestHeaders) -> commands.Command | Answer:
        """The last moment before a request leaves: is it what was granted, and does it go there?"""
        entry = self.entry
        if entry is None or entry.decision is None:
            return self._refusal("internal")
        grant = entry.grant
        if grant is None and isinstance(entry.decision, PassThrough):
            self.http_layer.own(command.connection, "")
            return command
        if grant is None:
            return self._refusal("internal")
        same = flows.is_unchanged(self.flow.request, entry.snapshot)
        same &= event.end_stream or entry.arrival.has_body
        server = command.connection
        if not same or not isinstance(server, Server) or not flows.reaches(server, grant):
            return self._changed(entry)
        if not self.http_layer.has_room(server):
            return self._refusal("unavailable")  # it would leave later, when nobody asks any more
        entry.withdrawn = self.ledger.confirm(entry)
        if entry.withdrawn is not None or (grant := entry.grant) is None:
            why = entry.withdrawn or Denied("internal", "there is no grant")
            return self._refusal(why.code, why.status)
        self.http_layer.quiet = True
        self.http_layer.own(server, grant.connection.id)
        entry.enter("sending")
        entry.server = server
        copy = flows.wire_request(self.flow.request, grant, server, has_body=not event.end_stream)
        return SendHttp(RequestHeaders(event.stream_id, copy, event.end_stream), server)

    def _changed(self, entry: Entry) -> Answer:
        """Somebody edited the request after it was verified: what would leave is not what was signed."""
        entry.withdrawn = Denied("invalid", "it was changed after it was verified")
        logger.warning("presign: a request was changed after it was verified; it is refused")
        return self._refusal("invalid")

    def _error_page(
        self, command: SendHttp, event: ResponseProtocolError, entry: Entry | None
    ) -> commands.Command | Answer:
        """An answer of ours in place of mitmproxy's page, which shows its version and upstream bytes."""
        status = event.code.http_status_code()
        passed = entry is not None and isinstance(entry.decision, PassThrough)
        if command.connection is not self.context.client or status is None or self.head_sent:
            return command
        if event.code is ErrorCode.REQUEST_VALIDATION_FAILED:
            self.invalid = True
            return self._refusal("malformed")
        if passed:
            return command
        if event.code is ErrorCode.REQUEST_TOO_LARGE:
            return self._refusal("too_large", 413)
        if entry is None or not entry.guarded:
            return self._refusal("malformed")
        return self._refusal("upstream", 504 if entry.timed_out else None)

    # -- events that go in ----------------------------------------------------------------------------

    def _granted(self, event: events.Event, entry: Entry) -> Commands:
        if isinstance(event, RequestTrailers | ResponseTrailers):
            return  # fields that nobody stripped or masked
        if isinstance(event, ResponseHeaders):
            answer = self._receive_head(event, entry)
            if answer is not None:
                yield from self._cancel(entry)
                yield from self._answer(answer)
                return
        elif isinstance(event, ResponseData):
            yield from self._receive_data(entry, event.data)
            return
        elif isinstance(event, ResponseEndOfMessage):
            entry.replied = True
            yield from self._receive_data(entry, None)
            if self.answered:
                return
        elif isinstance(event, ResponseProtocolError):
            # mitmproxy's message quotes what the upstream sent, and with it an echoed credential.
            event = ResponseProtocolError(event.stream_id, _UPSTREAM_FAILED, event.code)
        elif isinstance(event, RequestData):
            entry.uploaded += len(event.data)
            self.flow.request.stream = True
            if entry.overruns:
                yield from self._cut_upload(entry)
                return
        yield from self._guard(super()._handle_event(event))

    def _is_body_broken(self, event: events.Event) -> bool:
        """Whether a body over HTTP/1 is not framed as it has to be; its client is still there to hear so."""
        if not isinstance(event, RequestProtocolError) or event.code is not ErrorCode.GENERIC_CLIENT_ERROR:
            return False
        client = self.context.client
        return client.connected and client.alpn != b"h2"

    def _refuse_body(self, event: events.Event, entry: Entry | None) -> Commands:
        """Answer, if nothing of an answer has begun, and close: nobody can tell where the next request is."""
        if entry is not None and entry.guarded and not self.head_sent:
            entry.why = _FRAMED_OTHERWISE
            yield from self._cancel(entry)
            yield from self._answer(self._refusal("malformed"))
        else:
            yield from self._guard(super()._handle_event(event))
            yield from self._hang_up()

    def _receive_head(self, event: ResponseHeaders, entry: Entry) -> Answer | None:
        """Rewrite a response head before any flow holds it; the answer to give where that cannot be."""
        grant = entry.grant
        if grant is None:
            return self._refusal("internal")
        try:
            entry.heard(event.response.status_code)
            mask = entry.mask or Mask(())
            reply = replies.rewrite(flows.reply_of(event.response), grant, mask)
            entry.body = Body(mask, encoded=reply.encoded)
            flows.put_reply(event.response, reply, client_version=self.flow.request.data.http_version)
        except Denied as denied:
            logger.info("presign: %s: a response is refused: %s", grant.request_id, denied.detail)
            entry.why = denied.detail
            return self._refusal("upstream")
        except Exception as error:
            logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
            return self._refusal("internal")
        entry.enter("receiving")
        return None

    def _receive_data(self, entry: Entry, chunk: bytes | None) -> Commands:
        """Pass a chunk on, decoded and masked; None ends the body."""
        body = entry.body
        if body is None:
            yield from self._abort(entry)
            return
        pieces: Iterator[bytes] = body.finish() if chunk is None else body.feed(chunk)
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                logger.warning("presign: a response body cannot be passed on (%s)", type(error).__name__)
                yield from self._abort(entry)
                return
            if piece is None:
                return
            yield from self._guard(super()._handle_event(ResponseData(self.stream_id, piece)))

    def _cut_upload(self, entry: Entry) -> Commands:
        """More of a body has come than was signed: the upstream never gets the end of it, nor this piece."""
        entry.withdrawn = body_too_large(entry.max_body or 0)
        if self.head_sent:
            yield from self._abort(entry)
            return
        yield from self._cancel(entry)
        yield from self._answer(self._refusal("too_large", entry.withdrawn.status))

    def _abort(self, entry: Entry) -> Commands:
        """Break off a response whose head is out: the client sees that it is not whole."""
        yield from self._cancel(entry)
        error = ResponseProtocolError(self.stream_id, _UPSTREAM_FAILED, ErrorCode.GENERIC_SERVER_ERROR)
        yield from self._guard(super()._handle_event(error))
        self.answered = True

    # -- answers of ours ------------------------------------------------------------------------------

    def _refusal(self, code: str, status: int | None = None) -> Answer:
        entry = self.entry
        request_id = (entry.request_id if entry else "") or new_request_id()
        if entry is not None and entry.guarded:
            entry.failed = code
        return refusal(code, request_id, entry.style if entry else "json", status)

    def _answer(self, answer: Answer) -> Commands:
        """Answer now, whatever of the request is still to come; nothing of it is kept."""
        self.answered = True
        if self.head_sent:
            error = ResponseProtocolError(self.stream_id, _UPSTREAM_FAILED, ErrorCode.GENERIC_SERVER_ERROR)
            yield SendHttp(error, self.context.client)
            return
        if self.entry is None or self.entry.decision is None:
            flows.hide(self.flow)  # no hook of ours has seen it
        # The rest of a small body may have come while the hook was running.
        if any(isinstance(event, RequestEndOfMessage) for event in self._paused_event_queue):
            self.uploading = False
        over_h1 = flows.is_h1(self.flow.request.data.http_version)
        # After a request that is invalid as HTTP nobody can tell where the next one begins.
        last = answer.status == STATUS["malformed"] or self.entry is None or self.entry.ends_connection
        close = over_h1 and (self.uploading or self.invalid or last)
        response = flows.response_of(answer, close=close)
        self.flow.response = response
        if self.flow.error is None:
            yield HttpResponseHook(self.flow)
        head_only = self.flow.request.data.method == b"HEAD" or not answer.body
        client = self.context.client
        # What is sent is the answer, not what other addons have made of the flow by now.
        response = flows.response_of(answer, close=close)
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
