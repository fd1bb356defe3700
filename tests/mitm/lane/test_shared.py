"""What all lanes of a process share: where a request is led, what is ended in time, and what a drain ends."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from mitmproxy import ctx
from mitmproxy.options import Options

from presign_proxy.core.connection import Conduct
from presign_proxy.gateway.outward import Outward, announced
from presign_proxy.mitm.lane.shared import LaneShared
from presign_proxy.mitm.lane.upstream_pool import PoolKey
from presign_proxy.mitm.sockets import upstream_tls
from support.exchanging import granted, story

CLIENT: Any = SimpleNamespace(id="client 1")


class Noting:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.told.append((name, *given))


class Judge:
    def __init__(self) -> None:
        self.refreshed = 0
        self.ours: set[int] = set()

    def refresh(self) -> None:
        self.refreshed += 1

    def may_be_ours(self, port: int) -> bool:
        return port in self.ours

    async def outward(self, client: Any, forward: Any) -> Outward:
        assert client is CLIENT
        return Outward("api.example.com", 443, ("192.0.2.9", "192.0.2.10"))


class Exchange:
    """One that is under way."""

    def __init__(self, *, is_lost: bool = False) -> None:
        self.told: list[Any] = []
        self.limit_hold = SimpleNamespace(is_lost=lambda now: is_lost and now == 7.0)

    def lose(self, why: str) -> None:
        self.told.append(("lose", why))

    def check_time(self, now: float) -> None:
        self.told.append(("check", now))

    def abandon(self, why: str) -> None:
        self.told.append(("abandon", why))


class Lab:
    def __init__(self) -> None:
        self.judge = Judge()
        self.lifecycle = SimpleNamespace(draining=False)
        self.admission = SimpleNamespace(registry="the registry")
        others: list[Any] = [self.admission, self.judge, None, None, self.lifecycle]
        self.shared: Any = LaneShared(*others)
        self.shared.pool, self.shared.grants = Noting(), Noting()


def master(**options: Any) -> Any:
    found = Options()
    found.add_option("presign_lane", str, "auto", "")
    found.update(**options)
    return SimpleNamespace(options=found, addons=SimpleNamespace(get=lambda _: None))


def test_nothing_takes_the_lane_before_the_options_are_known() -> None:
    assert Lab().shared.open is False


@pytest.mark.parametrize(("chosen", "opens"), [("auto", True), ("off", False)])
def test_what_is_verified_anew_is_connected_to_anew(chosen: str, opens: bool) -> None:
    """Connections were verified by the options of before, and the gateway may listen elsewhere now."""
    lab = Lab()
    lab.shared.set_out(master(presign_lane=chosen))
    assert lab.shared.open is opens
    assert lab.shared.pool.told == [("reset",)]
    assert lab.judge.refreshed == 1


def test_a_drain_makes_each_answer_the_last_one() -> None:
    lab = Lab()
    assert lab.shared.draining is False
    lab.lifecycle.draining = True
    assert lab.shared.draining is True


def test_an_upstream_is_verified_with_the_authorities_that_the_options_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = SimpleNamespace(
        ssl_verify_upstream_trusted_ca=str(tmp_path / "ca.pem"), ssl_verify_upstream_trusted_confdir=None
    )
    monkeypatch.setattr(ctx, "options", options, raising=False)
    context = upstream_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1


def test_who_is_led_to_a_named_upstream_needs_no_judging() -> None:
    lab, forward = Lab(), granted()
    expected = PoolKey(forward.connection.id, forward.origin, "api.example.com", None)
    assert lab.shared.place_at_once(CLIENT, forward) == expected


@pytest.mark.parametrize("why", ["its address is to be judged", "the gateway listens at that port"])
def test_who_might_be_led_to_the_gateway_itself_is_judged_first(why: str) -> None:
    async def work() -> None:
        lab = Lab()
        forward = granted(resolve=()) if "judged" in why else granted()
        if "listens" in why:
            lab.judge.ours.add(443)
        assert lab.shared.place_at_once(CLIENT, forward) is None
        expected = PoolKey(forward.connection.id, forward.origin, "192.0.2.9", None)
        assert await lab.shared.place(CLIENT, forward) == expected
        assert announced("192.0.2.9", 443).addresses == ("192.0.2.9", "192.0.2.10")

    story(work)


@pytest.mark.parametrize("shared", [True, False])
def test_a_connection_that_is_not_to_be_shared_stays_with_its_client(shared: bool) -> None:
    place = Lab().shared.place_at_once(CLIENT, granted(conduct=Conduct(pool=shared)))
    assert place.client == (None if shared else "client 1")


def test_what_has_lost_its_slot_is_ended_and_what_has_not_may_be_late() -> None:
    lab = Lab()
    lost, other = Exchange(is_lost=True), Exchange()
    lab.shared.exchanges |= {lost, other}
    lab.shared.tick(7.0)
    assert lost.told == [("lose", "its slot was lost")]
    assert other.told == [("check", 7.0)]


def test_twice_a_second_what_is_idle_is_let_go_of_and_what_was_granted_before_is_forgotten() -> None:
    lab = Lab()
    before = int(time.time())
    lab.shared.tick(7.0)
    assert lab.shared.pool.told == [("sweep",)]
    ((name, registry, now),) = lab.shared.grants.told
    assert (name, registry) == ("forget_before", "the registry")
    assert before <= now <= int(time.time())
    assert lab.judge.refreshed == 1


def test_an_exchange_that_ends_others_as_it_ends_breaks_no_tick() -> None:
    lab = Lab()
    first, second = Exchange(), Exchange()
    lab.shared.exchanges |= {first, second}
    first.check_time = second.check_time = lambda _: lab.shared.exchanges.clear()  # type: ignore[method-assign]
    lab.shared.tick(7.0)
    lab.shared.exchanges |= {first, second}
    first.abandon = second.abandon = lambda _: lab.shared.exchanges.clear()  # type: ignore[method-assign]
    lab.shared.close()


def test_a_gateway_that_is_stopped_ends_what_is_under_way_and_what_waits() -> None:
    async def work() -> None:
        lab = Lab()
        exchange = Exchange()
        lab.shared.exchanges.add(exchange)
        task = lab.shared.run(asyncio.sleep(60))
        assert lab.shared._tasks == {task}, "asyncio itself would let it be collected"
        lab.shared.close()
        assert exchange.told == [("abandon", "the gateway was stopped")]
        assert lab.shared.pool.told == [("reset",)]
        await asyncio.wait([task])
        assert task.cancelled()

    story(work)


def test_what_was_waited_for_is_let_go_of() -> None:
    async def work() -> None:
        lab = Lab()
        task = lab.shared.run(asyncio.sleep(0))
        await task
        await asyncio.sleep(0)
        assert lab.shared._tasks == set()

    story(work)
