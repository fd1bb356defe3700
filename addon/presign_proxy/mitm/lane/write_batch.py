"""What is written in one turn of the event loop, all at its end.

A peer that sleeps has to be woken for what it is sent, which costs several times the sending. Written one
after the other, what several clients have asked wakes their upstream once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

logger = logging.getLogger(__name__)

SMALL: Final = 16 * 1024
"""Bytes below which a piece waits for the end of the turn; others are not worth it, and would pile up."""


class WriteBatch:
    """Keeps the order of what is written to each transport."""

    def __init__(self) -> None:
        self._waiting: dict[Any, list[bytes]] = {}

    def write(self, transport: Any, data: bytes) -> None:
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
        """Whether something was written to it in this turn that has not gone out."""
        return transport in self._waiting

    def flush(self, transport: Any) -> None:
        """Before somebody else writes to it, or closes it."""
        pieces = self._waiting.pop(transport, None)
        if pieces:
            _write(transport, b"".join(pieces))

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
