"""Between mitmproxy's flows and our own types. Only `request.data` is read: raw bytes, no convenience."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from mitmproxy import http
from mitmproxy.connection import Client, Server
from mitmproxy.net.http.http1.read import connection_close
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.layers.http._events import ResponseHeaders

from ...core.answers import Answer
from ...core.credentials import Outgoing
from ...core.decision import Decision, Deny, Forward, PassThrough
from ...core.links import Led
from ...core.redact import Redacted, redact, without_presigns
from ...core.rewrite_request import PROXY_AUTHORIZATION
from ...core.rewrite_response import Reply, linked
from ...core.strip_list import EXPECT
from ...http import networks
from ...http.client_address import shown
from ...http.connection_reuse import reads_body
from ...http.hosts import parse_address, parse_host
from ...http.message import Fields, Origin, Request
from ...http.query import target
from ...http.response_head import UNFRAMED
from ...observe.audit_record import Outcome
from ...observe.request_line import comment_of_grant, comment_of_refusal
from ...signing.disclosure import discloses
from ...signing.source_scheme import BODY_OF_SOURCE
from .shown_bodies import MAX_SHOWN, ShownBodies
from .state import Arrival, FlowState

MAX_HOST: Final = 300
"""Characters of a name or address: those of the longest name, in brackets or with a trailing dot."""
# What mitmproxy itself needs on a granted request, and may take off: 100-continue, --proxyauth, and whether
# the client's connection ends with it. None of it is sent.
_CONSUMED = frozenset((EXPECT, PROXY_AUTHORIZATION))
_DIALS_ADDRESSES = (mode_specs.TransparentMode, mode_specs.LocalMode, mode_specs.WireGuardMode)
_TUNNELS = (mode_specs.RegularMode, mode_specs.UpstreamMode, mode_specs.Socks5Mode)

_UNKNOWN_TO_1_0 = frozenset((b"transfer-encoding", b"connection"))

_NO_HEADERS: Final = http.Headers()

Snapshot = tuple[Any, ...]


def arrival_of(request: http.Request, *, tunnelled: bool, has_body: bool = True) -> Arrival:
    """How a request came; to be called before mitmproxy's stream has touched it."""
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


def announced(fields: Fields) -> int | None:
    """The bytes that Content-Length announces; over HTTP/2 there may be fewer all the same."""
    lengths = [value.strip() for name, value in fields if name.lower() == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


def framing_fault(request: http.Request, arrival: Arrival, forward: Forward) -> str:
    """Why a granted request may not be sent as it is framed; empty where it may."""
    if not arrival.has_body:
        return "Content-Length without a body" if announced(request.data.headers.fields) else ""
    # Over HTTP/2 nothing in the head announces a body. It may be empty, but that is known only later.
    return BODY_OF_SOURCE if forward.facts.scheme == "source" else ""


def second_fault(request: Request, flow_state: FlowState | None) -> str:
    """Why a request without a presign may not go to a host of `also`, as it came; empty where it may."""
    if flow_state is None:
        return "it is not a live request"
    if is_h1(request.version):
        return ""
    if not flow_state.arrival.has_body:
        return "Content-Length without a body" if announced(request.fields) else ""
    # Over HTTP/1 it would go without an end, and be read as the next request.
    told = any(name.lower() == b"content-length" for name, _ in request.fields)
    return "" if told and request.method == b"PUT" else "a body without a length, or where no body belongs"


def hide(flow: http.HTTPFlow) -> None:
    """Take everything usable off a refused request before others see it."""
    data = flow.request.data
    hidden = Redacted(b"/[redacted]", ())
    with contextlib.suppress(Exception):
        hidden = redact(data.path, data.headers.fields)
    data.path, data.headers = hidden.target, _headers(hidden.fields)
    # Whoever puts a token there meant it for another place, where it may be good.
    if discloses(data.method):
        data.method = b"[redacted]"
    if discloses(data.authority) or discloses(data.host.encode("utf-8", "replace")):
        data.authority, data.host = b"", "redacted"


def let_through(flow: http.HTTPFlow, decision: PassThrough) -> None:
    """Make a request without a presign ready to go, as it came."""
    data = flow.request.data
    data.headers = _headers(without_presigns(data.headers.fields))
    if decision.second:
        flow.request.stream = True


def request_of(flow: http.HTTPFlow, arrival: Arrival) -> Request:
    """The request as the core decides on it."""
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
    """Whether what is led elsewhere is so because the client asked for a tunnel, not because of a route."""
    return isinstance(client.proxy_mode, _TUNNELS)


def _as_sent(fields: Fields, arrival: Arrival) -> Fields:
    """In reverse mode mitmproxy has put one Host in the place of those that came, however many and odd."""
    others = tuple(field for field in fields if field[0].lower() != b"host")
    return (*((b"Host", value) for value in arrival.hosts), *others)


def _speaks_h1(client: Client) -> bool:
    """Whether requests come in HTTP/1, in whose request line the client may write any version."""
    return client.transport_protocol == "tcp" and client.alpn != b"h2"


def _host(text: str) -> str:
    """mitmproxy shows `xn--` names decoded; connections are configured encoded."""
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


def listener_of(client: Client) -> tuple[str, int] | None:
    """The listener's address as a client would spell it; a flow that somebody made by hand has none."""
    try:
        host, port = client.sockname[0], client.sockname[1]
    except (TypeError, IndexError):
        return None
    return (shown(host), port) if parse_address(host) else None


def _names(arrival: Arrival, client: Client) -> tuple[tuple[str, str], ...]:
    """Every name the client gave for where it wants to go."""
    found = [("scheme", arrival.scheme.decode("latin-1").lower())] if arrival.scheme else []
    found += [("host", value.decode("latin-1")) for value in arrival.hosts]
    if arrival.authority:
        found.append((":authority", arrival.authority.decode("latin-1")))
    # To a TLS proxy, absolute-form requests come under the proxy's own SNI, which says nothing.
    if client.sni and not arrival.absolute:
        kind = "sni" if arrival.tunnelled or not arrival.authority else "front-sni"
        found.append((kind, client.sni))
    return tuple(found)


def show(flow: http.HTTPFlow, forward: Forward) -> Snapshot:
    """Put the granted request, with a placeholder for its credential, on the flow.

    Returns the snapshot that the request must still equal when it leaves.
    """
    data, shown = flow.request.data, forward.shown
    fields = _fields(shown, forward.origin, data.http_version)
    consumed = tuple((name, value) for name, value in data.headers.fields if name.lower() in _CONSUMED)
    if is_h1(data.http_version) and connection_close(data.http_version, data.headers):
        consumed += ((b"Connection", b"close"),)
    headers = _headers(fields + consumed)
    data.scheme = forward.origin.scheme.encode("ascii")
    data.host, data.port = forward.origin.host, forward.origin.port
    data.authority = b"" if is_h1(data.http_version) else forward.origin.authority.encode("ascii")
    data.path = target(shown.path, shown.query)
    data.headers = headers
    flow.request.stream = True
    return snapshot(flow.request)


def snapshot(request: http.Request) -> Snapshot:
    """Everything of a request that decides where it goes and what it says."""
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


def wire_request(request: http.Request, forward: Forward, server: Server, *, has_body: bool) -> http.Request:
    """The copy that is sent: with the credential, and framed for the protocol of the upstream.

    HTTP/2 bodies have no framing of their own in HTTP/1, and mitmproxy adds none: without it, a body would
    be read as the next request.
    """
    data, sent = request.data, forward.sent
    if sent is None:
        raise LookupError("the credential of this grant was not fetched")
    fields = _fields(sent, forward.origin, data.http_version)
    if server.alpn != b"h2" and not any(name.lower() == b"content-length" for name, _ in fields):
        if has_body:
            fields += ((b"Transfer-Encoding", b"chunked"),)
        elif not is_h1(data.http_version) and reads_body(data.method):
            fields += ((b"Content-Length", b"0"),)  # without it, some servers answer 411
    # Shallow copies: mitmproxy's own constructor checks every field's type again, its copy() serialises.
    copied = twin(request)
    copied.data = twin(data)
    copied.data.path = target(sent.path, sent.query)
    copied.data.headers = _headers(fields)
    copied.data.content = copied.data.trailers = None
    if is_h1(data.http_version):
        copied.data.http_version = b"HTTP/1.1"
    return copied


def is_unchanged(request: http.Request, taken: Snapshot) -> bool:
    """Whether a request still equals its snapshot."""
    return snapshot(request) == taken


def _headers(fields: Fields) -> http.Headers:
    """Headers of fields that are known to be pairs of bytes; the constructor would check each again."""
    headers = twin(_NO_HEADERS)
    headers.fields = fields
    return headers


def twin[T](one: T) -> T:
    """A shallow copy, as `copy.copy` makes it of an object that says nothing of copying."""
    made = object.__new__(type(one))
    vars(made).update(vars(one))
    return made


def is_h1(version: bytes) -> bool:
    return version.startswith(b"HTTP/1")


def _fields(outgoing: Outgoing, origin: Origin, version: bytes) -> Fields:
    if is_h1(version):
        return ((b"Host", origin.authority.encode("ascii")), *outgoing.fields)
    return tuple((name.lower(), value) for name, value in outgoing.fields)


def why_not_through_another(forward: Forward) -> str:
    """Why a request may not go through another proxy (`--mode upstream:…`); empty where it may."""
    if forward.origin.scheme != "https":
        return "an http upstream is not reached through another proxy, which would be shown the credential"
    if forward.resolve is not None:
        return "a source is not fetched through another proxy, which would resolve a name that nobody judges"
    return ""


def reaches(server: Server, forward: Forward) -> bool:
    """Whether a connection leads where the grant says, under TLS for that very name if it is https."""
    origin = forward.origin
    elsewhere = server.via is not None and why_not_through_another(forward)
    if elsewhere or not networks.may_be_dialled(server.peername, forward.resolve):
        return False
    if server.address is None or tuple(server.address[:2]) != (origin.host, origin.port):
        return False
    return server.tls and server.sni == origin.host if origin.scheme == "https" else not server.tls


def response_of(answer: Answer, *, close: bool) -> http.Response:
    """An answer of ours as mitmproxy sends it."""
    fields = answer.fields + (((b"Connection", b"close"),) if close else ())
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=answer.status,
        reason=answer.reason,
        headers=http.Headers(fields),
        content=answer.body,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def reply_of(response: http.Response) -> Reply:
    data = response.data
    return Reply(data.status_code, data.reason, data.headers.fields)


def put_reply(event: ResponseHeaders, reply: Reply, *, client_version: bytes) -> None:
    """Replace the head of a response in place: what the flow holds is what the client gets."""
    response, fields = event.response, reply.fields
    framed = event.end_stream or reply.sized or reply.chunked or reply.status in UNFRAMED
    if (reply.encoded or not framed) and client_version == b"HTTP/1.1":
        # Its length is unknown. In chunks, the client sees its end, and whether that is missing.
        fields = tuple(field for field in fields if field[0].lower() != b"transfer-encoding")
        fields += ((b"Transfer-Encoding", b"chunked"),)
        response.data.http_version = b"HTTP/1.1"
    elif client_version == b"HTTP/1.0":  # it knows no chunks: the body ends with the connection
        fields = tuple(field for field in fields if field[0].lower() not in _UNKNOWN_TO_1_0)
    response.data.reason, response.data.headers = reply.reason, _headers(fields)
    response.stream = True


def unframe(response: http.Response) -> None:
    """Take off what tells of a body that an answer cannot have; mitmproxy would end one that is not there."""
    if gone := UNFRAMED.get(response.status_code):
        kept = tuple(field for field in response.data.headers.fields if field[0].lower() not in gone)
        response.data.headers = _headers(kept)


def linked_response(response: http.Response, links: tuple[Led, ...]) -> http.Response:
    """The copy that is sent, whose links hold the client's own presign."""
    sent = twin(response)
    sent.data = twin(response.data)
    sent.data.headers = _headers(linked(response.data.headers.fields, links))
    return sent


# -- what people see of a flow ------------------------------------------------------------------------


def mark_grant(flow: http.HTTPFlow, forward: Forward) -> None:
    flow.comment, flow.marked = comment_of_grant(forward, int(time.time())), ":lock:"


def mark_refusal(flow: http.HTTPFlow, deny: Deny) -> None:
    flow.comment, flow.marked = comment_of_refusal(deny, int(time.time())), ":no_entry:"


def mark_end(
    flow: http.HTTPFlow, decision: Decision | None, outcome: Outcome, bodies: ShownBodies | None
) -> None:
    """Put what an exchange has come to on its flow: its bodies, and in the comment what they are not.

    Args:
        decision: a refusal where what was granted was refused after all.
        bodies: None where nobody is to see them.
    """
    if isinstance(decision, Deny):
        mark_refusal(flow, decision)
    why = [outcome.code, outcome.error] if isinstance(decision, Forward) else []
    notes = [": ".join(filter(None, why)), *(_show_bodies(flow, bodies) if bodies is not None else ())]
    flow.comment = "; ".join(filter(None, [flow.comment, *notes]))


def _show_bodies(flow: http.HTTPFlow, bodies: ShownBodies) -> Iterator[str]:
    """Put bodies on the messages that went through without being kept; yields what is missing of them."""
    for name, message, body in (
        ("request", flow.request, bodies.request),
        ("response", flow.response, bodies.response),
    ):
        if message is None or message.data.content is not None:
            continue
        if not body.is_cut:
            message.data.content = body.content()
        elif b"content-encoding" in [field.lower() for field, _ in message.data.headers.fields]:
            # Half of what is compressed cannot be read.
            yield f"the {name} body of {body.size} bytes is compressed, and too long to be shown"
        else:
            message.data.content = body.content()
            yield f"of the {name} body of {body.size} bytes the first {MAX_SHOWN} are shown"
