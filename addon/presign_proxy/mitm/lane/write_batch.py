"""A batch of what is written in one turn of the event loop.

Waking a peer that sleeps costs several times as much as writing to it. Small writes are therefore collected
and go out one after the other at the end of the turn: the requests of several clients wake their upstream
once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

logger = logging.getLogger(__name__)

SMALL: Final = 16 * 1024
"""Bytes below which a piece waits for the end of the turn. Larger ones gain nothing, and would pile up."""


class WriteBatch:
    """The pieces for each transport, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[Any, list[bytes]] = {}

    def write(self, transport: Any, data: bytes) -> None:
        """Write to a transport behind what was written before, at once or at the end of the turn."""
        pieces = self._waiting.get(transport)
        if pieces is not None:
            pieces.append(data)
            if len(data) >= SMALL:
                self.flush(transport)
        elif len(data) >= SMALL:
            _write(transport, data)
        else:
            if not self._waiting:
                asyncio.get_running_loop().call_soon(self._flush_all)
            self._waiting[transport] = [data]

    def holds(self, transport: Any) -> bool:
        """Return whether something that was written in this turn has not gone out."""
        return transport in self._waiting

    def flush(self, transport: Any) -> None:
        """Send what waits for this transport, before another part writes to it or closes it."""
        pieces = self._waiting.pop(transport, None)
        if pieces:
            _write(transport, b"".join(pieces))

    def drop(self, transport: Any) -> None:
        """Drop what waits for this transport."""
        if self._waiting.get(transport):
            self._waiting[transport] = []

    def _flush_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for transport, pieces in waiting.items():
            try:
                _write(transport, pieces[0] if len(pieces) == 1 else b"".join(pieces))
            except Exception as error:
                # What waits for the others goes out all the same.
                logger.error("presign: failed to write (%s); the connection is ended", type(error).__name__)
                transport.abort()


def _write(transport: Any, data: bytes) -> None:
    if not transport.is_closing():
        transport.write(data)
