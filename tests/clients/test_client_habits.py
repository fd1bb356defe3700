"""What clients of other people do, as they do it: each on the express lane and on the flow path."""

import base64
import json
import re
from typing import Any

import pytest

from presign_proxy.explain.explain import explain
from presign_proxy.explain.explanation import render
from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Given, Grant, ask, code, wire
from support.audit_log import audit_lines
from support.deciding import NOW, registry, request, signed
from support.gateways import MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import ConnectRefused, Response, connect_tls, exchange, parse_response
from support.recorder import Recorder

HOST = "api.tls.test"
REGISTRY = "registry.tls.test"
API = Grant("conn_api")
GATEWAY = "presign.local"


def connections(upstream: Recorder, tls_upstream: Recorder) -> dict[str, Any]:
    at = f"https://{HOST}:{tls_upstream.tls_port}"
    header = {"type": "header", "headers": {"X-Api-Key": REAL_SECRET}}
    return {
        "conn_api": bearer_connection(at, SECRET),
        "conn_plain": bearer_connection(upstream.url, SECRET),
        "conn_registry": bearer_connection(
            f"https://{REGISTRY}:{tls_upstream.tls_port}", SECRET, challenge="basic"
        ),
        "conn_key": bearer_connection(upstream.url, SECRET) | {"auth": header},
    }


@pytest.fixture(scope="module", params=["lane", "flows"])
def gateway(
    request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder
) -> Mitm:
    """One that serves nothing but presigned requests, on the way that the test is for."""
    config = {
        "gateway": {"hosts": [GATEWAY], "unsigned": "deny"},
        "connections": connections(upstream, tls_upstream),
        "audit": {"file": "audit.jsonl"},
    }
    return module_gateway(config, *WAYS[request.param], dns={HOST: ["127.0.0.1"], REGISTRY: ["127.0.0.1"]})


def through_proxy(
    gateway: Mitm,
    tls_upstream: Recorder,
    path: str,
    headers: Given = (),
    method: str = "GET",
    body: bytes = b"",
) -> Response:
    """CONNECT to the API, TLS in it, and one request: what a client does that has HTTPS_PROXY set."""
    port = tls_upstream.tls_port
    with connect_tls(gateway.port, HOST, port, cafile=gateway.ca) as sock:
        asked = wire(path, headers, method, f"{HOST}:{port}", body)
        return parse_response(exchange(sock, asked), method == "HEAD")


def audited(gateway: Mitm, response: Response) -> dict[str, Any]:
    """The audit line of a response."""
    return line_of(gateway, response.header("x-presign-request-id"))


def line_of(gateway: Mitm, wanted: str | None) -> dict[str, Any]:
    log = gateway.directory / "audit.jsonl"

    def found() -> list[dict[str, Any]]:
        lines = audit_lines(log)
        return [line for line in lines if line["request_id"] == wanted]

    assert eventually(lambda: len(found()) == 1)
    return found()[0]


# -- upgrades -----------------------------------------------------------------------------------------

WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize("offer", ["websocket", "WebSocket", "h2c, websocket", "websocket, h2c"])
def test_a_client_that_asks_for_websocket_is_told_to_use_http(
    offer: str, gateway: Mitm, upstream: Recorder
) -> None:
    asked = WEBSOCKET | {"Upgrade": offer}
    response = ask(gateway.port, Grant("conn_plain").target("v1/realtime"), asked)
    assert code(response) == (426, "upgrade_required")
    assert "WebSocket" in json.loads(response.body)["message"]
    assert response.header("upgrade") == "HTTP/1.1"
    assert not upstream.touched


@pytest.mark.parametrize("offer", ["TLS/1.2", "h2c", "h2, h2c", "SPDY/3.1"])
def test_an_offer_of_another_protocol_is_ignored(offer: str, gateway: Mitm, upstream: Recorder) -> None:
    asked = {"Connection": "Upgrade", "Upgrade": offer}
    response = ask(gateway.port, Grant("conn_plain").target("v1/models"), asked)
    assert response.status == 200
    (seen,) = upstream.wait_for(1)
    assert not seen.all("upgrade")
    assert not any("upgrade" in value.lower() for value in seen.all("connection"))


def test_an_unsigned_client_that_asks_for_websocket_learns_no_more_than_others(gateway: Mitm) -> None:
    refused = ask(gateway.port, "/api/proxy/conn_plain/v1", WEBSOCKET)
    assert refused.status == 400
    expired = Grant("conn_plain", expires=1).target("v1/realtime")
    assert code(ask(gateway.port, expired, WEBSOCKET)) == (403, "expired")


# -- keys ---------------------------------------------------------------------------------------------


def test_a_client_that_takes_a_host_and_a_key_only_is_served(gateway: Mitm, upstream: Recorder) -> None:
    key = {"Authorization": f"Bearer {Grant('conn_plain', 'POST', 'v1/charges').token}"}
    for path, expected in (("/v1/charges?a=1", (200, None)), ("/v1/refunds", (403, "path_not_allowed"))):
        assert code(ask(gateway.port, path, key, "POST", body=b"{}")) == expected
    (seen,) = upstream.wait_for(1)
    assert (seen.target, seen.all("authorization")) == ("/v1/charges?a=1", [f"Bearer {REAL_SECRET}"])


def test_a_client_that_sends_its_key_in_two_headers_is_served(gateway: Mitm, upstream: Recorder) -> None:
    token = Grant("conn_key").token
    both = {"X-Api-Key": token, "Authorization": f"Bearer {token}"}
    assert ask(gateway.port, "/v1/messages", both).status == 200
    (seen,) = upstream.wait_for(1)
    assert (seen.all("x-api-key"), seen.all("authorization")) == ([REAL_SECRET], [])
    other = both | {"Authorization": f"Bearer {Grant('conn_key', paths='v1/*').token}"}
    assert code(ask(gateway.port, "/v1/messages", other)) == (400, "malformed")
    assert len(upstream.requests) == 1


# -- redirects ----------------------------------------------------------------------------------------


@pytest.fixture
def redirecting(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Answer(302, (("Location", "https://objects.tls.test/asset"),))
    monkeypatch.setitem(BEHAVIOURS, "asset", lambda request: away)


@pytest.mark.usefixtures("redirecting")
def test_a_download_behind_a_redirect_works_where_the_gateway_is_the_proxy(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    for headers in (API.headers, {"Authorization": f"Bearer {API.token}"}):
        response = through_proxy(gateway, tls_upstream, "/v1/asset", headers)
        assert (response.status, response.header("location")) == (302, "https://objects.tls.test/asset")


@pytest.mark.usefixtures("redirecting")
def test_a_redirect_that_would_take_a_presign_away_is_refused_by_its_name(
    gateway: Mitm, upstream: Recorder
) -> None:
    plain = Grant("conn_plain")
    for target, headers in (
        ("/api/proxy/conn_plain/v1/asset", plain.headers),
        ("/v1/asset", {"Authorization": f"Bearer {plain.token}"}),
    ):
        response = ask(gateway.port, target, headers)
        assert code(response) == (403, "redirect_not_allowed")
        assert "redirects to another origin" in json.loads(response.body)["message"]
        assert response.header("location") is None
        line = audited(gateway, response)
        assert (line["code"], line["status"], line["upstream_status"]) == ("redirect_not_allowed", 403, 302)
        assert "another origin" in line["detail"]


# -- names with a slash in them -----------------------------------------------------------------------


def test_a_client_is_told_which_key_lets_its_encoded_slash_through(gateway: Mitm, upstream: Recorder) -> None:
    for path in ("v4/projects/group%2Fname", "v4/projects/group%2fname"):
        response = ask(gateway.port, Grant("conn_plain").target(path))
        assert code(response) == (403, "path_not_allowed")
        assert "allow_encoded_slash" in json.loads(response.body)["message"]
        assert "allow_encoded_slash" in audited(gateway, response)["detail"]
    for path in ("v4/a%2F..%2Fb", "v4/%2F%2Fb", "v4/a%5Cb", "v4/a%252Fb"):  # which no key lets through
        response = ask(gateway.port, Grant("conn_plain").target(path))
        assert code(response) == (403, "path_not_allowed")
        assert "allow_encoded_slash" not in json.loads(response.body)["message"]
    assert not upstream.touched


def test_explain_names_the_key_that_lets_an_encoded_slash_through() -> None:
    found = explain(registry(), request(signed("v1/group%2Fname")), NOW)
    assert found.verdict.code == "path_not_allowed"
    assert "allow_encoded_slash" in found.verdict.message
    assert any("allow_encoded_slash" in line for line in render(found))


# -- clients that wait to be asked --------------------------------------------------------------------


def test_a_client_that_waits_for_a_challenge_gets_one_and_is_served(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    """As git and docker: without a credential first, then, on the same connection, with it."""
    port = tls_upstream.tls_port
    named = f"{REGISTRY}:{port}"
    basic = base64.b64encode(f"user:{Grant('conn_registry').token}".encode()).decode()
    with connect_tls(gateway.port, REGISTRY, port, cafile=gateway.ca) as sock:
        asked = parse_response(exchange(sock, wire("/v2/", host=named)))
        assert code(asked) == (401, "unsigned")
        assert asked.header("www-authenticate") == 'Basic realm="presign"'
        assert not tls_upstream.requests
        answer = parse_response(exchange(sock, wire("/v2/", {"Authorization": f"Basic {basic}"}, host=named)))
    assert answer.status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert seen.all("authorization") == [f"Bearer {REAL_SECRET}"]


def test_nobody_is_challenged_who_sends_something_else(gateway: Mitm, tls_upstream: Recorder) -> None:
    port = tls_upstream.tls_port
    named = f"{REGISTRY}:{port}"
    for headers, expected in (
        ({"Authorization": "Basic dXNlcjpwYXNz"}, (401, "unsigned")),  # not a presign: asked again
        ({"Authorization": "Bearer ps1_x"}, (400, "malformed")),
        (Grant("conn_registry", secret="another secret of nobody").headers, (403, "invalid")),
        (Grant("conn_registry", expires=1).headers, (403, "expired")),
    ):
        with connect_tls(gateway.port, REGISTRY, port, cafile=gateway.ca) as sock:
            answer = parse_response(exchange(sock, wire("/v2/", headers, host=named)))
        assert code(answer) == expected
        assert (answer.header("www-authenticate") is not None) == (expected[0] == 401)
    for path, host in (("/v2/", HOST), ("/elsewhere", HOST)):  # of a connection that asks for nothing
        with connect_tls(gateway.port, host, port, cafile=gateway.ca) as sock:
            answer = parse_response(exchange(sock, wire(path, host=f"{host}:{port}")))
        assert code(answer) == (403, "unsigned")
        assert answer.header("www-authenticate") is None
    assert code(ask(gateway.port, "/elsewhere")) == (404, "not_found")
    assert not tls_upstream.requests


# -- tunnels ------------------------------------------------------------------------------------------


def test_a_client_whose_tunnel_is_refused_can_show_why_and_the_operator_where_it_led(
    gateway: Mitm,
) -> None:
    with pytest.raises(ConnectRefused) as refused:
        connect_tls(gateway.port, "objects.elsewhere.test", 8443)
    status = refused.value.received.partition(b"\r\n")[0]
    assert status == b"HTTP/1.1 403 Forbidden: no connection of the presign gateway leads there"
    found = re.search(rb"X-Presign-Request-Id: (\S+)", refused.value.received, re.IGNORECASE)
    assert found is not None
    line = line_of(gateway, found[1].decode())
    assert (line["code"], line["method"], line["status"]) == ("unsigned", "CONNECT", 403)
    assert line["detail"] == "CONNECT to objects.elsewhere.test:8443"
