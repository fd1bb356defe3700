"""The body of an answer on the flow path, decoded and masked, no faster than its client takes it.

A few bytes may become a thousandfold once they are decoded. mitmproxy would make all of it at once, and keep
what the client does not take.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http2 import Http2Server

from ...core import rewrite_response
from ...core.answers import Answer
from ...core.masking import Mask
from ...core.response_body import LEAST, PATIENCE, TURN, Body
from ...core.trailers import cleaned
from ...core.upgrade import SWITCHING
from ...errors import Denied
from ..backpressure import is_too_much
from ..sockets import handler_of, transport_of
from .coalesce import Commands
from .endings import UPSTREAM_FAILED, EndingStream
from .http2_windows import all_unsent, unsent
from .raw_message import announced, headers_of
from .response import end_with, put_reply, reply_of
from .state import FlowState
from .stream_events import Drained

logger = logging.getLogger(__name__)

_LOOK: Final = 0.05
"""Seconds until it is looked again whether a client has taken what there was."""


class DownloadingStream(EndingStream):
    """A stream that stops unpacking while its client does not take what there is."""

    bodiless = False
    """True if its answer ends with its head."""
    prompting: commands.RequestWakeup | None = None
    """The wake-up after which what is held back of its answer is passed on."""
    _incoming: deque[ResponseData | ResponseEndOfMessage] | None = None
    """Pieces of the answer that came and were not begun."""
    _pieces: Iterator[bytes] | None = None
    """What is being made of the piece that was begun last."""
    _ending: ResponseEndOfMessage | None = None
    _resting: asyncio.Task[None] | None = None

    @property
    def rests(self) -> bool:
        """True if more is here than its client takes."""
        return self._resting is not None

    def _guard(self, stock: Commands) -> Commands:
        raise NotImplementedError

    def _receive(
        self, flow_state: FlowState, event: ResponseData | ResponseTrailers | ResponseEndOfMessage
    ) -> Commands:
        """Pass on a piece of the body, or its end, once all that came before was passed on."""
        if isinstance(event, ResponseTrailers):
            yield from self._receive_trailers(event, flow_state)
            return
        if isinstance(event, ResponseData):
            flow_state.progress.upload.answer_moved()
        else:
            flow_state.progress.response.end()
        self._incoming = self._incoming if self._incoming is not None else deque()
        self._incoming.append(event)
        if self._resting is None:
            yield from self._pass_on(flow_state)

    def _pass_on(self, flow_state: FlowState) -> Commands:
        """Pass on what is here, until the client has to take some of it."""
        passed = 0
        while self._begins(flow_state):
            try:
                piece = next(self._pieces, None) if self._pieces is not None else None
            except Exception as error:
                logger.warning("presign: a response body cannot be passed on (%s)", type(error).__name__)
                yield from self._abort(flow_state)
                return
            if piece is None:
                self._pieces = None
                if self._ending is not None:
                    yield from self._guard(super()._handle_event(self._ending))
                    return
                continue
            if piece:
                yield from self._guard(super()._handle_event(ResponseData(self.stream_id, piece)))
            passed += max(len(piece), LEAST)
            if passed >= TURN or self._is_behind():
                self._resting = asyncio.get_running_loop().create_task(self._rest())
                return
        body = flow_state.progress.response.body
        if body is None and not self.answered:
            yield from self._abort(flow_state)
        elif body is not None and body.waits and self.prompting is None and not self.answered:
            self.prompting = commands.RequestWakeup(PATIENCE)
            yield self.prompting

    def _begins(self, flow_state: FlowState) -> bool:
        """Return whether there is something to pass on."""
        body = flow_state.progress.response.body
        if body is None or self.answered:
            return False
        if self._pieces is None and self._incoming:
            event = self._incoming.popleft()
            if isinstance(event, ResponseData):
                self._pieces = body.feed(event.data)
            else:
                self._ending, self._pieces = event, body.finish()
        return self._pieces is not None

    def _is_behind(self) -> bool:
        """Return whether the client does not take what there is."""
        server: Any = self.http_layer.connections.get(self.context.client)
        socket = self._in_socket()
        if isinstance(server, Http2Server):
            room = self.states.clients.fairness.shares.room
            return is_too_much(socket + unsent(server, self.stream_id), socket + all_unsent(server), room)
        return is_too_much(socket, socket)

    def _in_socket(self) -> int:
        """Return how many bytes were written to the client and have not left."""
        client = self.context.client
        transport = transport_of(client, client)
        return transport.get_write_buffer_size() if transport is not None else 0

    async def _rest(self) -> None:
        """Wait outside of mitmproxy, whose events would count as activity of the client."""
        await asyncio.sleep(0)
        while self._is_held_up():
            if self._in_socket():
                await asyncio.sleep(_LOOK)  # nothing reports when it has left
            else:
                # A window that opens fills the socket; the waker does not wake what waits there.
                await self.http_layer.waker.wait(lambda: not self._in_socket() and self._is_held_up())
        handler = handler_of(self.context.client)
        if handler is not None and self._goes_on():
            await handler.server_event(Drained(self))

    def _is_held_up(self) -> bool:
        """Return whether there is more to pass on, to a client that is there and does not take it."""
        return handler_of(self.context.client) is not None and self._goes_on() and self._is_behind()

    def _goes_on(self) -> bool:
        return self.flow_state is not None and self.flow_state.stream is self and not self.answered

    def _resume(self) -> Commands:
        """Go on once the client has taken what there was."""
        self._resting = None
        if self.flow_state is not None and self._goes_on():
            yield from self._pass_on(self.flow_state)

    def _prompt(self) -> Commands:
        """Pass on what was held back: nothing more of the answer has come."""
        self.prompting, flow_state = None, self.flow_state
        if flow_state is None or self.answered or self.rests:
            return
        response = flow_state.progress.response
        if response.body is None or response.is_complete:
            return
        if safe := response.body.overdue():
            yield from self._guard(super()._handle_event(ResponseData(self.stream_id, safe)))

    def _abort(self, flow_state: FlowState) -> Commands:
        """Break off a response whose head is out, so that the client sees that it is not whole."""
        yield from self._cancel(flow_state)
        error = ResponseProtocolError(self.stream_id, UPSTREAM_FAILED, ErrorCode.GENERIC_SERVER_ERROR)
        yield from self._guard(super()._handle_event(error))
        self.answered = True

    def _receive_trailers(self, event: ResponseTrailers, flow_state: FlowState) -> Commands:
        """Clean trailers before any flow holds them, for a client that takes them.

        mitmproxy sends them behind the body.
        """
        grant, granted = flow_state.grant, flow_state.granted
        try:
            if self._is_answer_short(flow_state):
                raise Denied("upstream", "they end the body before its length")
            if not flow_state.arrival.takes_trailers:
                return
            if grant is None or granted is None:
                raise LookupError("nothing was granted")
            named = grant.connection.conduct.url_headers
            event.trailers = headers_of(cleaned(event.trailers.fields, named, granted.mask))
        except Exception as error:
            why = error.detail if isinstance(error, Denied) else type(error).__name__
            logger.warning("presign: trailers cannot be passed on (%s)", why)
            flow_state.progress.explain(f"the trailers cannot be passed on: {why}")
            yield from self._abort(flow_state)
            return
        if event.trailers:
            yield from self._guard(super()._handle_event(event))

    def _is_answer_short(self, flow_state: FlowState) -> bool:
        """Return whether a body is shorter than its head says: h2 does not notice that if trailers follow."""
        head, body = self.flow.response, flow_state.progress.response.body
        length = announced(head.data.headers.fields) if head is not None else None
        if length is None or body is None or self.flow.request.data.method == b"HEAD" or self.bodiless:
            return False
        waiting = [one for one in self._incoming or () if isinstance(one, ResponseData)]
        return body.size + sum(len(one.data) for one in waiting) < length

    def _receive_head(self, event: ResponseHeaders, flow_state: FlowState) -> Answer | None:
        """Rewrite a response head before any flow holds it; return the answer to give if that fails."""
        grant = flow_state.grant
        if grant is None:
            return self._refusal("internal")
        try:
            flow_state.progress.head_came(event.response.status_code)
            flow_state.progress.upload.let_go()  # of a body that was held, the upstream has what it wants
            self.states.answered(grant, event.response.status_code)
            mask = flow_state.granted.mask if flow_state.granted is not None else Mask(())
            limits = flow_state.limit_hold.fields
            reply = rewrite_response.rewrite(reply_of(event.response), grant, mask, limits)
            flow_state.progress.response.begin(Body(mask, encoded=reply.encoded), reply.links)
            put_reply(event, reply, client_version=self.flow.request.data.http_version)
            if grant.handshake is not None and event.response.status_code != SWITCHING:
                end_with(event.response)
        except Denied as denied:
            logger.info("presign: %s: a response is refused: %s", grant.request_id, denied.detail)
            flow_state.progress.explain(denied.detail)
            return self._refusal(denied.code)
        except Exception as error:
            logger.error("presign: failed at a response (%s); it is refused", type(error).__name__)
            return self._refusal("internal")
        flow_state.progress.enter("receiving")
        return None
