"""A pool of connections to upstreams, kept for the next request under the same registered connection."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...core.way_out import UpstreamTls
from ...http.message import Origin
from .. import last_bytes
from ..tcp import keep_asking
from .upstream import UpstreamConnection
from .upstream_records import over_tls
from .write_batch import WriteBatch

IDLE: Final = 4.0
"""Seconds that a connection is kept: less than the shortest keep-alive of common servers, five."""
MAX_IDLE: Final = 64
"""Connections kept for one place."""
MAX_IDLE_ALL: Final = 512


class PoolKey(NamedTuple):
    """What upstream connections have in common that may be used in the place of each other.

    The id of the registered connection is part of it: some servers bind what a credential may do to the TCP
    connection on which it came first. `address` is the one that was checked, where it was checked. `client`,
    if it is not None, is the only one that may use it. `tls`: the connection's own settings for TLS.
    """

    connection: str
    origin: Origin
    address: str
    client: Any = None
    tls: UpstreamTls | None = None


class Pool:
    """A pool that hands out idle connections, newest first, and opens new ones."""

    def __init__(
        self,
        context: Callable[[UpstreamTls | None], ssl.SSLContext],
        clock: Callable[[], float],
        write_batch: WriteBatch,
    ) -> None:
        """
        Args:
            context: returns what verifies certificate and name, for a connection's own settings or None.
            clock: seconds, of a clock that is never set.
        """
        self._context = context
        self._clock = clock
        self._write_batch = write_batch
        self._idle: dict[PoolKey, deque[UpstreamConnection]] = {}
        self._count = 0
        self._contexts: dict[UpstreamTls | None, ssl.SSLContext] = {}
        self._era = object()

    def take(self, place: PoolKey) -> UpstreamConnection | None:
        """Return an idle connection to this place that is open and in order, or None."""
        upstreams = self._idle.get(place)
        oldest = self._clock() - IDLE
        while upstreams:
            upstream = upstreams.pop()
            self._count -= 1
            if not upstreams:
                del self._idle[place]
            if not upstream.is_clean or upstream.idle_since < oldest or not upstream.socket.is_silent():
                upstream.close()
            else:
                return upstream
        return None

    def give_back(self, place: PoolKey, upstream: UpstreamConnection) -> None:
        """Keep a connection, if its upstream is certain to take what comes next for a new request."""
        upstream.sender = None
        if not upstream.is_clean or upstream.era is not self._era or self._count >= MAX_IDLE_ALL:
            upstream.leave(IDLE)
            return
        upstreams = self._idle.setdefault(place, deque())
        if len(upstreams) >= MAX_IDLE:
            upstream.close()
            return
        upstream.idle_since = self._clock()
        upstreams.append(upstream)
        self._count += 1

    async def open(self, place: PoolKey) -> UpstreamConnection:
        """Open a new connection, as this task has announced. Raises OSError, ssl.SSLError included."""
        address, port = place.address, place.origin.port
        era = self._era
        if place.origin.scheme == "https":
            if (context := self._contexts.get(place.tls)) is None:
                context = self._contexts[place.tls] = self._context(place.tls)
            transport, upstream = await over_tls(self._made, address, port, context, place.origin.host)
        else:
            loop = asyncio.get_running_loop()
            transport, upstream = await loop.create_connection(self._made, address, port)
        keep_asking(transport.get_extra_info("socket"))
        last_bytes.keep(transport)
        upstream.era = era
        return upstream

    def _made(self) -> UpstreamConnection:
        return UpstreamConnection(self._write_batch)

    def sweep(self) -> None:
        """Close the connections that have been idle for too long."""
        oldest = self._clock() - IDLE
        for place, upstreams in list(self._idle.items()):
            while upstreams and (upstreams[0].idle_since < oldest or upstreams[0].lost):
                upstreams.popleft().close()
                self._count -= 1
            if not upstreams:
                del self._idle[place]

    def reset(self) -> None:
        """Close all connections, those in use once they are given back: the trusted authorities changed."""
        self._contexts, self._era = {}, object()
        for upstreams in self._idle.values():
            for upstream in upstreams:
                upstream.close()
        self._idle.clear()
        self._count = 0
