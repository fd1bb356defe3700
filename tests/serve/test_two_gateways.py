"""Two gateways behind HAProxy, as deploy/ configures it: what clients notice of it, and what they do not."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from mitmproxy.certs import CertStore

from support.asking import SECRET, Grant, code, wire
from support.audit_log import audit_lines
from support.balancer import TRUSTED, Balancer
from support.h2client import H2Client
from support.lab import bearer_connection
from support.load import Load
from support.policy import Policy
from support.process import free_port
from support.puppet import eventually
from support.raw import Response, Tls, connect_tls, exchange, parse_response
from support.recorder import Recorder
from support.redis import RedisServer
from support.serving import CONN, Serve, takes_the_lane

pytestmark = [pytest.mark.needs("haproxy", "redis-server"), pytest.mark.slow]
GATEWAY = "presign.local"
PATIENT = 20.0
"""Seconds; the machine may have much else to do."""
OFFICE, ELSEWHERE = "127.0.0.2", "127.0.0.5"
"""Two clients."""
CONNECTIONS: dict[str, dict[str, Any]] = {
    CONN: {},
    "uses": {"max_uses": 10},
    "client": {"limits": [{"quota": "3/day", "per": "client"}]},
}


@dataclass
class Two:
    """What stands between a client and its upstream."""

    front: Balancer
    gateways: list[Serve]
    ca_pem: Path
    upstream: Recorder

    def connect(self, source: str = OFFICE, timeout: float = PATIENT) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.front.port), timeout, (source, 0))
        return Tls(GATEWAY, self.ca_pem).wrap(plain)

    def ask(self, request: bytes, source: str = OFFICE) -> Response:
        with self.connect(source) as sock:
            return parse_response(exchange(sock, request, PATIENT))

    def are_up(self) -> bool:
        """Whether HAProxy sends to both, requests and tunnels."""
        return len(self.front.up()) == 4

    def audited(self) -> list[dict[str, Any]]:
        return [line for one in self.gateways for line in audited(one)]


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, upstream: Recorder, ca: trustme.CA, ca_pem: Path
) -> Iterator[Two]:
    with ExitStack() as started:
        store = RedisServer(tmp_path_factory.mktemp("redis"), appendfsync="everysec").start()
        started.callback(store.stop)
        admin = [free_port(), free_port()]
        notice = ("--notice", "2s")
        gateways = [
            Serve(tmp_path_factory.mktemp("gateway"), config(upstream, store, port), *notice)
            for port in admin
        ]
        for one in gateways:
            started.callback(end, one)
        share_authority(gateways)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: one.start(), gateways))
        front = Balancer(tmp_path_factory.mktemp("front"), gateways, admin, ca.issue_cert(GATEWAY))
        started.callback(front.stop)
        found = Two(front.start(), gateways, ca_pem, upstream)
        assert eventually(found.are_up, PATIENT)
        yield found


def end(gateway: Serve) -> None:
    """Without a notice."""
    if gateway.child.poll() is None:
        gateway.signal(signal.SIGKILL)
    gateway.stop()


def share_authority(gateways: list[Serve]) -> None:
    """As an operator does: a client trusts one, whichever gateway it comes to."""
    first, second = (one.confdir for one in gateways)
    first.mkdir()
    CertStore.from_store(first, "mitmproxy", 2048)
    shutil.copytree(first, second)


def audited(gateway: Serve) -> list[dict[str, Any]]:
    return audit_lines(gateway.directory / "audit.jsonl")


def config(upstream: Recorder, store: RedisServer, admin: int) -> dict[str, Any]:
    return {
        "gateway": {"hosts": [GATEWAY], "trusted_proxies": [TRUSTED]},
        "connections": {
            name: bearer_connection(upstream.url, SECRET, **more) for name, more in CONNECTIONS.items()
        },
        "limits": {"store": store.url},
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "audit": {"file": "audit.jsonl"},
    }


def under_load(two: Two) -> Load:
    """Clients that keep a connection for a while; half of them send, and one is sent events for a second."""
    target = Grant(CONN).target
    get, stream = wire(target("v1/models")), wire(target("sse"))
    post = wire(target("v1/models"), method="POST", body=b"n" * 50_000)
    return Load(two.connect, [get, get, stream, post, post, post], pause=0.03, most=20, timeout=PATIENT)


def start_of(two: Two, path: str) -> socket.socket:
    """A connection on which the head of an answer has come."""
    sock = two.connect()
    sock.sendall(wire(Grant(CONN).target(path)))
    received = b""
    while b"\r\n\r\n" not in received:
        received += (piece := sock.recv(1))
        assert piece, received
    return sock


def rest_of(sock: socket.socket, size: int) -> int:
    """How much of a body still comes."""
    received = 0
    with contextlib.suppress(OSError):
        while received < size and (piece := sock.recv(1_000_000)):
            received += len(piece)
    sock.close()
    return received


# -- counted together -------------------------------------------------------------------------------------


def test_ten_uses_are_ten_over_both_gateways(two: Two) -> None:
    request = wire(Grant("uses").target("v1/models"))
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(answer.status for answer in pool.map(two.ask, [request] * 100))
    assert statuses == {200: 10, 429: 90}
    assert len(two.upstream.requests) == 10
    assert eventually(lambda: len(two.audited()) == 100, PATIENT)
    assert {one["connection"] for one in two.audited()} == {"uses"}
    assert all(len(audited(one)) > 10 for one in two.gateways)


# -- who asks ---------------------------------------------------------------------------------------------


def test_limits_and_policies_see_the_client_and_not_the_balancer(two: Two) -> None:
    target = Grant("client").target("v1/models")
    for source in (OFFICE, ELSEWHERE):
        assert [two.ask(wire(target), source).status for _ in range(4)] == [200, 200, 200, 429]
    office = wire(Policy(SECRET, {"Client": f"{OFFICE}/32"}, CONN).target("v1/models"))
    assert two.ask(office).status == 200
    assert code(two.ask(office, ELSEWHERE)) == (403, "client_not_allowed")
    assert eventually(lambda: {OFFICE, ELSEWHERE} <= {one["client"] for one in two.audited()}, PATIENT)


def test_a_client_that_claims_another_address_is_not_believed(two: Two) -> None:
    claims = {"X-Forwarded-For": OFFICE, "Forwarded": f"for={OFFICE}", "X-Real-IP": OFFICE}
    office = Policy(SECRET, {"Client": f"{OFFICE}/32"}, CONN).target("v1/models")
    assert code(two.ask(wire(office, claims), ELSEWHERE)) == (403, "client_not_allowed")
    claims["X-Forwarded-For"] = f"{OFFICE}, {TRUSTED}"
    assert code(two.ask(wire(office, claims), ELSEWHERE)) == (403, "client_not_allowed")
    assert two.upstream.requests == []


def test_nobody_is_believed_inside_a_tunnel(two: Two) -> None:
    """There the client writes every header, and nobody adds whom he heard."""
    office = Policy(SECRET, {"Client": f"{OFFICE}/32"}, CONN).target("v1/models")
    claims = {"X-Forwarded-For": OFFICE}
    port = two.front.tunnels
    assert code(in_tunnel(two, wire(office, claims))) == (403, "client_not_allowed")
    # And without one: whoever reaches this port may also speak plainly to the gateway.
    with socket.create_connection(("127.0.0.1", port), PATIENT) as sock:
        assert code(parse_response(exchange(sock, wire(office, claims)))) == (403, "client_not_allowed")
    for _ in range(4):
        assert in_tunnel(two, wire(Grant(CONN).target("v1/models"))).status == 200
    # Through the other port, whose address is believed, nobody gets a tunnel.
    with two.connect() as sock:
        asked = f"CONNECT {GATEWAY}:443 HTTP/1.1\r\nHost: {GATEWAY}:443\r\n\r\n".encode()
        assert exchange(sock, asked).startswith(b"HTTP/1.1 405 ")


def in_tunnel(two: Two, request: bytes) -> Response:
    """An answer through CONNECT and TLS, whichever gateway it is."""
    with connect_tls(two.front.tunnels, GATEWAY, cafile=two.gateways[0].ca) as sock:
        return parse_response(exchange(sock, request))


def test_the_log_of_the_balancer_holds_nothing_that_could_be_used(two: Two) -> None:
    grant = Grant(CONN)
    assert two.ask(wire(grant.target("v1/models"))).status == 200
    assert two.ask(wire(f"/p/{grant.token}/v1/models")).status == 200
    assert eventually(lambda: two.front.log().count("requests~ gateways/") >= 2, PATIENT)
    for secret in (grant.headers["X-Presign-Signature"], grant.token, "X-Presign-Signature", "ps1_"):
        assert secret not in two.front.log()


def test_clients_of_http2_are_served_alike(two: Two) -> None:
    target = Grant(CONN).target("echo")
    pseudo = [(":scheme", "https"), (":authority", GATEWAY), (":path", target)]
    with H2Client.direct(two.front.port, GATEWAY, two.ca_pem) as client:
        assert client.request([(":method", "GET"), *pseudo]).status == 200
        posted = client.request([(":method", "POST"), *pseudo], body=[b"without ", b"a length"])
    assert posted.status == 200
    assert json.loads(posted.body)["length"] == 16


# -- streams ----------------------------------------------------------------------------------------------


def test_events_come_through_at_once(two: Two) -> None:
    """One each 0.2 seconds; of a few streams the quickest, because the machine may have much else to do."""
    assert min(max(late_by(two)) for _ in range(4)) < 0.15


def late_by(two: Two) -> list[float]:
    """How many seconds after it could have come at the earliest each event has come."""
    with two.connect() as sock:
        begun = time.monotonic()
        sock.sendall(wire(Grant(CONN).target("sse")))
        came: dict[int, float] = {}
        received = b""
        while len(came) < 5:
            received += (piece := sock.recv(65536))
            assert piece, received
            for number in map(int, re.findall(rb"data: event (\d)", received)):
                came.setdefault(number, time.monotonic() - begun - 0.2 * number)
    return list(came.values())


def test_a_head_that_the_gateway_takes_gets_through_the_balancer(two: Two) -> None:
    """And what it does not take is answered by it, and written down."""
    target = Grant(CONN).target("v1/models")
    assert two.ask(wire(target, {"X-Large": "x" * 60_000})).status == 200
    assert two.ask(wire(target, [(f"X-Field-{number}", "x") for number in range(90)])).status == 200
    for headers in ([("X-Large", "x" * 66_000)], [(f"X-Field-{number}", "x") for number in range(110)]):
        assert code(two.ask(wire(target, headers))) == (431, "too_large")


# -- coming and going -------------------------------------------------------------------------------------


def test_gateways_that_are_restarted_one_after_the_other_under_load_lose_no_request(two: Two) -> None:
    assert all(takes_the_lane(one, two.upstream) for one in two.gateways)
    with under_load(two) as load:
        time.sleep(0.5)
        for one in two.gateways:
            before = len(audited(one))
            one.signal(signal.SIGTERM)
            assert one.ends(PATIENT) == 0
            assert len(audited(one)) > before  # whoever was sent here in the meantime was served
            one.start()
            assert eventually(two.are_up, PATIENT)
        time.sleep(0.5)
    assert load.failed() == []
    assert len(load.asked) > 100
    # Each was sent once: nothing that might have been executed goes to the other gateway again.
    assert len(two.upstream.requests) == len(load.asked)
    assert all(takes_the_lane(one, two.upstream) for one in two.gateways)


def test_a_gateway_that_is_killed_takes_nothing_but_its_own_requests_along(two: Two) -> None:
    """The last one: nobody starts it again."""
    size = 30_000_000
    victim = two.gateways[0]
    assert eventually(victim.has_reserve, PATIENT)
    held = [start_of(two, f"download?bytes={size}") for _ in range(4)]
    with under_load(two) as load:
        time.sleep(0.5)
        killed = time.monotonic()
        victim.signal(signal.SIGKILL)
        time.sleep(1.5)
    failed = load.failed()
    # What each client had under way just then, and nothing that was begun afterwards.
    assert len(failed) <= 6, failed
    assert [one for one in failed if one.begun > killed + 0.2 or one.ended < killed] == []
    assert sum(one.begun > killed for one in load.asked) > 20
    whole = [rest_of(sock, size) == size for sock in held]
    assert any(whole)
    assert not all(whole)
