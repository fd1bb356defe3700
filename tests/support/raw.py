"""Raw-socket clients: what is given is sent, byte for byte, and what comes back is kept."""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BODILESS = (101, 204, 304)


class Response(NamedTuple):
    """A parsed HTTP/1.1 response; headers in order and as spelled, the body without its framing."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Hang(TimeoutError):
    """No complete response in time, and the connection still open. `received` is what there was."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"no complete response, only {received[:200]!r}")
        self.received = received


class ConnectRefused(Exception):
    """The proxy did not answer 200 to CONNECT. `received` is what it said."""

    def __init__(self, received: bytes) -> None:
        super().__init__(repr(received[:200]))
        self.received = received


@dataclass(frozen=True)
class Tls:
    """How to speak TLS: the certificate is checked where `cafile` is given."""

    sni: str
    cafile: Path | None = None
    alpn: Sequence[str] = ("http/1.1",)

    def wrap(self, plain: socket.socket) -> ssl.SSLSocket:
        if self.cafile:
            context = ssl.create_default_context(cafile=self.cafile)
        else:
            # Not the default one: that reads all the CAs of the machine, which takes 20 ms.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(self.alpn))
        return context.wrap_socket(plain, server_hostname=self.sni)


def connect(port: int, tls: Tls | None = None, timeout: float = 10.0) -> socket.socket:
    """A connection to a local port."""
    plain = socket.create_connection(("127.0.0.1", port), timeout)
    return tls.wrap(plain) if tls else plain


def connect_tls(
    port: int,
    host: str,
    port2: int = 443,
    sni: str | None = None,
    cafile: Path | None = None,
    alpn: Sequence[str] = ("http/1.1",),
    timeout: float = 10.0,
) -> ssl.SSLSocket:
    """CONNECT `host`:`port2` through the proxy on `port`, then TLS inside. Raises ConnectRefused."""
    plain = connect(port, timeout=timeout)
    plain.sendall(f"CONNECT {host}:{port2} HTTP/1.1\r\nHost: {host}:{port2}\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received and (data := plain.recv(1)):
        received += data
    if not re.match(rb"HTTP/1\.[01] 200 ", received):
        plain.close()
        raise ConnectRefused(received)
    return Tls(sni or host, cafile, alpn).wrap(plain)


def send_raw(port: int, data: bytes, *, tls: Tls | None = None, timeout: float = 10.0) -> bytes:
    """Send `data` on a new connection; returns all received up to the end of the response, or to the close.

    Nothing received means the connection was closed without an answer. Raises Hang.
    """
    with connect(port, tls, timeout) as sock:
        return exchange(sock, data, timeout)


def exchange(sock: socket.socket, data: bytes, timeout: float = 10.0) -> bytes:
    """As `send_raw`, on an open connection, which stays open."""
    head_only = data.startswith(b"HEAD ")
    received = b""
    deadline = time.monotonic() + timeout
    # The other side may refuse and close before it has read everything: its answer is what counts.
    with contextlib.suppress(OSError):
        sock.sendall(data)
    while not is_complete(received, head_only):
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            piece = sock.recv(65536)
        except TimeoutError:
            raise Hang(received) from None
        except OSError:
            break
        if not piece:
            break
        received += piece
    return received


def parse_response(received: bytes, head_only: bool = False) -> Response:
    """The final response in `received` (interim ones are skipped). Raises ValueError where there is none."""
    response = _split(received)
    if head_only or response.status in BODILESS:
        return response._replace(body=b"")
    return response._replace(body=_dechunk(response.body)[0]) if _chunked(response) else response


def _split(received: bytes) -> Response:
    """The final response with its body as it stands on the wire. Raises ValueError."""
    head, separator, rest = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.[01] ([0-9]{3})(?: .*)?", status_line)
    if not match or not separator:
        raise ValueError(f"not a response: {received[:80]!r}")
    status = int(match[1])
    if status < 200 and status != 101:
        return _split(rest)
    fields = (line.partition(":") for line in lines)
    return Response(status, [(name, value.strip()) for name, _, value in fields], rest)


def is_complete(received: bytes, head_only: bool = False) -> bool:
    """Whether a response ends in `received`, as far as its framing tells."""
    try:
        response = _split(received)
    except ValueError:
        return False
    if head_only or response.status in BODILESS:
        return True
    if _chunked(response):
        return _dechunk(response.body)[1]
    length = response.header("content-length")
    return length is not None and len(response.body) >= int(length)


def _chunked(response: Response) -> bool:
    return "chunked" in (response.header("transfer-encoding") or "").lower()


def _dechunk(data: bytes) -> tuple[bytes, bool]:
    """The body without its chunk framing, and whether the last chunk and its trailers were there."""
    body = bytearray()
    at = 0
    while match := re.compile(rb"([0-9a-fA-F]+)[^\r\n]*\r\n").match(data, at):
        size, at = int(match[1], 16), match.end()
        if not size:
            return bytes(body), data.startswith(b"\r\n", at) or data.endswith(b"\r\n\r\n")
        body += data[at : at + size]
        at += size + 2
    return bytes(body), False
