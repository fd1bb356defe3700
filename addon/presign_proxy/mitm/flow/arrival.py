"""How a request came, before mitmproxy has changed anything of it."""

from __future__ import annotations

from typing import NamedTuple

from mitmproxy import http

from .raw_message import is_h1


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


def arrival_of(request: http.Request, *, tunnelled: bool, has_body: bool = True) -> Arrival:
    """Read how a request came. To be called before mitmproxy's stream has touched it."""
    data = request.data
    hosts = tuple(value for name, value in data.headers.fields if name.lower() == b"host")
    over_h1 = is_h1(data.http_version)
    # Where the destination was set before, mitmproxy ignores what a whole URL in the request line says.
    absolute = over_h1 and bool(data.authority) and not tunnelled
    return Arrival(
        hosts=hosts,
        authority=b"" if absolute else data.authority,
        scheme=data.scheme if over_h1 and data.authority else b"",
        absolute=absolute,
        tunnelled=tunnelled,
        has_body=has_body,
    )
