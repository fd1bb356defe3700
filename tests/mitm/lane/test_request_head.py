"""Heads that can be read in one way only: which those are, and what is made of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from presign_proxy.core.answers import Answer
from presign_proxy.core.credentials import Outgoing
from presign_proxy.core.rewrite_response import Reply
from presign_proxy.http.message import MAX_FIELDS, MAX_HEAD, Origin
from presign_proxy.mitm.lane import request_head
from presign_proxy.mitm.lane.request_head import RequestHead, may_begin, parse

ORIGIN = Origin("https", "api.example", 443)


def head(*lines: str, start: str = "GET /x?y=1 HTTP/1.1", host: str = "Host: presign.local") -> bytes:
    return "\r\n".join([start, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def framed(*lines: str, **more: Any) -> tuple[int | None, bool]:
    found = parse(head(*lines, **more))
    assert found is not None, lines
    return found.length, found.last


def test_a_simple_head_is_read_as_it_stands() -> None:
    assert head().endswith(request_head.END)
    assert len(request_head.END) == 4
    assert parse(head("X-One:  a b \t", "x-two:", "X-Three: XaX")) == RequestHead(
        b"GET",
        b"/x?y=1",
        ((b"Host", b"presign.local"), (b"X-One", b"a b"), (b"x-two", b""), (b"X-Three", b"XaX")),
        b"presign.local",
        0,
        False,
    )


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ((), 0),
        (("Content-Length: 0",), 0),
        (("content-length: 17",), 17),
        (("Content-Length: " + "9" * 18,), 10**18 - 1),
        (("Transfer-Encoding: chunked",), None),
        (("TRANSFER-ENCODING: chunked",), None),
    ],
)
def test_a_body_has_one_length(lines: tuple[str, ...], length: int | None) -> None:
    assert framed(*lines) == (length, False)


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (("Connection: close",), True),
        (("Connection: CLOSE",), True),
        (("Connection: keep-alive , close",), True),
        (("Connection: close", "Connection: keep-alive"), True),
        (("Connection: keep-alive", "Connection: close"), True),
        (("Connection: keep-alive",), False),
        (("Connection: closed",), False),
        (("X-Connection: close",), False),
    ],
)
def test_a_connection_ends_where_the_client_says_so(lines: tuple[str, ...], last: bool) -> None:
    assert framed(*lines) == (0, last)


def test_another_origin_form_and_other_methods_are_simple_too() -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
        found = parse(head(start=f"{method} //a HTTP/1.1"))
        assert found is not None
        assert (found.method, found.target) == (method.encode(), b"//a")


LEFT = {
    "no host": head(host=""),
    "an empty host": head(host="Host:"),
    "two hosts": head("Host: presign.local"),
    "two hosts that agree in capitals": head("HOST: presign.local"),
    "two lengths": head("Content-Length: 1", "Content-Length: 1"),
    "a length and chunks": head("Content-Length: 1", "Transfer-Encoding: chunked"),
    "chunks and a length": head("Transfer-Encoding: chunked", "Content-Length: 1"),
    "chunks twice": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunks of something packed": head("Transfer-Encoding: gzip, chunked"),
    "chunks in capitals": head("Transfer-Encoding: Chunked"),
    "no chunks": head("Transfer-Encoding: identity"),
    "a length with a sign": head("Content-Length: +1"),
    "a length with a zero before": head("Content-Length: 01"),
    "a length of nothing": head("Content-Length:"),
    "a length in a list": head("Content-Length: 1, 1"),
    "a length beyond any parser": head("Content-Length: 1" + "0" * 18),
    "an upgrade": head("Upgrade: websocket"),
    "an upgrade that the connection asks for": head("Connection: upgrade"),
    "an upgrade in a list": head("Connection: keep-alive, Upgrade"),
    "an upgrade to HTTP/2": head("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: x"),
    "settings of HTTP/2": head("HTTP2-Settings: x"),
    "an expectation": head("Expect: 100-continue"),
    "a connection to a proxy": head("Proxy-Connection: keep-alive"),
    "trailers that are announced": head("Trailer: X"),
    "trailers that are taken": head("TE: trailers"),
    "a whole URL": head(start="GET http://presign.local/x HTTP/1.1"),
    "a star": head(start="OPTIONS * HTTP/1.1"),
    "CONNECT": head(start="CONNECT presign.local:443 HTTP/1.1"),
    "CONNECT to a path": head(start="CONNECT /x HTTP/1.1"),
    "HTTP/1.0": head(start="GET /x HTTP/1.0"),
    "HTTP/2.0": head(start="GET /x HTTP/2.0"),
    "two blanks": head(start="GET  /x HTTP/1.1"),
    "two blanks behind": head(start="GET /x  HTTP/1.1"),
    "a blank at the end": head(start="GET /x HTTP/1.1 "),
    "a method in small letters": head(start="get /x HTTP/1.1"),
    "a folded line": head("X: a", " b"),
    "a blank before the colon": head("X : a"),
    "a line without a colon": head("X"),
    "a zero byte": head("X: a\0b"),
    "a waker": head("X: a\x07b"),
    "a vertical tab": head("X: a\x0bb"),
    "a form feed": head("X: a\x0cb"),
    "an escape": head("X: a\x1bb"),
    "a delete": head("X: a\x7fb"),
    "a bare CR": head("X: a\rb"),
    "a bare LF": head("X: a\nY: b"),
    "what is no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "nothing": b"",
    "an empty line before": b"\r\n" + head(),
}


@pytest.mark.parametrize("what", LEFT)
def test_what_could_be_read_in_two_ways_is_left_to_the_flow_path(what: str) -> None:
    assert parse(LEFT[what]) is None


def test_a_tab_within_a_value_and_letters_of_other_languages_are_read() -> None:
    found = parse(head("X: a\tb", "Y: \xe4\xff"))
    assert found is not None
    assert found.fields[1:] == ((b"X", b"a\tb"), (b"Y", b"\xe4\xff"))


@pytest.mark.parametrize(("count", "is_read"), [(MAX_FIELDS - 1, True), (MAX_FIELDS, False)])
def test_so_many_fields_are_read(count: int, is_read: bool) -> None:
    assert (parse(head(*(f"X{number}: y" for number in range(count)))) is not None) is is_read


@pytest.mark.parametrize("more", [0, 1])
def test_a_head_of_such_a_size_is_read(more: int) -> None:
    rest = MAX_HEAD - len(head("X: ")) + more
    raw = head("X: " + "y" * rest)
    assert len(raw) == MAX_HEAD + more
    assert (parse(raw) is None) is bool(more)


# -- the beginning of a head ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"G", b"GET", b"GET ", b"GET /", b"GET /x HTTP/1.1\r\nHost", b"A" * 19, b"A" * 19 + b" /", b"GET /\r"],
)
def test_what_may_become_a_simple_head_is_waited_for(data: bytes) -> None:
    assert may_begin(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"get /",
        b"GeT /",
        b"GET http://",
        b"GET *",
        b"GET  /",
        b"GE1 /",
        b"\x16\x03\x01",
        b"A" * 20,
        b"A" * 20 + b" /",
        b"\r\nGET /",
        b"GET /x HTTP/1.1\nHost: x",
        b"GET /x HTTP/1.1\r\nHost: x\n",
    ],
)
def test_what_becomes_none_is_left_at_once(data: bytes) -> None:
    assert not may_begin(data)


def test_a_line_feed_is_found_however_a_head_is_cut() -> None:
    """What was looked at before is not looked at again, but for the byte before what is new."""
    data = b"GET /x HTTP/1.1\r\nHost: x\n"
    assert not may_begin(data, len(data) - 1)
    assert may_begin(b"GET /x HTTP/1.1\r\n", len(b"GET /x HTTP/1.1\r"))
    assert may_begin(data, len(data) + 1), "it was looked at before"


# -- what is made of it -----------------------------------------------------------------------------------


def given(*lines: str, start: str = "POST /x HTTP/1.1") -> RequestHead:
    found = parse(head(*lines, start=start))
    assert found is not None
    return found


def test_a_request_is_decided_on_as_it_came() -> None:
    one = given("X: y")
    client = SimpleNamespace(peername=("192.0.2.1", 4711))
    for tunnelled in (True, False):
        request = request_head.request_of(
            one,
            ORIGIN,
            (("host", "presign.local"),),
            ("127.0.0.1", 8080),
            client,
            tunnelled=tunnelled,
        )
        assert (request.method, request.target, request.fields) == (b"POST", b"/x", one.fields)
        assert (request.version, request.origin, request.client) == (b"HTTP/1.1", ORIGIN, "192.0.2.1")
        assert (request.names, request.listener) == ((("host", "presign.local"),), ("127.0.0.1", 8080))
        assert request.tunnelled is tunnelled


def sent(*fields: tuple[bytes, bytes], query: bytes | None = None) -> Outgoing:
    return Outgoing(b"/v1/x", query, fields)


def test_what_goes_to_the_upstream_has_one_host_and_the_framing_that_came() -> None:
    credential = (b"Authorization", b"Bearer sk")
    sized = given("Content-Length: 5")
    assert request_head.outgoing(sized, ORIGIN, sent(credential, (b"Content-Length", b"5"))) == (
        b"POST /v1/x HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer sk\r\nContent-Length: 5\r\n\r\n"
    )
    chunked = given("Transfer-Encoding: chunked")
    assert request_head.outgoing(
        chunked, Origin("http", "api.example", 81), sent(credential, query=b"a=b")
    ) == (
        b"POST /v1/x?a=b HTTP/1.1\r\nHost: api.example:81\r\nAuthorization: Bearer sk\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )


def test_what_the_client_gets_is_framed_by_us() -> None:
    reply = Reply(
        200,
        b"Fine",
        (
            (b"X", b"y"),
            (b"connection", b"keep-alive"),
            (b"Transfer-Encoding", b"chunked"),
            (b"ten-letter", b"as long as connection"),
            (b"Content-Length", b"4"),
        ),
    )
    kept = b"HTTP/1.1 200 Fine\r\nX: y\r\nten-letter: as long as connection\r\nContent-Length: 4\r\n"
    assert request_head.response(reply, chunked=False, close=False) == kept + b"\r\n"
    assert (
        request_head.response(reply, chunked=True, close=False)
        == kept + b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert request_head.response(reply, chunked=False, close=True) == kept + b"Connection: close\r\n\r\n"
    assert request_head.response(reply, chunked=True, close=True) == (
        kept + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )


def test_an_answer_of_ours_has_its_body_but_for_head() -> None:
    ours = Answer(502, b"Bad Gateway", ((b"Content-Length", b"2"),), b"no")
    start = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n"
    assert request_head.answer(ours, close=False, bodyless=False) == start + b"\r\nno"
    assert request_head.answer(ours, close=False, bodyless=True) == start + b"\r\n"
    assert request_head.answer(ours, close=True, bodyless=False) == start + b"Connection: close\r\n\r\nno"
