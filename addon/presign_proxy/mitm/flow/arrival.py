"""How a request came, before mitmproxy has changed anything of it."""

from __future__ import annotations

from typing import NamedTuple


class Arrival(NamedTuple):
    """What the client wrote about the destination of its request.

    `hosts` are the Host fields, `authority` is the :authority of HTTP/2. `tunnelled` means that the
    destination was set before the request (CONNECT, SOCKS, transparent, reverse), `absolute` that a whole URL
    in the request line sets it. For such a URL inside a tunnel, `authority` is its host. `scheme` is the
    scheme of the URL in both cases.
    """

    hosts: tuple[bytes, ...]
    authority: bytes
    absolute: bool
    tunnelled: bool
    scheme: bytes = b""
    has_body: bool = True
