"""Clients that send bytes as they are and count what is answered."""

import contextlib
import re
import socket
import time
from dataclasses import dataclass
from typing import NamedTuple

from support.proxy import Mitm
from support.raw import connect, connect_tls

IDLE = 0.02
"""Seconds of silence after which nothing more is expected of a request that is none."""

PATIENCE = 30.0
"""Seconds in which a well-formed request is answered, be the machine ever so busy."""


class Answered(NamedTuple):
    """One final response."""

    status: int
    head: bytes
    body: bytes

    @property
    def refused(self) -> bool:
        """Whether the gateway itself said so."""
        return b"\r\nx-presign-error:" in self.head.lower()


@dataclass
class Talk:
    """What came of some bytes. `open`: the connection can go on; `hung`: an answer is missing."""

    answers: list[Answered]
    raw: bytes
    open: bool = False
    hung: bool = False


class Conversations:
    """Connections to gateways, kept open from one well-formed request to the next."""

    def __init__(self, gateway: Mitm, reverse: Mitm, tls_port: int) -> None:
        self._gateway, self._reverse, self._tls_port = gateway, reverse, tls_port
        self._open: dict[str, socket.socket] = {}

    def close(self) -> None:
        for sock in self._open.values():
            sock.close()
        self._open.clear()

    def talk(self, way: str, upstream: str, data: bytes, heads: list[bool], clean: bool) -> Talk:
        """Send `data`; `heads` says of each request in it whether its answer has no body.

        `clean`: there is nothing else in it, so the connection is used again.
        """
        key = f"tunnel {upstream}" if way == "tunnel" else way
        # What is odd goes on a connection of its own: sent a second time it might be forwarded a second time.
        kept = self._open.pop(key, None) if clean else None
        sock = kept or self._connect(way, upstream)
        talk = _exchange(sock, data, heads, clean)
        if kept and not talk.raw and not talk.hung:
            # The gateway may have closed an idle connection before anything was sent on it.
            sock.close()
            sock = self._connect(way, upstream)
            talk = _exchange(sock, data, heads, clean)
        if talk.open:
            self._open[key] = sock
        else:
            sock.close()
        return talk

    def _connect(self, way: str, upstream: str) -> socket.socket:
        if way == "connect":
            return connect_tls(self._gateway.port, "presign.local", 443)
        if way == "tls":
            return connect_tls(self._gateway.port, "api.tls.test", self._tls_port)
        if way == "reverse":
            return connect(self._reverse.port)
        sock = connect(self._gateway.port)
        if way == "tunnel":
            sock.sendall(f"CONNECT {upstream} HTTP/1.1\r\nHost: {upstream}\r\n\r\n".encode())
            received = b""
            while b"\r\n\r\n" not in received:
                received += sock.recv(1) or b"\r\n\r\n"
            assert received.startswith(b"HTTP/1.1 200"), received
        return sock


def _exchange(sock: socket.socket, data: bytes, heads: list[bool], clean: bool) -> Talk:
    talk, buffer = Talk([], b""), b""
    deadline = time.monotonic() + (PATIENCE if clean else 1)
    sock.settimeout(10)
    with contextlib.suppress(OSError):
        sock.sendall(data)
    while True:
        while (
            one := _one(buffer, heads[len(talk.answers)] if len(talk.answers) < len(heads) else False)
        ) is not None:
            answer, buffer = one
            if answer.status >= 200:
                talk.answers.append(answer)
        if talk.answers and re.search(rb"(?i)\r\nconnection: close\r\n", talk.answers[-1].head):
            return talk
        waiting = len(talk.answers) < len(heads)
        if clean and not waiting:
            talk.open = not buffer
            return talk
        sock.settimeout(max(0.001, deadline - time.monotonic()) if waiting else IDLE)
        try:
            piece = sock.recv(262144)
        except TimeoutError:
            talk.hung = waiting
            return talk
        except OSError:
            return talk
        if not piece:
            return talk
        buffer += piece
        talk.raw += piece


def _one(buffer: bytes, head_only: bool) -> tuple[Answered, bytes] | None:
    """The next response, and what follows it."""
    head, end, rest = buffer.partition(b"\r\n\r\n")
    start = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
    if not end or not start:
        return None
    status, head = int(start[1]), head + b"\r\n"
    if status < 200 or status in (204, 304) or head_only:
        return Answered(status, head, b""), rest
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        body = b""
        while chunk := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
            size = int(chunk[1], 16)
            if len(rest) < chunk.end() + size + 2:
                return None
            body, rest = body + rest[chunk.end() : chunk.end() + size], rest[chunk.end() + size + 2 :]
            if not size:
                return Answered(status, head, body), rest
        return None
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    size = int(length[1]) if length else 0
    return (Answered(status, head, rest[:size]), rest[size:]) if len(rest) >= size else None
