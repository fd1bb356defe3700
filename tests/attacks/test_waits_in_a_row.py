"""All that a request waits for has to be ready within `timeouts.connect`, not each part of it."""

import select
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import connect

pytestmark = pytest.mark.slow

PATIENT = 30.0


@dataclass
class Lab:
    gateway: Mitm

    def ask(self, connection: str) -> Wire:
        client = Wire(connect(self.gateway.port, timeout=PATIENT))
        client.send(wire(Grant(connection).target("v1/models")))
        return client


@pytest.fixture(params=["on", "off"], ids=["lane", "flow path"])
def lab(request: pytest.FixtureRequest, make_gateway: MakeGateway) -> Iterator[Lab]:
    hand = ByHand()
    silent = f"https://localhost:{hand.port}"  # nobody answers the handshake
    program = {"exec": ["sh", "-c", "until test -e go; do sleep 0.05; done; echo sk-PRINTED-0123456789"]}
    connections = {
        f"conn_{seconds}": bearer_connection(silent, SECRET, timeouts={"connect": f"{seconds}s"})
        for seconds in (2, 4)
    }
    connections["conn_both"] = bearer_connection(
        silent, SECRET, auth={"type": "bearer", "token": program}, timeouts={"connect": "3s"}
    )
    yield Lab(make_gateway({"connections": connections}, "--set", f"presign_lane={request.param}"))
    hand.stop()


def test_a_request_that_waits_for_a_program_and_then_for_tls_does_not_wait_for_each_as_long(lab: Lab) -> None:
    """Its three seconds are over before the four of a request that waits for TLS alone."""
    both, four, two = lab.ask("conn_both"), lab.ask("conn_4"), lab.ask("conn_2")
    assert b" 504 " in two.read_head(PATIENT)
    (lab.gateway.directory / "go").touch()
    first, _, _ = select.select([both.sock, four.sock], [], [], PATIENT)
    assert first == [both.sock]
    assert b" 504 " in both.read_head(PATIENT)
    for client in (both, four, two):
        client.close()
