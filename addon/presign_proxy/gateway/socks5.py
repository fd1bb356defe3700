"""A tunnel through a SOCKS5 proxy (RFC 1928), with a user and a password (RFC 1929) or without."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from ..core.way_out import UpstreamProxy
from ..http.hosts import parse_address
from .proxy_error import ProxyError

_VERSION: Final = 5
_OPEN, _BY_PASSWORD = 0, 2
_REFUSALS: Final = {
    1: "it failed",
    2: "its rules do not allow it",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "connection refused",
    6: "it took too long",
    7: "it does not know the command",
    8: "it does not know this kind of address",
}
"""What a proxy may answer to a request (RFC 1928, 6)."""
_LENGTHS: Final = {1: 4, 4: 16}
"""Bytes of an address, by its kind; of a name (3) they are counted by a byte before it."""


async def open_tunnel(link: socket.socket, proxy: UpstreamProxy, host: str, port: int) -> None:
    """Make a socket to a proxy one to a host behind it, whose name the proxy resolves. Raises OSError."""
    loop = asyncio.get_running_loop()
    methods = bytes([_OPEN, _BY_PASSWORD] if proxy.user else [_OPEN])
    await loop.sock_sendall(link, bytes([_VERSION, len(methods)]) + methods)
    version, method = await _read(link, 2)
    if version != _VERSION:
        raise ProxyError("does not speak SOCKS5")
    if method not in methods:
        raise ProxyError(
            "wants another kind of authentication" if proxy.user else "wants a user and a password"
        )
    if method == _BY_PASSWORD:
        await _authenticate(link, proxy)
    await loop.sock_sendall(link, bytes([_VERSION, 1, 0]) + _place(host) + port.to_bytes(2))
    version, code, _, kind = await _read(link, 4)
    if version != _VERSION:
        raise ProxyError("does not speak SOCKS5")
    if code:
        raise ProxyError(f"refused the connection ({_REFUSALS.get(code, 'an unknown reason')})")
    length = (await _read(link, 1))[0] if kind == 3 else _LENGTHS.get(kind)
    if length is None:
        raise ProxyError("does not speak SOCKS5")
    await _read(link, length + 2)


async def _authenticate(link: socket.socket, proxy: UpstreamProxy) -> None:
    user, password = proxy.user.encode(), proxy.password.reveal().encode() if proxy.password else b""
    said = bytes([1, len(user)]) + user + bytes([len(password)]) + password
    await asyncio.get_running_loop().sock_sendall(link, said)
    _, status = await _read(link, 2)
    if status:
        raise ProxyError("refused the user or the password")


def _place(host: str) -> bytes:
    address = parse_address(host)
    if address is not None:
        return bytes([1 if address.version == 4 else 4]) + address.packed
    name = host.encode("ascii")
    return bytes([3, len(name)]) + name


async def _read(link: socket.socket, size: int) -> bytes:
    """Return exactly so many bytes: what comes behind them is not for us. Raises ProxyError."""
    loop, raw = asyncio.get_running_loop(), b""
    while len(raw) < size:
        data = await loop.sock_recv(link, size - len(raw))
        if not data:
            raise ProxyError("closed the connection")
        raw += data
    return raw
