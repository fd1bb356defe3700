"""The body of a request on its way to the upstream, framed as it came."""

from __future__ import annotations

import time
from collections.abc import Iterator

import h11
from h11._receivebuffer import ReceiveBuffer

from ...core.policy import body_too_large
from ...errors import Denied
from ...http.message import MAX_HEAD
from ..chunked import JoinedChunks, StrictChunks


class UploadError(Exception):
    """The body is not framed as HTTP/1.1 has it."""


class Body:
    """A body while it comes."""

    __slots__ = ("_held", "_left", "_moved", "done", "size")

    holds = False
    """True if it is read whole before the head is sent."""

    def __init__(self, length: int | None) -> None:
        """Args: length: that was announced; None of a body in chunks."""
        self._left = length or 0
        """Bytes of that which have not come."""
        self._held = False
        self._moved = 0.0
        """When something of the exchange has moved, on the monotonic clock."""
        self.size = 0
        """Bytes of the body that have come, without its framing."""
        self.done = length == 0
        """True if all of it has come."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what to send, and what belongs to the next request. Raises UploadError.

        Of a body that is not done, the second is to be fed again, once other clients have had their turn.
        """
        raise NotImplementedError

    def take(self, data: bytes, most: int | None) -> tuple[bytes, bytes]:
        """Return what `feed` returns. Raises Denied, and then neither this piece nor the end may be sent.

        Args:
            most: bytes that the body may have.
        """
        try:
            found = self.feed(data)
        except UploadError as error:
            raise Denied("malformed", str(error)) from None
        self.move()
        if most is not None and self.size > most:
            raise body_too_large(most)
        return found

    def let_go(self) -> None:
        """Keep nothing of it: it passes through."""

    def move(self) -> None:
        """Note that something of the exchange has moved: the time that it may stand still begins again."""
        self._moved = time.monotonic()

    def hold(self, on: bool) -> None:
        """Expect nothing of the client while the upstream does not take what there is, or expect it again."""
        self._held = on
        self.move()

    @property
    def is_held(self) -> bool:
        """True if it is the upstream's turn to take some."""
        return self._held

    def stalls(self, now: float, patience: tuple[int, int]) -> bool:
        """Return whether nothing has moved for too long.

        Args:
            patience: seconds in which the client has to send more, or the upstream to take some.
        """
        return now - self._moved > patience[self._held]


class Sized(Body):
    """A body whose length was announced."""

    __slots__ = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        mine = data if len(data) <= self._left else data[: self._left]
        self._left -= len(mine)
        self.size += len(mine)
        self.done = not self._left
        return mine, data[len(mine) :]


class Chunked(Body):
    """A body in chunks, which are written again: extensions and trailers were never checked."""

    __slots__ = ("_buffer", "_reader")

    last = b"0\r\n\r\n"
    """What ends it as it is sent."""

    @staticmethod
    def frame(piece: bytes) -> bytes:
        """Return a piece as it is sent."""
        return b"%x\r\n%b\r\n" % (len(piece), piece)

    def __init__(self) -> None:
        super().__init__(None)
        self._reader = JoinedChunks(StrictChunks())
        self._buffer = ReceiveBuffer()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        self._buffer += data
        sent = b"".join(self._chunks())
        if self.done:
            return sent + self.last, bytes(self._buffer)
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
            yield self.frame(piece)
            if self._reader.lags:
                return


Upload = Sized | Chunked


def upload_of(length: int | None) -> Upload:
    """Return a body of this length, or one in chunks where there is none."""
    return Chunked() if length is None else Sized(length)
