"""Authorities and client certificates of one connection, on both paths; no other connection has them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET, Grant, ask, code
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import bearer_connection
from support.lanes import WAYS
from support.mutual_tls import MutualTls, client_files
from support.proxy import Mitm
from support.puppet import eventually

UPSTREAM = (502, "upstream")
DNS = {"api.tls.test": ["127.0.0.1"]}


@dataclass
class Place:
    """An intranet with an authority of its own, which also signs the certificates of its clients."""

    intranet: trustme.CA
    server: MutualTls
    directory: Path

    def connection(self, name: str = "", **more: Any) -> dict[str, Any]:
        """A connection that shows the certificate of a name; none without a name."""
        tls = {"ca": str(self.directory / "ca.pem"), **more}
        if name:
            cert, key = client_files(self.intranet, name, self.directory)
            tls |= {"client_cert": cert, "client_key": key}
        return bearer_connection(f"https://api.tls.test:{self.server.port}", SECRET, tls=tls)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    intranet = trustme.CA()
    server = MutualTls(intranet, intranet)
    intranet.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    yield Place(intranet, server, tmp_path)
    server.stop()


@pytest.fixture(params=("lane", "flows"))
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return WAYS[request.param]


def config(**connections: Any) -> dict[str, Any]:
    return {"connections": connections, "audit": {"file": "audit.jsonl"}}


def statuses(gateway: Mitm, *names: str) -> list[int]:
    return [ask(gateway.port, Grant(name).target(name)).status for name in names]


def test_each_connection_shows_its_own_certificate_and_trusts_its_own_authority(
    make_gateway: MakeGateway, place: Place, way: tuple[str, ...], ca_pem: Path
) -> None:
    """One upstream: who has no certificate is not let in, and the gateway's authorities do not count."""
    shutil.copy(ca_pem, place.directory / "other.pem")
    wrong_ca = place.connection("alice", ca=str(place.directory / "other.pem"))
    system = place.connection("alice")
    del system["tls"]["ca"]
    gateway = make_gateway(
        config(
            alice=place.connection("alice"),
            bob=place.connection("bob"),
            nobody=place.connection(),
            wrong=wrong_ca,
            system=system,
            plain=bearer_connection(f"https://api.tls.test:{place.server.port}", SECRET),
        ),
        *way,
        dns=DNS,
    )
    assert statuses(gateway, "alice", "bob", "alice", "bob") == [200] * 4
    assert statuses(gateway, "nobody", "wrong", "system", "plain") == [502] * 4
    assert statuses(gateway, "alice") == [200]
    assert place.server.shown == [("/alice", "alice"), ("/bob", "bob")] * 2 + [("/alice", "alice")]


def test_requests_of_one_client_over_http2_share_no_certificate(
    make_gateway: MakeGateway, place: Place, tmp_path: Path
) -> None:
    """Over HTTP/2 mitmproxy gives one connection to all requests for a host."""
    gateway = make_gateway(
        config(alice=place.connection("alice"), bob=place.connection("bob")), *WAYS["flows"], dns=DNS
    )
    client = H2Client.direct(gateway.port, "presign.local", gateway.ca)
    for name in ("alice", "bob", "alice"):
        path = Grant(name).target(name)
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local"), (":path", path)]
        assert client.request(head).status == 200
    client.close()
    assert place.server.shown == [("/alice", "alice"), ("/bob", "bob"), ("/alice", "alice")]


def test_a_certificate_that_was_renewed_is_shown_after_the_reload(
    make_gateway: MakeGateway, place: Place, way: tuple[str, ...]
) -> None:
    gateway = make_gateway(config(alice=place.connection("alice")), *way, dns=DNS)
    assert statuses(gateway, "alice") == [200]
    cert, key = client_files(place.intranet, "alice-2", place.directory)
    for new, name in ((key, "alice.key"), (cert, "alice.crt")):
        Path(new).replace(place.directory / name)

    def is_renewed() -> bool:
        ask(gateway.port, Grant("alice").target("again"))
        return ("/again", "alice-2") in place.server.shown

    assert eventually(is_renewed, 15)


def test_what_becomes_unusable_while_serving_is_lacked_by_its_connection_alone(
    make_gateway: MakeGateway, place: Place, way: tuple[str, ...]
) -> None:
    gateway = make_gateway(
        config(alice=place.connection("alice"), bob=place.connection("bob")), *way, dns=DNS
    )
    _, key = client_files(place.intranet, "stranger", place.directory)
    Path(key).replace(place.directory / "alice.key")
    assert eventually(lambda: statuses(gateway, "alice") == [503], 15)
    assert statuses(gateway, "bob") == [200]
    log = gateway.log()
    assert "connections.alice.tls.client_key: does not belong to client_cert" in log
    assert "PRIVATE KEY" not in log
    assert code(ask(gateway.port, Grant("alice").target("x")))[1] == "unavailable"
