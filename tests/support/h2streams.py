"""An HTTP/2 client of several streams at a time, which can end them in every way that there is."""

import contextlib
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import h2.errors
import h2.exceptions

from support.h2client import Fields, H2Client, H2Reply, _encoded


class Streams(H2Client):
    """`replies` holds what came of each stream so far."""

    def __init__(self, sock: Any) -> None:
        self.replies: dict[int, H2Reply] = {}
        super().__init__(sock)

    def begin(self, headers: Fields, *, end: bool = True) -> int:
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, _encoded(headers), end_stream=end)
        self.replies[stream] = H2Reply()
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def reset(self, *streams: int) -> None:
        for stream in streams:
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def go_away(self) -> None:
        self._h2.close_connection()
        self._flush()

    def wait(self, streams: Sequence[int], timeout: float = 10.0) -> list[H2Reply]:
        """Read until all of them have ended, or the time is over; their replies."""
        deadline = time.monotonic() + timeout
        while not all(self.replies[one].ended for one in streams) and time.monotonic() < deadline:
            self._pump(deadline)
        return [self.replies[one] for one in streams]

    def wait_for_head(self, stream: int, timeout: float = 10.0) -> None:
        """Read until the head of an answer has come, or the time is over."""
        deadline = time.monotonic() + timeout
        while self.replies[stream].status is None and time.monotonic() < deadline:
            self._pump(deadline)

    def _pump(self, deadline: float) -> None:
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self._sock.recv(65536)
            events = self._h2.receive_data(data) if data else []
        except TimeoutError:
            return
        except (OSError, h2.exceptions.ProtocolError):
            data, events = b"", []
        for event in events:
            stream = getattr(event, "stream_id", None)
            if stream in self.replies:
                self._take(event, stream, self.replies[stream])
        self._sock.settimeout(10)
        with contextlib.suppress(OSError):
            self._flush()
        if not data:
            for reply in self.replies.values():
                reply.end("closed")

    def abort(self) -> None:
        """End the connection with RST."""
        abort(self._sock)

    def shut(self) -> None:
        """FIN, without anything before it that TLS would want to say."""
        socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """TLS's close_notify, and no FIN behind it."""
        self._sock.settimeout(0.2)
        with contextlib.suppress(OSError):
            self._sock.unwrap()


def abort(sock: socket.socket) -> None:
    """Close with RST, as a process does that is killed with unread data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
