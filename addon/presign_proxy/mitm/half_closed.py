"""Half-closed clients, which have shut their writing side: they wait for their answers, or have gone.

Both have sent the same FIN. A write tells them apart: the system of a client that has closed answers it with
RST. So a client that waits for its answer is sent an interim response, which means nothing to it (RFC 9110,
15.2). Once the answer has begun, its own bytes serve for that.
"""

from __future__ import annotations

import select
import time
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

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

_ENDED: Final[int] = getattr(select, "POLLRDHUP", 0)


class HalfClosed:
    """The half-closed clients, and when each is asked next."""

    def __init__(self) -> None:
        self._since: WeakKeyDictionary[Client, tuple[float, float]] = WeakKeyDictionary()
        # Those whose end was not read yet: it waits behind what they have sent.
        self._unread: WeakSet[Client] = WeakSet()

    def add(self, client: Client) -> None:
        now = time.monotonic()
        self._since[client] = (now, now + ASK_AFTER)
        self._unread.discard(client)

    def add_unread(self, client: Client) -> None:
        """Note a client that is not read from, and whose end waits behind what it has sent."""
        if client not in self._since:
            self.add(client)
            self._unread.add(client)

    def read_on(self, client: Client) -> None:
        """Forget an end that was not read: the client is read from again, and its end comes in its turn."""
        if client in self._unread:
            self.discard(client)

    def discard(self, client: Client) -> None:
        self._since.pop(client, None)
        self._unread.discard(client)

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
    return bool(_found(transport) & (select.POLLERR | select.POLLHUP))


def says_no_more(client: Client) -> bool:
    """Return whether a client that is not read from has ended, behind what it has sent.

    Only Linux tells. Elsewhere it is noticed once the client is read from, or is sent something.
    """
    transport = transport_of(client, client)
    return transport is not None and not transport.is_closing() and bool(_found(transport, _ENDED) & _ENDED)


def _found(transport: Any, wanted: int = 0) -> int:
    """Return what the system knows of a connection."""
    asked = select.poll()
    asked.register(transport.get_extra_info("socket").fileno(), wanted)
    return sum(found for _, found in asked.poll(0))


def is_quiet(client: Client) -> bool:
    """Return whether nothing has come for a client for a while, and it has taken all that there was."""
    handler, transport = handler_of(client), transport_of(client, client)
    if handler is None or transport is None or transport.is_closing():
        return True
    if transport.get_write_buffer_size():
        return False
    silent: bool = time.time() - handler.timeout_watchdog.last_activity > QUIET
    return silent and not unsent(transport.get_extra_info("socket").fileno())
