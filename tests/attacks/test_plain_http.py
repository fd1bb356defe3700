"""URLs of a gateway with a certificate, typed with http://: they have crossed the network unencrypted."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from presign_proxy.core.registry import Registry
from presign_proxy.explain.explain import explain
from presign_proxy.http.networks import parse_network
from support.asking import SECRET, Grant
from support.audit_log import audit_lines
from support.deciding import NOW, code, registry, request, signed
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.lanes import WAYS
from support.puppet import eventually
from support.raw import Tls, exchange, parse_response
from support.recorder import Recorder

NAME = "presign.local"


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            found = str(probe.getsockname()[0])
        except OSError:
            found = "127.0.0.1"
    if found.startswith("127."):
        pytest.skip("this machine has only loopback")
    return found


def answered(address: str, port: int, tls: Tls | None = None) -> tuple[int, str | None, bytes]:
    wire = f"GET {Grant('conn').target('v1/models')} HTTP/1.1\r\nHost: {NAME}:{port}\r\n\r\n".encode()
    with socket.create_connection((address, port), 10) as plain, tls.wrap(plain) if tls else plain as sock:
        found = parse_response(exchange(sock, wire))
        return found.status, found.header("x-presign-error"), found.body


@pytest.mark.parametrize("way", WAYS)
def test_a_url_that_another_machine_sends_unencrypted_is_refused_and_says_why(
    way: str, make_gateway: MakeGateway, upstream: Recorder, ca: trustme.CA, ca_pem: Path, tmp_path: Path
) -> None:
    """It was served, and nobody noticed that the URL had crossed the network in the clear."""
    issued, key, cert = ca.issue_cert(NAME), tmp_path / "front.key", tmp_path / "front.pem"
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    cert.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    config: dict[str, Any] = {
        "gateway": {"hosts": [NAME], "tls": {"cert": str(cert), "key": str(key)}},
        "connections": {"conn": bearer_connection(upstream.url, SECRET)},
        "audit": {"file": "audit.jsonl"},
    }
    address, tls = own_address(), Tls(NAME, ca_pem)
    gateway = make_gateway(config, *WAYS[way], "--listen-host", "0.0.0.0")
    status, refusal, body = answered(address, gateway.port)
    assert (status, refusal) == (403, "host_mismatch")
    assert b"write https:// in place of http://" in body
    assert not upstream.requests
    assert answered(address, gateway.port, tls)[:2] == (200, None)
    assert answered("127.0.0.1", gateway.port)[:2] == (200, None)
    log = gateway.directory / "audit.jsonl"
    assert eventually(lambda: len(audit_lines(log)) == 3)
    assert "plain HTTP" in audit_lines(log)[0]["detail"]


def only_tls(**more: Any) -> Registry:
    known = registry()
    return Registry(known.connections, known.hosts, tls_only=True, **more)


@pytest.mark.parametrize(("client", "expected"), [
    ("203.0.113.9", "host_mismatch"), ("2001:db8::1", "host_mismatch"), ("10.0.0.3", "forward"),
    ("127.0.0.1", "forward"), ("::1", "forward"), ("::ffff:127.0.0.1", "forward"),
])  # fmt: skip
def test_plain_http_is_served_to_this_machine_and_to_a_balancer_that_has_ended_tls(
    client: str, expected: str
) -> None:
    network = parse_network("10.0.0.0/24")
    assert network is not None
    known, forwarded = only_tls(trusted_proxies=(network,)), (b"X-Forwarded-For", b"127.0.0.1")
    assert code(request(signed(), forwarded, client=client), known) == expected
    assert code(request(signed(), client=client, scheme="https"), known) == "forward"
    assert code(request(signed(), client=client)) == "forward"


def test_what_is_refused_so_is_told_alike_whatever_its_signature_and_connection() -> None:
    good = signed()
    forged = good[:-1] + ("1" if good.endswith("0") else "0")
    for target in (good, signed(expires=1), forged, good.replace("/conn/", "/conn_nobody/")):
        assert code(request(target, client="203.0.113.9"), only_tls()) == "host_mismatch"


def test_explain_names_the_step_at_which_a_url_with_http_is_refused() -> None:
    found = explain(only_tls(), request(signed()), NOW)
    assert (found.verdict.code, found.steps[-1].name, found.steps[-1].outcome) == (
        "host_mismatch",
        "address",
        "refused",
    )
