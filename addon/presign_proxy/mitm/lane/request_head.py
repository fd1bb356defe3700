"""The heads of HTTP/1.1 requests that can be read in one way only. All others are left to the flow path."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import httptools

from ...core.answers import Answer
from ...core.credentials import Outgoing
from ...core.rewrite_response import Reply
from ...http.head_lines import has_bare_lf, is_ambiguous
from ...http.message import MAX_FIELDS, MAX_HEAD, WEBSOCKET, Fields, Origin, Request
from ...http.query import target

END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_ELSEWHERE: Final = frozenset((b"expect", b"http2-settings", b"proxy-connection", b"trailer", b"te"))
"""Fields that ask for something the lane does not do."""
_OURS: Final = frozenset((b"connection", b"transfer-encoding"))
_LENGTHS: Final = frozenset(map(len, _OURS))


class RequestHead(NamedTuple):
    """A head in origin form.

    `length` is that of the body, None where it is chunked; `last` says that the connection ends with it.
    """

    method: bytes
    target: bytes
    fields: Fields
    host: bytes
    length: int | None
    last: bool


class _Collector:
    """What httptools calls. It holds nothing that holds it, so that no garbage collection has to free it."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))


def request_of(
    head: RequestHead,
    origin: Origin,
    names: tuple[tuple[str, str], ...],
    listener: tuple[str, int] | None,
    client: Any,
    *,
    tunnelled: bool,
) -> Request:
    """Return the request as the core decides on it, as `flow.adapter` makes it of a flow."""
    return Request(
        method=head.method,
        target=head.target,
        fields=head.fields,
        version=b"HTTP/1.1",
        origin=origin,
        names=names,
        listener=listener,
        client=client.peername[0],
        tunnelled=tunnelled,
    )


def outgoing(head: RequestHead, origin: Origin, sent: Outgoing) -> bytes:
    """Return the head for the upstream: with the credential, framed as the body came."""
    lines = [
        b"%b %b HTTP/1.1" % (head.method, target(sent.path, sent.query)),
        b"Host: %b" % origin.authority.encode("ascii"),
        *[b"%b: %b" % field for field in sent.fields],
    ]
    if head.length is None:
        lines.append(b"Transfer-Encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def response(reply: Reply, *, chunked: bool, close: bool) -> bytes:
    """Return the head for the client, framed as its body is sent."""
    lines = [b"HTTP/1.1 %d %b" % (reply.status, reply.reason)]
    lines += [
        b"%b: %b" % (name, value)
        for name, value in reply.fields
        if len(name) not in _LENGTHS or name.lower() not in _OURS
    ]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def switched(reply: Reply) -> bytes:
    """Return the head of a 101 for the client: HTTP ends with it."""
    lines = [b"HTTP/1.1 %d %b" % (reply.status, reply.reason), *[b"%b: %b" % field for field in reply.fields]]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def answer(of_ours: Answer, *, close: bool, bodyless: bool) -> bytes:
    """Return an answer of ours, with its body."""
    fields = of_ours.fields + (((b"Connection", b"close"),) if close else ())
    lines = [b"HTTP/1.1 %d %b" % (of_ours.status, of_ours.reason), *[b"%b: %b" % field for field in fields]]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodyless else of_ours.body)


def may_begin(data: bytes, seen: int = 0) -> bool:
    """Return whether these first bytes can become a simple head, whose end is waited for.

    Args:
        seen: how many of them could, when there were no more.
    """
    method, space, rest = data[:32].partition(b" ")
    return (
        method.isalpha()
        and method.isupper()
        and len(method) < 20
        and (not space or rest[:1] in (b"", b"/"))
        and not has_bare_lf(data, seen)  # to mitmproxy two of these are an end
    )


def parse(raw: bytes) -> RequestHead | None:
    """Parse a whole head, with the blank line that ends it. Return None where it is not simple."""
    if len(raw) > MAX_HEAD or is_ambiguous(raw):
        return None
    found = _Collector()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserError:
        return None
    except httptools.HttpParserUpgrade:
        pass  # the head ends here: `_framed` says whether it is a handshake, the core whether a good one
    method, target, fields = parser.get_method(), found.target, tuple(found.fields)
    # llhttp forgives a second blank. A server behind us may read something else in that line.
    if not raw.startswith(b"%b %b HTTP/1.1\r\n" % (method, target)) or not target.startswith(b"/"):
        return None
    if len(fields) > MAX_FIELDS or method == b"CONNECT":
        return None
    return _framed(method, target, fields)


def _framed(method: bytes, target: bytes, fields: Fields) -> RequestHead | None:
    host: bytes | None = None
    length: int | None = 0
    last = framed = upgrades = False
    offers: list[bytes] = []
    for name, value in fields:
        key = name.lower()
        if key == b"host":
            if host is not None:
                return None
            host = value
        elif key == b"content-length":
            if framed or not _LENGTH.fullmatch(value):
                return None
            framed, length = True, int(value)
        elif key == b"transfer-encoding":
            if framed or value != b"chunked":
                return None
            framed, length = True, None
        elif key == b"connection":
            tokens = {token.strip().lower() for token in value.split(b",")}
            upgrades = upgrades or b"upgrade" in tokens
            last = last or b"close" in tokens
        elif key == b"upgrade":
            offers.append(value.lower())
        elif key in _ELSEWHERE:
            return None
    if (upgrades or offers) and (not upgrades or framed or last or offers != [WEBSOCKET]):
        return None
    return None if not host else RequestHead(method, target, fields, host, length, last)
