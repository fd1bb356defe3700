"""What leaves a stream: a request only if it is what was granted, and no error page of mitmproxy's."""

from __future__ import annotations

import logging

from mitmproxy.connection import Server
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http import GetHttpConnection, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestTrailers,
    ResponseData,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from ...core.answers import Answer
from ...core.decision import PassThrough
from ...errors import Denied
from .coalesce import Commands
from .outgoing_request import is_unchanged, leaving, reaches, why_not_through_another, wire_request
from .response import linked_response
from .routes import lead
from .state import FlowState
from .uploads import UploadingStream
from .upstream_protocol import why_not_over

logger = logging.getLogger(__name__)


class SendingStream(UploadingStream):
    """A stream that looks at each message before it leaves."""

    def _connect(self, command: GetHttpConnection) -> commands.Command | Answer:
        """Let a request that was decided on ask for its connection."""
        flow_state = self.flow_state
        if flow_state is None or flow_state.decision is None:
            return self._refusal("internal")
        if flow_state.grant is not None and not self._is_as_granted(flow_state):
            return self._changed(flow_state)
        if flow_state.grant is not None and self.flow.server_conn.via is not None:
            if why := why_not_through_another(flow_state.grant):
                flow_state.progress.explain(why)
                return self._refusal("upstream")
        flow_state.progress.enter("connecting")
        lead(command, flow_state.grant)
        return command

    def _send(self, command: SendHttp) -> commands.Command | Answer | None:
        """Return a message to either side, its replacement, None to drop it, or the answer in its place."""
        event, flow_state = command.event, self.flow_state
        if isinstance(event, RequestHeaders):
            return self._send_head(command, event)
        if isinstance(event, RequestData) and not event.data:
            return None  # mitmproxy would write it as the chunk that ends the body
        if isinstance(event, RequestTrailers | ResponseTrailers):
            # mitmproxy has no way to write them over HTTP/1.
            return command if getattr(command.connection, "alpn", None) == b"h2" else None
        if isinstance(event, RequestData | ResponseData) and flow_state is not None:
            bodies = flow_state.granted.bodies if flow_state.granted is not None else None
            if bodies is not None:
                shown = bodies.request if isinstance(event, RequestData) else bodies.response
                shown.add(event.data)
        if isinstance(event, RequestEndOfMessage) and flow_state is not None:
            if flow_state.progress.stage == "sending":
                flow_state.progress.enter("waiting")
        elif isinstance(event, ResponseHeaders):
            self.head_sent = event.response.status_code >= 200
            links = flow_state.progress.response.take_links() if flow_state is not None else ()
            if links:
                sent = linked_response(event.response, links)
                return SendHttp(ResponseHeaders(event.stream_id, sent, event.end_stream), command.connection)
        elif isinstance(event, ResponseProtocolError):
            return self._error_page(command, event, flow_state)
        return command

    def _send_head(self, command: SendHttp, event: RequestHeaders) -> commands.Command | Answer:
        """Look at a request just before it leaves: is it what was granted, and does it go there?"""
        flow_state = self.flow_state
        grant = flow_state.grant if flow_state is not None else None
        if flow_state is not None and grant is None and isinstance(flow_state.decision, PassThrough):
            server = command.connection
            if flow_state.is_second and not (isinstance(server, Server) and server.tls and not server.via):
                return self._refusal("upstream")  # another proxy would resolve its name, which was not judged
            self.http_layer.own(server, "")
            return command
        if flow_state is None or grant is None:
            return self._refusal("internal")
        same = self._is_as_granted(flow_state)
        same &= event.end_stream or flow_state.arrival.has_body
        server, held = command.connection, flow_state.progress.upload.kept
        same &= event.end_stream or held is None  # a body that another addon has put in its place
        if not same or not isinstance(server, Server) or not reaches(server, grant):
            return self._changed(flow_state)
        if unfit := why_not_over(server, grant, flow_state.arrival):
            flow_state.progress.explain(unfit)
            return self._refusal("upstream")
        if not self.http_layer.has_room(server):
            return self._refusal("unavailable")  # it would leave later, without being confirmed
        withdrawn = self.states.confirm(flow_state)
        flow_state.progress.withdraw(withdrawn)
        if withdrawn is not None or (grant := flow_state.grant) is None:
            why = withdrawn or Denied("internal", "there is no grant")
            return self._refusal(why.code, why.status, why.sentence)
        self.http_layer.quiet = True
        self.http_layer.own(server, grant.connection.id)
        flow_state.progress.send_on(server)
        try:
            sent = leaving(grant, held)
        except Denied as denied:
            flow_state.progress.withdraw(denied)
            return self._refusal(denied.code, denied.status, denied.sentence)
        ends = event.end_stream and (held is None or not held.size)
        asked = flow_state.arrival.takes_trailers
        copy = wire_request(self.flow.request, grant.origin, sent, server, has_body=not ends, te=asked)
        return SendHttp(RequestHeaders(event.stream_id, copy, ends), server)

    def _after(self, command: commands.Command) -> Commands:
        """Send a body that was held, behind its head: it is what was signed."""
        yield from super()._after(command)
        flow_state = self.flow_state
        if flow_state is None or self.answered or not isinstance(command, SendHttp):
            return
        held = flow_state.progress.upload.kept
        if held is not None and held.size and isinstance(command.event, RequestHeaders):
            event = RequestData(self.stream_id, held.whole())
            if flow_state.granted is not None and flow_state.granted.bodies is not None:
                flow_state.granted.bodies.request.add(event.data)
            yield SendHttp(event, command.connection)

    def _is_as_granted(self, flow_state: FlowState) -> bool:
        """Return whether the request on the flow still equals what was granted."""
        granted = flow_state.granted
        return granted is not None and is_unchanged(self.flow.request, granted.snapshot)

    def _changed(self, flow_state: FlowState) -> Answer:
        """Refuse a request that was edited after it was verified: it is not what was signed."""
        flow_state.progress.withdraw(Denied("invalid", "it was changed after it was verified"))
        logger.warning("presign: a request was changed after it was verified; it is refused")
        return self._refusal("invalid")

    def _error_page(
        self, command: SendHttp, event: ResponseProtocolError, flow_state: FlowState | None
    ) -> commands.Command | Answer:
        """Return an answer of ours for mitmproxy's page, which shows its version and upstream bytes."""
        status = event.code.http_status_code()
        passed = flow_state is not None and isinstance(flow_state.decision, PassThrough)
        if command.connection is not self.context.client:
            return command
        if self.head_sent and flow_state is not None and flow_state.granted is not None:
            return self._broken_off(command)
        if event.code is ErrorCode.CANCEL and flow_state is not None and flow_state.granted is not None:
            return self._refusal("upstream")  # by the upstream: its client would take it for its own
        if status is None or self.head_sent:
            return command
        if event.code is ErrorCode.REQUEST_VALIDATION_FAILED:
            self.invalid = True
            return self._refusal("malformed")
        if flow_state is not None and flow_state.answer is not None:
            return flow_state.answer  # of a host of `also`, which was written down before
        if passed:
            return command
        if event.code is ErrorCode.REQUEST_TOO_LARGE:
            return self._refusal("too_large", 413)
        if flow_state is None or flow_state.granted is None:
            return self._refusal("malformed")
        return self._refusal("upstream", 504 if flow_state.progress.timed_out else None)
