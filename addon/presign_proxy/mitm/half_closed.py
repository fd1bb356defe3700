"""Half-closed clients, which have shut their writing side: they wait for their answers, or have gone.

Both have sent the same FIN. A write tells them apart: the system of a client that has closed answers it with
RST. So a client that waits for its answer is sent an interim response, which means nothing to it (RFC 9110,
15.2). Once the answer has begun, its own bytes serve for that.
"""

from __future__ import annotations

import select
import time
from typing import Final
from weakref import WeakKeyDictionary

from mitmproxy.connection import Client, ConnectionState

from .sockets import handler_of, transport_of
from .tcp import unsent

PROBE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
ASK_AFTER: Final = 5.0
"""Seconds after which a client is asked again, and then after as long again as it has waited."""
ASK_WITHIN: Final = 300.0
"""Seconds after which it is asked at the latest: half of mitmproxy's `tcp_timeout`, which an interim response
starts again.
"""
QUIET: Final = 2.0
"""Seconds in which more of an answer that has begun has to come: nothing else asks the client."""


class HalfClosed:
    """The half-closed clients, and when each is asked next."""

    def __init__(self) -> None:
        self._since: WeakKeyDictionary[Client, tuple[float, float]] = WeakKeyDictionary()

    def add(self, client: Client) -> None:
        now = time.monotonic()
        self._since[client] = (now, now + ASK_AFTER)

    def discard(self, client: Client) -> None:
        self._since.pop(client, None)

    def __contains__(self, client: object) -> bool:
        return client in self._since

    def all(self) -> list[Client]:
        return list(self._since)

    def is_due(self, client: Client, now: float) -> bool:
        """Return whether a client is to be asked now. Each gap is twice the last: some clients count them."""
        since, due = self._since.get(client, (now, now + 1))
        if now < due:
            return False
        self._since[client] = (since, now + min(now - since, ASK_WITHIN))
        return True


def may_be_there(client: Client) -> bool:
    """Return whether a half-closed client may still be waiting for an answer."""
    return bool(client.state & ConnectionState.CAN_WRITE)


def has_gone(client: Client) -> bool:
    """Return whether a half-closed client has closed its connection, as far as the system knows."""
    transport = transport_of(client, client)
    if transport is None or transport.is_closing():
        return True
    asked = select.poll()
    asked.register(transport.get_extra_info("socket").fileno(), 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in asked.poll(0))


def is_quiet(client: Client) -> bool:
    """Return whether nothing has come for a client for a while, and it has taken all that there was."""
    handler, transport = handler_of(client), transport_of(client, client)
    if handler is None or transport is None or transport.is_closing():
        return True
    if transport.get_write_buffer_size():
        return False
    silent: bool = time.time() - handler.timeout_watchdog.last_activity > QUIET
    return silent and not unsent(transport.get_extra_info("socket").fileno())
