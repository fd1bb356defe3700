"""HTTP/1 with upstreams: answers are read as on the lane, and nothing of them is logged."""

from __future__ import annotations

from typing import cast

from h11._readers import ChunkedReader, Http10Reader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestProtocolError

from ...http.response_head import MAX_RESPONSE_HEAD, HeadSearch, UnreadableHead
from ..response_chunks import FRAMED_OTHERWISE, ChunksForMitmproxy, ResponseChunks
from ..sockets import has_failed
from .coalesce import Commands
from .endings import EndingHttp1Client, UnreadableResponse
from .http1 import TamedHttp1


class GuardedHttp1Client(TamedHttp1, EndingHttp1Client):
    """The upstream's side. What mitmproxy parses is the head as it should have come."""

    most = MAX_RESPONSE_HEAD
    Fault = UnreadableResponse
    framed_otherwise = FRAMED_OTHERWISE
    heads: HeadSearch | None = None
    """The search for the head of the answer that is waited for."""
    turn: commands.RequestWakeup | None = None
    """The next one, while chunks of the answer wait for it."""
    _closed: events.ConnectionClosed | None = None
    """The end of the connection, which mitmproxy gets once all that came before was read."""

    def _handle_event(self, event: events.Event) -> Commands:
        """Keep what comes while chunks wait for their turn behind them."""
        if isinstance(event, events.Wakeup):
            if event.command is self.turn:
                self.turn = None
                yield from self._take_turn()
        elif self.turn is not None and isinstance(event, events.DataReceived):
            self.buf += event.data
        elif self.turn is not None and isinstance(event, events.ConnectionClosed):
            self._closed = event
        else:
            if isinstance(event, RequestProtocolError):
                self._forget()
            yield from super()._handle_event(event)

    def _take_turn(self) -> Commands:
        """Read the chunks of one turn."""
        if self.state == self.read_body:
            yield from super()._handle_event(events.DataReceived(self.conn, b""))
        if self.turn is None and self._closed is not None:
            closed, self._closed = self._closed, None
            yield from super()._handle_event(closed)

    def _forget(self) -> None:
        """Drop what has come of an answer that is not awaited any more."""
        if self.turn is not None and (chunks := self._chunks) is not None:
            chunks.forget()
            self.buf = ReceiveBuffer()

    @property
    def _chunks(self) -> ResponseChunks | None:
        reader = getattr(self, "body_reader", None)
        return reader.chunks if isinstance(reader, ChunksForMitmproxy) else None

    @property
    def backlog(self) -> int:
        """Bytes that wait for their turn."""
        chunks = self._chunks
        return chunks.waiting + len(self.buf) if chunks is not None and self.turn is not None else 0

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        if isinstance(event, events.DataReceived) and self.request is not None:
            try:
                self._straighten()
            except UnreadableHead as why:
                yield from self._break(str(why))
                return
        for command in super().read_headers(event):
            if isinstance(command, commands.Log):
                command = commands.Log("presign: unexpected data from an upstream", command.level)
            yield command

    def _straighten(self) -> None:
        """Drop interim heads, and write a head again that was not written as it should be.

        Raises UnreadableHead.
        """
        came, at = bytes(self.buf), 0
        heads = self.heads = self.heads or HeadSearch()
        while at < len(came) and (found := heads.find(came, at)) is not None:
            begin, (head, at) = at, found
            if not head.is_interim:
                self.heads = None
                self.spent |= not head.keeps
                if begin or not head.regular:
                    self._put(head.written() + came[at:])
                return
        if at:
            self._put(came[at:])

    def _put(self, data: bytes) -> None:
        self.buf = ReceiveBuffer()
        self.buf += data

    def read_body(self, event: events.Event) -> Commands:
        if type(self.body_reader) is ChunkedReader:
            self.body_reader = cast(ChunkedReader, ChunksForMitmproxy())
        if isinstance(event, events.ConnectionClosed) and type(self.body_reader) is Http10Reader:
            if has_failed(self.context.client, self.conn):
                yield from self._break_off()
                return
        yield from super().read_body(event)
        chunks = self._chunks
        if chunks is not None and chunks.lags and self.turn is None:
            self.turn = commands.RequestWakeup(0)
            yield self.turn

    def _break_off(self) -> Commands:
        """Tell of an end that is none: mitmproxy would take it for the end of the body."""
        yield commands.CloseConnection(self.conn)
        self.state = self.done
        code = self.ReceiveProtocolError.code
        yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id or 0, "it was broken off", code=code))

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        if response and (chunks := self._chunks) is not None:
            self.spent |= not chunks.regular
        yield from super().mark_done(request=request, response=response)
