"""A token endpoint that reads one request on a connection and answers to the byte as it is told."""

import contextlib
import re
import socket
import struct
import threading
import time

from support.accepting import accepted
from support.token_answers import TokenSample

HOLD = 0.1
"""Seconds for which a connection stays open that waits for a next request."""


class RawEndpoint:
    """Listens on a port of its own, and keeps what it was sent on each connection."""

    def __init__(self) -> None:
        self.answer = TokenSample("", b"")
        self._asked: list[bytearray] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/token"
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> list[bytes]:
        """What came on each connection since the last call."""
        asked, self._asked = self._asked, []
        return [bytes(one) for one in asked]

    def stop(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        for sock in accepted(self._listener):
            self._asked.append(asked := bytearray())
            threading.Thread(target=self._serve, args=(sock, asked, self.answer), daemon=True).start()

    def _serve(self, sock: socket.socket, asked: bytearray, answer: TokenSample) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(10)
            if answer.is_early:
                self._send(sock, answer)
            while not _is_whole(asked) and (piece := sock.recv(65536)):
                asked += piece
            if not answer.is_early:
                self._send(sock, answer)
            if answer.end == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif answer.end == "hold":
                sock.settimeout(HOLD)
                asked += sock.recv(65536)

    def _send(self, sock: socket.socket, answer: TokenSample) -> None:
        for number, piece in enumerate(answer.pieces):
            time.sleep(0.005 if number else 0)
            sock.sendall(piece)


def _is_whole(asked: bytearray) -> bool:
    head, end, body = bytes(asked).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
    return bool(end) and len(body) >= int(length[1] if length else 0)
