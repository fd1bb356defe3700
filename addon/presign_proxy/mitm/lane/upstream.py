"""One HTTP/1.1 connection to an upstream, for one exchange at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ...http.connection_reuse import has_plain_answer, reads_body
from ...http.message import Fields
from ...http.response_head import ResponseHead, UnreadableHead
from .. import last_bytes
from .read_pacing import ReadPacing
from .response_reader import Incoming
from .upstream_socket import UpstreamSocket
from .write_batch import WriteBatch


class Reader(Protocol):
    """The exchange, as its upstream connection sees it."""

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        """Take the final head. Return whether it has a body: the answer to HEAD never has one."""

    def data(self, piece: bytes) -> None:
        """Take a piece of the body."""

    def received(self) -> None:
        """Go on: all of one segment has been read, in one or several calls of `data`."""

    def complete(self) -> None:
        """End: the response has ended, as its framing says."""

    def lost(self, why: str = "") -> None:
        """End: the connection ended before the response did. If it said something else than HTTP, `why`."""

    def hold(self, on: bool) -> None:
        """Send no more for now, or go on: the upstream does not take it, or takes it again."""

    def collapse(self, error: Exception) -> None:
        """End after a failure of one of these, or of what calls them. Does not fail itself."""


class UpstreamConnection(asyncio.Protocol):
    """One connection. It may be used again only where nothing odd has ever happened on it."""

    __slots__ = (
        "_incoming",
        "_leaving",
        "_pacing",
        "_whole",
        "era",
        "idle_since",
        "odd",
        "on_end",
        "reader",
        "sender",
        "socket",
        "spent",
    )

    def __init__(self, write_batch: WriteBatch) -> None:
        self.socket = UpstreamSocket(write_batch)
        self._pacing = ReadPacing(self.socket)
        self._incoming = Incoming()
        self.reader: Reader | None = None
        self.sender: Reader | None = None
        """The exchange whose request is being sent, also where its response has come in full."""
        self.odd = False
        self.on_end: Callable[[], bool] | None = None  # of a WebSocket: returns whether more is written
        self.spent = False
        """True if the upstream may take what comes next for the rest of a request."""
        self._leaving = False
        self._whole = True
        """True if the request was written in full."""
        self.idle_since = 0.0
        self.era: object = None
        """The era of the pool in which it was opened."""

    # -- what an exchange does ------------------------------------------------------------------------

    def begin(self, reader: Reader, method: bytes, *, whole: bool) -> None:
        """Begin a request, whose head is written next.

        Args:
            whole: whether the request ends with its head.
        """
        self.reader = self.sender = reader
        self._incoming = Incoming()
        self._whole = whole
        if not has_plain_answer(method) or not (whole or reads_body(method)):
            self.spent = True

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before it is connected."""
        return self.socket.transport

    @property
    def lost(self) -> bool:
        """True if the connection has ended."""
        return self.socket.lost

    @property
    def has_answered(self) -> bool:
        """True if anything came since the last request began."""
        return self._incoming.begun

    @property
    def was_kept(self) -> bool:
        """True if the connection was there before its request."""
        return self.idle_since > 0

    @property
    def is_clean(self) -> bool:
        """True if another request may be sent on it, as far as is known without asking the system."""
        socket = self.socket
        return not (socket.lost or self.odd or self.spent or socket.holds_unsent())

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Write a part of the request.

        Args:
            whole: whether a request with a body ends with it.
        """
        self._whole = self._whole or whole
        self.socket.write(data)

    def pause(self) -> None:
        """Read no more of the response for now."""
        self._stop_for(self._pacing.hold)

    def resume(self) -> None:
        """Read on after `pause`."""
        self._pacing.release()

    def _stop_for(self, stop: Callable[[], None]) -> None:
        """Stop reading. Over TLS the connection serves no other request afterwards: TLS reads on, and keeps
        what a look at the socket does not show.
        """
        if self.socket.is_open:
            self.spent |= self.socket.secure
        stop()

    def close(self) -> None:
        """End the connection, whatever is still to come. No exchange is called any more."""
        self.reader = self.sender = None
        self.odd = True
        self.socket.abort()

    def leave(self, patience: float) -> None:
        """End the connection and read nothing more. An upstream that still reads its request gets the rest.

        Args:
            patience: seconds in which it has to take that.
        """
        if self.odd or not self.socket.is_open:
            self.close()
            return
        self.reader = self.sender = None
        self.odd = self._leaving = True
        self.socket.close(patience)

    # -- what asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket.connect(transport)  # type: ignore[arg-type]  # of a stream

    def data_received(self, data: bytes) -> None:
        if self._pacing.lags:
            self._pacing.keep(data)
        else:
            self._contained(self._read, data)

    def _contained(self, work: Callable[..., None], *data: bytes) -> None:
        """Do it. Where it fails, end what waits for it, which would not be called otherwise."""
        listener = self.reader or self.sender
        try:
            work(*data)
        except Exception as error:
            self.close()
            if listener is not None:
                listener.collapse(error)

    def _read(self, data: bytes) -> None:
        if self._leaving:
            return
        if self.reader is None:
            sender = self.sender
            self.close()  # there is no request that it answers
            if sender is not None:
                sender.lost()
            return
        incoming, wrong = self._incoming, ""
        incoming.begun = True
        if incoming.is_between_heads:
            incoming.early = not self._whole or self.socket.holds_unsent()
        try:
            piece = incoming.feed(data, self._take_head)
            if piece and self.reader is not None:  # else the exchange has closed it at the head
                self.reader.data(piece)
            if incoming.lags and self.reader is not None:
                self._stop_for(self._pacing.defer)
                asyncio.get_running_loop().call_soon(self._contained, self._catch_up)
        except UnreadableHead as error:
            wrong = str(error)
        if self._go_on(wrong) and self._pacing.is_used_up(len(data)):
            self._pause_for_others()

    def _pause_for_others(self) -> None:
        """Let other connections have a turn before more of an answer that is not over is read."""
        if self._pacing.pause():
            asyncio.get_running_loop().call_soon(self._contained, self._pacing.end_pause)

    def _catch_up(self) -> None:
        """Read on with what has come, now that all other connections have had a turn."""
        pacing = self._pacing
        late = pacing.catch_up()
        if self.reader is not None:
            self._read(late)
        if pacing.lags:
            return
        pacing.read_on()
        if pacing.ending:
            self._end()

    def _take_head(self, head: ResponseHead) -> bool:
        """Take the final head. Return whether it has a body."""
        if self._incoming.early:
            self.spent = True  # what is still sent may be left unread
        if not head.keeps:
            # Also where nothing frames the body: then it ends with the connection (RFC 9112, 6.3).
            self.odd = True
        reader = self.reader
        return reader is not None and reader.head(head.status, head.reason, head.fields)

    def _go_on(self, wrong: str) -> bool:
        """Tell the exchange that all of a segment was read. Return whether more of the answer is to come."""
        reader, incoming = self.reader, self._incoming
        if reader is None:
            return False
        if incoming.done:
            # What may have come behind it makes the connection odd, not the response.
            self.odd |= not incoming.keeps
            self.reader = None
            reader.complete()
        elif wrong:
            self.close()
            reader.lost(wrong)
        else:
            reader.received()
        return self.reader is not None

    def eof_received(self) -> bool:
        self.spent = True  # TLS may take a while to close
        self._incoming.ended = not getattr(self.socket.transport, "has_ended", False)
        return self.on_end is not None and not self.socket.secure and self.on_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.socket.lost = True
        self._read_last(exc)
        if self._pacing.lags:
            self._pacing.ending = True  # the end comes behind what came before
        else:
            self._end()

    def _end(self) -> None:
        """Tell the exchange that the connection has ended."""
        reader, sender = self.reader, self.sender
        self.reader = self.sender = None
        listener = reader or sender
        if listener is None:
            return
        try:
            if reader is not None and self._incoming.ends_with_connection:
                reader.complete()  # it ends with the connection (RFC 9112, 6.3)
            else:
                listener.lost()
        except Exception as error:
            listener.collapse(error)

    def _read_last(self, exc: Exception | None) -> None:
        """Read what came before writing failed. Over TLS that was delivered before."""
        transport = self.socket.transport
        if exc is None or transport is None or self.socket.secure:
            return
        for data in last_bytes.unread(transport):
            if self.reader is not None:
                self.data_received(data)

    def pause_writing(self) -> None:
        self.socket.full = True
        if self.sender is not None:
            self.sender.hold(True)

    def resume_writing(self) -> None:
        self.socket.full = False
        if self.sender is not None:
            self.sender.hold(False)
