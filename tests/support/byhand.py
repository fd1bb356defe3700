"""An upstream whose every byte is sent by the test itself, and the same for a client: no thread, no pause."""

import contextlib
import re
import select
import socket
import ssl
import time
from typing import Self


class Wire:
    """One end of a connection, read as far as the test wants to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_until(self, marker: bytes, timeout: float = 5.0) -> bytes:
        """Everything up to and with `marker`. Raises TimeoutError, or ConnectionError where the end comes."""
        deadline = time.monotonic() + timeout
        while marker not in self.buffer:
            self._more(deadline)
        before, found, self.buffer = self.buffer.partition(marker)
        return before + found

    def read_exactly(self, size: int, timeout: float = 5.0) -> bytes:
        deadline = time.monotonic() + timeout
        while len(self.buffer) < size:
            self._more(deadline)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_head(self, timeout: float = 5.0) -> bytes:
        return self.read_until(b"\r\n\r\n", timeout)

    def read_response(self, timeout: float = 5.0) -> bytes:
        """A response that says how long it is, head and body as they stand on the wire."""
        head = self.read_head(timeout)
        if length := re.search(rb"(?i)\r\ncontent-length: *([0-9]+)\r\n", head):
            return head + self.read_exactly(int(length[1]), timeout)
        if re.search(rb"(?i)\r\ntransfer-encoding: *chunked\r\n", head):
            return head + self.read_until(b"0\r\n\r\n", timeout)
        return head

    def read_to_end(self, timeout: float = 5.0) -> bytes:
        """All that still comes, until the other side closes. Raises TimeoutError where it does not."""
        deadline = time.monotonic() + timeout
        with contextlib.suppress(ConnectionError):
            while True:
                self._more(deadline)
        data, self.buffer = self.buffer, b""
        return data

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while, the connection staying open."""
        try:
            self._more(time.monotonic() + seconds)
        except TimeoutError:
            return not self.buffer
        except ConnectionError:
            pass
        return False

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _more(self, deadline: float) -> None:
        self.sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"only {self.buffer[-300:]!r}") from None
        if not data:
            raise ConnectionError(f"closed after {self.buffer[-300:]!r}")
        self.buffer += data


class ByHand:
    """Listens; each connection is accepted when the test asks for it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._accepted: list[Wire] = []
        self.port = int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    def accept(self, timeout: float = 5.0) -> Wire:
        self._listener.settimeout(timeout)
        wire = Wire(self._listener.accept()[0])
        self._accepted.append(wire)
        if self._tls:
            wire.sock.settimeout(timeout)
            wire.sock = self._tls.wrap_socket(wire.sock, server_side=True)
        return wire

    def waits(self, timeout: float = 0.2) -> bool:
        """Whether somebody has connected, and was not accepted yet."""
        return bool(select.select([self._listener], [], [], timeout)[0])

    def hang_up(self) -> None:
        """Close every connection so far, accepted or waiting."""
        self._listener.settimeout(0)
        with contextlib.suppress(OSError):
            while True:
                self._listener.accept()[0].close()
        for wire in self._accepted:
            wire.close()
        self._accepted.clear()

    def stop(self) -> None:
        self.hang_up()
        self._listener.close()
