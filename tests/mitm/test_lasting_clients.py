"""Clients that stay while their upstream connections come and go: nothing is kept of what has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import bearer_connection
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Tls, connect, connect_tls
from support.recorder import Recorder

CONN, GATEWAY = "conn_a", "presign.local"
TIMES = 20
FEW = 4
"""Connections: the client's, its upstream's, the one before, and that of a tunnel."""
COUNTING = """
import gc
from presign_proxy.mitm.flow.http_layer import GuardedHttpLayer


def client_disconnected(client):
    layers = [one for one in gc.get_objects() if isinstance(one, GuardedHttpLayer)]
    known = [len(one.connections) for one in layers if one.context.client is client]
    if known:
        print(f"at the end of {client.peername[1]} known: {max(known)} ", flush=True)
"""


def counted(make_gateway: MakeGateway, upstream: str, directory: Path) -> Mitm:
    """A gateway that tells how many connections the HTTP layers of a client knew at its end."""
    script = directory / "counting.py"
    script.write_text(COUNTING, "utf-8")
    connections = {CONN: bearer_connection(upstream, SECRET)}
    return make_gateway({"gateway": {"hosts": [GATEWAY]}, "connections": connections}, "-s", str(script))


def known(gateway: Mitm, port: int) -> int:
    """How many those of the client with this port knew."""
    told = f"at the end of {port} known: "
    assert eventually(lambda: told in gateway.log())
    return int(gateway.log().partition(told)[2].split()[0])


@pytest.mark.parametrize("way", ["directly", "in a tunnel"])
def test_a_client_over_http2_that_stays_pays_no_more_for_each_request(
    way: str, make_gateway: MakeGateway, upstream: Recorder, tmp_path: Path
) -> None:
    """A thousand requests, one after the other, took a worker minutes: mitmproxy opens a connection for each,
    kept all of them, and looked at all of them for each event.
    """
    gateway = counted(make_gateway, upstream.url, tmp_path)
    tls = Tls(GATEWAY, alpn=("h2",))
    tunnelled = way == "in a tunnel"
    sock = connect_tls(gateway.port, GATEWAY, alpn=tls.alpn) if tunnelled else tls.wrap(connect(gateway.port))
    port = sock.getsockname()[1]
    target = Grant(CONN).target("v1/things")
    head = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
    with H2Client(sock) as client:
        assert [client.request(head).status for _ in range(TIMES)] == [200] * TIMES
    assert known(gateway, port) <= FEW


def test_a_client_whose_upstream_always_closes_pays_no_more_for_each_request(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    hand = ByHand()
    gateway = counted(make_gateway, f"http://127.0.0.1:{hand.port}", tmp_path)
    request = wire(Grant(CONN).target("v1/things"), {"TE": "trailers"})
    sock = connect(gateway.port)
    port = sock.getsockname()[1]
    with Wire(sock) as client:
        for _ in range(TIMES):
            client.send(request)
            with hand.accept() as upstream:
                upstream.read_head()
                upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert client.read_response().endswith(b"ok")
    hand.stop()
    assert known(gateway, port) <= FEW
