"""What the kernel tells of a connection over TCP."""

from __future__ import annotations

import fcntl
import struct
from typing import Final

_SIOCOUTQNSD: Final = 0x894B
"""linux/sockios.h; other systems have no such question."""


def unsent(descriptor: int) -> int:
    """Bytes that were written and cannot be sent, because the peer takes no more; 0 where nobody knows."""
    try:
        found = fcntl.ioctl(descriptor, _SIOCOUTQNSD, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", found)[0])
