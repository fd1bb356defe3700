"""How a request came, before mitmproxy has changed anything of it."""

from __future__ import annotations

from typing import NamedTuple

from mitmproxy import http

from ...core.grpc_answer import is_grpc
from ...http.message import Fields
from .raw_message import is_h1


class Arrival(NamedTuple):
    """What the client wrote about the destination of its request.

    `hosts` are the Host fields, `authority` is the :authority of HTTP/2. `tunnelled` means that the
    destination was set before the request (CONNECT, SOCKS, transparent, reverse), `absolute` that a whole URL
    in the request line sets it. For such a URL inside a tunnel, `authority` is its host. `scheme` is the
    scheme of the URL in both cases. `takes_trailers` means that the client wants the trailers of the answer,
    `is_grpc` that it wants a refusal as gRPC has it; both are over HTTP/2 only.
    """

    hosts: tuple[bytes, ...]
    authority: bytes
    absolute: bool
    tunnelled: bool
    scheme: bytes = b""
    has_body: bool = True
    takes_trailers: bool = False
    is_grpc: bool = False


def arrival_of(request: http.Request, *, tunnelled: bool, has_body: bool = True) -> Arrival:
    """Read how a request came. To be called before mitmproxy's stream has touched it."""
    data = request.data
    fields = data.headers.fields
    hosts = tuple(value for name, value in fields if name.lower() == b"host")
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
        takes_trailers=not over_h1 and _takes_trailers(fields),
        is_grpc=not over_h1 and is_grpc(fields),
    )


def _takes_trailers(fields: Fields) -> bool:
    """Return whether TE says `trailers` and nothing else, the only value over HTTP/2 (RFC 9113, 8.2.2)."""
    return [value.strip().lower() for name, value in fields if name.lower() == b"te"] == [b"trailers"]
