"""What happens around the requests: certificates, key logs, slow and many clients, a dying upstream."""

from __future__ import annotations

import datetime
import json
import resource
import socket
import time
from pathlib import Path

import pytest
import trustme

from support.byhand import ByHand, Wire
from support.lab import LAB_SECRET, REAL_SECRET, bearer_connection, lab_config
from support.proxy import Mitm
from support.puppet import SCRIPTS, Puppeteer
from support.raw import connect, parse_response, send_raw
from support.recorder import Recorder
from support.signing import presign_target

# Each starts a gateway in a state of its own: out of descriptors, with logs of keys, behind odd names.
pytestmark = pytest.mark.slow

GATEWAY = {"gateway": {"hosts": ["presign.local"]}}


def ask(gateway: Mitm, path: str = "v1/models", connection: str = "conn_lab", timeout: float = 10.0):
    target = presign_target(LAB_SECRET, connection, path, int(time.time()) + 60, "GET", "*")
    head = f"GET {target} HTTP/1.1\r\nHost: presign.local\r\nConnection: close\r\n\r\n"
    return parse_response(send_raw(gateway.port, head.encode(), timeout=timeout))


def test_an_upstream_whose_certificate_is_wrong_is_sent_nothing(
    ca: trustme.CA, make_recorder, make_gateway
) -> None:
    """Self-signed, for another host, expired: 502, and no byte of a request."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    upstreams: dict[str, Recorder] = {
        "conn_unknown": make_recorder(cert=trustme.CA().issue_cert("127.0.0.1")),
        "conn_other": make_recorder(cert=ca.issue_cert("other.test")),
        "conn_expired": make_recorder(cert=ca.issue_cert("127.0.0.1", not_after=yesterday)),
        "conn_good": make_recorder(cert=ca.issue_cert("127.0.0.1")),
    }
    connections = {
        name: bearer_connection(f"https://127.0.0.1:{upstream.tls_port}", LAB_SECRET)
        for name, upstream in upstreams.items()
    }
    gateway = make_gateway({**GATEWAY, "connections": connections})
    for name, upstream in upstreams.items():
        response = ask(gateway, connection=name)
        good = name == "conn_good"
        assert response.status == (200 if good else 502), name
        assert bool(upstream.requests or upstream.fragments) == good, name
        if not good:
            assert response.header("x-presign-error") == "upstream"


@pytest.mark.parametrize("name", ["SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE"])
def test_a_key_log_is_warned_of_and_refused_at_an_egress_gateway(
    name: str, upstream: Recorder, make_gateway, tmp_path: Path
) -> None:
    config = lab_config(upstream.port)
    environ = {name: str(tmp_path / "keys.log")}
    gateway = make_gateway(config, env=environ)
    gateway.wait_for_log(f"${name} is set")
    config["gateway"]["unsigned"] = "deny"
    status, log = make_gateway(config, env=environ, start=False).run()
    assert status == 1
    assert f"${name} is not allowed" in log


def test_a_short_signing_secret_is_warned_of_at_the_start(gateway: Mitm) -> None:
    assert "signing_keys.0.secret: is shorter than 32 bytes" in gateway.log()


def test_clients_that_never_finish_their_heads_are_cut_and_others_served(
    upstream: Recorder, make_gateway
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    gateway = make_gateway(lab_config(upstream.port))
    slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(800)]
    try:
        for one in slow:
            one.sendall(b"GET / HTTP/1.1\r\nHost: pre")
        assert ask(gateway).status == 200
        started = time.monotonic()
        slow[0].settimeout(20)
        assert slow[0].recv(10) == b""
        assert time.monotonic() - started < 18
        for one in slow:
            one.settimeout(10)
            assert one.recv(10) == b""
        assert ask(gateway).status == 200
    finally:
        for one in slow:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_gateway_out_of_descriptors_recovers(upstream: Recorder, make_gateway) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))  # inherited by the gateway
    try:
        gateway = make_gateway(lab_config(upstream.port))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ask(gateway).status == 200
    crowd = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(200)]
    time.sleep(1)
    for one in crowd:
        one.close()
    deadline = time.monotonic() + 10
    status = 0
    while status != 200 and time.monotonic() < deadline:
        try:
            status = ask(gateway, timeout=2).status
        except (OSError, ValueError):
            time.sleep(0.2)
    assert status == 200
    assert len(gateway.log()) < 500_000


def test_an_upstream_that_dies_in_any_phase_is_answered_by_us(upstream: Recorder, make_gateway) -> None:
    config = lab_config(upstream.port)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        config["connections"]["conn_dead"] = bearer_connection(
            f"http://127.0.0.1:{closed.getsockname()[1]}", LAB_SECRET
        )
        config["connections"]["conn_slow"] = bearer_connection(
            f"http://127.0.0.1:{upstream.port}", LAB_SECRET, timeouts={"response": "1s"}
        )
        gateway = make_gateway(config)
        for path, connection, status in (
            ("v1/x", "conn_dead", 502),
            ("v1/close", "conn_lab", 502),
            ("v1/garbage", "conn_lab", 502),
            ("v1/rawecho", "conn_lab", 502),
            ("v1/slow", "conn_slow", 504),
        ):
            response = ask(gateway, path, connection)
            assert response.status == status, path
            assert json.loads(response.body)["error"]["code"] == "upstream"
            assert REAL_SECRET.encode() not in response.body
    assert REAL_SECRET not in gateway.log()
    assert "Traceback" not in gateway.log()


def test_a_source_that_rebinds_is_fetched_from_the_address_that_was_judged(
    upstream: Recorder, make_gateway
) -> None:
    """The name answers with a public address first and with loopback later, or with both at once."""
    from support.signing import source_url

    config = lab_config(upstream.port)
    project = config["connections"]["pk_lab"]
    project["any_public_origin"] = True
    dns = {
        "later.test": [["127.0.0.1"], ["127.0.0.1"]],
        "mixed.test": ["93.184.216.34", "127.0.0.1"],
        "img.lab.test": [["127.0.0.1"], ["10.255.255.1"]],
    }
    gateway = make_gateway(config, dns=dns)
    exp = int(time.time()) + 60

    def fetch(src: str) -> int:
        target = source_url("sk_motion_secret", "pk_lab", src, exp, "png")
        head = f"GET {target} HTTP/1.1\r\nHost: motioness.com\r\nConnection: close\r\n\r\n"
        return parse_response(send_raw(gateway.port, head.encode())).status

    assert fetch(f"http://later.test:{upstream.port}/a.png") == 403
    assert fetch(f"http://mixed.test:{upstream.port}/a.png") == 403
    assert not upstream.requests
    # One look-up: the second answer, which would go nowhere, is never asked for.
    assert fetch(f"http://img.lab.test:{upstream.port}/a.png") == 200
    assert len(upstream.requests) == 1


def test_the_gateway_is_never_its_own_source(upstream: Recorder, make_gateway) -> None:
    config = lab_config(upstream.port)
    gateway = make_gateway(config, dns={"self.test": ["127.0.0.1"]})
    host = f"self.test:{gateway.port}"
    head = f"GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert parse_response(send_raw(gateway.port, head.encode())).status == 502


def test_an_upstream_that_is_lost_while_it_ends_leaves_nobody_without_an_answer(make_gateway) -> None:
    """A write that fails cancels the task which was about to tell of the end: the end was never told."""
    hand = ByHand()
    config = {**GATEWAY, "connections": {"conn_lab": bearer_connection(hand.url, LAB_SECRET)}}
    gateway = make_gateway(config, "-s", str(SCRIPTS / "puppet.py"))
    target = presign_target(LAB_SECRET, "conn_lab", "v1/models", int(time.time()) + 60, "POST", "*")
    with Wire(connect(gateway.port)) as client:
        head = f"POST {target} HTTP/1.1\r\nHost: presign.local\r\nContent-Length: 2\r\n\r\n"
        client.send(head.encode() + b"ok")
        with hand.accept() as upstream:
            assert upstream.read_head().endswith(b"\r\n\r\n")
            Puppeteer(gateway.port).tell("lose_upstreams", seconds=0.5)
        assert client.read_head(5).startswith(b"HTTP/1.1 502 ")
    hand.stop()
