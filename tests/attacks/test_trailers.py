"""Trailers of a hostile upstream, and what clients try with them: nothing is smuggled, leaked or large."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hpack
import pytest
import trustme

from presign_proxy.core.trailers import MAX_TRAILERS
from presign_proxy.http.message import MAX_HEAD
from support.asking import SECRET, Grant, wire
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2client import H2Reply
from support.h2frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NEWEST,
    accept_h2,
    frame,
    h2_context,
    literal,
    next_of,
)
from support.h2streams import Streams
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import PROMPTLY
from support.puppet import eventually
from support.raw import Tls, connect, parse_response
from support.serving import Serve

GATEWAY: Final = "presign.local"
PATIENT: Final = 20.0
LONG_AGO: Final = 1714808400
OK: Final = b"\x88"
"""`:status: 200` in HPACK's own table."""
BOTH: Final = ("http/1.1", "h2")
"""Of a client that rather speaks HTTP/1.1: mitmproxy offers both to the upstream."""
GRPC: Final = (("content-type", "application/grpc"), ("te", "trailers"))
STATUS: Final = literal(b"grpc-status", b"0")
STARS: Final = "*" * len(REAL_SECRET)


@dataclass
class Lab:
    """A gateway, and an upstream over HTTP/2 whose frames the test writes."""

    gateway: Any
    hand: ByHand
    context: ssl.SSLContext
    directory: Path

    def client(self) -> Streams:
        return Streams.direct(self.gateway.port, GATEWAY, self.gateway.ca)

    def asked(self, client: Streams, *fields: tuple[str, str], **grant: Any) -> tuple[int, Wire]:
        """A stream of the client's, and the upstream's end of it, once it was asked."""
        stream = self.ask(client, *fields, **grant)
        api = accept_h2(self.hand, self.context, timeout=PATIENT)
        next_of(api, HEADERS, PATIENT)
        return stream, api

    def ask(self, client: Streams, *fields: tuple[str, str], **grant: Any) -> int:
        target = Grant("conn_h2", **grant).target("lab.v1.Lab/Echo")
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        return client.begin([*pseudo, *(fields or (("te", "trailers"),))])

    def answered(self, *frames: bytes, fields: tuple[tuple[str, str], ...] = GRPC) -> H2Reply:
        """What a client gets where the upstream answers with these frames."""
        with self.client() as client:
            stream, api = self.asked(client, *fields)
            first, *others = frames
            api.send(first)
            if others:  # a connection that ends for them would take along what came with them
                client.wait_for_head(stream, PATIENT)
                api.send(b"".join(others))
            return client.wait([stream], PATIENT)[0]

    def line(self) -> dict[str, Any]:
        """The last line of the audit log, once there is one."""
        path = self.directory / "audit.jsonl"
        assert eventually(lambda: bool(audit_lines(path)), PATIENT)
        return audit_lines(path)[-1]


@pytest.fixture(scope="module", params=["mitmdump", "mitmdump, as served", "serve"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    ca: trustme.CA,
    ca_pem: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    context = h2_context(ca.issue_cert(*TLS_NAMES))
    upstream = f"https://localhost:{hand.port}"
    config = {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {
            "conn_h2": bearer_connection(upstream, SECRET, cookies="pass", url_headers=["X-Next-Page"]),
            "conn_plain": bearer_connection(hand.url, SECRET),
        },
        "audit": {"file": "audit.jsonl"},
    }
    if request.param == "serve":
        directory = tmp_path_factory.mktemp("serve")
        with Serve(directory, config, "--upstream-ca", str(ca_pem)) as served:
            yield Lab(served, hand, context, directory)
        return
    options = ("-s", str(PROMPTLY)) if "served" in request.param else ()
    gateway = module_gateway(config, *options)
    yield Lab(gateway, hand, context, gateway.directory)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    for word in ("Traceback", "failed at the", "has crashed", REAL_SECRET):
        assert word not in log


def head(*fields: tuple[bytes, bytes], flags: int = END_HEADERS, stream: int = 1) -> bytes:
    return frame(HEADERS, OK + b"".join(literal(*one) for one in fields), flags, stream)


def body(data: bytes, stream: int = 1) -> bytes:
    return frame(DATA, data, 0, stream)


def trailers(block: bytes, stream: int = 1) -> bytes:
    return frame(HEADERS, block, END_HEADERS | END_STREAM, stream)


def sent_names(api: Wire) -> set[bytes]:
    """The names of the head that an upstream is sent next, the first on its connection."""
    block = next_of(api, HEADERS, PATIENT).payload
    return {name for name, _ in hpack.Decoder().decode(block, raw=True)}


# -- what may be in them ----------------------------------------------------------------------------------

SMUGGLED: Final = (
    b"content-length content-encoding content-type content-range content-location location link trailer host "
    b"set-cookie set-cookie2 set_cookie www-authenticate proxy-authenticate authentication-info "
    b"cache-control expires age date vary via warning retry-after refresh access-control-allow-origin "
    b"access-control-allow-credentials access-control-expose-headers access_control_allow_origin "
    b"x-presign-error x-presign-request-id x-presign-anything content-security-policy referrer-policy "
    b"x-content-type-options x-frame-options strict-transport-security clear-site-data alt-svc "
    b"service-worker-allowed x-accel-redirect x-sendfile nel report-to x-next-page operation-location "
    b"surrogate-control acme-cdn-cache-control status".split()
)


def test_trailers_smuggle_nothing_that_is_taken_off_a_head(lab: Lab) -> None:
    """A client that adds trailers to the head would see what was removed from that, or rewritten in it."""
    block = STATUS + b"".join(literal(name, b"7") for name in SMUGGLED) + literal(b"x-cost", b"7")
    reply = lab.answered(head(), body(b"message"), trailers(block))
    assert (reply.status, reply.body) == (200, b"message")
    assert reply.trailers == [("grpc-status", "0"), ("x-cost", "7")]


BROKEN: Final = {
    "a pseudo field": literal(b":status", b"200"),
    "a field of one connection": literal(b"connection", b"close"),
    "a transfer coding": literal(b"transfer-encoding", b"chunked"),
    "a name in upper case": literal(b"X-Echo", REAL_SECRET.encode()),
    "a name with a blank": literal(b"x echo", REAL_SECRET.encode()),
    "a name with a line break": literal(b"x\r\necho", REAL_SECRET.encode()),
    "no name": literal(b"", REAL_SECRET.encode()),
    "a value with a line break": literal(b"x-echo", b"a\r\nset-cookie: " + REAL_SECRET.encode()),
    "a value with NUL": literal(b"x-echo", b"\0" + REAL_SECRET.encode()),
    "a value with another control": literal(b"x-echo", b"\x1b[2J" + REAL_SECRET.encode()),
    "too many fields": b"".join(literal(b"a", b"b") for _ in range(MAX_TRAILERS + 1)),
}


@pytest.mark.parametrize("fields", [GRPC, (("te", "trailers"),)], ids=["gRPC", "others"])
@pytest.mark.parametrize("what", BROKEN)
def test_trailers_that_are_no_fields_end_the_answer_as_a_failure(
    lab: Lab, what: str, fields: tuple[tuple[str, str], ...]
) -> None:
    reply = lab.answered(head(), body(b"message"), trailers(STATUS + BROKEN[what]), fields=fields)
    found = dict(reply.trailers)
    assert REAL_SECRET.encode() not in reply.received
    if fields is GRPC:
        assert found == {
            "grpc-status": "14",
            "grpc-message": "The upstream could not be reached or gave no usable answer.",
            "x-presign-error": "upstream",
        }
    else:
        assert found == {}
        assert "RST_STREAM" in reply.detail


def test_a_credential_that_is_split_by_a_continuation_is_masked(lab: Lab) -> None:
    block = STATUS + literal(b"x-echo", f"Bearer {REAL_SECRET}".encode()) + literal(b"x-last", b"1")
    middle = block.index(REAL_SECRET.encode()) + 9
    reply = lab.answered(
        head(),
        body(b"x"),
        frame(HEADERS, block[:middle], END_STREAM, 1),
        frame(CONTINUATION, block[middle : middle + 1], 0, 1),
        frame(CONTINUATION, block[middle + 1 :], END_HEADERS, 1),
    )
    assert reply.trailers == [("grpc-status", "0"), ("x-echo", f"Bearer {STARS}"), ("x-last", "1")]


def test_a_credential_is_masked_in_names_and_in_every_field_of_bytes(lab: Lab) -> None:
    """Base64 in the base64 of a field, of which no form is known, and a text that is none."""
    twice = base64.b64encode(base64.b64encode(REAL_SECRET.encode())).rstrip(b"=")
    named = REAL_SECRET.lower().encode()
    reply = lab.answered(
        head(),
        body(b"x"),
        trailers(
            literal(b"x-twice-bin", twice)
            + literal(b"x-two-bin", b"AAA, " + base64.b64encode(b"-" + REAL_SECRET.encode()))
            + literal(b"x-none-bin", b"%" + REAL_SECRET.encode())
            + literal(named, b"1")
        ),
    )
    found = dict(reply.trailers)
    plain = base64.b64decode(found["x-twice-bin"] + "==")
    assert set(plain[2:-4]) == {0x2A}
    assert base64.b64decode(found["x-two-bin"].partition(",")[2] + "==") == f"-{STARS}".encode()
    assert found["x-none-bin"] == f"%{STARS}"
    assert REAL_SECRET.encode() not in reply.received


# -- where they may be --------------------------------------------------------------------------------------


def test_trailers_before_any_data_end_the_answer(lab: Lab) -> None:
    """What comes behind them belongs to no stream."""
    with lab.client() as client:
        stream, api = lab.asked(client, *GRPC)
        api.send(head() + trailers(STATUS) + body(b"late"))
        reply = client.wait([stream], PATIENT)[0]
        assert (reply.status, reply.body, reply.trailers) == (200, b"", [("grpc-status", "0")])


def test_a_second_head_that_ends_nothing_is_no_answer(lab: Lab) -> None:
    reply = lab.answered(head(), frame(HEADERS, STATUS, END_HEADERS, 1), body(b"x"))
    assert reply.status == 200
    assert dict(reply.trailers)["grpc-status"] == "14"


def test_a_second_answer_behind_the_first_is_not_passed_on(lab: Lab) -> None:
    second = frame(HEADERS, OK + literal(b"x-second", b"1"), END_HEADERS, 1)
    reply = lab.answered(head(), body(b"one"), second, body(b"two"), trailers(STATUS))
    assert "x-second" not in dict([*reply.headers, *reply.trailers])
    assert dict(reply.trailers)["grpc-status"] == "14"


def test_trailers_do_not_hide_that_a_body_is_short(lab: Lab) -> None:
    """h2 counts a body against its length, but not where trailers end it."""
    length = (b"content-length", b"10")
    reply = lab.answered(head(length), body(b"short"), trailers(STATUS))
    assert dict(reply.trailers)["grpc-status"] == "14"
    reply = lab.answered(head(length), body(b"short"), trailers(STATUS), fields=(("te", "trailers"),))
    assert (reply.trailers, reply.detail.startswith("RST_STREAM")) == ([], True)
    reply = lab.answered(head(length), body(b"0123456789"), trailers(STATUS))
    assert reply.trailers == [("grpc-status", "0")]


def test_trailers_do_not_reach_a_client_over_http1(lab: Lab) -> None:
    head_ = [("TE", "trailers"), ("Connection", "te")]
    with Wire(connect(lab.gateway.port, Tls(GATEWAY, lab.gateway.ca, alpn=BOTH))) as client:
        client.send(wire(Grant("conn_h2").target("x"), head_))
        api = accept_h2(lab.hand, lab.context, timeout=PATIENT)
        assert b"te" not in sent_names(api)
        length = (b"content-length", b"2")
        api.send(head(length) + body(b"ok") + trailers(STATUS + literal(b"x-cost", b"7")))
        received = client.read_response(PATIENT)
        assert parse_response(received).body == b"ok"
        assert b"x-cost" not in received
        assert client.is_silent()


def test_a_short_body_ends_the_connection_of_a_client_over_http1(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port, Tls(GATEWAY, lab.gateway.ca, alpn=BOTH))) as client:
        client.send(wire(Grant("conn_h2").target("x"), {"TE": "trailers"}) * 2)
        api = accept_h2(lab.hand, lab.context, timeout=PATIENT)
        next_of(api, HEADERS, PATIENT)
        api.send(head((b"content-length", b"10")) + body(b"short") + trailers(STATUS))
        received = client.read_to_end(PATIENT)
    assert received.endswith(b"short")
    assert received.count(b"HTTP/1.1 ") == 1


# -- how large they may be ----------------------------------------------------------------------------------


def pieces(block: bytes) -> bytes:
    """A block over many frames."""
    size = 16 * 1024
    parts = [block[at : at + size] for at in range(0, len(block), size)]
    found = frame(HEADERS, parts[0], END_STREAM, 1)
    for part in parts[1:-1]:
        found += frame(CONTINUATION, part, 0, 1)
    return found + frame(CONTINUATION, parts[-1], END_HEADERS, 1)


def test_trailers_of_nearly_64_kib_pass(lab: Lab) -> None:
    block = STATUS + literal(b"x-large", b"x" * (MAX_HEAD - 400))
    reply = lab.answered(head(), body(b"x"), pieces(block))
    assert len(dict(reply.trailers)["x-large"]) == MAX_HEAD - 400


@pytest.mark.parametrize("how", ["in full", "out of the table"])
def test_larger_trailers_end_the_answer(lab: Lab, how: str) -> None:
    """One byte of a block may stand for four thousand of an earlier one (RFC 7541, 6.1)."""
    if how == "in full":
        block = pieces(STATUS + literal(b"x-large", b"x" * MAX_HEAD))
    else:
        block = trailers(STATUS + literal(b"x-large", b"x" * 4000, kept=True) + NEWEST * 1000)
    reply = lab.answered(head(), body(b"x"), block)
    assert reply.status == 200
    assert dict(reply.trailers)["grpc-status"] == "14"


# -- what clients try -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        (("te", "trailers, chunked"),),
        (("te", "chunked"),),
        (("te", "trailers;q=0.5"),),
        (("te", "trailers"), ("te", "gzip")),
    ],
)
def test_te_with_anything_else_reaches_no_upstream(lab: Lab, fields: tuple[tuple[str, str], ...]) -> None:
    with lab.client() as client:
        stream = lab.ask(client, *fields)
        reply = client.wait([stream], PATIENT)[0]
    assert reply.status is None
    assert not lab.hand.waits()


def test_te_twice_is_not_passed_on(lab: Lab) -> None:
    with lab.client() as client:
        target = Grant("conn_h2").target("x")
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        stream = client.begin([*pseudo, ("te", "trailers"), ("te", "trailers")])
        api = accept_h2(lab.hand, lab.context, timeout=PATIENT)
        assert b"te" not in sent_names(api)
        api.send(head() + trailers(STATUS))
        assert client.wait([stream], PATIENT)[0].trailers == []


def test_a_client_that_does_not_ask_for_trailers_gets_none(lab: Lab) -> None:
    reply = lab.answered(head(), body(b"x"), trailers(STATUS), fields=(("x", "y"),))
    assert (reply.status, reply.body, reply.trailers, reply.detail) == (200, b"x", [], "")


def test_trailers_of_a_request_go_nowhere(lab: Lab) -> None:
    """They were not verified, and nothing was taken off them."""
    with lab.client() as client:
        target = Grant("conn_h2").target("x")
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        stream = client.begin([*pseudo, *GRPC], end=False)
        api = accept_h2(lab.hand, lab.context, timeout=PATIENT)
        next_of(api, HEADERS, PATIENT)
        client.send(stream, b"message")
        client._h2.send_headers(stream, [(b"authorization", b"Bearer mine")], end_stream=True)
        client._flush()
        assert next_of(api, DATA, PATIENT).payload == b"message"
        last = next_of(api, DATA, PATIENT)
        assert (last.payload, last.flags & END_STREAM) == (b"", END_STREAM)
        api.send(head() + trailers(STATUS))
        assert client.wait([stream], PATIENT)[0].trailers == [("grpc-status", "0")]


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y"])
def test_a_refused_call_gets_a_status_and_no_body(lab: Lab, kind: str) -> None:
    with lab.client() as client:
        stream = lab.ask(client, ("content-type", kind), ("te", "trailers"), expires=LONG_AGO)
        reply = client.wait([stream], PATIENT)[0]
    assert (reply.status, reply.body, reply.ended) == (200, b"", True)
    assert reply.header("grpc-status") == "7"
    assert reply.header("content-type") == "application/grpc"
    assert reply.header("x-presign-error") == "expired"
    assert not lab.hand.waits()
    assert eventually(lambda: lab.line()["status"] == 403, PATIENT)


@pytest.mark.parametrize(
    "kind", ["application/grpc-web", "application/grpc-web+proto", "application/grpcx", "application/json"]
)
def test_what_is_no_call_is_refused_as_http_has_it(lab: Lab, kind: str) -> None:
    with lab.client() as client:
        stream = lab.ask(client, ("content-type", kind), ("te", "trailers"), expires=LONG_AGO)
        reply = client.wait([stream], PATIENT)[0]
    assert reply.status == 403
    assert reply.header("grpc-status") is None
    assert reply.body.startswith(b'{"error"')


def test_a_call_over_http1_is_refused_as_http_has_it(lab: Lab) -> None:
    """No status 200 where nothing is read as gRPC: a client would take it for an answer."""
    target = Grant("conn_plain", expires=LONG_AGO).target("x")
    with Wire(connect(lab.gateway.port)) as client:
        client.send(wire(target, {"Content-Type": "application/grpc", "TE": "trailers"}, "POST", body=b"x"))
        response = parse_response(client.read_response(PATIENT))
    assert (response.status, response.header("grpc-status")) == (403, None)


def test_a_call_with_a_head_that_is_too_large_gets_a_status(lab: Lab) -> None:
    with lab.client() as client:
        large = tuple((f"x-{number}", "x" * 1000) for number in range(70))
        stream = lab.ask(client, *GRPC, *large)
        reply = client.wait([stream], PATIENT)[0]
    assert (reply.status, reply.header("grpc-status"), reply.body) == (200, "8", b"")
    assert not lab.hand.waits()


def test_compressed_messages_are_refused_as_nothing_could_be_masked_in_them(lab: Lab) -> None:
    reply = lab.answered(head((b"grpc-encoding", b"gzip")), body(b"x"), trailers(STATUS))
    assert (reply.header("grpc-status"), reply.body) == ("14", b"")
    reply = lab.answered(head((b"grpc-encoding", b"identity")), body(b"x"), trailers(STATUS))
    assert (reply.body, reply.trailers) == (b"x", [("grpc-status", "0")])


def test_an_upstream_is_not_asked_for_compressed_messages(lab: Lab) -> None:
    with lab.client() as client:
        lab.ask(client, *GRPC, ("grpc-accept-encoding", "gzip"), ("grpc-encoding", "identity"))
        api = accept_h2(lab.hand, lab.context, timeout=PATIENT)
        names = sent_names(api)
    assert {b"te", b"grpc-encoding"} <= names
    assert b"grpc-accept-encoding" not in names
