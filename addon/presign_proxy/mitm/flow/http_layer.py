"""mitmproxy's HTTP layer with guarded streams, and connections that keep to limits.

Installed by giving a layer that mitmproxy has chosen another class, never by patching mitmproxy: client
replay and everything else that builds a layer of its own gets the stock one, and with it no credential.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HttpClient, HttpLayer
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server

from ...core.answers import Answer, refusal
from ...gateway.request_id import new_request_id
from ...http.head_lines import is_ambiguous
from ...http.message import MAX_HEAD
from ..backpressure import MAX_HELD
from ..bell import Bell
from ..chunked import JoinedChunks, StrictChunks
from ..client_state import ClientStates
from ..hook_dispatch import Begin
from ..lane.layer import LaneEvent
from .backlog import BackloggedHttpLayer
from .coalesce import Commands, in_one_piece
from .first_bytes import MAX_EMPTY_LINES, size_of_empty_lines
from .http1 import TamedHttp1
from .http2_client import GuardedHttp2Client
from .http2_server import GuardedHttp2Server
from .http2_side import OpenWindows, Turn
from .http2_windows import all_unsent, unsent
from .raw_message import is_h1
from .state import FlowStates
from .stream import GuardedStream
from .upstream_protocol import GuardedHttpClient
from .waits import WaitingHttp1Server, descendants

logger = logging.getLogger(__name__)

MAX_READ: Final = 2 * MAX_HEAD
"""Bytes of a head over HTTP/1 that is parsed: one a little too large is refused as its scheme wants."""
MAX_LINES: Final = 1000
"""Lines of a head over HTTP/1, ours or not; servers read a hundred fields."""
MAX_HELLO: Final = 16 * 1024
"""Bytes of a ClientHello; with post-quantum key shares they have about two thousand."""
_ABSOLUTE: Final = re.compile(rb"[A-Z]+ https?://[\x21-\x7e]+?/", re.IGNORECASE)
_RAW: Final = re.compile(rb"([\x80-\xff])")
_ESCAPED: Final = {bytes((octet,)): b"%%%02X" % octet for octet in range(0x80, 0x100)}
_HEAD_END: Final = re.compile(rb"\n\r?\n")


class GuardedHttp1Server(TamedHttp1, WaitingHttp1Server):
    """The client's side: heads of bounded size, owed within a deadline; no page or log line repeats them."""

    def __init__(self, context: Context, clients: ClientStates) -> None:
        super().__init__(context)
        self.clients = clients
        self._endless = 0
        """Bytes of the buffer in which no head ends."""
        self._empty_lines = 0
        """How many were passed over since the last head."""

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
                yield from self._owe()
                return
        for command in super().read_headers(event):
            if isinstance(command, commands.SendData):
                # mitmproxy's page quotes the request line, with its signature, and its own version.
                command = commands.SendData(self.conn, _page(refusal("malformed", new_request_id())))
                refused = True
            elif isinstance(command, ReceiveHttp) and refused:
                continue  # the request it shows in its UI would be answered a second time
            elif _is_of_another_version(command):
                # Everything after would take it for what came over HTTP/2, by other rules.
                yield from self._refuse_head()
                break
            elif isinstance(command, commands.Log):
                command = commands.Log("presign: a request head could not be parsed", command.level)
            yield command
        self._endless = min(self._endless, len(self.buf))
        if self.state != self.read_headers:
            self._empty_lines = 0
        yield from self._owe()

    def _pass_over_empty_lines(self) -> None:
        size = size_of_empty_lines(bytes(self.buf))
        if size and self._empty_lines < MAX_EMPTY_LINES:
            self.buf.maybe_extract_at_most(size)
            self._empty_lines += size // 2

    def _refuse_head(self, code: str = "malformed") -> Commands:
        yield commands.SendData(self.conn, _page(refusal(code, new_request_id())))
        yield commands.CloseConnection(self.conn)
        self.state = self.done

    def _fault(self) -> str | None:
        """The code with which a whole head is refused before it is parsed.

        For its size, because mitmproxy joins folded lines one by one; and for what others could read in
        another way, because mitmproxy strips it before anybody can look.
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
        """Percent-encode raw UTF-8 in a request line that holds a whole URL, which mitmproxy refuses there
        though not in origin form. The path is encoded in any case; a query is, where it would be refused.
        """
        line, end, rest = bytes(self.buf).partition(b"\n")
        if end and _ABSOLUTE.match(line) and not line.isascii():
            self.buf = ReceiveBuffer()
            parts = _RAW.split(line)
            parts[1::2] = map(_ESCAPED.__getitem__, parts[1::2])
            self.buf += b"".join(parts) + end + rest

    def _owe(self) -> Commands:
        """Keep account of the head that is owed; its deadline runs on where that fails."""
        try:
            if self.state != self.read_headers or not self.buf:
                self.clients.head_came(self.conn)
            else:
                self.clients.await_head(self.conn)
        except Exception as error:
            logger.error("presign: failed to keep a deadline (%s)", type(error).__name__)
        if self.state == self.read_headers and len(self.buf) > MAX_HEAD:
            yield commands.SendData(self.conn, _page(refusal("too_large", new_request_id())))


class GuardedHttpLayer(BackloggedHttpLayer):
    """mitmproxy's HTTP layer, whose streams are guarded."""

    states: FlowStates
    begin: Begin | None = None
    ended: list[GuardedStream]
    withholding: set[Connection]
    """Connections over HTTP/2 whose peers wait for windows."""
    quiet = False
    """Whether a credential has been sent from here: log lines may quote an upstream that echoes it."""
    broken = False

    def _handle_event(self, event: events.Event) -> Commands:
        """mitmproxy logs what is raised here, and leaves the client waiting for ever."""
        try:
            if not self.broken:
                yield from self._handle(event)
        except Exception as error:
            self.broken = True
            logger.error("presign: failed at the protocol (%s); the client is cut off", type(error).__name__)
            yield commands.CloseConnection(self.context.client)
            self.clients.cut_off.add(self.context.client)

    def _handle(self, event: events.Event) -> Commands:
        client = self.context.client
        self.listening = self._is_heard(event)
        if isinstance(event, events.Start):
            self.clients.attach(client, self)
            # mitmproxy keeps a server that is already there.
            if client.alpn == b"h2":
                self.connections.setdefault(client, GuardedHttp2Server(self.context.fork(), self))
            elif client.transport_protocol == "tcp":
                self.connections.setdefault(client, GuardedHttp1Server(self.context.fork(), self.clients))
        for command in in_one_piece(self._led(event)):
            if self.quiet and isinstance(command, commands.Log):
                command.message = "presign: a message of the protocol layer is withheld"
            elif isinstance(command, commands.OpenConnection):
                self.forget_closed()
            yield command
        yield from self._open_windows()
        if self.ended or self.may_open(event):
            self.bell.ring()
        while self.ended:
            self.ended.pop().come_apart()
        if isinstance(server := self.connections.get(client), GuardedHttp2Server):
            gone = client.state is ConnectionState.CLOSED
            streams, waiting = (0, 0) if gone else (len(self.streams), all_unsent(server))
            self.clients.fairness.shares.note(client, streams, waiting)

    def _led(self, event: events.Event) -> Commands:
        """What comes of an event where it belongs."""
        if isinstance(event, LaneEvent):
            yield from self._to_streams(event, event.lane.context)
        elif isinstance(event, Turn) and self.connections.get(self.context.client) is not event.side:
            yield from self._to_streams(event, event.side.context)
        elif isinstance(event, Turn):
            if event.side.turn is event:  # else its client has gone meanwhile
                yield from self.event_to_child(event.side, event)
        else:
            yield from super()._handle_event(event)

    def _open_windows(self) -> Commands:
        """Open the windows of what moves again, on both sides."""
        for one in list(self.withholding):
            if (top := self.connections.get(one)) is not None:
                yield from self.event_to_child(top, OpenWindows())
            else:
                self.withholding.discard(one)

    def event_to_child(self, child: Layer, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            for one in descendants(child):
                if type(one) is HttpClient:
                    GuardedHttpClient.guard(one, self)
        yield from super().event_to_child(child, event)

    def _is_heard(self, event: events.Event) -> bool:
        """Whether an event is something that the client has sent."""
        client = self.context.client
        if isinstance(event, events.DataReceived):
            return event.connection is client
        turn = getattr(self.connections.get(client), "turn", None)
        return turn is not None and turn in (event, getattr(event, "command", None))

    def _to_streams(self, event: events.Event, context: Context) -> Commands:
        """Lead an event to what is at the other end of a tunnel."""
        for one in context.layers:
            if isinstance(one, GuardedStream) and self.streams.get(one.stream_id) is one:
                yield from self.event_to_child(one, event)

    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self.streams

    def is_idle_stranger(self) -> bool:
        """Whether no request is under way, nor ever was one that was granted."""
        return not self.streams and not self.quiet

    def held_bytes(self) -> int:
        """What a client has sent and nobody has taken yet; bodies over HTTP/2 have their windows."""
        server = self.connections.get(self.context.client)
        if isinstance(server, GuardedHttp2Server):
            return server.gate.waiting
        return sum(getattr(stream, "queued", 0) for stream in self.streams.values())

    def has_room(self, connection: Connection) -> bool:
        """Also whether its upstream has not said goodbye."""
        return super().has_room(connection) and not any(one.leaving for one in self._guarded(connection))

    def _guarded(self, connection: Connection) -> list[GuardedHttp2Client]:
        return [one for one in self._over_http2(connection) if isinstance(one, GuardedHttp2Client)]

    def is_full(self, stream_id: int, most: int = MAX_HELD) -> bool:
        """Whether an upload waits: for a hook, for a connection, or for the window of its upstream."""
        stream = self.streams.get(stream_id)
        if stream is None:
            return False
        if stream._paused is not None:
            return True
        upstream = self.connections.get(stream.context.server)
        for one in descendants(upstream):
            if isinstance(one, Http2Client):
                waiting = unsent(one, one.our_stream_id.get(stream_id, 0))
                return waiting > most or stream_id in one.stream_queue
        return False

    def is_reset(self, stream_id: int) -> bool:
        """Whether a client over HTTP/2 wants no answer any more; its frames are read before they are told."""
        client = self.connections.get(self.context.client)
        return isinstance(client, Http2Server) and client.is_closed(stream_id)

    def make_stream(self, stream_id: int) -> Commands:
        stream = GuardedStream(self.context.fork(), stream_id)
        stream.states, stream.begin = self.states, self.begin
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())


class GuardedClientTLSLayer(layers.ClientTLSLayer):
    """A ClientHello of bounded size: mitmproxy parses all of it again with every byte that comes."""

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        try:
            if not self.client_hello_parsed and len(self.recv_buffer) + len(data) > MAX_HELLO:
                self.recv_buffer.clear()
                return False, "the ClientHello is too large"
            return (yield from super().receive_handshake_data(data))
        except Exception as error:
            return False, f"presign: failed at the handshake ({type(error).__name__})"


def _is_of_another_version(command: commands.Command) -> bool:
    """Whether a request line over HTTP/1 says it is of HTTP/0, 2 or 3."""
    if not isinstance(command, ReceiveHttp) or not isinstance(command.event, RequestHeaders):
        return False
    return not is_h1(command.event.request.data.http_version)


def _page(answer: Answer) -> bytes:
    head = [b"HTTP/1.1 %d %s" % (answer.status, answer.reason)]
    head += [name + b": " + value for name, value in (*answer.fields, (b"Connection", b"close"))]
    return b"\r\n".join(head) + b"\r\n\r\n" + answer.body


def adopt(context: Context, states: FlowStates, begin: Begin | None = None) -> None:
    """Guard every stock HTTP layer of a connection.

    Args:
        begin: begins with a hook at once; None where each takes a task of mitmproxy's.
    """
    for one in context.layers:
        if type(one) is HttpLayer:
            one.__class__ = GuardedHttpLayer
            vars(one).update(ended=[], closed=set(), withholding=set(), bell=Bell())
        elif type(one) is layers.ClientTLSLayer:
            one.__class__ = GuardedClientTLSLayer
        if isinstance(one, GuardedHttpLayer):
            one.states, one.clients, one.begin = states, states.clients, begin
