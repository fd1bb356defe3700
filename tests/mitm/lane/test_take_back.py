"""A kept connection on which something came that is not for the lane: the lane serves what comes after it.

Only the lane takes an upstream connection that another client has left. So a test sees which of the two asks.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.byhand import ByHand
from support.gateways import MakeGateway
from support.lane_talk import KINDS, PAGE, WAYS, Talk
from support.lanes import LaneLab, config
from support.serving import Serve


@pytest.fixture(scope="module", params=["mitmdump", "serve"])
def module_lab(
    request: pytest.FixtureRequest, module_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LaneLab]:
    hand = ByHand()
    settings = config(hand.url, cors={"origins": [PAGE]})
    settings["gateway"]["unsigned"] = "pass"
    try:
        if request.param == "serve":
            with Serve(tmp_path_factory.mktemp("serve"), settings, "--unsigned", "pass") as served:
                yield LaneLab(served, hand)
        else:
            yield LaneLab(module_gateway(settings), hand)
    finally:
        hand.stop()


def fits(kind: str, way: str) -> bool:
    """Whether a client on this way can send it: through TLS to the gateway itself nothing is passed."""
    return kind != "passed" or way in ("client", "tunnel")


CASES = [(kind, way) for kind in KINDS for way in WAYS if fits(kind, way)]


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_the_lane_serves_a_client_again_after(kind: str, way: str, count: int, lab: LaneLab) -> None:
    with Talk.begin(lab, way) as talk:
        talk.ours("first")
        for number in range(count):
            talk.other(kind, f"other{number}")
        talk.ours("second")
        talk.ours("third")
