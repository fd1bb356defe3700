"""Hosts that a connection lists in `also`: object stores behind a redirect, which are asked without a presign
where everything else that is not signed is denied. On the express lane and on the flow path.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from presign_proxy.core.connection import Connection
from presign_proxy.core.decision import Deny, PassThrough
from presign_proxy.http.message import Origin
from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, code, wire
from support.audit_log import audit_lines
from support.byhand import Wire
from support.deciding import ask, connection, registry, request
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.process import free_port
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import ConnectRefused, Response, connect_tls, exchange, parse_response
from support.recorder import Recorder

API, OBJECTS, INSIDE, REBINDS = "api.tls.test", "objects.tls.test", "inside.tls.test", "rebinds.tls.test"
OFF = "off.tls.test"
SHUT, SHUT_PORT = "shut.tls.test", free_port()


@pytest.fixture(scope="module", params=["lane", "flows", "flows as served"])
def egress(request: pytest.FixtureRequest, module_gateway: MakeGateway, tls_upstream: Recorder) -> Mitm:
    port = tls_upstream.tls_port
    at = f"https://{API}:{port}"
    also = [f"{OBJECTS}:{port}", f"{REBINDS}:{port}", f"{SHUT}:{SHUT_PORT}"]
    connections = {
        "conn_api": bearer_connection(at, SECRET, also=also, allow_networks=["127.0.0.1/32"]),
        "conn_strict": bearer_connection(f"{at}/strict", SECRET, also=[f"{INSIDE}:{port}"]),
        "conn_off": bearer_connection(f"{at}/off", SECRET, also=[f"{OFF}:{port}"], enabled=False),
    }
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": connections,
        "audit": {"file": "audit.jsonl"},
    }
    dns: dict[str, Any] = {name: ["127.0.0.1"] for name in (API, OBJECTS, INSIDE, OFF, SHUT)}
    return module_gateway(config, *WAYS[request.param], dns={**dns, REBINDS: ["127.0.0.1", "10.0.0.1"]})


def asked(
    egress: Mitm,
    tls_upstream: Recorder,
    host: str,
    data: bytes,
    sni: str | None = None,
) -> Response:
    """One request in a tunnel to a host."""
    with connect_tls(egress.port, host, tls_upstream.tls_port, sni, egress.ca) as sock:
        return parse_response(exchange(sock, data), data.startswith(b"HEAD "))


def head(tls_upstream: Recorder, method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return wire("/asset?sig=x", named, method, f"{OBJECTS}:{tls_upstream.tls_port}", body)


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("HEAD", b""), ("PUT", b"x" * 5000)])
def test_a_download_or_upload_at_a_second_host_needs_no_presign(
    method: str, body: bytes, egress: Mitm, tls_upstream: Recorder
) -> None:
    response = asked(egress, tls_upstream, OBJECTS, head(tls_upstream, method, body, X_Own="1"))
    assert response.status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert (seen.method, seen.target, seen.body, seen.sni) == (method, "/asset?sig=x", body, OBJECTS)
    assert seen.all("x-own") == ["1"]
    assert REAL_SECRET.encode() not in seen.raw
    assert not seen.all("authorization")


def test_nothing_of_a_download_or_an_upload_is_kept_until_it_is_whole(
    egress: Mitm, tls_upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = threading.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.to_thread(arrived.wait, 20)
        yield b"last"

    monkeypatch.setitem(BEHAVIOURS, "slowly", lambda request: Answer(stream=pieces))
    named = f"{OBJECTS}:{tls_upstream.tls_port}"
    with connect_tls(egress.port, OBJECTS, tls_upstream.tls_port, None, egress.ca) as sock:
        client = Wire(sock)
        client.send(wire("/slowly", host=named))
        client.read_until(b"first", 20)
        arrived.set()
        client.read_until(b"last", 20)
    with connect_tls(egress.port, OBJECTS, tls_upstream.tls_port, None, egress.ca) as sock:
        client = Wire(sock)
        client.send(wire("/early", {"Content-Length": "10000000"}, "PUT", named))
        assert client.read_head(20).startswith(b"HTTP/1.1 ")  # of an upstream that has the head, and no body


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "OPTIONS", "get", "PROPFIND"])
def test_nothing_is_done_at_a_second_host_but_fetch_and_put(
    method: str, egress: Mitm, tls_upstream: Recorder
) -> None:
    response = asked(egress, tls_upstream, OBJECTS, head(tls_upstream, method))
    assert response.status in (400, 403)
    assert not tls_upstream.connections


def presigned_urls() -> list[str]:
    grant = Grant("conn_api")
    own = f"https://{API}/v1/models?{grant.query}"
    urls = [
        own,
        f"https://presign.local{grant.target('v1/models')}",
        f"https://presign.local/p/{grant.token}/v1",
    ]
    return [*urls, f"https://app.test/?from={quote(own, safe='')}"]


@pytest.mark.parametrize("over", ["h1", "h2"])
def test_a_client_that_tells_a_second_host_where_it_comes_from_shows_it_no_presign(
    over: str, egress: Mitm, tls_upstream: Recorder
) -> None:
    """Clients written in Go, and curl with `--referer ';auto'`, tell where they come from when they follow a
    redirect: the object store had the whole presigned URL in its log.
    """
    port = tls_upstream.tls_port
    innocent = "https://app.test/page?sig=short"
    for referer in [*presigned_urls(), innocent]:
        if over == "h1":
            assert asked(egress, tls_upstream, OBJECTS, head(tls_upstream, Referer=referer)).status == 200
        else:
            with H2Client.through(egress.port, OBJECTS, port, None, egress.ca) as client:
                named = [(":method", "GET"), (":scheme", "https"), (":authority", f"{OBJECTS}:{port}")]
                assert client.request([*named, (":path", "/asset"), ("referer", referer)]).status == 200
    *others, last = tls_upstream.wait_for(5)
    assert not any(seen.all("referer") for seen in others)
    assert last.all("referer") == [innocent]


def test_a_presign_gets_nobody_into_a_second_host(egress: Mitm, tls_upstream: Recorder) -> None:
    """The client sends it along with a redirect: it goes no further than the gateway."""
    grant = Grant("conn_api")
    for headers in ({"Authorization": f"Bearer {grant.token}"}, grant.headers, {"X-Api-Key": grant.token}):
        data = wire("/asset", headers, host=f"{OBJECTS}:{tls_upstream.tls_port}")
        assert asked(egress, tls_upstream, OBJECTS, data).status in (400, 403)
    assert not tls_upstream.connections


@pytest.mark.parametrize(
    "data",
    [
        wire("/x", host="evil.test"),
        wire("/x", host=API),
        wire("/x", {"Host": "evil.test"}, host="{host}"),
        wire("/x", {"Upgrade": "websocket", "Connection": "Upgrade"}, host="{host}"),
        wire("/x", {"Upgrade": "h2c"}, host="{host}"),
        wire("/x", host="{host}", body=b"a body"),
        wire("/x", {"Transfer-Encoding": "chunked"}, host="{host}") + b"0\r\n\r\n",
        wire("/x", {"Transfer-Encoding": "gzip, chunked"}, "PUT", host="{host}") + b"0\r\n\r\n",
        wire("/x", {"X": "a\x01b"}, host="{host}"),
    ],
)
def test_a_tunnel_to_a_second_host_carries_nothing_else(
    data: bytes, egress: Mitm, tls_upstream: Recorder
) -> None:
    named = f"{OBJECTS}:{tls_upstream.tls_port}".encode()
    response = asked(egress, tls_upstream, OBJECTS, data.replace(b"{host}", named))
    assert response.status in (400, 403)
    assert not tls_upstream.connections


@pytest.mark.parametrize("sni", ["evil.test", API])
def test_another_name_in_the_handshake_leads_to_no_other_customer(
    sni: str, egress: Mitm, tls_upstream: Recorder
) -> None:
    assert asked(egress, tls_upstream, OBJECTS, head(tls_upstream), sni).status == 403
    assert not tls_upstream.connections


def test_a_second_host_without_tls_is_denied(egress: Mitm, tls_upstream: Recorder) -> None:
    from support.asking import ask as send

    for port in (tls_upstream.port, tls_upstream.tls_port):
        host = f"{OBJECTS}:{port}"
        assert code(send(egress.port, f"http://{host}/asset", host=host)) == (403, "unsigned")
    assert not tls_upstream.connections


@pytest.mark.parametrize("host", [INSIDE, REBINDS])
def test_a_second_host_whose_address_is_not_public_is_not_dialled(
    host: str, egress: Mitm, tls_upstream: Recorder
) -> None:
    """Of one connection no network is allowed; of the other one not all addresses are. The answer was
    mitmproxy's page, and no audit line said anything.
    """
    named = f"{host}:{tls_upstream.tls_port}"
    told = refused_at(egress, asked(egress, tls_upstream, host, wire("/asset?sig=x", host=named)))
    assert told["detail"] == (
        f"https://{named}, without a presign: this host does not resolve, or not to public addresses only"
    )
    assert not tls_upstream.connections


def refused_at(egress: Mitm, response: Response) -> dict[str, Any]:
    """The audit line of a request that no upstream answered: the client reads our answer, and its id."""
    assert (response.status, response.header("content-type")) == (502, "application/json")
    said = json.loads(response.body)
    assert said["error"]["code"] == "upstream"
    assert b"mitmproxy" not in response.body
    log = egress.directory / "audit.jsonl"

    def lines() -> list[dict[str, Any]]:
        return [one for one in audit_lines(log) if one["request_id"] == said["error"]["request_id"]]

    assert eventually(lambda: len(lines()) == 1, 20)
    (line,) = lines()
    assert (line["decision"], line["code"], line["status"]) == ("deny", "upstream", 502)
    assert line["path"] is None
    assert "asset" not in json.dumps(line)
    return line


def test_a_second_host_that_refuses_the_connection_is_told_of_too(
    egress: Mitm, tls_upstream: Recorder
) -> None:
    with connect_tls(egress.port, SHUT, SHUT_PORT, None, egress.ca) as sock:
        answer = parse_response(exchange(sock, wire("/asset", host=f"{SHUT}:{SHUT_PORT}")))
    assert "cannot be connected to" in refused_at(egress, answer)["detail"]


def test_over_http2_too_the_answer_for_an_address_that_is_not_public_is_ours(
    egress: Mitm, tls_upstream: Recorder
) -> None:
    named = f"{INSIDE}:{tls_upstream.tls_port}"
    with H2Client.through(egress.port, INSIDE, tls_upstream.tls_port, None, egress.ca) as client:
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", named), (":path", "/asset")]
        answer = client.request(fields)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "upstream")


@pytest.mark.parametrize("host", ["evil.test", "sub.objects.tls.test", "tls.test", OFF])
def test_a_host_that_no_connection_in_force_lists_stays_shut(
    host: str, egress: Mitm, tls_upstream: Recorder
) -> None:
    with pytest.raises(ConnectRefused):
        connect_tls(egress.port, host, tls_upstream.tls_port, None, egress.ca)
    assert not tls_upstream.connections


def test_a_body_over_http2_that_has_no_length_does_not_become_the_next_request(
    egress: Mitm, tls_upstream: Recorder
) -> None:
    host = f"{OBJECTS}:{tls_upstream.tls_port}"
    fields = [(":scheme", "https"), (":authority", host), (":path", "/asset")]
    for method, more in (("PUT", []), ("GET", []), ("GET", [("content-length", "4")])):
        with H2Client.through(egress.port, OBJECTS, tls_upstream.tls_port, None, egress.ca) as client:
            assert client.request([(":method", method), *fields, *more], b"body").status == 400
    assert not tls_upstream.requests
    with H2Client.through(egress.port, OBJECTS, tls_upstream.tls_port, None, egress.ca) as client:
        length = ("content-length", "4")
        assert client.request([(":method", "PUT"), *fields, length], b"body").status == 200
    assert tls_upstream.wait_for(1)[0].body == b"body"


def test_what_passes_is_counted_and_written_down_for_nobody(egress: Mitm, tls_upstream: Recorder) -> None:
    log = egress.directory / "audit.jsonl"
    before = len(audit_lines(log))
    assert asked(egress, tls_upstream, OBJECTS, head(tls_upstream)).status == 200
    assert [line for line in audit_lines(log)[before:] if line["status"] == 200] == []


# -- the decision -----------------------------------------------------------------------------------------

SECOND = Origin("https", "objects.example.com", 443)


def listing(**more: Any) -> Connection:
    return connection(also=(SECOND,), **more)


AT = {"host": "objects.example.com", "scheme": "https"}


def test_a_second_host_is_open_for_as_long_as_its_connection_is() -> None:
    for known, expected in (
        (listing(), PassThrough),
        (listing(enabled=False), Deny),
        (listing(revoked=True), Deny),
        (connection(), Deny),
    ):
        assert isinstance(ask(request("/x", **AT), registry(known, deny=True)), expected)


@pytest.mark.parametrize(
    "at",
    [
        {"host": "objects.example.com", "scheme": "http"},
        {"host": "objects.example.com:8443", "scheme": "https"},
        {"host": "a.objects.example.com", "scheme": "https"},
        AT | {"names": (("host", "objects.example.com"), ("sni", "other.example.com"))},
    ],
)
def test_a_second_host_is_one_origin(at: dict[str, Any]) -> None:
    assert isinstance(ask(request("/x", **at), registry(listing(), deny=True)), Deny)
