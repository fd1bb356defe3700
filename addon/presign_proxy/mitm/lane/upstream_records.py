"""TLS with an upstream, whose short records are decrypted by turns.

asyncio and uvloop decrypt up to 8 MiB in one turn of the event loop, and report no record that holds no data.
An upstream that changes its key again and again would stop a worker for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, Self

from ..tls_records import RecordGate, slots

_cup: Final = bytearray(256 * 1024)
"""The buffer for all reads of this process; each read is copied from it at once."""


class RecordTurns(asyncio.BufferedProtocol):
    """A protocol between a transport and the protocol that decrypts."""

    def __init__(self, transport: Any, stock: Any) -> None:
        self._transport = transport
        self._stock = stock
        self._gate = RecordGate()
        self._held = self._waits = self._stopped = False
        """True if no more is wanted for now; something waits for its turn; nothing is read."""
        self.has_ended = False
        """True if the connection below has ended. An end that asyncio reports later is no closure alert."""

    @classmethod
    def over(cls, transport: Any) -> Self:
        """Take over a connection that was not read from yet."""
        taken = cls(transport, transport.get_protocol())
        transport.set_protocol(taken)
        return taken

    def hold(self, on: bool) -> None:
        """Read no more, or go on: decrypted bytes wait to be taken."""
        self._held = on
        self._read_on()

    def _read_on(self) -> None:
        stops = self._held or self._waits
        if stops is not self._stopped and not self._transport.is_closing():
            self._stopped = stops
            (self._transport.pause_reading if stops else self._transport.resume_reading)()

    def _take_turn(self) -> None:
        began = time.monotonic()
        self._waits = False
        self._decrypt(self._gate.take())
        if self._gate.is_ready and not self._transport.is_closing():
            now = time.monotonic()
            self._waits = True
            asyncio.get_running_loop().call_later(slots.delay(now, now - began), self._go_on)
        self._read_on()

    def _go_on(self) -> None:
        if self._waits:
            self._take_turn()

    def _decrypt(self, data: bytes) -> None:
        while data:
            buffer = self._stock.get_buffer(len(data))
            size = min(len(buffer), len(data))
            part, data = data[:size], data[size:]
            buffer[:size] = part
            self._stock.buffer_updated(size)

    # -- what asyncio calls ---------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's
        return _cup

    def buffer_updated(self, nbytes: int) -> None:
        received = bytes(memoryview(_cup)[:nbytes])
        if not self._waits and self._gate.needs_no_turn(received):
            self._decrypt(received)
            return
        self._gate.add(received)
        if not self._waits:
            self._take_turn()

    def eof_received(self) -> bool | None:
        self._finish()
        return bool(self._stock.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()
        self._stock.connection_lost(exc)

    def _finish(self) -> None:
        """Pass on what waits, before the end of the connection."""
        self._waits = False
        self._decrypt(self._gate.take_all())
        self.has_ended = True

    def pause_writing(self) -> None:
        self._stock.pause_writing()

    def resume_writing(self) -> None:
        self._stock.resume_writing()


class HeldTransport:
    """The transport of decrypted bytes. While its reading is paused, nothing is decrypted either."""

    def __init__(self, stock: Any, turns: RecordTurns) -> None:
        self._stock = stock
        self._turns = turns
        self.write = stock.write
        self.is_closing = stock.is_closing
        self.get_write_buffer_size = stock.get_write_buffer_size

    @property
    def has_ended(self) -> bool:
        """True if the connection below has ended."""
        return self._turns.has_ended

    def pause_reading(self) -> None:
        self._stock.pause_reading()
        self._turns.hold(True)

    def resume_reading(self) -> None:
        self._stock.resume_reading()
        self._turns.hold(False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)


async def over_tls[Decrypted: asyncio.Protocol](
    protocol: Callable[[], Decrypted], host: str, port: int, context: ssl.SSLContext, name: str
) -> tuple[Any, Decrypted]:
    """Open a connection, as `loop.create_connection` does.

    Args:
        protocol: takes the decrypted bytes.
        name: the host name that the certificate must be for.

    Raises OSError, ssl.SSLError included.
    """
    loop = asyncio.get_running_loop()
    raw, stranger = await loop.create_connection(asyncio.Protocol, host, port)
    made = protocol()
    handshake = loop.create_task(loop.start_tls(raw, made, context, server_hostname=name))
    try:
        # Taken over before the first byte is read: later, the beginning of a record is unknown.
        while raw.get_protocol() is stranger and not handshake.done():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
        turns = RecordTurns.over(raw)
        transport: Any = HeldTransport(await handshake, turns)
    except BaseException:
        handshake.cancel()
        with contextlib.suppress(RuntimeError):
            raw.abort()
        raise
    made.connection_made(transport)
    return transport, made
