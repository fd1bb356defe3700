"""A reader of a client's socket, in the place of mitmproxy's.

mitmproxy's stream reader, its lock and its turns of the event loop cost a request as much as its parsing.
They stay where they are, and get the connection back for what is not the lane's.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol


class Taker(Protocol):
    """What takes the bytes."""

    def received(self, data: bytes) -> None:
        """Take what was read. Does not fail."""


class ClientReader(asyncio.Protocol):
    """Stands between a transport and mitmproxy's protocol, to which it passes everything but data."""

    __slots__ = ("_stock", "_taker", "_transport")

    def __init__(self, transport: Any, stock: Any, taker: Taker) -> None:
        self._transport = transport
        self._stock = stock
        self._taker = taker

    @classmethod
    def over(cls, writer: Any, reader: Any, taker: Taker) -> ClientReader | None:
        """Take a connection over. Return None where it has to stay as it is.

        mitmproxy's reader must hold nothing, for what comes now would overtake it.
        """
        held, transport = getattr(reader, "_buffer", None), writer.transport
        stock = transport.get_protocol()
        if held is None or held or reader.at_eof() or not isinstance(stock, asyncio.StreamReaderProtocol):
            return None
        taken = cls(transport, stock, taker)
        transport.set_protocol(taken)
        return taken

    def give_back(self) -> None:
        """Let mitmproxy's reader have the connection again."""
        self._transport.set_protocol(self._stock)

    def read(self, on: bool) -> None:
        """Read on, or stop."""
        if not self._transport.is_closing():
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def data_received(self, data: bytes) -> None:
        self._taker.received(data)

    def eof_received(self) -> bool | None:
        return bool(self._stock.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._stock.connection_lost(exc)

    def pause_writing(self) -> None:
        self._stock.pause_writing()

    def resume_writing(self) -> None:
        self._stock.resume_writing()
