"""The body of a request on the flow path: as long as it has to be, well framed, in time, not revoked."""

from __future__ import annotations

from typing import Final

from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestProtocolError

from ...core import under_way
from ...core.decision import Forward
from ...core.policy import body_too_late
from ...errors import Denied
from ...gateway.held_bodies import HeldBody
from ..sockets import reset
from .coalesce import Commands
from .downloads import DownloadingStream
from .raw_message import announced, is_h1
from .state import FlowState

FRAMED_OTHERWISE: Final = "the body is not framed as HTTP/1.1 has it"


class UploadingStream(DownloadingStream):
    """A stream that refuses a body which is not what was signed or announced."""

    def _begin_body(self, flow_state: FlowState, grant: Forward) -> None:
        """Have the body of a granted request streamed, or kept until it is whole if it is signed.

        mitmproxy's own copy need not be the one that was sent: another addon may change it.
        """
        keeps = grant.hold is not None and flow_state.arrival.has_body
        self.flow.request.stream = not keeps
        if keeps:
            whose = grant.facts.signature or ""
            flow_state.progress.upload.kept = self.states.held_bodies.begin(grant.hold or 0, whose)
            flow_state.progress.enter("reading")

    def _keep(self, flow_state: FlowState, kept: HeldBody, piece: bytes) -> Commands:
        """Keep a piece of a body that is sent later. Refuse one that is too much."""
        try:
            kept.add(piece)
        except Denied as denied:
            yield from self._cut_upload(flow_state, denied)

    def _is_short(self, flow_state: FlowState) -> bool:
        """Return whether a body ends too early: h2 does not notice that if trailers follow."""
        data = self.flow.request.data
        if is_h1(data.http_version) or not flow_state.arrival.has_body:
            return False  # its own framing says so
        length = announced(data.headers.fields)
        return length is not None and flow_state.progress.upload.size < length

    def _is_body_broken(self, event: events.Event) -> bool:
        """Return whether a body over HTTP/1 is badly framed, while its client is there to get an answer."""
        if not isinstance(event, RequestProtocolError) or event.code is not ErrorCode.GENERIC_CLIENT_ERROR:
            return False
        client = self.context.client
        return client.connected and client.alpn != b"h2"

    def _refuse_body(self, event: events.Event, flow_state: FlowState | None) -> Commands:
        """Answer, if no answer has begun, and close: it is unknown where the next request begins."""
        if flow_state is not None and flow_state.granted is not None and not self.head_sent:
            flow_state.progress.explain(FRAMED_OTHERWISE)
            yield from self._cancel(flow_state)
            yield from self._answer(self._refusal("malformed"))
        else:
            yield from self._guard(super()._handle_event(event))
            yield from self._hang_up()

    def _cut_upload(self, flow_state: FlowState, why: Denied) -> Commands:
        """Refuse a body half-way. The upstream never gets the end of it."""
        flow_state.progress.withdraw(why)
        if self.head_sent:
            yield from self._abort(flow_state)
            return
        yield from self._cancel(flow_state)
        yield from self._answer(self._refusal(why.code, why.status, why.sentence))

    def _end_revoked(self) -> Commands:
        """End a request that was revoked with `now`: nothing more of it leaves, in either direction."""
        flow_state, client = self.flow_state, self.context.client
        if flow_state is None or flow_state.granted is None:
            return
        progress = flow_state.progress
        progress.explain(under_way.WHY)
        if progress.stage == "done":  # it is answered, and its body is still to come
            yield from self._end_upload(flow_state)
        elif self.head_sent:
            progress.fail(under_way.CODE)
            yield from self._abort(flow_state)
            if client.alpn != b"h2":
                reset(client)  # HTTP/1.0 would take the end of the connection for that of the answer
        else:
            yield from self._cancel(flow_state)
            yield from self._answer(self._refusal(under_way.CODE))

    def _end_lapsed(self, why: Denied) -> Commands:
        """Refuse a request that is not granted any more, while its body is kept and nothing has left."""
        flow_state = self.flow_state
        if flow_state is not None and self.uploading and flow_state.progress.stage == "reading":
            yield from self._cut_upload(flow_state, why)

    def _end_stalled(self) -> Commands:
        """End a request whose client sends no more of its body."""
        flow_state = self.flow_state
        if flow_state is not None and self.uploading:
            patience = flow_state.granted.patience if flow_state.granted is not None else (0, 0)
            if flow_state.progress.response.is_complete:
                yield from self._end_upload(flow_state)
            else:
                yield from self._cut_upload(flow_state, body_too_late(patience[0]))
