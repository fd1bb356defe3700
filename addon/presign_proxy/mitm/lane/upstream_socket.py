"""The socket of an upstream connection: what was written and has not left, what came and was not read."""

from __future__ import annotations

import asyncio
import select

from ..tcp import unsent
from .write_batch import WriteBatch


class UpstreamSocket:
    """The transport of an upstream connection. Does nothing before it is connected, nor after it was lost."""

    __slots__ = ("_descriptor", "_poll", "_write_batch", "full", "lost", "secure", "transport")

    def __init__(self, write_batch: WriteBatch) -> None:
        self._write_batch = write_batch
        self._poll: select.poll | None = None
        self._descriptor = -1
        self.transport: asyncio.Transport | None = None
        self.secure = False
        """True if the connection is over TLS."""
        self.full = False
        """True if asyncio has asked for a pause in writing."""
        self.lost = False
        """True if the connection has ended."""

    def connect(self, transport: asyncio.Transport) -> None:
        """Begin to use a transport that asyncio has connected."""
        self.transport = transport
        self.secure = transport.get_extra_info("ssl_object") is not None

    @property
    def is_open(self) -> bool:
        """True if the transport is there and is not being closed."""
        return self.transport is not None and not (self.lost or self.transport.is_closing())

    def holds_unsent(self) -> bool:
        """Return whether something that was written has not left this process."""
        transport = self.transport
        return transport is not None and (
            self.full or self._write_batch.holds(transport) or transport.get_write_buffer_size() > 0
        )

    def is_silent(self) -> bool:
        """Return whether nothing has come since the last use, neither bytes nor the end.

        Asks the system: what came a moment ago has not been read yet, and would pass for the answer to the
        next request. What the upstream has not taken yet of the last request would hold up the next one, with
        its credential, for as long as the upstream likes.
        """
        transport = self.transport
        if transport is None or self.lost or transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._descriptor = transport.get_extra_info("socket").fileno()
            self._poll.register(self._descriptor, select.POLLIN)
        return not self._poll.poll(0) and not unsent(self._descriptor)

    def write(self, data: bytes) -> None:
        """Write at the end of this turn of the event loop."""
        if self.transport is not None and not self.lost:
            self._write_batch.write(self.transport, data)

    def stop_reading(self) -> None:
        """Take nothing more off the socket for now."""
        if self.transport is not None and self.is_open:
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Take bytes off the socket again."""
        if self.transport is not None and self.is_open:
            self.transport.resume_reading()

    def end_output(self) -> bool:
        """Say no more, but read on. Return whether that is possible: TLS ends in both directions."""
        if self.transport is None or self.secure or not self.is_open:
            return False
        self._write_batch.flush(self.transport)
        self.transport.write_eof()
        return True

    def close(self, patience: float) -> None:
        """Close the connection; what was written is still sent, for `patience` seconds at most."""
        transport = self.transport
        if transport is None:
            return
        self._write_batch.flush(transport)
        waits = self.holds_unsent() or self.secure
        transport.close()  # over TLS this delivers what was read before; an abort during that fails
        if waits:
            asyncio.get_running_loop().call_later(patience, self.abort)

    def abort(self) -> None:
        """End the connection at once, unless it has ended: asyncio fails to abort what is gone."""
        if self.transport is not None and not self.lost:
            self.transport.abort()
