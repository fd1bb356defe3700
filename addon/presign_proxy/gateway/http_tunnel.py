"""A tunnel through an HTTP proxy (CONNECT, RFC 9110, 9.3.6), on a socket that is connected to the proxy.

CONNECT also where the upstream is plain http: the proxy is told a destination, and never reads or writes a
request of ours. So no answer of the proxy passes for one of the upstream, and no header of a client, such as
its own Proxy-Authorization, is on the way to the proxy.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from typing import Final

from ..core.way_out import UpstreamProxy
from .proxy_error import ProxyError

MAX_HEAD: Final = 16 * 1024
"""The most bytes of an answer to CONNECT."""
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]{0,1000})?")
_END: Final = b"\r\n\r\n"
_TOO_EARLY: Final = "sent bytes behind its answer, before the upstream was asked anything"


async def open_tunnel(link: socket.socket, proxy: UpstreamProxy, host: str, port: int) -> None:
    """Make a socket to a proxy one to a host behind it. Raises ProxyError, OSError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(link, _request(proxy, host, port))
    head, behind = await _head(link)
    match = _STATUS.fullmatch(head[: head.index(b"\r\n")])
    if match is None:
        raise ProxyError("does not answer with valid HTTP")
    status = int(match[1])
    if status == 407:
        raise ProxyError("refused the user or the password (407)")
    # A 1xx announces another answer, which would be taken for the first bytes of the upstream.
    if not 200 <= status < 300:
        raise ProxyError(f"refused the connection ({status})")
    if behind:
        raise ProxyError(_TOO_EARLY)


def _request(proxy: UpstreamProxy, host: str, port: int) -> bytes:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.user:
        password = proxy.password.reveal() if proxy.password is not None else ""
        word = base64.b64encode(f"{proxy.user}:{password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {word}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _head(link: socket.socket) -> tuple[bytes, bytes]:
    """Return the head of the answer, and what has come behind it. Raises ProxyError."""
    loop, raw = asyncio.get_running_loop(), b""
    while True:
        data = await loop.sock_recv(link, MAX_HEAD + 1 - len(raw))
        if not data:
            raise ProxyError("closed the connection")
        raw += data
        end = raw.find(_END, max(0, len(raw) - len(data) - len(_END)))
        if end >= 0:
            return raw[:end] + _END, raw[end + len(_END) :]
        if len(raw) > MAX_HEAD:
            raise ProxyError("answers with a head that is too large")
