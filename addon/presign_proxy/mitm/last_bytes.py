"""The last bytes of a peer whose connection has failed, read before the failure is reported.

A server that refuses an upload answers and closes; what is still sent to it is answered with RST. asyncio
ends a connection as soon as writing fails, and what the system has received, the answer, goes with it unread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

logger = logging.getLogger(__name__)

_PIECE: Final = 64 * 1024
_MOST: Final = 4 * _PIECE
"""Bytes that are read; more would be half of something large."""
_LOOK: Final = 0.01
_LOOKS: Final = 100
"""How often to look whether a reader has taken them, until the end is reported all the same."""


def keep(transport: Any) -> None:
    """Give the protocol of a connection what was received, also when writing to the connection fails.

    Args:
        transport: over TCP or TLS; any other stays as it is.
    """
    over_tls = getattr(transport, "_ssl_protocol", None)
    raw = transport if over_tls is None else getattr(over_tls, "_transport", None)
    if raw is None or not hasattr(raw, "get_protocol"):
        return
    protocol = raw.get_protocol()
    if hasattr(protocol, "__dict__"):
        protocol.connection_lost = _Ending(raw, protocol)


class _Ending:
    """A wrapper of `connection_lost` of a protocol. It takes itself off when it is called."""

    __slots__ = ("_protocol", "_raw", "_report")

    def __init__(self, raw: Any, protocol: Any) -> None:
        self._raw = raw
        self._protocol = protocol
        self._report = protocol.connection_lost

    def __call__(self, exc: Exception | None) -> None:
        protocol, report = self._protocol, self._report
        del protocol.connection_lost  # which referred to us, and we to it
        try:
            for data in unread(self._raw) if exc is not None else ():
                _give(protocol, data)
        except Exception as error:
            logger.error("presign: failed at the end of a connection (%s)", type(error).__name__)
        _report(protocol, report, exc, _LOOKS)


def unread(transport: Any) -> Iterator[bytes]:
    """Read what was received on a failed connection. Its socket is closed once the end is reported."""
    sock = transport.get_extra_info("socket")
    left = _MOST
    while left > 0:
        try:
            data = os.read(sock.fileno(), _PIECE)
        except OSError:
            return
        if not data:
            return
        left -= len(data)
        yield data


def _give(protocol: Any, data: bytes) -> None:
    if not hasattr(protocol, "get_buffer"):
        protocol.data_received(data)
        return
    while data:
        buffer = protocol.get_buffer(len(data))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


def _report(protocol: Any, report: Any, exc: Exception | None, looks: int) -> None:
    """Report the end, but let a stream reader give its data away first: a failure makes it drop them."""
    reader = getattr(protocol, "_stream_reader", None)
    if exc is not None and looks and getattr(reader, "_buffer", None):
        asyncio.get_running_loop().call_later(_LOOK, _report, protocol, report, exc, looks - 1)
    else:
        report(exc)
