"""mitmproxy's HTTP/1 towards an upstream: answers are read as on the lane, and nothing of them is logged."""

from __future__ import annotations

from typing import cast

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events

from .endings import EndingHttp1Client, UnreadableResponse
from .http1 import TamedHttp1
from .response_chunks import FRAMED_OTHERWISE, ChunksForMitmproxy
from .response_heads import MAX_RESPONSE_HEAD, HeadSearch, Unreadable
from .sending import Commands


class GuardedHttp1Client(TamedHttp1, EndingHttp1Client):
    """The upstream's side. What mitmproxy parses is the head as it should have come."""

    most = MAX_RESPONSE_HEAD
    Fault = UnreadableResponse
    framed_otherwise = FRAMED_OTHERWISE
    heads: HeadSearch | None = None
    """Of the answer that is waited for."""

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        if isinstance(event, events.DataReceived) and self.request is not None:
            try:
                self._straighten()
            except Unreadable as why:
                yield from self._break(str(why))
                return
        for command in super().read_headers(event):
            if isinstance(command, commands.Log):
                command = commands.Log("presign: unexpected data from an upstream", command.level)
            yield command

    def _straighten(self) -> None:
        """Drop interim heads, and put in place of one that was not written as it should be what it says.

        Raises Unreadable.
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
        yield from super().read_body(event)

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        if response and isinstance(reader := getattr(self, "body_reader", None), ChunksForMitmproxy):
            self.spent |= not reader.chunks.regular
        yield from super().mark_done(request=request, response=response)
