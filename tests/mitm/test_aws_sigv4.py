"""Requests to AWS on both paths: signed as they leave, over exactly what arrives, and never sent unsigned."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, code, wire
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, exchange, parse_response, send_raw
from support.recorder import Recorder
from support.seen import Seen
from support.sigv4 import PIECES, UNSIGNED, Sent, Unverifiable, Verified, verify

KEY_ID, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjR3ALsession//////////wEaCXVzLWVhc3QtMSJH=="
MOST = 200_000
BEDROCK, BUCKET, PLAIN_S3, LIMITED = (
    Grant(f"conn_{name}") for name in ("bedrock", "bucket", "minio", "limited")
)


def connection(upstream: str, service: str, **more: Any) -> dict[str, Any]:
    auth = {
        "type": "aws_sigv4",
        "access_key_id": KEY_ID,
        "secret_access_key": KEY,
        "session_token": TOKEN,
        "service": service,
        "region": "eu-west-1",
        "max_body": MOST,
    }
    timeouts = {"connect": "3s", "response": "5s", "body": "2s"}
    return {
        "upstream": upstream,
        "auth": auth,
        "signing_keys": [{"secret": SECRET}],
        "timeouts": timeouts,
    } | more


@pytest.fixture(scope="module", params=WAYS)
def gateway(request: Any, module_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder) -> Mitm:
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {
            "conn_bedrock": connection(upstream.url, "bedrock"),
            "conn_limited": connection(upstream.url, "bedrock", max_uses=1),
            "conn_minio": connection(upstream.url, "s3"),
            "conn_bucket": connection(f"https://api.tls.test:{tls_upstream.tls_port}", "s3"),
        },
        "audit": {"file": "audit.jsonl"},
    }
    dumps = () if request.param == "lane" else ("-w", "flows.mitm", "--set", "flow_detail=4")
    made = module_gateway(config, *WAYS[request.param], *dumps, dns={"api.tls.test": ["127.0.0.1"]})
    made.way = request.param  # type: ignore[attr-defined]
    return made


def checked(seen: Seen, *, https: bool = False) -> Verified:
    """What a server of AWS makes of a request as it arrived, raw."""
    fields = [
        (name.decode("latin-1"), value.decode("latin-1").strip())
        for name, _, value in (line.partition(b":") for line in seen.raw.split(b"\r\n")[1:] if line)
    ]
    if not seen.raw.startswith(f"{seen.method} {seen.target} ".encode("latin-1")):
        raise AssertionError(seen.raw)
    body = seen.body
    assert body is not None or seen.length
    sent = Sent(seen.method, seen.target, fields, body or b"")
    if body is None:  # too large to be kept: by its hash
        (named,) = seen.all("x-amz-content-sha256")
        assert named == seen.sha256
        sent = sent._replace(body=b"")
        return verify(sent, {KEY_ID: KEY}, time.time(), strict=False, https=https)
    return verify(sent, {KEY_ID: KEY}, time.time(), https=https)


OF_CLIENT = "AWS4-HMAC-SHA256 Credential=mine/20200101/b/c/aws4_request, SignedHeaders=host, Signature=00"
HEADS = [
    ("GET", "x", []),
    ("HEAD", "x", []),
    ("GET", "model/anthropic.claude-v2:1/invoke", []),
    ("GET", "a%20b/ü/~!$&'()*,;=@/%C3%BC", []),
    ("GET", "x?b=2&a=1&a=0&flag&empty=&plus=a+b&lone=%&enc=%2B%20", []),
    ("GET", "x?=1&&&a=%c3%bc", []),
    ("GET", "x", [("X-Amz-Meta-A", "1"), ("x-amz-meta-a", "2"), ("X-AMZ-META-A", "0")]),
    ("GET", "x", [("X-Amz-Meta-A", "a   b"), ("X-Amz-Meta-B", ""), ("X-Amz-Target", "T.Op")]),
    ("GET", "x", [("X-Amz-Date", "20200101T000000Z"), ("X_Amz_Date", "2"), ("x-amz-security-token", "mine")]),
    (
        "GET",
        "x",
        [("Authorization", "AWS4-HMAC-SHA256 Credential=a/20200101/b/c/aws4_request, SignedHeaders=host")],
    ),
    (
        "GET",
        "x",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==")],
    ),
    ("GET", "x", [("X-Amz-Content-Sha256", "0" * 64), ("Date", "Thu, 01 Jan 2026 00:00:00 GMT")]),
    ("DELETE", "x", []),
]


@pytest.mark.parametrize("grant", [BEDROCK, PLAIN_S3], ids=["bedrock", "s3"])
@pytest.mark.parametrize("number", range(len(HEADS)))
def test_what_arrives_is_what_was_signed(
    gateway: Mitm, upstream: Recorder, grant: Grant, number: int
) -> None:
    method, path, fields = HEADS[number]
    assert ask(gateway.port, grant.target(path), fields, method=method).status == 200
    (seen,) = upstream.wait_for(1)
    found = checked(seen)
    assert found[:2] == ("bedrock" if grant is BEDROCK else "s3", "eu-west-1")
    assert b"mine" not in seen.raw
    assert seen.all("x-amz-security-token") == [TOKEN]


@pytest.mark.parametrize("size", [1, 1000, MOST])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_is_read_and_hashed_before_anything_is_sent_and_arrives_with_its_length(
    gateway: Mitm, upstream: Recorder, size: int, framing: str
) -> None:
    body = os.urandom(size)
    target = BEDROCK.target("model/m/invoke")
    if framing == "length":
        head, framed = wire(target, [("Content-Length", str(size))], method="POST"), body
    else:
        head = wire(target, [("Transfer-Encoding", "chunked")], method="POST")
        pieces = [body[at : at + 30_000] for at in range(0, size, 30_000)]
        framed = (
            b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-T: 1\r\n\r\n"
        )
    with connect(gateway.port) as client:
        client.sendall(head + framed[:-1])
        time.sleep(0.2)
        assert not upstream.touched  # not even a connection
        assert parse_response(exchange(client, framed[-1:])).status == 200
        # The next request on the same connection is read from where this one ended.
        assert parse_response(exchange(client, wire(BEDROCK.target("next")))).status == 200
    seen, after = upstream.wait_for(2)
    assert seen.sha256 == hashlib.sha256(body).hexdigest()
    assert checked(seen).payload == seen.sha256
    assert seen.all("content-length") == [str(size)]
    assert not seen.all("transfer-encoding")
    assert checked(after)


def test_an_empty_body_in_chunks_is_signed_as_none(gateway: Mitm, upstream: Recorder) -> None:
    head = wire(BEDROCK.target("x"), [("Transfer-Encoding", "chunked")], method="POST")
    assert parse_response(send_raw(gateway.port, head + b"0\r\n\r\n")).status == 200
    (seen,) = upstream.wait_for(1)
    assert checked(seen).payload == hashlib.sha256().hexdigest()
    assert seen.body == b""


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_that_is_too_large_is_answered_413_and_nothing_is_sent(
    gateway: Mitm, upstream: Recorder, framing: str
) -> None:
    if framing == "length":
        raw = wire(BEDROCK.target("x"), [("Content-Length", str(MOST + 1))], method="POST")
    else:
        raw = wire(BEDROCK.target("x"), [("Transfer-Encoding", "chunked")], method="POST")
        raw += b"%x\r\n" % (MOST + 1) + b"a" * (MOST + 1)
    found = parse_response(send_raw(gateway.port, raw))
    assert code(found) == (413, "too_large")
    assert not upstream.touched


def test_an_announced_body_that_is_too_large_uses_up_no_use_and_gets_no_continue(
    gateway: Mitm, upstream: Recorder
) -> None:
    path = f"once-{gateway.way.replace(' ', '-')}"  # type: ignore[attr-defined]
    grant = Grant("conn_limited", paths=path)
    fields = [("Content-Length", str(MOST + 1)), ("Expect", "100-continue")]
    found = send_raw(gateway.port, wire(grant.target(path), fields, method="POST"))
    assert found.startswith(b"HTTP/1.1 413 ")
    assert ask(gateway.port, grant.target(path), method="POST", body=b"1").status == 200
    assert code(ask(gateway.port, grant.target(path), method="POST", body=b"1")) == (429, "limited")
    assert len(upstream.wait_for(1)) == 1


def test_a_client_that_expects_to_be_told_is_told_to_go_on(gateway: Mitm, upstream: Recorder) -> None:
    fields = [("Content-Length", "4"), ("Expect", "100-continue")]
    with connect(gateway.port) as client:
        client.sendall(wire(BEDROCK.target("x"), fields, method="POST"))
        assert client.recv(25, socket.MSG_WAITALL).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert not upstream.touched
        assert parse_response(exchange(client, b"data")).status == 200
    (seen,) = upstream.wait_for(1)
    assert checked(seen)
    assert (seen.body, seen.all("expect")) == (b"data", [])


def test_http2_without_a_length_is_signed_with_one(gateway: Mitm, upstream: Recorder) -> None:
    head = [(":method", "POST"), (":scheme", "https"), (":authority", "presign.local")]
    with H2Client.direct(gateway.port, "presign.local") as client:
        for body in (b"", b"x" * 70_000, b"y"):
            reply = client.request([*head, (":path", BEDROCK.target("h2"))], body)
            assert reply.status == 200
        reply = client.request([*head, (":path", BEDROCK.target("h2"))], b"z" * (MOST + 1))
        assert (reply.status, reply.header("x-presign-error")) == (413, "too_large")
    seen = upstream.wait_for(3)
    assert [one.length for one in seen] == [0, 70_000, 1]
    for one in seen:
        assert checked(one)
        assert one.all("content-length") == [str(one.length)]


def test_a_body_that_stops_is_answered_408_and_one_that_ends_early_is_not_sent(
    gateway: Mitm, upstream: Recorder
) -> None:
    head = wire(BEDROCK.target("x"), [("Content-Length", "10")], method="POST")
    found = parse_response(send_raw(gateway.port, head + b"half"))
    assert code(found) == (408, "timeout")
    with connect(gateway.port) as client:
        client.sendall(head + b"half")
    time.sleep(0.3)
    assert not upstream.touched


def test_uploads_to_s3_over_tls_stream_and_only_their_head_is_signed(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    size = 3_000_000  # far more than may be held
    head = wire(BUCKET.target("bucket/key"), [("Content-Length", str(size))], method="PUT")
    with connect(gateway.port) as client:
        client.sendall(head + b"a" * 100_000)
        (seen,) = tls_upstream.wait_for_heads(1)
        assert not seen.complete
        assert parse_response(exchange(client, b"a" * (size - 100_000))).status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert seen.length == size
    fields = [(name, value) for name, value in seen.headers]
    found = verify(Sent(seen.method, seen.target, fields), {KEY_ID: KEY}, time.time())
    assert found.payload == UNSIGNED


def test_s3_chunks_of_a_client_are_passed_on_as_they_are(gateway: Mitm, tls_upstream: Recorder) -> None:
    body = b"4\r\ndata\r\n0\r\nx-amz-checksum-crc32:rfPyYQ==\r\n\r\n"
    fields = [
        ("Content-Encoding", "aws-chunked"),
        ("X-Amz-Content-Sha256", PIECES),
        ("X-Amz-Trailer", "x-amz-checksum-crc32"),
        ("X-Amz-Decoded-Content-Length", "4"),
    ]
    assert ask(gateway.port, BUCKET.target("bucket/key"), fields, method="PUT", body=body).status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert seen.body == body
    assert checked(seen, https=True).payload == PIECES
    signed = [(name, value) for name, value in fields if name != "X-Amz-Content-Sha256"]
    signed.append(("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"))
    found = ask(gateway.port, BUCKET.target("bucket/key"), signed, method="PUT", body=body)
    assert code(found) == (400, "malformed")
    assert b"piece by piece" in found.body


def test_many_bodies_at_once_are_not_mixed_up(gateway: Mitm, upstream: Recorder) -> None:
    def one(number: int) -> int:
        body = json.dumps({"number": number, "text": "x" * (number * 700)}).encode()
        return ask(gateway.port, BEDROCK.target(f"n{number}"), method="POST", body=body).status

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(one, range(64))) == {200}
    for seen in upstream.wait_for(64):
        assert checked(seen)
        assert json.loads(seen.body or b"")["number"] == int(seen.target[2:])


def test_an_echoed_secret_is_masked_and_stands_in_no_file(
    gateway: Mitm, upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(request: Seen) -> Answer:
        said = f"{KEY} {request.header('x-amz-security-token')} {KEY_ID}"
        return Answer(200, (("Content-Type", "text/plain"), ("X-Said", said)), said.encode())

    monkeypatch.setitem(BEHAVIOURS, "says", echo)
    answer = ask(gateway.port, BEDROCK.target("says"), method="POST", body=b"{}")
    assert answer.status == 200
    traces = Traces([KEY, TOKEN])
    assert KEY_ID.encode() in answer.body
    assert not traces.found_in(answer.body + str(answer.headers).encode())
    path = gateway.directory / "audit.jsonl"
    assert eventually(lambda: any(line["path"] == "/says" for line in audit_lines(path) if line.get("path")))
    for file in sorted(Path(gateway.directory).rglob("*")):
        if file.is_file() and file.name != "config.yaml" and "confdir" not in str(file):
            assert not traces.found_in(file.read_bytes()), file


def test_a_signature_is_not_good_for_anything_else(gateway: Mitm, upstream: Recorder) -> None:
    """That the verifier would notice: it is the judge of all tests here."""
    assert ask(gateway.port, BEDROCK.target("x"), method="POST", body=b"{}").status == 200
    (seen,) = upstream.wait_for(1)
    seen.raw = seen.raw.replace(b"POST /x ", b"POST /y ")
    seen.target = "/y"
    with pytest.raises(Unverifiable):
        checked(seen)
