"""HTTP/2 frames by hand: what no library would send."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import trustme

from support.byhand import ByHand, Wire
from support.raw import Tls, connect

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *range(5),
    6,
    7,
    8,
    9,
)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8
CALM = 0xB


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def goaway(self) -> int | None:
        """The code of a GOAWAY."""
        return int.from_bytes(self.payload[4:8], "big") if self.kind == GOAWAY else None


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def number(value: int, bits: int, first: int = 0) -> bytes:
    """An integer of HPACK (RFC 7541, 5.1) behind the bits that say what it is."""
    mask = (1 << bits) - 1
    if value < mask:
        return bytes((first | value,))
    found = [first | mask]
    value -= mask
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def text(value: bytes) -> bytes:
    return number(len(value), 7) + value


def literal(name: bytes, value: bytes, *, kept: bool = False) -> bytes:
    """A field in full; `kept` puts it into the table."""
    return (b"\x40" if kept else b"\x00") + text(name) + text(value)


def head_of(path: bytes, authority: bytes = b"presign.local", method: bytes = b"GET") -> bytes:
    """The head of a request, without any field of its own."""
    found = [(b":method", method), (b":scheme", b"https"), (b":authority", authority), (b":path", path)]
    return b"".join(literal(name, value) for name, value in found)


NEWEST = number(62, 7, 0x80)
"""One byte: the field that was put into the table last."""


class RawH2:
    """A connection on which anything can be sent."""

    def __init__(self, port: int, timeout: float = 15.0) -> None:
        self.sock: socket.socket = connect(port, Tls("presign.local", alpn=("h2",)), timeout)
        self.sock.sendall(PREFACE + frame(SETTINGS))
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """As far as the other side takes it."""
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def request(self, stream: int, block: bytes) -> None:
        self.send(frame(HEADERS, block, END_HEADERS | END_STREAM, stream))

    def frames(self) -> Iterator[Frame]:
        """What comes, until the other side closes or says nothing for the timeout."""
        with contextlib.suppress(OSError):
            while True:
                while len(self._buffer) < 9 or len(self._buffer) < 9 + int.from_bytes(
                    self._buffer[:3], "big"
                ):
                    data = self.sock.recv(1 << 16)
                    if not data:
                        return
                    self._buffer += data
                length = int.from_bytes(self._buffer[:3], "big")
                found, self._buffer = self._buffer[: 9 + length], self._buffer[9 + length :]
                stream = int.from_bytes(found[5:9], "big") & 0x7FFFFFFF
                yield Frame(found[3], found[4], stream, found[9:])

    def goaway(self) -> int | None:
        """The code of the first GOAWAY; None where the connection ends without one."""
        return next((one.goaway for one in self.frames() if one.kind == GOAWAY), None)

    def answer(self, stream: int) -> bytes:
        """What is said on a stream, its head undecoded, until it or the connection ends."""
        found = b""
        for one in self.frames():
            if one.stream == stream:
                found += one.payload
                if one.kind == RST_STREAM or one.flags & END_STREAM:
                    break
            if one.kind == GOAWAY:
                break
        return found

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawH2:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_frame(wire: Wire, timeout: float = 5.0) -> Frame:
    """The next frame that comes on one end of a connection."""
    head = wire.read_exactly(9, timeout)
    payload = wire.read_exactly(int.from_bytes(head[:3], "big"), timeout)
    return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)


def next_of(wire: Wire, kind: int, timeout: float = 5.0) -> Frame:
    """The next frame of a kind; what comes before it is passed over."""
    while (found := read_frame(wire, timeout)).kind != kind:
        pass
    return found


def h2_context(cert: trustme.LeafCert) -> ssl.SSLContext:
    """Of an upstream that speaks HTTP/2 alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert.configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


def accept_h2(hand: ByHand, context: ssl.SSLContext, settings: bytes = b"", timeout: float = 5.0) -> Wire:
    """The upstream's end of a connection over HTTP/2, of which the preface was read."""
    plain = hand.accept(timeout)
    plain.sock.settimeout(timeout)
    wire = Wire(context.wrap_socket(plain.sock, server_side=True))
    wire.send(frame(SETTINGS, settings) + frame(SETTINGS, b"", ACK))
    wire.read_exactly(len(PREFACE), timeout)
    return wire
