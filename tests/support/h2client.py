"""A raw HTTP/2 client: header lists go out verbatim, however malformed."""

import contextlib
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from support.raw import Tls, connect, connect_tls

Fields = Sequence[tuple[str, str]]


@dataclass
class H2Reply:
    """What came of one request. `outcome` is the status, else `closed`, `reset` or `hang`."""

    outcome: str = "hang"
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    detail: str = ""
    """The error code of a reset, the debug data of a GOAWAY."""
    ended: bool = False

    def end(self, outcome: str) -> None:
        """Nothing more will come; `outcome` stands unless there was a status."""
        self.ended = True
        if self.status is None:
            self.outcome = outcome

    @property
    def status(self) -> int | None:
        return int(self.outcome) if self.outcome.isdigit() else None

    @property
    def received(self) -> bytes:
        """Everything the client was told, decoded."""
        lines = [f"{name}: {value}" for name, value in [*self.headers, *self.trailers]]
        return "\r\n".join([*lines, self.detail, ""]).encode("latin-1") + self.body

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class H2Client:
    """One HTTP/2 connection; requests follow one another on it."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        if sock.selected_alpn_protocol() != "h2":
            raise ConnectionError(f"the other side chose {sock.selected_alpn_protocol()}, not h2")
        self._sock = sock
        config = h2.config.H2Configuration(
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._flush()

    @classmethod
    def through(
        cls, port: int, host: str, port2: int = 443, sni: str | None = None, cafile: Path | None = None
    ) -> Self:
        """CONNECT `host`:`port2` through the proxy on `port`, TLS with `sni`, HTTP/2 inside."""
        return cls(connect_tls(port, host, port2, sni, cafile, alpn=("h2",)))

    @classmethod
    def direct(cls, port: int, sni: str, cafile: Path | None = None) -> Self:
        """TLS to the proxy's own port, without CONNECT."""
        sock = connect(port, Tls(sni, cafile, alpn=("h2",)))
        assert isinstance(sock, ssl.SSLSocket)
        return cls(sock)

    def request(
        self,
        headers: Fields,
        body: bytes | Iterable[bytes] | None = None,
        trailers: Fields | None = None,
        timeout: float = 10.0,
    ) -> H2Reply:
        """Send one request and read its reply to the end."""
        reply = H2Reply()
        deadline = time.monotonic() + timeout
        stream = self._h2.get_next_available_stream_id()
        # A refusal may come, and the connection go, while we still send: what was received is what counts.
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            self._send(stream, headers, body, trailers, reply, deadline)
        while not reply.ended and self._receive(stream, reply, deadline):
            pass
        return reply

    def take_back(self, headers: Fields) -> None:
        """Send one request and its end, and reset it, in one segment."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, _encoded(headers), end_stream=True)
        self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(
        self,
        stream: int,
        headers: Fields,
        body: bytes | Iterable[bytes] | None,
        trailers: Fields | None,
        reply: H2Reply,
        deadline: float,
    ) -> None:
        pieces = [] if body is None else [body] if isinstance(body, bytes) else body
        self._h2.send_headers(stream, _encoded(headers), end_stream=body is None and not trailers)
        self._flush()
        for piece in pieces:
            self._send_data(stream, piece, reply, deadline)
        if trailers:
            self._h2.send_headers(stream, _encoded(trailers), end_stream=True)
        elif body is not None:
            self._h2.end_stream(stream)
        self._flush()

    def _send_data(self, stream: int, data: bytes, reply: H2Reply, deadline: float) -> None:
        while data:
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room:
                self._h2.send_data(stream, data[:room])
                data = data[room:]
                self._flush()
            elif not self._receive(stream, reply, deadline):
                return

    def _flush(self) -> None:
        self._sock.sendall(self._h2.data_to_send())

    def _receive(self, stream: int, reply: H2Reply, deadline: float) -> bool:
        """Take in what the other side sends next; false where nothing more will come."""
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self._sock.recv(65536)
            events = self._h2.receive_data(data)
        except TimeoutError:
            return False
        except (OSError, h2.exceptions.ProtocolError):
            data, events = b"", []
        if not data:
            reply.end("closed")
        for event in events:
            self._take(event, stream, reply)
        with contextlib.suppress(OSError):
            self._flush()
        return not reply.ended

    def _take(self, event: h2.events.Event, stream: int, reply: H2Reply) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            reply.detail += f"GOAWAY {event.error_code} {(event.additional_data or b'').decode('latin-1')}"
            reply.end("closed")
        if getattr(event, "stream_id", None) != stream:
            return
        match event:
            case h2.events.ResponseReceived():
                reply.headers = _decoded(event.headers)
                reply.outcome = reply.header(":status") or "closed"
            case h2.events.DataReceived():
                reply.body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.TrailersReceived():
                reply.trailers = _decoded(event.headers)
            case h2.events.StreamReset():
                reply.detail += f"RST_STREAM {event.error_code}"
                reply.end("reset")
            case h2.events.StreamEnded():
                reply.ended = True


def _decoded(fields: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _encoded(fields: Fields) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
