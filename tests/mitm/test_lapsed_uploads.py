"""A body that has to be hashed first is not read on when its request is not granted any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.asking import SECRET, Grant, code, in_an_hour, wire
from support.config import write_config
from support.gateways import MakeGateway
from support.h2streams import Streams
from support.lanes import WAYS
from support.process import LOADED
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response, connect, is_complete, parse_response
from support.recorder import Recorder

GATEWAY = "presign.local"
CONN = "conn_aws"
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""
SIZE = 1_000_000
"""More than a client sends that adds a byte now and then."""


def config(upstream: Recorder, *, enabled: bool = True) -> dict[str, Any]:
    auth = {
        "type": "aws_sigv4",
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        "service": "dynamodb",
        "region": "eu-central-1",
    }
    entry = {"upstream": upstream.url, "auth": auth, "signing_keys": [{"secret": SECRET}], "enabled": enabled}
    slots = {"limits": [{"concurrency": 1}]}
    return {"gateway": {"hosts": [GATEWAY]}, "connections": {CONN: entry | slots}}


@pytest.fixture(params=["lane", "flows", "HTTP/2"])
def lab(request: pytest.FixtureRequest, make_gateway: MakeGateway, upstream: Recorder) -> Iterator[Mitm]:
    way = () if request.param == "HTTP/2" else WAYS[request.param]
    gateway = make_gateway(config(upstream), *way)
    gateway.way = request.param  # type: ignore[attr-defined]
    yield gateway
    assert not upstream.touched


def dripped(
    gateway: Any, expires: int, happens: Callable[[], object] = lambda: None
) -> tuple[int, str | None]:
    """Send a body byte by byte until it is answered. Return the status, and the code of the refusal."""
    target, deadline = Grant(CONN, expires=expires).target("x"), time.monotonic() + PATIENT
    if gateway.way == "HTTP/2":
        client = Streams.through(gateway.port, GATEWAY, cafile=gateway.ca)
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        stream = client.begin([*pseudo, ("content-length", str(SIZE))], end=False)
        reply = client.replies[stream]
        happens()
        while reply.status is None and time.monotonic() < deadline:
            client.send(stream, b"x")
            client._pump(time.monotonic() + 0.2)
        client.wait([stream], PATIENT)
        client.close()
        return reply.status or 0, reply.header("x-presign-error")
    with connect(gateway.port) as plain:
        plain.sendall(wire(target, [("Content-Length", str(SIZE))], method="POST"))
        happens()
        return code(_answer(plain, deadline))


def _answer(plain: Any, deadline: float) -> Response:
    received = b""
    while not is_complete(received) and time.monotonic() < deadline:
        try:
            plain.settimeout(0.2)
            if not (data := plain.recv(65536)):
                break
            received += data
        except TimeoutError:
            plain.sendall(b"x")
    return parse_response(received)


def test_a_url_that_expires_while_its_body_comes_byte_by_byte_is_refused_then(lab: Mitm) -> None:
    assert dripped(lab, int(time.time()) + 2) == (403, "expired")


def test_a_connection_that_is_disabled_reads_no_more_of_a_body_and_frees_the_slot(
    lab: Mitm, upstream: Recorder
) -> None:
    def disable() -> None:
        publish(lab, config(upstream, enabled=False))

    assert dripped(lab, in_an_hour(), disable) == (403, "revoked")
    publish(lab, config(upstream))
    assert dripped(lab, int(time.time()) + 2) == (403, "expired")


def test_what_is_still_granted_is_read_to_its_end(lab: Mitm, upstream: Recorder) -> None:
    """Also while the registry changes."""
    target = Grant(CONN).target("x")
    with connect(lab.port) as client:
        client.sendall(wire(target, [("Content-Length", "6")], method="POST") + b"abc")
        publish(lab, config(upstream) | {"audit": {"file": "audit.jsonl"}})
        time.sleep(1.2)
        client.sendall(b"def")
        assert _answer(client, time.monotonic() + PATIENT).status == 200
    (seen,) = upstream.wait_for(1)
    assert seen.body == b"abcdef"
    upstream.clear()


def publish(gateway: Mitm, changed: dict[str, Any]) -> None:
    """Write a configuration, and wait until it is in force."""
    before = gateway.log().count(LOADED)
    write_config(changed, gateway.directory if gateway.config is None else gateway.config.parent)
    assert eventually(lambda: gateway.log().count(LOADED) > before, PATIENT)
