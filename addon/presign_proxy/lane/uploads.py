"""The body of a request on its way to the upstream, framed as it came."""

from __future__ import annotations

from collections.abc import Iterator

import h11
from h11._receivebuffer import ReceiveBuffer

from ..chunks import StrictChunks
from ..message import MAX_HEAD


class UploadError(Exception):
    """The body is not framed as HTTP/1.1 has it."""


class Sized:
    """A body whose length was announced."""

    __slots__ = ("_left", "done", "size")

    def __init__(self, length: int) -> None:
        self._left = length
        self.size = 0
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What to send, and what belongs to the next request."""
        mine = data if len(data) <= self._left else data[: self._left]
        self._left -= len(mine)
        self.size += len(mine)
        self.done = not self._left
        return mine, data[len(mine) :]


class Chunked:
    """A body in chunks, which are written anew: extensions and trailers are fields that nobody checked."""

    __slots__ = ("_buffer", "_reader", "done", "size")

    def __init__(self) -> None:
        self._reader = StrictChunks()
        self._buffer = ReceiveBuffer()
        self.size = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What to send, and what belongs to the next request. Raises UploadError."""
        self._buffer += data
        sent = b"".join(self._chunks())
        if not self.done:
            if len(self._buffer) > MAX_HEAD:
                raise UploadError("a line without an end")
            return sent, b""
        return sent + b"0\r\n\r\n", bytes(self._buffer)

    def _chunks(self) -> Iterator[bytes]:
        while True:
            try:
                found = self._reader(self._buffer)
            except h11.ProtocolError:
                raise UploadError("the body is not framed as HTTP/1 has it") from None
            if found is None:
                return
            if isinstance(found, h11.EndOfMessage):
                self.done = True
                return
            piece = bytes(found.data)
            self.size += len(piece)
            yield b"%x\r\n%b\r\n" % (len(piece), piece)


Upload = Sized | Chunked


def upload_of(length: int | None) -> Upload:
    return Chunked() if length is None else Sized(length)
