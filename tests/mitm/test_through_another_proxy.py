"""`--mode upstream:…`: another proxy stands between the gateway and its upstreams."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET, Grant, code, in_an_hour, wire
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2frames import RawH2, head_of
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, parse_response
from support.signing import source_url

HTTPS, HTTP, SOURCE = "conn_https", "conn_http", "pk_source"
ONE: dict[str, Any] = {"limits": [{"concurrency": 1}]}


@dataclass
class Lab:
    gateway: Mitm
    other: ByHand
    context: ssl.SSLContext
    audit: Path

    def told(self, connection: str) -> list[str]:
        """What the audit log says of the ends of its requests."""
        return [str(line["detail"]) for line in audit_lines(self.audit) if line["connection"] == connection]


@pytest.fixture(scope="module")
def lab(
    module_gateway: MakeGateway, ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    other, context = ByHand(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*TLS_NAMES).configure_cert(context)
    audit = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    source = {
        "scheme": "source",
        "mode": "signed",
        "any_public_origin": True,
        "allowed_origins": ["https://cdn.acme.com"],
        "formats": ["jpg"],
        "signing_keys": [{"secret": SECRET}],
    }
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {
            HTTPS: bearer_connection("https://api.tls.test", SECRET, **ONE),
            HTTP: bearer_connection("http://127.0.0.1:8000", SECRET, **ONE),
            SOURCE: source,
        },
        "audit": {"file": str(audit)},
    }
    gateway = module_gateway(
        config, "--mode", f"upstream:{other.url}", dns={"cdn.acme.com": ["93.184.216.34"]}
    )
    yield Lab(gateway, other, context, audit)
    other.stop()


def test_an_https_upstream_is_reached_through_the_other_proxy_which_is_shown_nothing(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        client.send(wire(Grant(HTTPS).target("v1/models")))
        with lab.other.accept() as proxy:
            head = proxy.read_head()
            assert head.startswith(b"CONNECT api.tls.test:443 ")
            proxy.send(b"HTTP/1.1 200 OK\r\n\r\n")
            with Wire(lab.context.wrap_socket(proxy.sock, server_side=True)) as upstream:
                asked = upstream.read_head()
                assert b"GET /v1/models " in asked
                assert REAL_SECRET.encode() in asked
                upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("over", ["HTTP/1.1", "HTTP/2"])
def test_an_http_upstream_is_not_reached_through_a_proxy_that_would_read_the_key(over: str, lab: Lab) -> None:
    """It was refused with 403 and `invalid`, as if its signature were not good."""
    before = len(lab.told(HTTP))
    for _ in range(2):  # its slot is free again
        if over == "HTTP/1.1":
            with Wire(connect(lab.gateway.port)) as client:
                client.send(wire(Grant(HTTP).target("v1/models")))
                assert code(parse_response(client.read_response())) == (502, "upstream")
        else:
            with RawH2(lab.gateway.port) as client2:
                client2.request(1, head_of(Grant(HTTP).target("v1/models").encode()))
                assert b'"upstream"' in client2.answer(1)
    assert not lab.other.waits()
    assert eventually(lambda: len(lab.told(HTTP)) == before + 2)
    why = "an http upstream is not reached through another proxy, which would be shown the credential"
    assert set(lab.told(HTTP)[before:]) == {why}


def test_a_source_is_not_fetched_through_a_proxy_that_would_resolve_its_name(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        client.send(wire(source_url(SECRET, SOURCE, "https://cdn.acme.com/a.jpg", in_an_hour(), "jpg")))
        assert parse_response(client.read_response()).status == 502
    assert not lab.other.waits()
    why = "a source is not fetched through another proxy, which would resolve a name that nobody judges"
    assert eventually(lambda: lab.told(SOURCE) == [why])


def test_what_is_not_ours_goes_to_the_other_proxy_as_ever(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        client.send(b"GET http://somewhere.test/x HTTP/1.1\r\nHost: somewhere.test\r\n\r\n")
        with lab.other.accept() as proxy:
            assert proxy.read_head().startswith(b"GET http://somewhere.test/x HTTP/1.1\r\n")
            proxy.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert client.read_response().endswith(b"ok")
