"""A page of another origin: its preflight, its request and its refusal, on the wire, on every way."""

from __future__ import annotations

import json

import pytest

from support.asking import SECRET, Grant, ask, code
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response
from support.recorder import Recorder

APP, OTHER = "https://app.example.com", "https://evil.example.com"
CORS = {"origins": [APP], "headers": ["X-Mine"], "expose": ["X-Total"], "max_age": "5m"}


@pytest.fixture(scope="module", params=WAYS)
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": {
            "conn": bearer_connection(upstream.url, SECRET, cors=CORS),
            "conn_plain": bearer_connection(upstream.url, SECRET),
            "conn_dead": bearer_connection("http://127.0.0.1:9", SECRET, cors=CORS),
            "conn_few": bearer_connection(
                upstream.url, SECRET, cors=CORS, limits=[{"rate": "1/hour", "burst": 1}]
            ),
        },
        "limits": {"store": "memory://"},
        "audit": {"file": "audit.jsonl"},
    }
    return module_gateway(config, *WAYS[request.param])


def preflight(gateway: Mitm, target: str, origin: str = APP) -> Response:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-mine,x-presign-signature",
    }
    return ask(gateway.port, target, asked, "OPTIONS")


@pytest.mark.parametrize("target", ["/api/proxy/conn/v1/echo", Grant("conn").target("v1/echo"), "/v1/echo"])
def test_a_preflight_is_answered_here_and_reaches_no_upstream(
    gateway: Mitm, upstream: Recorder, target: str
) -> None:
    upstream.clear()
    before = audit_lines(gateway.directory / "audit.jsonl")
    response = preflight(gateway, target)
    assert (response.status, response.body) == (204, b"")
    assert response.header("access-control-allow-origin") == APP
    assert "POST" in (response.header("access-control-allow-methods") or "")
    assert response.header("access-control-allow-headers") == "content-type, x-mine, x-presign-signature"
    assert response.header("access-control-max-age") == "300"
    assert (response.header("x-presign-request-id") or "").startswith("req_")
    assert not upstream.requests
    assert audit_lines(gateway.directory / "audit.jsonl") == before


def test_a_preflight_of_another_page_is_refused(gateway: Mitm, upstream: Recorder) -> None:
    upstream.clear()
    for target in ("/api/proxy/conn/v1/echo", "/api/proxy/conn_plain/v1/echo", "/api/proxy/conn_none/v1"):
        origin = OTHER if "conn/" in target else APP
        response = preflight(gateway, target, origin)
        assert code(response) == (400, "malformed")
        assert (response.header("access-control-allow-methods")) is None
    assert not upstream.requests


def test_a_preflight_to_a_presigned_url_by_another_page_is_named_in_the_audit_log_alone(
    gateway: Mitm,
) -> None:
    response = preflight(gateway, Grant("conn", methods="GET").target("v1/echo"), OTHER)
    assert code(response) == (403, "method_not_allowed")
    assert b"preflight" not in response.body
    request_id = response.header("x-presign-request-id")

    def details() -> list[str]:
        lines = audit_lines(gateway.directory / "audit.jsonl")
        return [one["detail"] for one in lines if one["request_id"] == request_id]

    assert eventually(lambda: details() != [])
    assert "a preflight of a page whose origin cors.origins does not list" in details()[0]


def test_a_page_reads_the_answer_and_another_page_does_not(gateway: Mitm, upstream: Recorder) -> None:
    target = Grant("conn").target("v1/echo")
    for origin, expected in ((APP, APP), (OTHER, None)):
        response = ask(gateway.port, target, {"Origin": origin}, "POST", body=b'{"a": 1}')
        assert response.status == 200
        assert response.header("access-control-allow-origin") == expected
        assert ("vary", "Origin") in [(name.lower(), value) for name, value in response.headers]
    response = ask(gateway.port, Grant("conn_plain").target("v1/echo"), {"Origin": APP})
    assert response.header("access-control-allow-origin") is None


def test_a_page_that_calls_the_api_through_its_proxy_is_answered_alike(
    gateway: Mitm, upstream: Recorder
) -> None:
    upstream.clear()
    url, host = f"{upstream.url}/v1/echo", upstream.url.removeprefix("http://")
    asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    assert ask(gateway.port, url, asked, "OPTIONS", host).status == 204
    assert code(ask(gateway.port, url, asked | {"Origin": OTHER}, "OPTIONS", host)) == (403, "unsigned")
    assert not upstream.requests
    response = ask(gateway.port, url, {"Origin": APP, **Grant("conn").headers}, host=host)
    assert (response.status, response.header("access-control-allow-origin")) == (200, APP)
    response = ask(gateway.port, url, {"Origin": APP}, host=host)
    assert code(response) == (403, "unsigned")
    assert response.header("access-control-allow-origin") == APP


def test_a_page_reads_every_refusal(gateway: Mitm) -> None:
    few = Grant("conn_few").target("v1/echo")
    assert ask(gateway.port, few, {"Origin": APP}).status == 200
    for target, expected in {
        Grant("conn", expires=1_700_000_000).target("v1/echo"): (403, "expired"),
        Grant("conn", secret="sk_another_0123456789abcdef").target("v1/echo"): (403, "invalid"),
        Grant("conn_dead").target("v1/echo"): (502, "upstream"),
        few: (429, "limited"),
        "/nothing": (404, "not_found"),
    }.items():
        response = ask(gateway.port, target, {"Origin": APP})
        assert code(response) == expected
        assert response.header("access-control-allow-origin") == APP
        assert "X-Presign-Error" in (response.header("access-control-expose-headers") or "")
        assert json.loads(response.body)["error"]["code"] == expected[1]
        assert ask(gateway.port, target, {"Origin": OTHER}).header("access-control-allow-origin") is None


def test_a_kept_connection_serves_on_after_a_preflight(gateway: Mitm, upstream: Recorder) -> None:
    target = Grant("conn").target("v1/echo")
    with H2Client.through(gateway.port, "presign.local", cafile=gateway.ca) as client:
        for _ in range(2):
            fields = [(":method", "OPTIONS"), (":scheme", "https"), (":authority", "presign.local")]
            fields += [(":path", target), ("origin", APP), ("access-control-request-method", "PUT")]
            reply = client.request(fields)
            assert (reply.status, reply.header("access-control-allow-methods")) == (204, "PUT")
            fields[0] = (":method", "GET")
            reply = client.request(fields)
            assert (reply.status, reply.header("access-control-allow-origin")) == (200, APP)
    assert upstream.requests[-1].header("authorization") == f"Bearer {REAL_SECRET}"
