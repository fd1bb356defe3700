"""What the kernel knows about a connection over TCP."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from typing import Any, Final

_SIOCOUTQNSD: Final = 0x894B
"""linux/sockios.h; other systems have no such question."""


def unsent(descriptor: int) -> int:
    """Return how many written bytes the peer does not take; 0 where that is unknown."""
    try:
        found = fcntl.ioctl(descriptor, _SIOCOUTQNSD, bytes(4))
    except (OSError, ValueError):  # of a socket that is closed, or that is none
        return 0
    return int(struct.unpack("i", found)[0])


def reset(transport: Any) -> None:
    """End a connection with RST, and drop what its peer has not taken.

    A peer cannot take that for the end of what was sent, also where a body ends with its connection.
    """
    with contextlib.suppress(OSError, AttributeError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


_RESET: Final = struct.pack("ii", 1, 0)
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds of silence, seconds between questions, and questions without an answer: two minutes in all."""


def keep_asking(sock: Any) -> None:
    """Let the system find out whether a peer has gone without a word.

    Nothing else would notice while both sides wait: an event stream may be silent for hours.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
