"""Whatever fails of a WebSocket: nobody is kept waiting, no slot stays taken, no secret is told."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.byhand import ByHand
from support.fault_switch import ADDON, FaultSwitch
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import WAYS, LaneLab, config
from support.leaks import Traces
from support.puppet import eventually
from support.websocket import HANDSHAKE, frame, switching

pytestmark = pytest.mark.slow
HELLO, WORLD = frame(b"hello", masked=True), frame(b"world")
BOTH = ("handshake_of", "rewrite", "switched", "AuditLog.write")
LANE = (
    "exchange_of",
    "WebSocketExchange.__init__",
    "WebSocketExchange.head",
    "WebSocketExchange._switch",
    "WebSocketExchange.upload",
    "Frames.feed",
    "WebSocketExchange.data",
    "WebSocketExchange.end_input",
    "WebSocketExchange._upstream_ended",
    "WebSocketExchange.passed_on",
    "WebSocketExchange._end_both",
    "UpstreamSocket.end_output",
    "ClientWriter.end_output",
    "Lane._end_input",
)
FLOWS = (
    "begins_websocket",
    "WebSocketStream.send_response",
    "WebSocketStream.flow_done",
    "WebSocketStream.passthrough",
    "WebSocketStream._frames_of_client",
    "WebSocketStream._frames_of_server",
    "WebSocketStream._move",
    "WebSocketStream._end_of",
    "WebSocketStream._end_both",
    "asks_for_websocket",
    "Finisher.closed",
)
CASES = [("lane", one) for one in (*BOTH, *LANE)] + [("flows", one) for one in (*BOTH, *FLOWS)]


@dataclass
class Faulty:
    lab: LaneLab
    switch: FaultSwitch


@pytest.fixture(scope="module")
def gateways(
    module_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Faulty]]:
    hand, found = ByHand(), {}
    more: dict[str, Any] = {"websocket": True, "limits": [{"concurrency": 1}]}
    for way in ("lane", "flows"):
        switch = FaultSwitch(tmp_path_factory.mktemp("faults"), [target for _, target in CASES])
        settings = config(hand.url, **more) | {"limits": {"store": "memory://"}}
        gateway = module_gateway(settings, *ADDON, *WAYS[way], env=switch.env)
        found[way] = Faulty(LaneLab(gateway, hand), switch)
    yield found
    hand.stop()


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize(("way", "target"), CASES)
def test_whatever_fails_both_are_ended_and_the_slot_is_free(
    gateways: dict[str, Faulty], way: str, target: str, first: str
) -> None:
    faulty = gateways[way]
    lab, before = faulty.lab.fresh(), faulty.switch.strikes()
    logged = len(lab.gateway.log())
    faulty.switch.arm(target)
    received = b""
    with lab.client() as client, contextlib.suppress(OSError):
        client.send(lab.head(*HANDSHAKE))
        if lab.hand.waits(1):
            api = lab.hand.accept()
            api.read_head()
            api.send(switching())
            received = client.read_head()
            client.send(HELLO)
            api.read_exactly(len(HELLO))
            api.send(WORLD)
            client.read_exactly(len(WORLD))
            (client if first == "client" else api).close()
        with contextlib.suppress(TimeoutError):
            received += client.read_to_end(4)
    lab.hand.hang_up()
    struck = eventually(lambda: faulty.switch.strikes() > before, 1 if target in HALF_OFTEN else 5)
    faulty.switch.disarm()
    assert struck or target in HALF_OFTEN, "the function was never called"

    def is_free() -> bool:
        with lab.client() as other:
            other.send(lab.head())
            if not lab.hand.waits(0.5):
                return False
            lab.serve()
            return other.read_response().startswith(b"HTTP/1.1 200 ")

    assert eventually(is_free, 8)
    traces = Traces([REAL_SECRET, *lab.issuer.issued])
    assert not traces.found_in(received)
    assert not traces.found_in(lab.gateway.log()[logged:].encode())


HALF_OFTEN = {
    "WebSocketExchange.end_input",
    "WebSocketExchange._upstream_ended",
    "WebSocketExchange.passed_on",
    "UpstreamSocket.end_output",
    "ClientWriter.end_output",
    "Lane._end_input",
}
"""Called only where one certain side ends first."""
