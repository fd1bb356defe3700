"""Reading in small pieces.

An event loop takes a quarter of a megabyte off a socket at a time, before it can be stopped. That is little
for one connection. A client over HTTP/2 has a hundred, and may take nothing of them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

PIECE: Final = 64 * 1024
"""Bytes taken off a socket at a time."""
LIMIT: Final = PIECE // 4
"""Limit of a stream reader: no more is taken while it holds twice as much."""
_cup: Final = bytearray(PIECE)
"""The buffer that every event loop of this process reads into; what comes is copied from it at once."""


class Sips(asyncio.BufferedProtocol):
    """A protocol between a transport and that of a stream reader, to which it passes everything on."""

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
    """Read a connection in small pieces from now on, if it is one of a stream reader."""
    stock = writer.transport.get_protocol()
    if isinstance(stock, asyncio.StreamReaderProtocol):
        reader._limit = LIMIT
        writer.transport.set_protocol(Sips(stock))


def hold_less(writer: Any, reader: Any) -> None:
    """Let a connection of a stream reader hold less of what nobody reads yet. Its protocol stays.

    Under asyncio's own loop, less is taken off the socket at a time too; uvloop always takes a quarter of a
    megabyte.
    """
    if isinstance(reader, asyncio.StreamReader):
        reader._limit = LIMIT  # type: ignore[attr-defined]
        transport = getattr(writer, "transport", None)
        if transport is not None and hasattr(transport, "max_size"):
            transport.max_size = PIECE
