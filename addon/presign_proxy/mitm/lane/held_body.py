"""The body of a request that is read whole before its head is sent, because its signature covers it."""

from __future__ import annotations

import asyncio

from ...core.decision import Forward
from ...gateway.held_bodies import HeldBodies, HeldBody
from .request_body import Body, Chunked, Sized, upload_of


class BareChunks(Chunked):
    """A body in chunks, which are taken apart: it is sent with its length."""

    __slots__ = ()

    last = b""

    @staticmethod
    def frame(piece: bytes) -> bytes:
        return piece


class HeldUpload(Body):
    """A body that is kept as it comes."""

    __slots__ = ("_inner", "_whole", "kept")

    holds = True

    def __init__(self, length: int | None, kept: HeldBody) -> None:
        super().__init__(length)
        self._inner = Sized(length) if length is not None else BareChunks()
        self._whole = asyncio.Event()
        self.kept = kept

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Keep what came, and send nothing. Raises UploadError; Denied where there is no room."""
        mine, rest = self._inner.feed(data)
        self.kept.add(mine)
        self.size, self.done = self._inner.size, self._inner.done
        if self.done:
            self._whole.set()
        return b"", rest

    async def wait(self) -> None:
        """Wait until all of it has come."""
        await self._whole.wait()

    def let_go(self) -> None:
        self.kept.let_go()


def body_of(length: int | None, forward: Forward, bodies: HeldBodies) -> Body:
    """Return a body of this length, or one in chunks where there is none. It is held if it is signed."""
    if forward.hold is None or length == 0:
        return upload_of(length)
    return HeldUpload(length, bodies.begin(forward.hold, forward.facts.signature or ""))
