"""One HTTP/1.1 connection to an upstream, for one exchange at a time."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, Protocol

from ...core.response_body import TURN
from ...http.connection_reuse import has_plain_answer, reads_body
from ...http.message import Fields
from ...http.response_head import ResponseHead, UnreadableHead
from .. import last_bytes
from ..tcp import unsent
from .response_reader import Incoming
from .write_batch import WriteBatch

_FULL: Final = 128 * 1024
"""Bytes of a segment behind which uvloop reads on, up to 32 times in one turn: it was as long as could be."""


class Reader(Protocol):
    """What an exchange wants to hear of its response."""

    def head(self, status: int, reason: bytes, fields: Fields) -> bool:
        """The final head. Returns whether it has a body: the answer to HEAD has none, whatever it says."""

    def data(self, piece: bytes) -> None: ...

    def received(self) -> None:
        """All of one segment has been read; `data` may have been called several times."""

    def complete(self) -> None:
        """The response has ended, as its framing says."""

    def lost(self, why: str = "") -> None:
        """The connection ended before the response did; or said something else than HTTP, and `why`."""

    def hold(self, on: bool) -> None:
        """Whether to send no more for now: the upstream does not take it."""

    def collapse(self, error: Exception) -> None:
        """One of these, or what calls them, has failed. Does not fail itself."""


class UpstreamConnection(asyncio.Protocol):
    """Says whether it may be used again: only where nothing odd has ever happened on it."""

    __slots__ = (
        "_asked",
        "_descriptor",
        "_early",
        "_ending",
        "_full",
        "_held",
        "_incoming",
        "_lags",
        "_late",
        "_leaving",
        "_paced",
        "_run",
        "_secure",
        "_whole",
        "_write_batch",
        "era",
        "heard",
        "idle_since",
        "lost",
        "odd",
        "reader",
        "sender",
        "spent",
        "transport",
    )

    def __init__(self, write_batch: WriteBatch) -> None:
        self._write_batch = write_batch
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
        self._incoming = Incoming()
        self._held = self._lags = self._paced = self._ending = False
        """Whether no more is wanted for now; whether what has come is read on in its next turn; whether more
        is taken off the socket in the next one; whether the connection was lost meanwhile.
        """
        self._secure = False
        """Whether it is over TLS."""
        self._run = 0
        """Bytes that came in long segments, one after the other."""
        self._late: list[bytes] = []
        """What came while that turn was waited for."""
        self._early = False
        """Whether something of the response came before all of the request was sent."""
        self.heard = False
        """Whether anything came since the last request began."""

    # -- what an exchange does ------------------------------------------------------------------------

    def begin(self, reader: Reader, method: bytes, *, whole: bool) -> None:
        """Args: whole: whether the request ends with its head, which is written next."""
        self.reader = self.sender = reader
        self._incoming, self._early, self.heard = Incoming(), False, False
        self._whole = whole
        if not has_plain_answer(method) or not (whole or reads_body(method)):
            self.spent = True

    @property
    def was_kept(self) -> bool:
        """Whether it was there before its request."""
        return self.idle_since > 0

    @property
    def is_clean(self) -> bool:
        """Whether another request may be sent on it, as far as is known without asking the socket."""
        return not (self.lost or self.odd or self.spent or self._holds_unsent())

    def _holds_unsent(self) -> bool:
        """Whether something that was written has not left this process."""
        transport = self.transport
        return transport is not None and (
            self._full or self._write_batch.holds(transport) or transport.get_write_buffer_size() > 0
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
            self._write_batch.write(self.transport, data)

    def pause(self) -> None:
        self._held = True
        self._stop_reading()

    def resume(self) -> None:
        self._held = False
        self._read_on()

    def _stop_reading(self) -> None:
        transport = self.transport
        if transport is not None and not (self.lost or transport.is_closing()):
            self.spent |= self._secure  # TLS reads on, and keeps what no look at the socket shows
            transport.pause_reading()

    def _read_on(self) -> None:
        """Unless no more is wanted, or more is here than was read, or it is others' turn."""
        transport, waits = self.transport, self._held or self._lags or self._paced
        if transport is not None and not (waits or self.lost or transport.is_closing()):
            transport.resume_reading()

    def close(self) -> None:
        """End it, whatever is still to come; nobody hears of it any more."""
        self.reader = self.sender = None
        self.odd = True
        self._abort()

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
        self._write_batch.flush(transport)
        waits = self._holds_unsent() or self._secure
        transport.close()  # over TLS this tells what was read before: to abort meanwhile fails
        if waits:
            asyncio.get_running_loop().call_later(patience, self._abort)

    def _abort(self) -> None:
        """Unless it is over: to abort what was closed, flushed and is gone fails in asyncio."""
        if self.transport is not None and not self.lost:
            self.transport.abort()

    # -- what asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a stream
        self._secure = transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        if self._lags:
            self._late.append(data)  # TLS had taken it off the socket before
        else:
            self._contained(self._read, data)

    def _contained(self, work: Callable[..., None], *data: bytes) -> None:
        """Do it, and end what waits for it where that fails: nobody else would hear of it."""
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
            self.close()  # nobody asked
            if sender is not None:
                sender.lost()
            return
        incoming, wrong, self.heard = self._incoming, "", True
        if incoming.is_between_heads:
            self._early = not self._whole or self._holds_unsent()
        try:
            piece = incoming.feed(data, self._hear)
            if piece and self.reader is not None:  # else who heard the head has closed it
                self.reader.data(piece)
            if incoming.lags and self.reader is not None:
                self._lag()
        except UnreadableHead as error:
            wrong = str(error)
        self._go_on(wrong)
        self._pace(len(data))

    def _pace(self, size: int) -> None:
        """Let others have a turn before more is taken off the socket: behind a mebibyte; and over TLS behind
        each segment, for its records may hold a byte each, which nobody can tell from here.

        An answer that is not over ends with a later segment, which comes once TLS has told all that it had
        taken: so the connection may be used again, other than after `pause`.
        """
        self._run = self._run + size if size >= _FULL else 0
        transport, over = self.transport, self.reader is None or self.lost
        if over or self._lags or self._paced or transport is None or transport.is_closing():
            return
        if self._secure or self._run >= TURN:
            self._run, self._paced = 0, True
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._contained, self._end_pace)

    def _end_pace(self) -> None:
        self._paced = False
        self._read_on()

    def _lag(self) -> None:
        """Read on with what has come once everybody else has had a turn, and nothing new before."""
        self._lags = True
        self._stop_reading()
        asyncio.get_running_loop().call_soon(self._contained, self._catch_up)

    def _catch_up(self) -> None:
        self._lags = False
        late, self._late = b"".join(self._late), []
        if self.reader is not None:
            self._read(late)
        if self._lags:
            return
        self._read_on()
        if self._ending:
            self._tell_end()

    def _hear(self, head: ResponseHead) -> bool:
        """The final head has come. Returns whether it has a body."""
        if self._early:
            self.spent = True  # what is still sent may be left unread
        if not head.keeps:
            # Also where nothing frames the body: then it ends with the connection (RFC 9112, 6.3).
            self.odd = True
        reader = self.reader
        return reader is not None and reader.head(head.status, head.reason, head.fields)

    def _go_on(self, wrong: str) -> None:
        """All of a segment has been read."""
        reader, incoming = self.reader, self._incoming
        if reader is None:
            return
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

    def eof_received(self) -> bool:
        self.spent = True  # TLS may take a while to close
        self._incoming.ended = not getattr(self.transport, "has_ended", False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._read_last(exc)
        if self._lags:
            self._ending = True  # it is told of behind what came before
        else:
            self._tell_end()

    def _tell_end(self) -> None:
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
        """What came before writing failed. Over TLS, whoever took it off the socket has told it before."""
        transport = self.transport
        if exc is None or transport is None or self._secure:
            return
        for data in last_bytes.unread(transport):
            if self.reader is not None:
                self.data_received(data)

    def pause_writing(self) -> None:
        self._full = True
        if self.sender is not None:
            self.sender.hold(True)

    def resume_writing(self) -> None:
        self._full = False
        if self.sender is not None:
            self.sender.hold(False)
