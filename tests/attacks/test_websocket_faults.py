"""Whatever fails of a WebSocket: nobody is kept waiting, no slot stays taken, no secret is told."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.byhand import ByHand
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import WAYS, LaneLab, config
from support.leaks import Traces
from support.puppet import SCRIPTS, eventually
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
    switch: Path
    hits: Path
    serial: int = 0

    def arm(self, target: str) -> None:
        self.serial += 1
        assert f"missing {target}" not in self.hits.read_text().splitlines()
        draft = self.switch.with_suffix(".draft")
        draft.write_text(f"{target}@1 {self.serial}")
        draft.replace(self.switch)

    def strikes(self) -> int:
        return self.hits.read_text().count("@")


@pytest.fixture(scope="module")
def gateways(
    module_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Faulty]]:
    hand, found = ByHand(), {}
    more: dict[str, Any] = {"websocket": True, "limits": [{"concurrency": 1}]}
    for way in ("lane", "flows"):
        place = tmp_path_factory.mktemp("faults")
        switch, hits = place / "switch", place / "hits"
        switch.write_text("")
        hits.write_text("")
        targets = sorted({target for _, target in CASES})
        env = {"FAULT_SWITCH": str(switch), "FAULT_HITS": str(hits), "FAULT_TARGETS": json.dumps(targets)}
        settings = config(hand.url, **more) | {"limits": {"store": "memory://"}}
        gateway = module_gateway(settings, "-s", str(SCRIPTS / "faults.py"), *WAYS[way], env=env)
        found[way] = Faulty(LaneLab(gateway, hand), switch, hits)
    yield found
    hand.stop()


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize(("way", "target"), CASES)
def test_whatever_fails_both_are_ended_and_the_slot_is_free(
    gateways: dict[str, Faulty], way: str, target: str, first: str
) -> None:
    faulty = gateways[way]
    lab, before = faulty.lab.fresh(), faulty.strikes()
    logged = len(lab.gateway.log())
    faulty.arm(target)
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
    struck = eventually(lambda: faulty.strikes() > before, 1 if target in HALF_OFTEN else 5)
    faulty.switch.write_text("")
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
