"""Reading in small pieces.

An event loop takes a quarter of a megabyte off a socket at a time, before anybody can say that it is too
much. Of one connection that is little. A client over HTTP/2 has a hundred, and may take nothing of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

PIECE: Final = 64 * 1024
"""Bytes taken off a socket at a time."""
LIMIT: Final = PIECE // 4
"""Of a stream reader: where it holds twice as much, no more is taken."""
_cup: Final = bytearray(PIECE)
"""Into which every event loop of this process reads; what comes is copied from it at once."""


class Sips(asyncio.BufferedProtocol):
    """Stands between a transport and the protocol of a stream reader, which hears of everything."""

    __slots__ = ("_stock",)

    def __init__(self, stock: asyncio.StreamReaderProtocol) -> None:
        self._stock = stock

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's
        return _cup

    def buffer_updated(self, nbytes: int) -> None:
        self._stock.data_received(bytes(memoryview(_cup)[:nbytes]))

    def eof_received(self) -> bool | None:
        return bool(self._stock.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._stock.connection_lost(exc)

    def pause_writing(self) -> None:
        self._stock.pause_writing()

    def resume_writing(self) -> None:
        self._stock.resume_writing()


def sip(writer: Any, reader: Any) -> None:
    """Have a connection read in small pieces from now on, if it is one of a stream reader."""
    stock = writer.transport.get_protocol()
    if isinstance(stock, asyncio.StreamReaderProtocol):
        reader._limit = LIMIT
        writer.transport.set_protocol(Sips(stock))
