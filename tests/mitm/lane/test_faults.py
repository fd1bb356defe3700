"""Whatever fails in the lane: nothing ungranted is sent, nobody is kept waiting, no slot stays taken."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.fault_switch import ADDON, FaultSwitch
from support.gateways import MakeGateway
from support.lab import LAB_SECRET, REAL_SECRET, bearer_connection
from support.leaks import FOREVER, Issuer, Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Hang, connect, connect_tls, exchange, parse_response
from support.recorder import Recorder

GATEWAY = "presign.local"
EXCEPTION_TEXT = "EXCEPTION-TEXT"
PATIENCE = 1.5
CONNECTIONS = 250

# Before anything is sent. Each fails once.
BEFORE = (
    "parse",
    "_framed",
    "body_of",
    "upload_of",
    "Pipeline.take",
    "Lane._next",
    "Pipeline.advance",
    "Pipeline._begin",
    "Judge.granted",
    "request_of",
    "GrantCache.find",
    "GrantCache.keep",
    "GrantCache.forget_before",
    "Admission.decide",
    "Admission.complete",
    "outgoing",
    "Limiter.admit",
    "Exchange.__init__",
    "Exchange.begin",
    "Dispatch.sends_at_once",
    "Dispatch.prepare",
    "Dispatch._prepare",
    "Dispatch._connect",
    "Dispatch._connected",
    "Dispatch._send",
    "Admission.confirm",
    "LaneShared.run",
    "LaneShared.place",
    "DestinationJudge.outward",
    "mask_for",
    "Pool.take",
    "Pool.open",
    "UpstreamConnection.__init__",
    "UpstreamConnection.connection_made",
    "UpstreamConnection.begin",
)
# While it is sent and answered.
AFTER = (
    "UpstreamConnection.write",
    "WriteBatch.write",
    "_write",
    "Exchange.send",
    "Exchange._sent",
    "UpstreamConnection.data_received",
    "UpstreamConnection._go_on",
    "UpstreamConnection._take_head",
    "Incoming.feed",
    "HeadSearch.find",
    "parse",
    "Exchange.head",
    "client_head",
    "response",
    "Exchange.data",
    "Exchange.complete",
    "Delivery.pump",
    "BodyPieces.take",
    "Delivery._put",
    "Delivery.flush",
    "Delivery.let_go",
    "Exchange.passed_on",
    "Exchange._end",
    "Exchange._finish",
    "rewrite",
    "Body.__init__",
    "Body.feed",
    "Body.finish",
    "ClientWriter.send",
    "Pipeline.over",
    "Pool.give_back",
    "LimitHold.let_go",
    "AuditLog.write",
    "line",
)
UPLOADING = ("Exchange.upload", "Sized.feed", "Pipeline._passes_on")
# Of what comes once the first request was served on a connection.
SECOND = (
    "ClientReader.data_received",
    "Pipeline.received",
    "Pipeline.take",
    "Pipeline.advance",
    "Pipeline._begin",
    "Judge.granted",
    "ClientGate.check",
    "GrantCache.find",
    "Admission.decide_again",
    "Forward.again",
    "Facts.again",
    "Exchange.__init__",
    "Exchange.begin",
    "Dispatch.sends_at_once",
    "Dispatch._send",
    "Admission.confirm",
    "UpstreamConnection.begin",
)
IN_PIECES = (
    "Exchange.received",
    "ReadPacing.is_used_up",
    "Delivery.pump",
    "UpstreamConnection._go_on",
    "ClientWriter.send",
)
# With an upstream that cannot be reached, or says what is not HTTP.
FAILING = (
    "Exchange.fail",
    "Dispatch.let_go",
    "Exchange._answer",
    "Exchange._finish",
    "Exchange.lost",
    "UpstreamConnection.close",
    "ClientWriter.send",
    "Pipeline.over",
    "AuditLog.write",
    "refusal",
)
GONE = (
    "Exchange.abandon",
    "Exchange._finish",
    "Dispatch.let_go",
    "UpstreamConnection.close",
    "AuditLog.write",
    "LimitHold.let_go",
)
TLS_ONLY = ("Lane.poke", "ClientWriter.commands", "Lane._handle")
HANDING_OVER = ("Lane._hand_over",)
SHAPES = ("get", "upload", "tls") if "PRESIGN_REQUESTS" in os.environ else ("upload", "tls")
TARGETS = sorted(
    {*BEFORE, *AFTER, *UPLOADING, *SECOND, *IN_PIECES, *FAILING, *GONE, *TLS_ONLY, *HANDING_OVER}
)


def config(port: int) -> dict[str, Any]:
    """A connection for each test, with one slot."""
    one = bearer_connection(f"http://127.0.0.1:{port}", LAB_SECRET, limits=[{"concurrency": 1}])
    return {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {f"conn_{number}": one for number in range(CONNECTIONS)},
        "audit": {"file": "audit.jsonl"},
        "limits": {"store": "memory://"},
    }


@dataclass
class Lab:
    """A gateway whose lane is open, and in which any of the functions above fails once when asked to."""

    gateway: Mitm
    upstream: Recorder
    switch: FaultSwitch
    issuer: Issuer = field(
        default_factory=lambda: Issuer({f"conn_{number}": LAB_SECRET for number in range(CONNECTIONS)})
    )
    used: int = 0

    def client(self, shape: str) -> socket.socket:
        if shape == "tls":
            return connect_tls(self.gateway.port, GATEWAY, cafile=self.gateway.ca)
        return connect(self.gateway.port)

    def request(self, shape: str, path: str = "v1/models", expires: int = FOREVER) -> bytes:
        url = self.issuer.url(f"conn_{self.used}", path, expires=expires)
        head = f"Host: {GATEWAY}\r\n"
        if shape == "upload":
            return f"POST {url} HTTP/1.1\r\n{head}Content-Length: 6\r\n\r\nupload".encode()
        return f"GET {url} HTTP/1.1\r\n{head}\r\n".encode()

    def send(self, shape: str, target: str, path: str = "v1/models") -> bytes:
        """What comes back, or a failure of the test where neither an answer nor an end comes."""
        with self.client(shape) as sock:
            self.switch.arm(target)
            try:
                return exchange(sock, self.request(shape, path), PATIENCE)
            except Hang as hang:
                pytest.fail(f"hung after {hang.received!r}")

    def serves(self) -> bool:
        """Whether a request is granted, which it is not as long as another one holds the only slot."""
        with connect(self.gateway.port) as sock:
            try:
                return parse_response(exchange(sock, self.request("get"), PATIENCE)).status == 200
            except (Hang, ValueError):
                return False


@pytest.fixture(scope="module")
def module_lab(
    module_gateway: MakeGateway, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Lab:
    switch = FaultSwitch(tmp_path_factory.mktemp("faults"), TARGETS)
    args = (*ADDON, "--set", "presign_lane=on", "--set", "flow_detail=4")
    return Lab(module_gateway(config(upstream.port), *args, env=switch.env), upstream, switch)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """The lab, which has to serve again at once, its only slot free."""
    module_lab.used += 1
    switch, logged = module_lab.switch, len(module_lab.gateway.log())
    strikes = switch.strikes()
    yield module_lab
    assert eventually(lambda: switch.strikes() == strikes + 1, 1.5), "the function was never called"
    switch.disarm()
    assert eventually(module_lab.serves, 1.5)
    log = module_lab.gateway.log()[logged:]
    assert not Traces([REAL_SECRET, *module_lab.issuer.issued]).found_in(log.encode())


def ended(received: bytes) -> int | None:
    """The status; None where the client was cut off."""
    assert EXCEPTION_TEXT.encode() not in received
    assert not Traces([REAL_SECRET]).found_in(received)
    assert received.count(b"HTTP/1.1 ") <= 1
    return int(received[9:12]) if received else None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", BEFORE)
def test_what_fails_before_anything_is_sent_sends_nothing(target: str, shape: str, lab: Lab) -> None:
    assert ended(lab.send(shape, target)) in (None, 500, 502)
    assert not lab.upstream.touched


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", AFTER)
def test_what_fails_while_it_is_served_keeps_nobody_waiting(target: str, shape: str, lab: Lab) -> None:
    assert ended(lab.send(shape, target)) in (None, 200, 500, 502)
    assert len(lab.upstream.requests) <= 1


@pytest.mark.parametrize("target", SECOND)
def test_a_second_request_that_fails_is_never_sent(target: str, lab: Lab) -> None:
    time.sleep(1 - time.time() % 1)  # what was decided is remembered for the rest of its second
    with connect(lab.gateway.port) as sock:
        request = lab.request("get")
        # Thrice, because the third is the first that does not come through mitmproxy's reader.
        for _ in range(2):
            assert ended(exchange(sock, request, PATIENCE)) == 200
        lab.switch.arm(target)
        assert ended(exchange(sock, request, PATIENCE)) in (None, 500, 502)
    assert len(lab.upstream.requests) == 2


@pytest.mark.parametrize("target", IN_PIECES)
def test_a_response_that_fails_half_way_ends(target: str, lab: Lab) -> None:
    assert ended(lab.send("get", target, "sse")) in (None, 200, 500, 502)


@pytest.mark.parametrize("target", UPLOADING)
def test_an_upload_that_fails_ends(target: str, lab: Lab) -> None:
    assert ended(lab.send("upload", target)) in (None, 500, 502)
    assert not [one for one in lab.upstream.requests if one.complete]


@pytest.mark.parametrize("path", ["garbage", "close"])
@pytest.mark.parametrize("target", FAILING)
def test_a_failure_that_fails_is_still_one(target: str, path: str, lab: Lab) -> None:
    assert ended(lab.send("get", target, path)) in (None, 500, 502)


@pytest.mark.parametrize("target", GONE)
def test_a_client_that_goes_frees_its_slot_whatever_fails(target: str, lab: Lab) -> None:
    with lab.client("get") as sock:
        sock.sendall(lab.request("get", "slow"))
        lab.upstream.wait_for_heads(1)
        lab.switch.arm(target)


@pytest.mark.parametrize("target", TLS_ONLY)
def test_a_failing_layer_keeps_nobody_waiting(target: str, lab: Lab) -> None:
    assert ended(lab.send("tls", target)) in (None, 200, 500, 502)


def test_a_hand_over_that_fails_cuts_the_client_off(lab: Lab) -> None:
    with connect(lab.gateway.port) as sock:
        lab.switch.arm("Lane._hand_over")
        data = lab.request("get").replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        assert exchange(sock, data, PATIENCE) == b""
    assert not lab.upstream.touched
