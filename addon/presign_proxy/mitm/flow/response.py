"""Responses on flows: those of the upstream as the core rewrites them, and answers of ours."""

from __future__ import annotations

import time

from mitmproxy import http
from mitmproxy.proxy.layers.http._events import ResponseHeaders

from ...core.answers import Answer
from ...core.links import Led
from ...core.rewrite_response import Reply, linked
from ...core.upgrade import SWITCHING
from ...http.response_head import UNFRAMED
from .raw_message import headers_of, is_h1, twin
from .state import FlowState

_UNKNOWN_TO_1_0 = frozenset((b"transfer-encoding", b"connection"))


def response_of(answer: Answer, *, close: bool) -> http.Response:
    """Return an answer of ours as mitmproxy sends it."""
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
    """Return the head of a response as the core rewrites it."""
    data = response.data
    return Reply(data.status_code, data.reason, data.headers.fields)


def put_reply(event: ResponseHeaders, reply: Reply, *, client_version: bytes) -> None:
    """Replace the head of a response in place: what the flow holds is what the client gets."""
    response, fields = event.response, reply.fields
    framed = event.end_stream or reply.sized or reply.chunked or reply.status in UNFRAMED
    if (reply.encoded or not framed) and client_version == b"HTTP/1.1":
        # The length is unknown. In chunks, the client sees the end, and whether that is missing.
        fields = tuple(field for field in fields if field[0].lower() != b"transfer-encoding")
        fields += ((b"Transfer-Encoding", b"chunked"),)
        response.data.http_version = b"HTTP/1.1"
    elif client_version == b"HTTP/1.0":
        # HTTP/1.0 knows no chunks: the body ends with the connection.
        fields = tuple(field for field in fields if field[0].lower() not in _UNKNOWN_TO_1_0)
    if not is_h1(response.data.http_version):
        fields = tuple([(name.lower(), value) for name, value in fields])  # mitmproxy logs each that is not
    response.data.reason = reply.reason
    response.data.headers = headers_of(fields)
    response.stream = True


def begins_websocket(flow: http.HTTPFlow, flow_state: FlowState) -> bool:
    """Return whether the upstream has switched to WebSocket, and the client is told so.

    Another addon may have put a response of its own in the place of the upstream's, and so has a refusal.
    """
    grant, told = flow_state.grant, flow.response is not None and flow.response.status_code == SWITCHING
    asked = grant is not None and grant.handshake is not None
    return told and asked and flow_state.progress.response.status == SWITCHING


def end_with(response: http.Response) -> None:
    """End the client's connection with a response: behind a failed handshake, nothing is a request."""
    kept = tuple(field for field in response.data.headers.fields if field[0].lower() != b"connection")
    response.data.headers = headers_of((*kept, (b"Connection", b"close")))


def unframe(response: http.Response) -> None:
    """Remove the framing of a body that an answer cannot have: mitmproxy would end one that is not there."""
    if gone := UNFRAMED.get(response.status_code):
        kept = tuple(field for field in response.data.headers.fields if field[0].lower() not in gone)
        response.data.headers = headers_of(kept)


def linked_response(response: http.Response, links: tuple[Led, ...]) -> http.Response:
    """Return the copy that is sent, whose links hold the client's own presign."""
    sent = twin(response)
    sent.data = twin(response.data)
    sent.data.headers = headers_of(linked(response.data.headers.fields, links))
    return sent
