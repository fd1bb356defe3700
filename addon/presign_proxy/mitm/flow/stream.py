"""One HTTP exchange inside mitmproxy, between its own stream and the wire.

mitmproxy's `HttpStream` stays in charge of the protocol. This subclass reads the events that go in and the
commands that come out, and acts at four places: a request is refused before its body is read; it leaves as a
copy that carries the credential, if it still is what was granted; its response is masked before any flow
holds it; and no error page of mitmproxy's answers a request of ours.
"""

from __future__ import annotations

import logging
from typing import Final

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HTTPMode,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import (
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

from ...core.answers import Answer
from ...core.decision import PassThrough
from ...core.policy import body_too_large
from ...core.upgrade import SWITCHING
from ...errors import Denied
from ...http.message import asks_to_switch
from ...http.response_head import UNFRAMED
from ..hook_dispatch import Begin
from .arrival import arrival_of
from .coalesce import Commands
from .endings import UPSTREAM_FAILED, UnreadableResponse, nothing
from .response import unframe
from .state import FlowState
from .stream_events import Drained, Lapsed, Overdue, Revoked, Stalled
from .uploads import FRAMED_OTHERWISE
from .websocket import WebSocketStream

logger = logging.getLogger(__name__)

_PROMPT: Final = frozenset(
    (HttpRequestHeadersHook, HttpRequestHook, HttpResponseHeadersHook, HttpResponseHook)
)


class GuardedStream(WebSocketStream):
    """A stream that forwards only what its flow's state says may be forwarded."""

    begin: Begin | None = None

    @property
    def is_refused(self) -> bool:
        """True if it was decided that the client gets a refusal."""
        return self.flow_state is not None and self.flow_state.answer is not None

    def handle_event(self, event: events.Event) -> Commands:
        """Note that the client has left, also while a hook is run, which keeps all else waiting."""
        if isinstance(event, RequestProtocolError) and self.flow_state is not None:
            if not self._is_body_broken(event):
                self.flow_state.progress.leave()
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, RequestHeaders):
            self._arrive(event)
        elif isinstance(event, RequestEndOfMessage):
            self._has_uploaded()
        elif isinstance(event, RequestData):
            self.queued -= min(self.queued, len(event.data))
        elif isinstance(event, ResponseHeaders):
            unframe(event.response)
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
        if isinstance(event, Lapsed):
            return self._end_lapsed(event.why)
        if isinstance(event, Revoked):
            return self._end_revoked()
        flow_state = self.flow_state
        if self._is_body_broken(event):
            return self._refuse_body(event, flow_state)
        if flow_state is not None and flow_state.granted is not None:
            return self._granted(event, flow_state)
        if isinstance(event, ResponseHeaders) and flow_state is not None:
            asked = not flow_state.is_second and asks_to_switch(self.flow.request.headers.fields)
            if event.response.status_code == SWITCHING and not asked:
                return self._refuse_switch()
            if flow_state.is_second:
                event.response.stream = True
        return self._guard(super()._handle_event(event))

    def _answer_late(self) -> Commands:
        """Answer a request whose connection is not there in time."""
        if self.flow_state is not None:
            self.flow_state.progress.explain("the upstream was not connected to in time")
        yield from self._answer(self._refusal("upstream", 504))

    def _arrive(self, event: RequestHeaders) -> None:
        """Note how the request came, before mitmproxy changes it. Without that the request is refused."""
        self.uploading = not event.end_stream
        try:
            tunnelled = self.mode is HTTPMode.transparent
            self.arrival = arrival_of(event.request, tunnelled=tunnelled, has_body=self.uploading)
            self.states.clients.head_came(self.context.client)
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
                # mitmproxy does nothing more with this request.
                stock.close()
                yield from self._spare(command)
                yield from self._answer(checked)
                return

    def _is_over_at_once(self, command: commands.Command) -> bool:
        """Run a hook synchronously, and return whether it ran. Not done for:

        * hooks of layers below: they have paused those layers;
        * requests whose body is still to come: their refusal depends on what has come of it;
        * requests that were sent ahead: they begin inside the end of the answer before them, and the
          upstream's connection has not come to that end yet;
        * streams that were reset in the same read: mitmproxy notices that while a hook is under way, and
          dials nothing for them.
        """
        if self.begin is None or type(command) not in _PROMPT or command.blocking is not True:
            return False
        if type(command) is HttpRequestHeadersHook and (self.uploading or not self.http_layer.listening):
            return False
        return not self.http_layer.is_reset(self.stream_id) and self.begin(command)

    def _checked(self, command: commands.Command) -> commands.Command | Answer | None:
        """Return the command, its replacement, None to drop it, or the answer in its place. Never raises."""
        try:
            if isinstance(command, SendHttp):
                return self._send(command)
            if isinstance(command, HttpRequestHeadersHook | HttpConnectHook):
                if self.arrival is None:
                    return self._refusal("internal")
                flow_state = self.states.open(self.flow, self.arrival)
                if isinstance(command, HttpRequestHeadersHook):
                    self.flow_state = flow_state
                    flow_state.begin(self)
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
        """Return the answer to give now that the hook has run, or None to go on."""
        flow_state = self.flow_state
        if flow_state is not None and flow_state.decision is None and flow_state.progress.left:
            return None  # mitmproxy looks for the end of its client next, and goes no further
        if flow_state is None or flow_state.decision is None:
            return self._refusal("internal")  # the hook did not run or did not finish
        if flow_state.answer is not None:
            self.invalid = self.flow.error is not None
            return flow_state.answer
        if flow_state.grant is not None and any(map(self._is_body_broken, self._paused_event_queue)):
            # It came while the hook ran. mitmproxy would just hang up.
            flow_state.progress.explain(FRAMED_OTHERWISE)
            return self._refusal("malformed")
        response = self.flow.response
        if flow_state.grant is not None and response is not None:
            # Another addon answered, such as proxyauth; a streamed request cannot wait for its body.
            data = response.data
            return Answer(data.status_code, data.reason, data.headers.fields, data.content or b"")
        if flow_state.grant is not None:
            self._begin_body(flow_state, flow_state.grant)
        return None

    def _tunnelled(self) -> Answer | None:
        """Return the answer to a CONNECT that was not decided on, or None to go on, also with a refusal."""
        flow_state, response = self.states.get(self.flow), self.flow.response
        if flow_state is not None and isinstance(flow_state.decision, PassThrough):
            return None
        if response is not None and not 200 <= response.status_code < 300:
            return None
        self.invalid = True
        return self._refusal("internal")

    # -- events that go in ----------------------------------------------------------------------------

    def _granted(self, event: events.Event, flow_state: FlowState) -> Commands:
        """Handle an event of a request that was granted."""
        if isinstance(event, RequestTrailers):
            return  # fields that were not stripped
        if isinstance(event, ResponseHeaders):
            answer = self._receive_head(event, flow_state)
            if answer is not None:
                yield from self._cancel(flow_state)
                yield from self._answer(answer)
                return
        elif isinstance(event, ResponseData | ResponseTrailers | ResponseEndOfMessage):
            yield from self._receive(flow_state, event)
            return
        elif isinstance(event, ResponseProtocolError):
            if isinstance(event, UnreadableResponse):
                flow_state.progress.explain(event.message)
            # mitmproxy's message quotes what the upstream sent, which may echo the credential.
            event = ResponseProtocolError(event.stream_id, UPSTREAM_FAILED, event.code)
        elif isinstance(event, RequestEndOfMessage) and self._is_short(flow_state):
            yield from self._cut_upload(
                flow_state, Denied("malformed", "the body is not as long as announced")
            )
            return
        elif isinstance(event, RequestData):
            flow_state.progress.upload.add(len(event.data))
            if (signed := flow_state.exceeded) is not None:
                yield from self._cut_upload(flow_state, body_too_large(signed))
                return
            if (kept := flow_state.progress.upload.kept) is not None:
                yield from self._keep(flow_state, kept, event.data)
                return
            self.flow.request.stream = True
        yield from self._guard(super()._handle_event(event))
