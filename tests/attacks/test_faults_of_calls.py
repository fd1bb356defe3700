"""Whatever fails around a call of gRPC: nothing ungranted is sent, and no answer passes for a whole one."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import trustme

from support.asking import SECRET, Grant
from support.byhand import ByHand
from support.fault_switch import ADDON, FaultSwitch
from support.gateways import TLS_NAMES, MakeGateway
from support.h2client import H2Reply
from support.h2frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    accept_h2,
    frame,
    h2_context,
    literal,
    next_of,
)
from support.h2streams import Streams
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import Mitm

GATEWAY: Final = "presign.local"
PATIENT: Final = 20.0
LONG_AGO: Final = 1714808400
HEAD: Final = frame(HEADERS, b"\x88", END_HEADERS, 1) + frame(DATA, b"message", 0, 1)
TRAILERS: Final = frame(HEADERS, literal(b"grpc-status", b"0"), END_HEADERS | END_STREAM, 1)
BROKEN: Final = frame(HEADERS, literal(b"a b", REAL_SECRET.encode()), END_HEADERS | END_STREAM, 1)
REFUSING: Final = ("is_grpc", "trailers_only")
ENDING: Final = ("cleaned", "DownloadingStream._receive_trailers", "DownloadingStream._is_answer_short")
LAST: Final = ("end_of_call",)
SHARING: Final = ("is_stuck", "offer")


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    context: ssl.SSLContext
    switch: FaultSwitch

    def arm(self, target: str) -> None:
        """From now on every call of `target` fails; of nothing, if it is empty."""
        if target:
            self.switch.arm(target, 0)
        else:
            self.switch.disarm()

    def begin(self, client: Streams, **grant: Any) -> int:
        target = Grant("conn_h2", **grant).target("lab.v1.Lab/Echo")
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        return client.begin([*pseudo, ("content-type", "application/grpc"), ("te", "trailers")])

    def client(self) -> Streams:
        return Streams.direct(self.gateway.port, GATEWAY, self.gateway.ca)

    def called(self, target: str, *frames: bytes) -> H2Reply:
        """What comes of a good call while a function fails."""
        with self.client() as client:
            self.arm(target)
            stream = self.begin(client)
            api = accept_h2(self.hand, self.context, timeout=PATIENT)
            next_of(api, HEADERS, PATIENT)
            api.send(frames[0])
            client.wait_for_head(stream, PATIENT)
            api.send(b"".join(frames[1:]))
            return client.wait([stream], PATIENT)[0]


@pytest.fixture(scope="module")
def module_lab(
    module_gateway: MakeGateway, hand: ByHand, ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Lab:
    switch = FaultSwitch(tmp_path_factory.mktemp("faults"), (*REFUSING, *ENDING, *LAST, *SHARING))
    known = bearer_connection(f"https://localhost:{hand.port}", SECRET)
    config = {"gateway": {"hosts": [GATEWAY]}, "connections": {"conn_h2": known}}
    gateway = module_gateway(config, *ADDON, env=switch.env)
    assert not switch.missing()
    return Lab(gateway, hand, h2_context(ca.issue_cert(*TLS_NAMES)), switch)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """It has to serve again as soon as the fault of the test is over."""
    logged, before = len(module_lab.gateway.log()), module_lab.switch.strikes()
    yield module_lab
    assert module_lab.switch.strikes() > before, "the function was never called"
    module_lab.hand.hang_up()
    reply = module_lab.called("", HEAD, TRAILERS)
    assert (reply.body, reply.trailers) == (b"message", [("grpc-status", "0")])
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    assert REAL_SECRET not in log
    assert "EXCEPTION-TEXT" not in log


@pytest.mark.parametrize("target", REFUSING)
def test_a_refused_call_stays_refused(lab: Lab, target: str) -> None:
    with lab.client() as client:
        lab.arm(target)
        reply = client.wait([lab.begin(client, expires=LONG_AGO)], PATIENT)[0]
    assert reply.ended
    assert (reply.status, reply.header("grpc-status")) in ((None, None), (500, None))
    assert b"EXCEPTION-TEXT" not in reply.received
    assert not lab.hand.waits()


@pytest.mark.parametrize("target", ENDING)
def test_a_call_whose_trailers_cannot_be_cleaned_does_not_end_well(lab: Lab, target: str) -> None:
    reply = lab.called(target, HEAD, TRAILERS)
    assert reply.ended
    assert ("grpc-status", "0") not in reply.trailers
    assert b"EXCEPTION-TEXT" not in reply.received


@pytest.mark.parametrize("target", LAST)
def test_a_call_that_cannot_be_broken_off_well_is_cut_off(lab: Lab, target: str) -> None:
    reply = lab.called(target, HEAD, BROKEN)
    assert reply.ended
    assert reply.trailers == []
    assert REAL_SECRET.encode() not in reply.received


@pytest.mark.parametrize("target", SHARING)
def test_a_call_that_finds_no_connection_is_not_sent(lab: Lab, target: str) -> None:
    with lab.client() as client:
        if target == "is_stuck":
            first = lab.begin(client)
            api = accept_h2(lab.hand, lab.context, timeout=PATIENT)
            next_of(api, HEADERS, PATIENT)
            api.send(HEAD + TRAILERS)
            client.wait([first], PATIENT)
        lab.arm(target)
        reply = client.wait([lab.begin(client)], PATIENT)[0]
        assert reply.ended
        assert reply.status is None or reply.header("grpc-status") != "0"
        assert not lab.hand.waits()
