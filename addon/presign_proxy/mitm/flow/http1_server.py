"""HTTP/1 with clients: heads of bounded size in one reading, and clients that are half-closed."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.http._http1 import Http1Server

from ...core.answers import Answer, refusal
from ...gateway.request_id import new_request_id
from ...http.head_lines import is_ambiguous
from ...http.message import MAX_HEAD
from ..chunked import JoinedChunks, StrictChunks
from ..client_state import ClientStates
from ..half_closed import PROBE, may_be_there
from .coalesce import Commands
from .first_bytes import MAX_EMPTY_LINES, size_of_empty_lines
from .http1 import TamedHttp1
from .raw_message import is_h1

logger = logging.getLogger(__name__)

MAX_READ: Final = 2 * MAX_HEAD
"""Bytes of a head over HTTP/1 that is parsed: one a little too large is refused as its scheme wants."""
MAX_LINES: Final = 1000
"""Lines of a head over HTTP/1, ours or not; servers read a hundred fields."""
_ABSOLUTE: Final = re.compile(rb"[A-Z]+ https?://[\x21-\x7e]+?/", re.IGNORECASE)
_RAW: Final = re.compile(rb"([\x80-\xff])")
_ESCAPED: Final = {bytes((octet,)): b"%%%02X" % octet for octet in range(0x80, 0x100)}
_HEAD_END: Final = re.compile(rb"\n\r?\n")


class WaitingHttp1Server(Http1Server):
    """The client's side of HTTP/1. A half-closed client may still wait for an answer."""

    clients: ClientStates

    def wait(self, event: events.Event) -> Commands:
        """Note a half-closed client. A client of HTTP/1.0 counts as gone: it cannot be asked."""
        client = self.context.client
        askable = self.request is not None and self.request.is_http11
        if not isinstance(event, events.ConnectionClosed) or not askable or not may_be_there(client):
            yield from super().wait(event)
            return
        self.clients.half_closed.add(client)
        if self.response is None:
            yield commands.SendData(client, PROBE)

    def drop(self, event: events.Event) -> Commands:  # noqa: ARG002 - as a state of mitmproxy's
        """Drop the rest of a refused upload unread."""
        self.buf = ReceiveBuffer()
        yield from ()

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        client = self.context.client
        if self.clients.has_departed(client):
            self.buf = ReceiveBuffer()  # a request that was sent ahead would have no client, and no end
        yield from super().mark_done(request=request, response=response)
        if client in self.clients.half_closed:
            yield from self._end_reading()

    def _end_reading(self) -> Commands:
        """End a half-closed client whose requests are all read, or that has left the last one unfinished."""
        if self.state == self.read_headers:
            yield commands.CloseConnection(self.context.client)
        elif self.state == self.read_body:
            self.clients.half_closed.discard(self.context.client)
            yield from self.state(events.ConnectionClosed(self.context.client))


class GuardedHttp1Server(TamedHttp1, WaitingHttp1Server):
    """The client's side: heads of bounded size, within a deadline, and repeated by no page or log line."""

    def __init__(self, context: Context, clients: ClientStates) -> None:
        super().__init__(context)
        self.clients = clients
        self._endless = 0
        """Bytes of the buffer in which no head ends."""
        self._empty_lines = 0
        """Empty lines that were passed over since the last head."""
        self._stays = False
        """True if a request has come after which only this parser may read on."""

    @property
    def is_between_requests(self) -> bool:
        """True if each request was answered in full, and not a byte of the next one has come. Another parser
        may read what comes then, except after a CONNECT or a handshake, behind which may be no HTTP.
        """
        return (
            self.state == self.read_headers
            and not (self.request_done or self.response_done or self.request or self.response)
            and not (self._stays or self.buf or self._empty_lines or self._endless)
            and not (self._paused or self._paused_event_queue)
        )

    def read_body(self, event: events.Event) -> Commands:
        if type(self.body_reader) is ChunkedReader:
            joined: Any = JoinedChunks(StrictChunks())
            self.body_reader = joined
        reader = self.body_reader
        for command in super().read_body(event):
            if isinstance(command, commands.CloseConnection) and getattr(reader, "failed", False):
                self.state = self.done  # what comes is not the next request; the stream answers, and closes
            else:
                yield command

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        refused = False
        if isinstance(event, events.DataReceived):
            self._pass_over_empty_lines()
            if not event.data.isascii():
                self._escape_absolute_form()
            if (code := self._fault()) is not None:
                yield from self._refuse_head(code)
                yield from self._keep_deadline()
                return
        for command in super().read_headers(event):
            if isinstance(command, ReceiveHttp) and isinstance(command.event, RequestHeaders):
                self._stays |= not _is_plain(command.event.request)
            if isinstance(command, commands.SendData):
                # mitmproxy's page quotes the request line, with its signature, and its own version.
                command = commands.SendData(self.conn, _page(refusal("malformed", new_request_id())))
                refused = True
            elif isinstance(command, ReceiveHttp) and refused:
                continue  # the request it shows in its UI would be answered a second time
            elif _is_of_another_version(command):
                # The code behind this would treat it as what came over HTTP/2, by other rules.
                yield from self._refuse_head()
                break
            elif isinstance(command, commands.Log):
                command = commands.Log("presign: a request head could not be parsed", command.level)
            yield command
        self._endless = min(self._endless, len(self.buf))
        if self.state != self.read_headers:
            self._empty_lines = 0
        yield from self._keep_deadline()

    def _pass_over_empty_lines(self) -> None:
        """Drop empty lines before a request line, up to MAX_EMPTY_LINES."""
        size = size_of_empty_lines(bytes(self.buf))
        if size and self._empty_lines < MAX_EMPTY_LINES:
            self.buf.maybe_extract_at_most(size)
            self._empty_lines += size // 2

    def _refuse_head(self, code: str = "malformed") -> Commands:
        """Answer a head that is not read, and close."""
        yield commands.SendData(self.conn, _page(refusal(code, new_request_id())))
        yield commands.CloseConnection(self.conn)
        self.state = self.done

    def _fault(self) -> str | None:
        """Return the code with which a whole head is refused before it is parsed, or None.

        A head is refused for its size, because mitmproxy joins folded lines one by one; and for what other
        parsers could read in another way, because mitmproxy strips that before it can be looked at.
        """
        head = bytes(self.buf)
        if head[:1] == b"\n" or head[:2] == b"\r\n":
            return "malformed"
        # What was looked at before holds no end: a head may come byte by byte.
        end = _HEAD_END.search(head, max(self._endless - 3, 0))
        self._endless = 0 if end else len(head)
        if end is None:
            return None
        if end.end() > MAX_READ or head.count(b"\n", 0, end.end()) > MAX_LINES:
            return "too_large"
        return "malformed" if is_ambiguous(head[: end.end()]) else None

    def _escape_absolute_form(self) -> None:
        """Percent-encode raw UTF-8 in a request line that holds a whole URL: mitmproxy refuses it there,
        though not in origin form. The path is encoded in any case; a query is, where it would be refused.
        """
        line, end, rest = bytes(self.buf).partition(b"\n")
        if end and _ABSOLUTE.match(line) and not line.isascii():
            self.buf = ReceiveBuffer()
            parts = _RAW.split(line)
            parts[1::2] = map(_ESCAPED.__getitem__, parts[1::2])
            self.buf += b"".join(parts) + end + rest

    def _keep_deadline(self) -> Commands:
        """Start or end the deadline of the next head. Where that fails, the deadline runs on."""
        try:
            if self.state != self.read_headers or not self.buf:
                self.clients.head_came(self.context.client)
            else:
                self.clients.await_head(self.context.client)
        except Exception as error:
            logger.error("presign: failed to keep a deadline (%s)", type(error).__name__)
        if self.state == self.read_headers and len(self.buf) > MAX_HEAD:
            yield commands.SendData(self.conn, _page(refusal("too_large", new_request_id())))


def _is_of_another_version(command: commands.Command) -> bool:
    """Return whether a request line over HTTP/1 names HTTP/0, 2 or 3."""
    if not isinstance(command, ReceiveHttp) or not isinstance(command.event, RequestHeaders):
        return False
    return not is_h1(command.event.request.data.http_version)


def _is_plain(request: http.Request) -> bool:
    """Return whether what comes behind a request is certainly the next one, whatever the answer is."""
    is_connect = request.data.method.upper() == b"CONNECT"
    return request.is_http11 and not is_connect and "upgrade" not in request.headers


def _page(answer: Answer) -> bytes:
    head = [b"HTTP/1.1 %d %s" % (answer.status, answer.reason)]
    head += [name + b": " + value for name, value in (*answer.fields, (b"Connection", b"close"))]
    return b"\r\n".join(head) + b"\r\n\r\n" + answer.body
