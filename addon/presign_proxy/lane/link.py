"""One HTTP/1.1 connection to an upstream, for one exchange at a time."""

from __future__ import annotations

import asyncio
import select
from typing import Final, Protocol

import httptools

from ..message import MAX_HEAD, Fields
from ..reuse import reads_body
from ..sockets import unsent
from .outbox import Outbox

MAX_RESPONSE_HEAD: Final = 4 * MAX_HEAD
"""Bytes of a head, those of interim heads and trailers included."""


class Reader(Protocol):
    """What an exchange wants to hear of its response."""

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        """The final head. Returns whether it has a body: the answer to HEAD has none, whatever it says."""

    def data(self, piece: bytes) -> None: ...

    def received(self) -> None:
        """All of one segment has been read; `data` may have been called several times."""

    def complete(self) -> None:
        """The response has ended, as its framing says."""

    def lost(self) -> None:
        """The connection ended, or said something else than HTTP, before the response did."""

    def hold(self, on: bool) -> None:
        """Whether to send no more for now: the upstream does not take it."""

    def collapse(self, error: Exception) -> None:
        """One of these, or what calls them, has failed. Does not fail itself."""


class Link(asyncio.Protocol):
    """Says whether it may be used again: only where nothing odd has ever happened on it."""

    __slots__ = (
        "_asked",
        "_barren",
        "_bodyless",
        "_descriptor",
        "_done",
        "_early",
        "_fields",
        "_framed",
        "_full",
        "_leaving",
        "_outbox",
        "_parser",
        "_passed",
        "_reason",
        "_size",
        "_status",
        "_whole",
        "_wrong",
        "era",
        "idle_since",
        "lost",
        "odd",
        "reader",
        "sender",
        "spent",
        "transport",
    )

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.transport: asyncio.Transport | None = None
        self.reader: Reader | None = None
        self.sender: Reader | None = None
        """Whose request is being sent, also where its response has come in full."""
        self.lost = False
        self.odd = False
        self.spent = False
        """Whether its upstream may take what comes next for the rest of a request."""
        self._full = self._leaving = False
        self._whole = True
        """Whether the request was written in full."""
        self.idle_since = 0.0
        self._asked: select.poll | None = None
        self._descriptor = -1
        self.era: object = None
        """Of the pool that opened it."""
        self._parser = httptools.HttpResponseParser(self)
        self._forget()

    def _forget(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._size = self._status = 0
        # Bytes of which nothing could be passed on; the parser keeps a line until its end has come.
        self._barren = 0
        self._passed = self._bodyless = self._done = self._wrong = self._early = False
        self._framed = True

    # -- what an exchange does ------------------------------------------------------------------------

    def begin(self, reader: Reader, method: bytes, *, whole: bool) -> None:
        """Args: whole: whether the request ends with its head, which is written next."""
        self.reader = self.sender = reader
        self._forget()
        self._whole = whole
        if not whole and not reads_body(method):
            self.spent = True

    @property
    def is_clean(self) -> bool:
        """Whether another request may be sent on it, as far as is known without asking the socket."""
        return not (self.lost or self.odd or self.spent or self._holds_unsent())

    def _holds_unsent(self) -> bool:
        """Whether something that was written has not left this process."""
        transport = self.transport
        return transport is not None and (
            self._full or self._outbox.holds(transport) or transport.get_write_buffer_size() > 0
        )

    def is_silent(self) -> bool:
        """Whether nothing has come since it was last used, neither bytes nor its end.

        Asks the socket: what came a moment ago has not been read yet, and would pass for the answer to the
        next request. What the upstream has not taken yet of the last request would hold up the next one, with
        its credential, for as long as the upstream likes.
        """
        transport = self.transport
        if transport is None or self.lost or transport.is_closing():
            return False
        if self._asked is None:
            self._asked = select.poll()
            self._descriptor = transport.get_extra_info("socket").fileno()
            self._asked.register(self._descriptor, select.POLLIN)
        return not self._asked.poll(0) and not unsent(self._descriptor)

    def write(self, data: bytes, *, whole: bool = False) -> None:
        """Args: whole: whether a request with a body ends with it."""
        self._whole = self._whole or whole
        if self.transport is not None and not self.lost:
            self._outbox.write(self.transport, data)

    def pause(self) -> None:
        if self.transport is not None and not self.lost:
            # TLS reads on, and keeps what no look at the socket shows.
            self.spent = self.spent or self.transport.get_extra_info("ssl_object") is not None
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.transport is not None and not self.lost:
            self.transport.resume_reading()

    def close(self) -> None:
        """End it, whatever is still to come; nobody hears of it any more."""
        self.reader = self.sender = None
        self.odd = True
        if self.transport is not None:
            self.transport.abort()

    def leave(self, patience: float) -> None:
        """End it; nothing more is read. An upstream that is still reading its request gets the rest of it.

        Args:
            patience: seconds in which it has to take that.
        """
        transport = self.transport
        if transport is None or self.lost or self.odd or transport.is_closing():
            self.close()
            return
        self.reader = self.sender = None
        self.odd = self._leaving = True
        self._outbox.flush(transport)
        waits = self._holds_unsent() or transport.get_extra_info("ssl_object") is not None
        transport.close()  # over TLS this tells what was read before: to abort meanwhile fails
        if waits:
            asyncio.get_running_loop().call_later(patience, transport.abort)

    # -- what asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        listener = self.reader or self.sender
        try:
            self._read(data)
        except Exception as error:
            self.close()
            if listener is not None:
                listener.collapse(error)

    def _read(self, data: bytes) -> None:
        if self._leaving:
            return
        if self.reader is None:
            sender = self.sender
            self.close()  # nobody asked
            if sender is not None:
                sender.lost()
            return
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse()
        if self._barren > MAX_RESPONSE_HEAD:
            self._refuse()
        self._go_on()

    def _go_on(self) -> None:
        """All of a segment has been parsed."""
        reader = self.reader
        if reader is None:
            return  # who heard the head, or a piece, has closed it
        if self._done:
            self._end(reader)
        elif self._wrong:
            self.close()
            reader.lost()
        else:
            reader.received()

    def _end(self, reader: Reader) -> None:
        """The response is whole; what may have come behind it makes the connection odd, not the response."""
        self.reader = None
        if self._bodyless:
            self._parser = httptools.HttpResponseParser(self)  # the old one waits for a body
        reader.complete()

    def eof_received(self) -> bool:
        self.spent = True  # TLS may take a while to close
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        reader, sender = self.reader, self.sender
        self.reader = self.sender = None
        listener = reader or sender
        if listener is None:
            return
        try:
            if reader is not None and self._passed and not self._framed and exc is None:
                reader.complete()  # it ends with the connection (RFC 9112, 6.3)
            else:
                listener.lost()
        except Exception as error:
            listener.collapse(error)

    def pause_writing(self) -> None:
        self._full = True
        if self.sender is not None:
            self.sender.hold(True)

    def resume_writing(self) -> None:
        self._full = False
        if self.sender is not None:
            self.sender.hold(False)

    # -- what httptools calls -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._passed:
            self._refuse()  # a second response to one request
        self._early = not self._whole or self._holds_unsent()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason
        self._size += len(reason)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._passed:  # trailers are dropped: fields that nobody masks
            self._fields.append((name, value.strip(b" \t")))
        self._size += len(name) + len(value) + 4
        if self._size > MAX_RESPONSE_HEAD:
            self._refuse()

    def _refuse(self) -> None:
        """What came is not a response, or more than one."""
        self.odd = self._wrong = True

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 100:
            self._refuse()
        if self._wrong or self.reader is None or self._is_interim():
            return
        self._passed, self._barren = True, 0
        if self._early:
            self.spent = True  # what is still sent may be left unread
        if not self._parser.should_keep_alive():
            # Also where nothing frames the body: then it ends with the connection (RFC 9112, 6.3).
            self.odd = True
            names = {name.lower() for name, _ in self._fields}
            self._framed = self._status in (204, 304) or not names.isdisjoint(_FRAMING)
        self._bodyless = not self.reader.head(self._status, self._reason, tuple(self._fields))
        self._done = self._bodyless

    def _is_interim(self) -> bool:
        """RFC 9110, 15.2: any number of them may precede the response; 101 ends HTTP and is the response."""
        return 100 <= self._status < 200 and self._status != 101

    def on_body(self, piece: bytes) -> None:
        self._barren = 0
        if self._bodyless or self._done:
            self._refuse()  # a body where there is none
        elif self.reader is not None:
            self.reader.data(piece)

    def on_message_complete(self) -> None:
        if self._is_interim():
            self._fields, self._reason = [], b""
        elif self._passed:
            if self._bodyless and self._status not in (204, 304) and self._is_chunked():
                self._refuse()  # a last chunk where there is no body
            self._done = True

    def _is_chunked(self) -> bool:
        return any(name.lower() == b"transfer-encoding" for name, _ in self._fields)


_FRAMING: Final = (b"content-length", b"transfer-encoding")
