"""Opening one connection to the outside: which addresses are dialled, and whether a proxy stands between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final, NamedTuple

from ..core.way_out import UpstreamProxy
from . import http_tunnel, socks5
from .address_race import Address, connected, in_turns
from .proxy_error import ProxyError

PATIENCE: Final = 60.0
"""Seconds that a proxy has for its whole answer; the deadline of the request usually ends before."""
TRIED: Final = 4
"""Addresses of a destination that a proxy is told at most, one after the other."""
_TUNNELS: Final = {"http": http_tunnel.open_tunnel, "socks5": socks5.open_tunnel}

LookUp = Callable[[str, int], Awaitable[tuple[Address, ...]]]


class Outward(NamedTuple):
    """How a connection to `host` and `port` is opened.

    `addresses`: those that were judged, one of which is dialled; empty to look the name up. `unsigned`: the
    name was chosen by an unsigned request. `proxy`: None to dial directly.
    """

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    proxy: UpstreamProxy | None = None
    unsigned: bool = False


_NEXT: ContextVar[Outward | None] = ContextVar("outward", default=None)


def announce(outward: Outward) -> None:
    """Say how this task is about to open a connection to this host and port."""
    _NEXT.set(outward)


def announced(host: str, port: int) -> Outward:
    """Return how a connection is opened: as this task has announced, or in the ordinary way."""
    found = _NEXT.get()
    return found if found is not None and found[:2] == (host, port) else Outward(host, port)


async def through(proxy: UpstreamProxy, outward: Outward, look_up: LookUp) -> socket.socket:
    """Return a socket that leads through a proxy to the destination. Raises OSError, ProxyError included.

    The proxy is told an address that was judged, if there is one: it might resolve the name to another. It
    resolves all other names itself, because a gateway that needs a proxy often has no DNS for the names
    behind it. Of several addresses the next is told if the proxy refuses one: it may have no IPv6.
    """
    try:
        found = await look_up(proxy.host, proxy.port)
    except OSError:
        raise ProxyError("does not resolve") from None
    judged = in_turns([(one, outward.port) for one in outward.addresses])[:TRIED]
    *others, last = [host for host, _ in judged] or [outward.host]
    for host in others:
        with contextlib.suppress(ProxyError):
            return await _tunnel(proxy, found, host, outward.port)
    return await _tunnel(proxy, found, last, outward.port)


async def _tunnel(proxy: UpstreamProxy, found: tuple[Address, ...], host: str, port: int) -> socket.socket:
    """Return a socket that leads through a proxy to a host. Args: found: the addresses of the proxy."""
    try:
        link = await connected(found)
    except OSError:
        raise ProxyError("cannot be connected to") from None
    try:
        async with asyncio.timeout(PATIENCE):
            await _TUNNELS[proxy.scheme](link, proxy, host, port)
        _check_silence(link)
    except BaseException as error:
        link.close()
        if isinstance(error, OSError) and not isinstance(error, ProxyError):
            late = isinstance(error, TimeoutError)
            raise ProxyError("did not answer in time" if late else "ended the connection") from None
        raise
    return link


def _check_silence(link: socket.socket) -> None:
    """Check that nothing waits on the socket: whatever it is, the upstream was not asked for it."""
    try:
        early = link.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return
    if early:
        raise ProxyError("sent bytes behind its answer, before the upstream was asked anything")
    raise ProxyError("closed the connection")
