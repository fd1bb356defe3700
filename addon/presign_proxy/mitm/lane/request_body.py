"""The body of a request on its way to the upstream, framed as it came."""

from __future__ import annotations

import time
from collections.abc import Iterator

import h11
from h11._receivebuffer import ReceiveBuffer

from ...http.message import MAX_HEAD
from ..chunked import JoinedChunks, StrictChunks


class UploadError(Exception):
    """The body is not framed as HTTP/1.1 has it."""


class _Body:
    """What is known of a body while it comes."""

    __slots__ = ("_held", "_moved")

    def __init__(self) -> None:
        self._held = False
        self._moved = 0.0

    def move(self) -> None:
        """Something of the exchange has moved: its client is not waited for in vain."""
        self._moved = time.monotonic()

    def hold(self, on: bool) -> None:
        """Whether the upstream does not take it: meanwhile nothing is expected of the client."""
        self._held = on
        self.move()

    @property
    def is_held(self) -> bool:
        """Whether it is the upstream's turn to take some."""
        return self._held

    def stalls(self, now: float, patience: tuple[int, int]) -> bool:
        """Args: patience: seconds in which the client has to send more, or the upstream to take some."""
        return now - self._moved > patience[self._held]


class Sized(_Body):
    """A body whose length was announced."""

    __slots__ = ("_left", "done", "size")

    def __init__(self, length: int) -> None:
        super().__init__()
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


class Chunked(_Body):
    """A body in chunks, which are written anew: extensions and trailers are fields that nobody checked."""

    __slots__ = ("_buffer", "_reader", "done", "size")

    def __init__(self) -> None:
        super().__init__()
        self._reader = JoinedChunks(StrictChunks())
        self._buffer = ReceiveBuffer()
        self.size = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What to send, and what belongs to the next request. Of a body that is not done, the second is to be
        fed again, once others have had their turn. Raises UploadError.
        """
        self._buffer += data
        sent = b"".join(self._chunks())
        if self.done:
            return sent + b"0\r\n\r\n", bytes(self._buffer)
        if self._reader.lags:
            rest, self._buffer = bytes(self._buffer), ReceiveBuffer()
            return sent, rest
        if len(self._buffer) > MAX_HEAD:
            raise UploadError("a line without an end")
        return sent, b""

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
            if self._reader.lags:
                return


Upload = Sized | Chunked


def upload_of(length: int | None) -> Upload:
    return Chunked() if length is None else Sized(length)
