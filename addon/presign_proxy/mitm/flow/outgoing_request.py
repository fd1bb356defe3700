"""The request that leaves: what the flow shows of it, and the copy that carries the credential."""

from __future__ import annotations

import time
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.http.http1.read import connection_close

from ...core.credentials import Outgoing
from ...core.decision import Forward, PassThrough
from ...core.redact import without_presigns
from ...core.rewrite_request import PROXY_AUTHORIZATION
from ...core.strip_list import EXPECT
from ...gateway.held_bodies import EMPTY, HeldBody
from ...http import networks
from ...http.connection_reuse import reads_body
from ...http.message import Fields, Origin, with_length
from ...http.query import target
from .raw_message import headers_of, is_h1, twin
from .routes import route_to

# What mitmproxy itself needs on a granted request, and may take off: 100-continue, --proxyauth, and whether
# the client's connection ends with it. None of it is sent.
_CONSUMED = frozenset((EXPECT, PROXY_AUTHORIZATION))

Snapshot = tuple[Any, ...]
"""A request on a flow, to be compared with."""


def let_through(flow: http.HTTPFlow, decision: PassThrough) -> None:
    """Make a request without a presign ready to go, as it came."""
    data = flow.request.data
    data.headers = headers_of(without_presigns(data.headers.fields))
    if decision.second:
        flow.request.stream = True


def show(flow: http.HTTPFlow, forward: Forward) -> Snapshot:
    """Put the granted request, with a placeholder for its credential, on the flow.

    Return the snapshot that the request must still equal when it leaves.
    """
    data, shown = flow.request.data, forward.shown
    fields = _fields(shown, forward.origin, data.http_version)
    consumed = tuple((name, value) for name, value in data.headers.fields if name.lower() in _CONSUMED)
    if is_h1(data.http_version) and connection_close(data.http_version, data.headers):
        consumed += ((b"Connection", b"close"),)
    headers = headers_of(fields + consumed)
    data.scheme = forward.origin.scheme.encode("ascii")
    data.host, data.port = forward.origin.host, forward.origin.port
    data.authority = b"" if is_h1(data.http_version) else forward.origin.authority.encode("ascii")
    data.path = target(shown.path, shown.query)
    data.headers = headers
    flow.request.stream = True
    return snapshot(flow.request)


def snapshot(request: http.Request) -> Snapshot:
    """Return everything of a request that decides where it goes and what it says."""
    data = request.data
    return (
        data.scheme,
        data.host,
        data.port,
        data.method,
        data.path,
        data.authority,
        data.http_version,
        tuple([field for field in data.headers.fields if field[0].lower() not in _CONSUMED]),
    )


def is_unchanged(request: http.Request, taken: Snapshot) -> bool:
    """Return whether a request still equals its snapshot."""
    return snapshot(request) == taken


def leaving(forward: Forward, held: HeldBody | None) -> Outgoing:
    """Return what is sent now, signed if its credential signs, with the length of a body that was held.

    Raises Denied; LookupError where the credential was not fetched.
    """
    if forward.hold is None:
        return forward.leaving(int(time.time()), None)
    if held is None:
        return forward.leaving(int(time.time()), EMPTY)
    sent = forward.leaving(int(time.time()), held.digest())
    return sent._replace(fields=with_length(sent.fields, held.size))


def wire_request(
    request: http.Request,
    origin: Origin,
    sent: Outgoing,
    server: Server,
    *,
    has_body: bool,
    te: bool = False,
) -> http.Request:
    """Return the copy that is sent: with the credential, and framed for the protocol of the upstream.

    `te` says that the client takes trailers. An upstream over HTTP/1 is not told: its trailers are dropped.

    HTTP/2 bodies have no framing of their own in HTTP/1, and mitmproxy adds none: without it, a body would
    be read as the next request.
    """
    data = request.data
    fields = _fields(sent, origin, data.http_version)
    if server.alpn != b"h2" and not any(name.lower() == b"content-length" for name, _ in fields):
        if has_body:
            fields += ((b"Transfer-Encoding", b"chunked"),)
        elif not is_h1(data.http_version) and reads_body(data.method):
            fields += ((b"Content-Length", b"0"),)  # without it, some servers answer 411
    if te and server.alpn == b"h2" and not is_h1(data.http_version):
        fields += ((b"te", b"trailers"),)
    # Shallow copies: mitmproxy's own constructor checks every field's type again, its copy() serialises.
    copied = twin(request)
    copied.data = twin(data)
    copied.data.path = target(sent.path, sent.query)
    copied.data.headers = headers_of(fields)
    copied.data.content = copied.data.trailers = None
    if is_h1(data.http_version):
        copied.data.http_version = b"HTTP/1.1"
    return copied


def _fields(outgoing: Outgoing, origin: Origin, version: bytes) -> Fields:
    if is_h1(version):
        return ((b"Host", origin.authority.encode("ascii")), *outgoing.fields)
    return tuple((name.lower(), value) for name, value in outgoing.fields)


def why_not_through_another(forward: Forward) -> str:
    """Return why a request may not go through another proxy (`--mode upstream:…`); empty if it may."""
    if forward.origin.scheme != "https":
        return "an http upstream is not reached through another proxy, which would be shown the credential"
    if forward.resolve is not None:
        return "a source is not fetched through another proxy, which would resolve a name that nobody judges"
    return ""


def reaches(server: Server, forward: Forward) -> bool:
    """Return whether a connection leads where the grant says, with TLS for that very name if it is https.

    It shows the client certificate of that very connection, or none.
    """
    origin = forward.origin
    elsewhere = server.via is not None and why_not_through_another(forward)
    if elsewhere or route_to(server).tls != forward.connection.tls:
        return False
    if not networks.may_be_dialled(server.peername, forward.resolve):
        return False
    if server.address is None or tuple(server.address[:2]) != (origin.host, origin.port):
        return False
    return server.tls and server.sni == origin.host if origin.scheme == "https" else not server.tls
