"""A request on its way through the lane to its upstream: what is waited for, and what is never sent."""

from typing import Any

import pytest

from presign_proxy.core.connection import Conduct
from presign_proxy.errors import Denied
from presign_proxy.gateway.admission import ROUNDS
from support.deciding import KEY
from support.exchanging import REFUSED, Lab, UpstreamConnection, granted, story

NEVER = 10**9
"""Seconds, on any clock of these tests."""


def status(lab: Lab) -> int:
    assert lab.lane.output.startswith(b"HTTP/1.1 ")
    return int(lab.lane.output[9:12])


# -- sent at once, or once all is there -------------------------------------------------------------------


def test_a_request_that_waits_for_nothing_goes_out_on_a_connection_that_was_kept() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        assert upstream.told == [("begin", b"GET", True), (lab.wire, False)]
        assert KEY.encode() in upstream.written
        assert (lab.exchange.stage, lab.exchange.ended) == ("waiting", False)
        assert lab.admission.asked == []
        assert lab.lane.told == []

    story(work)


def test_a_request_that_waits_is_not_sent_before_all_is_there() -> None:
    async def work() -> None:
        lab = Lab(forward=granted(sent=None))
        filled = granted()
        lab.admission.completes = [filled]
        upstream = UpstreamConnection(was_kept=True)
        lab.pool.kept.append(upstream)
        lab.exchange.begin()
        assert (upstream.told, lab.exchange.stage) == ([], "preparing")
        await lab.settle()
        assert lab.admission.asked == [(lab.forward, lab.request, lab.lane.client, lab.exchange.limit_hold)]
        assert upstream.written == lab.wire_of(filled)
        assert lab.exchange.granted.forward is filled
        assert lab.lane.told == ["proceed"]
        lab.answer(body=b"echo " + KEY.encode())
        assert KEY.encode() not in lab.lane.output, "the credential that was fetched is masked too"
        assert b"echo ***" in lab.lane.output

    story(work)


def test_what_is_refused_while_it_waits_is_never_sent() -> None:
    async def work() -> None:
        lab = Lab(forward=granted(sent=None))
        lab.admission.completes = [REFUSED]
        upstream = UpstreamConnection(was_kept=True)
        lab.pool.kept.append(upstream)
        lab.exchange.begin()
        await lab.settle()
        assert upstream.told == []
        assert (status(lab), lab.decision) == (403, REFUSED)
        assert lab.lane.told == [("over", False, False)]
        assert lab.is_over()

    story(work)


def test_what_is_granted_as_before_leaves_as_it_was_written() -> None:
    async def work() -> None:
        lab = Lab()
        lab.pool.new = [upstream := UpstreamConnection()]
        lab.exchange.begin()
        await lab.settle()
        assert upstream.told == [("begin", b"GET", True), (lab.wire, False)]
        assert lab.lane.told == ["proceed"]
        assert lab.exchange.stage == "waiting"

    story(work)


def test_a_client_that_goes_in_the_moment_in_which_all_is_there_is_not_asked_for() -> None:
    async def work() -> None:
        lab = Lab()
        lab.shared.at_once = None
        lab.admission.on_complete = lambda: lab.exchange.abandon("gone")
        lab.pool.kept.append(upstream := UpstreamConnection(was_kept=True))
        lab.exchange.begin()
        await lab.settle()
        assert upstream.told == []
        assert lab.pool.kept == [upstream]
        assert lab.lane.told == []
        assert lab.is_over()

    story(work)


def test_a_connection_that_was_kept_is_used_where_its_address_was_to_be_judged() -> None:
    async def work() -> None:
        lab = Lab()
        lab.shared.at_once = None
        lab.pool.kept.append(upstream := UpstreamConnection(was_kept=True))
        lab.exchange.begin()
        await lab.settle()
        assert upstream.written == lab.wire
        assert lab.pool.kept == []
        assert lab.lane.told == ["proceed"]

    story(work)


@pytest.mark.parametrize("error", [Denied("upstream", "it leads to the gateway"), ZeroDivisionError()])
def test_what_fails_while_it_waits_is_answered(error: Exception) -> None:
    async def work() -> None:
        lab = Lab()
        lab.shared.at_once = None
        lab.shared.places = [error]
        lab.exchange.begin()
        await lab.settle()
        assert lab.is_over()
        if isinstance(error, Denied):
            assert (status(lab), lab.line.code, lab.line.error) == (
                502,
                "upstream",
                "it leads to the gateway",
            )
            assert lab.lane.told == [("over", False, False)]
        else:
            assert (status(lab), lab.line.code, lab.line.error) == (500, "internal", "the gateway failed")
            assert lab.lane.told == [("over", False, False), "cut"]

    story(work)


# -- connecting -------------------------------------------------------------------------------------------


def test_an_upstream_that_cannot_be_connected_to_is_told_of() -> None:
    async def work() -> None:
        lab = Lab()
        lab.pool.new = [ConnectionRefusedError()]
        lab.exchange.begin()
        await lab.settle()
        assert (status(lab), lab.line.code) == (502, "upstream")
        assert lab.line.error == "the upstream api.example.com cannot be connected to (connection refused)"
        assert lab.lane.told == [("over", False, False)]
        assert lab.is_over()

    story(work)


def test_an_upstream_that_is_not_connected_to_in_time_is_given_up() -> None:
    async def work() -> None:
        lab = Lab(forward=granted(conduct=Conduct(connect_timeout=0)))
        lab.pool.new = [upstream := UpstreamConnection()]
        lab.exchange.begin()
        await lab.settle()
        assert (status(lab), lab.line.status) == (504, 504)
        assert lab.line.error == "the upstream was not connected to in time"
        assert upstream.told == []
        assert lab.is_over()

    story(work)


def test_while_it_connects_a_body_waits() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 2", method="POST")
        lab.pool.new = [upstream := UpstreamConnection()]
        seen: list[Any] = []
        lab.pool.on_open = lambda: seen.append((lab.exchange.stage, lab.exchange.is_sending))
        lab.exchange.begin()
        assert not lab.exchange.is_sending
        await lab.settle()
        assert seen == [("connecting", False)]
        assert lab.exchange.is_sending
        assert upstream.told == [("begin", b"POST", False), (lab.wire, False)]
        assert lab.exchange.stage == "sending"

    story(work)


def test_a_connection_that_comes_for_a_client_that_has_gone_is_left_to_others() -> None:
    async def work() -> None:
        lab = Lab()
        lab.pool.new = [upstream := UpstreamConnection()]
        lab.pool.on_open = lambda: lab.exchange.abandon("gone")
        lab.exchange.begin()
        await lab.settle()
        assert upstream.told == []
        assert lab.pool.back == [upstream]
        assert lab.lane.told == []

    story(work)


@pytest.mark.parametrize("state", [{"lost": True}, {"odd": True}, {"transport": None}])
def test_a_connection_that_spoke_or_ended_before_it_was_asked_gets_no_credential(state: Any) -> None:
    async def work() -> None:
        lab = Lab()
        lab.pool.new = [upstream := UpstreamConnection(**state)]
        lab.exchange.begin()
        await lab.settle()
        assert upstream.told == ["close"]
        assert status(lab) == 502
        assert lab.line.error == "the upstream closed, or spoke, before it was asked"
        assert lab.admission.confirmed == 0
        assert lab.lane.told == [("over", False, False)]

    story(work)


# -- granted in the very moment in which it leaves --------------------------------------------------------


def test_what_is_revoked_before_it_leaves_is_not_sent_and_its_connection_serves_others() -> None:
    async def work() -> None:
        lab = Lab()
        lab.admission.confirms = [REFUSED]
        upstream = lab.begin()
        assert upstream.told == []
        assert lab.pool.back == [upstream]
        assert (status(lab), lab.decision) == (403, REFUSED)
        assert lab.is_over()

    story(work)


def test_what_another_configuration_grants_waits_for_all_of_that_and_leaves_as_it_says() -> None:
    async def work() -> None:
        lab = Lab()
        other = granted()
        lab.admission.confirms = [other]
        upstream = UpstreamConnection(was_kept=True)
        lab.pool.kept = [upstream]
        lab.exchange.begin()
        assert upstream.told == []
        assert lab.exchange.stage == "preparing"
        assert lab.pool.back == [upstream]
        lab.pool.kept = [upstream]
        await lab.settle()
        assert lab.admission.asked == [(other, lab.request, lab.lane.client, lab.exchange.limit_hold)]
        assert upstream.written == lab.wire_of(other)
        assert lab.exchange.granted.forward is other

    story(work)


def test_what_another_configuration_would_have_to_fetch_is_not_sent_with_the_credential_of_before() -> None:
    async def work() -> None:
        lab = Lab()
        lab.admission.confirms = [granted(sent=None)]
        lab.admission.completes = [granted(sent=None)]
        upstream = UpstreamConnection(was_kept=True)
        lab.pool.kept = [upstream]
        lab.exchange.begin()
        lab.pool.kept = [upstream]
        await lab.settle()
        assert upstream.written == b""
        assert (status(lab), lab.line.code) == (500, "internal")
        assert lab.lane.told[-1] == "cut"

    story(work)


@pytest.mark.parametrize("more", [0, 1])
def test_who_changes_the_configuration_all_the_time_makes_no_request_go_round_for_ever(more: int) -> None:
    async def work() -> None:
        lab = Lab()
        others = [granted() for _ in range(ROUNDS + more)]
        lab.admission.confirms = list(others)
        upstream = UpstreamConnection(was_kept=True)
        for _ in range(ROUNDS + 1):
            lab.pool.kept.append(upstream)
        lab.exchange.begin()
        await lab.settle()
        assert lab.admission.confirmed == ROUNDS + 1
        if not more:
            assert upstream.written == lab.wire_of(others[-1])
            assert lab.lane.output == b""
            return
        assert upstream.written == b""
        assert status(lab) == 503
        assert lab.decision.detail == "the configuration changes all the time"
        assert lab.pool.back == [upstream] * (ROUNDS + 1)

    story(work)


def test_a_grant_without_a_head_is_never_sent() -> None:
    async def work() -> None:
        lab = Lab()
        lab.exchange._dispatch._wire = None
        lab.pool.kept = [upstream := UpstreamConnection(was_kept=True)]
        with pytest.raises(LookupError):
            lab.exchange.begin()
        assert upstream.told == ["close"]

    story(work)


def test_a_head_is_written_once() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        assert lab.exchange._dispatch._wire is None, "what holds the credential is let go of"

    story(work)
