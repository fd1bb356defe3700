"""mitmproxy's HTTP layer with guarded streams, and connections that keep to limits.

Installed by giving a layer that mitmproxy has chosen another class, never by patching mitmproxy: client
replay and everything else that builds a layer of its own gets the stock one, and with it no credential.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Server

from .answers import Answer, refusal
from .identity import new_request_id
from .ledger import Ledger
from .message import MAX_HEAD
from .stream import Commands, GuardedStream

logger = logging.getLogger(__name__)

MAX_HELLO: Final = 16 * 1024
"""Bytes of a ClientHello; with post-quantum key shares they have about two thousand."""
_ABSOLUTE: Final = re.compile(rb"[A-Z]+ https?://[\x21-\x7e]+?/", re.IGNORECASE)
_RAW: Final = re.compile(rb"[\x80-\xff]")


class _Tamed(Http1Connection):
    """What mitmproxy's HTTP/1 leaves open on both sides."""

    def _handle_event(self, event: events.Event) -> Commands:
        yield from super()._handle_event(event)
        # Chunk sizes, trailers and response heads are lines without an end, until they end.
        unparsed = self.state in (self.read_headers, self.read_body)
        if unparsed and len(self.buf) > MAX_HEAD and isinstance(event, events.DataReceived):
            yield from self._overflow()

    def _overflow(self) -> Commands:
        yield commands.CloseConnection(self.conn)
        self.buf = ReceiveBuffer()
        self.state = self.done
        if self.stream_id is not None and self.request is not None:
            code = self.ReceiveProtocolError.code
            yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, "a line without an end", code=code))

    def read_body(self, event: events.Event) -> Commands:
        """mitmproxy crashes on trailers of a chunked body; they are fields nobody checked, and dropped."""
        try:
            yield from super().read_body(event)
        except NotImplementedError:
            yield ReceiveHttp(self.ReceiveEndOfMessage(self.stream_id or 0))
            is_request = isinstance(self, Http1Server)
            yield from self.mark_done(request=is_request, response=not is_request)


class GuardedHttp1Server(_Tamed, Http1Server):
    """The client's side: heads of bounded size, owed within a deadline; no page or log line repeats them."""

    ledger: Ledger

    def __init__(self, context: Context, ledger: Ledger) -> None:
        super().__init__(context)
        self.ledger = ledger

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        refused = False
        if isinstance(event, events.DataReceived) and not event.data.isascii():
            self._escape_absolute_form()
        for command in super().read_headers(event):
            if isinstance(command, commands.SendData):
                # mitmproxy's page quotes the request line, with its signature, and its own version.
                command = commands.SendData(self.conn, _page(refusal("malformed", new_request_id())))
                refused = True
            elif isinstance(command, ReceiveHttp) and refused:
                continue  # the request it shows in its UI would be answered a second time
            elif isinstance(command, commands.Log):
                command = commands.Log("presign: a request head could not be parsed", command.level)
            yield command
        yield from self._owe()

    def _escape_absolute_form(self) -> None:
        """Percent-encode raw UTF-8 in a request line that holds a whole URL, which mitmproxy refuses there
        though not in origin form; the path is encoded in any case.
        """
        line, end, rest = bytes(self.buf).partition(b"\n")
        if end and _ABSOLUTE.match(line) and not line.isascii():
            self.buf = ReceiveBuffer()
            self.buf += _RAW.sub(lambda match: b"%%%02X" % match[0][0], line) + end + rest

    def _owe(self) -> Commands:
        """Keep account of the head that is owed; its deadline runs on where that fails."""
        try:
            if self.state != self.read_headers or not self.buf:
                self.ledger.paid_head(self.conn)
            else:
                self.ledger.owe_head(self.conn)
        except Exception as error:
            logger.error("presign: failed to keep a deadline (%s)", type(error).__name__)
        if self.state == self.read_headers and len(self.buf) > MAX_HEAD:
            yield commands.SendData(self.conn, _page(refusal("too_large", new_request_id())))


class GuardedHttp1Client(_Tamed, Http1Client):
    """The upstream's side: interim responses are not taken for the response, nothing it says is logged."""

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        # An interim head comes in a segment of its own, or at the start of one, or in crumbs.
        if isinstance(event, events.DataReceived) and (len(event.data) < 12 or b"HTTP/1.1 1" in event.data):
            self._drop_interim()
        for command in super().read_headers(event):
            if isinstance(command, commands.Log):
                command = commands.Log("presign: unexpected data from an upstream", command.level)
            yield command

    def _drop_interim(self) -> None:
        """RFC 9110, 15.2: any number of 1xx may precede the response; 101 ends HTTP and is the response."""
        while self.request is not None:
            start = bytes(self.buf)[:12]
            if not start.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")) or start[9:12] == b"101":
                return
            if not self.buf.maybe_extract_lines():
                return


class GuardedHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer, whose streams are guarded."""

    ledger: Ledger
    quiet = False
    """Whether a credential has been sent from here: log lines may quote an upstream that echoes it."""

    def _handle_event(self, event: events.Event) -> Commands:
        client = self.context.client
        over_h1 = client.alpn != b"h2" and client.transport_protocol == "tcp"
        if isinstance(event, events.Start) and over_h1:
            # mitmproxy keeps a server that is already there.
            self.connections.setdefault(client, GuardedHttp1Server(self.context.fork(), self.ledger))
        if isinstance(event, events.Start):
            self.ledger.layers[client] = self
        for command in super()._handle_event(event):
            if self.quiet and isinstance(command, commands.Log):
                command.message = "presign: a message of the protocol layer is withheld"
            yield command

    def held_bytes(self) -> int:
        """What the client has sent and nobody has taken yet."""
        buffered = getattr(self.connections.get(self.context.client), "buf", b"")
        return len(buffered) + sum(getattr(stream, "queued", 0) for stream in self.streams.values())

    def backlog_bytes(self) -> int:
        """What an HTTP/2 client's window keeps from being sent; over HTTP/1 the socket tells."""
        server = self.connections.get(self.context.client)
        if not isinstance(server, Http2Server):
            return 0
        frames = sum(len(queue) for queue in server.h2_conn.stream_buffers.values())
        return frames * server.h2_conn.max_outbound_frame_size

    def make_stream(self, stream_id: int) -> Commands:
        stream = GuardedStream(self.context.fork(), stream_id)
        stream.ledger = self.ledger
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())

    def register_connection(self, command: Any) -> Commands:
        for child in _descendants(self.connections.get(command.connection)):
            if type(child) is Http1Client:
                child.__class__ = GuardedHttp1Client
                child.state = child.read_headers  # bound before, to the stock class
        yield from super().register_connection(command)


class GuardedClientTLSLayer(layers.ClientTLSLayer):
    """A ClientHello of bounded size: mitmproxy parses all of it again with every byte that comes."""

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        if not self.client_hello_parsed and len(self.recv_buffer) + len(data) > MAX_HELLO:
            self.recv_buffer.clear()
            return False, "the ClientHello is too large"
        return (yield from super().receive_handshake_data(data))


def _descendants(top: layer.Layer | None) -> list[layer.Layer]:
    found: list[layer.Layer] = []
    while isinstance(top, layer.Layer):
        found.append(top)
        top = getattr(top, "child_layer", None)
    return found


def _page(answer: Answer) -> bytes:
    head = [b"HTTP/1.1 %d %s" % (answer.status, answer.reason)]
    head += [name + b": " + value for name, value in (*answer.fields, (b"Connection", b"close"))]
    return b"\r\n".join(head) + b"\r\n\r\n" + answer.body


def adopt(context: Context, ledger: Ledger) -> None:
    """Guard every stock HTTP layer of a connection."""
    for one in context.layers:
        if type(one) is HttpLayer:
            one.__class__ = GuardedHttpLayer
        elif type(one) is layers.ClientTLSLayer:
            one.__class__ = GuardedClientTLSLayer
        if isinstance(one, GuardedHttpLayer):
            one.ledger = ledger


def is_raw(chosen: layer.Layer | None) -> bool:
    """Whether a layer would carry anything but HTTP, or TLS with HTTP in it."""
    allowed = (
        HttpLayer,
        layer.NextLayer,
        layers.ClientTLSLayer,
        layers.ServerTLSLayer,
        layers.modes.HttpProxy,
    )
    return chosen is not None and any(not isinstance(one, allowed) for one in _descendants(chosen))


_BEGINNING: Final = re.compile(
    rb"[A-Za-z]{1,20}(?: (?:[/*].*|h(?:t(?:t(?:p.*)?)?)?)?)?", re.IGNORECASE | re.DOTALL
)


def may_become_http(asked: layer.NextLayer) -> bool:
    """Whether raw TCP was chosen for what may be a request line whose end has not come yet.

    mitmproxy takes a first segment without a line break for something else, and a presign is longer than
    many a segment: it would be relayed as it is, signature included.
    """
    chosen = asked.layer
    if type(chosen) is not layers.TCPLayer or chosen.flow is None or asked.data_server():
        return False
    data = asked.data_client()
    return len(data) <= MAX_HEAD and b"\n" not in data and _BEGINNING.fullmatch(data) is not None


class Refuse(layer.Layer):
    """Closes the connection: where only presigned requests are let through, all else is."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start | events.DataReceived):
            yield commands.CloseConnection(self.context.client)
