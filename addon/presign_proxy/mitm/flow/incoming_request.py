"""The request of a flow as the core decides on it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy import mode_specs

from ...core.decision import Forward
from ...http.client_address import shown
from ...http.hosts import parse_address, parse_host
from ...http.message import Fields, Origin, Request
from ...signing.source_scheme import BODY_OF_SOURCE
from .arrival import Arrival
from .raw_message import announced, is_h1

MAX_HOST: Final = 300
"""Characters of a name or address: those of the longest name, in brackets or with a trailing dot."""
_DIALS_ADDRESSES = (mode_specs.TransparentMode, mode_specs.LocalMode, mode_specs.WireGuardMode)
_TUNNELS = (mode_specs.RegularMode, mode_specs.UpstreamMode, mode_specs.Socks5Mode)


def request_of(flow: http.HTTPFlow, arrival: Arrival) -> Request:
    """Return the request as the core decides on it."""
    data, client = flow.request.data, flow.client_conn
    mode = client.proxy_mode
    reverse = isinstance(mode, mode_specs.ReverseMode)
    origin = Origin(data.scheme.decode("ascii", "replace"), _host(data.host), data.port)
    names = () if reverse else _names(arrival, client)
    if names and isinstance(mode, _DIALS_ADDRESSES):
        named = _host(names[-1][1].rpartition(":")[0] or names[-1][1])
        origin = origin._replace(host=named)
    listens = isinstance(mode, mode_specs.RegularMode | mode_specs.UpstreamMode)
    return Request(
        method=data.method,
        target=data.path,
        fields=_as_sent(data.headers.fields, arrival) if reverse else data.headers.fields,
        version=data.http_version if is_h1(data.http_version) == _speaks_h1(client) else b"",
        origin=origin,
        names=names,
        listener=listener_of(client) if listens else None,
        reverse=reverse,
        client=client.peername[0],
        tunnelled=arrival.tunnelled and may_tunnel(client),
    )


def may_tunnel(client: Client) -> bool:
    """Return whether a destination outside of the request was asked for by the client, and is not a route."""
    return isinstance(client.proxy_mode, _TUNNELS)


def listener_of(client: Client) -> tuple[str, int] | None:
    """Return the listener's address as a client would spell it; a flow that was made by hand has none."""
    try:
        host, port = client.sockname[0], client.sockname[1]
    except (TypeError, IndexError):
        return None
    return (shown(host), port) if parse_address(host) else None


def _as_sent(fields: Fields, arrival: Arrival) -> Fields:
    """Return the fields with the Hosts that came: in reverse mode mitmproxy has put one in their place."""
    others = tuple(field for field in fields if field[0].lower() != b"host")
    return (*((b"Host", value) for value in arrival.hosts), *others)


def _speaks_h1(client: Client) -> bool:
    """Return whether requests come in HTTP/1, in whose request line the client may write any version."""
    return client.transport_protocol == "tcp" and client.alpn != b"h2"


def _host(text: str) -> str:
    """Encode a name: mitmproxy shows `xn--` names decoded, and connections are configured encoded."""
    return _encoded(text) if len(text) <= MAX_HOST else ""


@lru_cache(maxsize=1024)
def _encoded(text: str) -> str:
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            return ""
    if ":" in text and not text.startswith("["):
        text = f"[{text}]"
    return parse_host(text) or ""


def _names(arrival: Arrival, client: Client) -> tuple[tuple[str, str], ...]:
    """Return every name that the client gave for its destination."""
    found = [("scheme", arrival.scheme.decode("latin-1").lower())] if arrival.scheme else []
    found += [("host", value.decode("latin-1")) for value in arrival.hosts]
    if arrival.authority:
        found.append((":authority", arrival.authority.decode("latin-1")))
    # To a TLS proxy, absolute-form requests come under the proxy's own SNI, which says nothing.
    if client.sni and not arrival.absolute:
        kind = "sni" if arrival.tunnelled or not arrival.authority else "front-sni"
        found.append((kind, client.sni))
    return tuple(found)


def framing_fault(request: http.Request, arrival: Arrival, forward: Forward) -> str:
    """Return why a granted request may not be sent as it is framed; empty if it may."""
    if not arrival.has_body:
        return "Content-Length without a body" if announced(request.data.headers.fields) else ""
    # Over HTTP/2 nothing in the head announces a body. It may be empty, but that is known only later.
    return BODY_OF_SOURCE if forward.facts.scheme == "source" else ""


def second_fault(request: Request, arrival: Arrival | None) -> str:
    """Return why a request without a presign may not go to a host of `also` as it came; empty if it may."""
    if arrival is None:
        return "it is not a live request"
    if is_h1(request.version):
        return ""
    if not arrival.has_body:
        return "Content-Length without a body" if announced(request.fields) else ""
    # Over HTTP/1 it would go without an end, and be read as the next request.
    told = any(name.lower() == b"content-length" for name, _ in request.fields)
    return "" if told and request.method == b"PUT" else "a body without a length, or where no body belongs"
