"""The body of a request on its way through the lane, and what comes too late."""

import asyncio
import time

import pytest

from support.exchanging import Lab, UpstreamConnection, granted, story

NEVER = 10**9
"""Seconds, on any clock of these tests."""


def status(lab: Lab) -> int:
    assert lab.lane.output.startswith(b"HTTP/1.1 ")
    return int(lab.lane.output[9:12])


# -- the body ---------------------------------------------------------------------------------------------


def test_a_body_goes_out_as_it_comes_and_what_is_behind_it_comes_back() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        upstream = lab.begin()
        assert (lab.exchange.stage, lab.exchange.is_sending, lab.exchange.wants_more) == (
            "sending",
            True,
            True,
        )
        assert lab.exchange.upload(b"hel") == b""
        assert (lab.exchange.stage, lab.exchange.is_sending) == ("sending", True)
        assert lab.exchange.upload(b"loGET") == b"GET"
        assert upstream.told[2:] == [(b"hel", False), (b"lo", True)]
        assert (lab.exchange.stage, lab.exchange.is_sending, lab.exchange.wants_more) == (
            "waiting",
            False,
            False,
        )
        lab.answer()
        assert lab.line.bytes_in == 5

    story(work)


@pytest.mark.parametrize("begun", [False, True])
def test_a_body_over_what_was_signed_is_cut(begun: bool) -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 9", method="POST", forward=granted(max_body=5))
        upstream = lab.begin()
        assert lab.exchange.upload(b"hello") == b""
        assert upstream.told[-1] == (b"hello", False)
        if begun:
            lab.say_head(size=9)
            lab.exchange.data(b"some")
            lab.exchange.received()
        assert lab.exchange.upload(b"!GET") == b"", "nobody can tell where the next request begins"
        assert upstream.told[3:] == ["close"]
        assert lab.decision.code == "too_large"
        assert lab.line.error == (lab.decision.detail if begun else None)
        assert lab.line.status == (200 if begun else 413)
        assert lab.lane.told == [("over", True, begun)]
        assert lab.is_over()
        if not begun:
            assert status(lab) == 413
            assert b"\r\nConnection: close\r\n" in lab.lane.output

    story(work)


def test_a_body_of_any_size_passes_where_none_was_signed() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 100", method="POST")
        upstream = lab.begin()
        lab.exchange.upload(bytes(99))
        assert upstream.told[-1] == (bytes(99), False)
        assert not lab.exchange.ended

    story(work)


def test_a_body_that_is_not_framed_is_cut() -> None:
    async def work() -> None:
        lab = Lab("Transfer-Encoding: chunked", method="POST")
        upstream = lab.begin()
        assert lab.exchange.upload(b"zz\r\nGET /x") == b""
        assert upstream.told[2:] == ["close"]
        assert (status(lab), lab.decision.code) == (400, "malformed")
        assert b"\r\nConnection: close\r\n" in lab.lane.output
        assert lab.lane.told == [("over", True, False)]

    story(work)


# -- what is late -----------------------------------------------------------------------------------------


def test_an_answer_may_take_as_long_as_its_connection_says() -> None:
    async def work() -> None:
        lab = Lab()
        before = time.monotonic()
        upstream = lab.begin()
        after = time.monotonic()
        lab.exchange.check_time(before + 60)
        assert (lab.exchange.ended, lab.lane.told) == (False, ["keep awake"])
        lab.exchange.check_time(after + 60.001)
        assert (status(lab), lab.line.code) == (504, "upstream")
        assert lab.line.error == "the upstream did not answer in time"
        assert upstream.told[-1] == "close"
        assert lab.is_over()

    story(work)


def test_the_moment_itself_is_in_time() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.exchange.check_time(lab.exchange._due)
        assert not lab.exchange.ended

    story(work)


def test_an_answer_that_has_begun_may_take_for_ever() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.say_head()
        lab.exchange.check_time(NEVER)
        assert not lab.exchange.ended
        assert lab.lane.told == ["keep awake"]

    story(work)


def test_a_request_that_still_waits_is_not_held_to_the_time_of_an_answer() -> None:
    async def work() -> None:
        lab = Lab()
        lab.shared.at_once = None
        lab.exchange.begin()
        lab.exchange.check_time(NEVER)
        assert not lab.exchange.ended
        lab.pool.new = [UpstreamConnection()]
        await lab.settle()

    story(work)


@pytest.mark.parametrize("moment", ["begun", "a piece", "the answer goes on"])
def test_a_body_that_goes_on_is_left_alone(moment: str) -> None:
    """Each time is counted from the last that moved, not from the first."""

    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        lab.begin()
        if moment != "begun":
            lab.exchange.body._moved = 0.0
        if moment == "a piece":
            lab.exchange.upload(b"h")
        if moment == "the answer goes on":
            lab.say_head(size=9)
            lab.exchange.data(b"x")
            lab.exchange.received()
        lab.exchange.check_time(time.monotonic() + 29)
        assert not lab.exchange.ended
        lab.exchange.check_time(time.monotonic() + 31)
        assert lab.exchange.ended

    story(work)


def test_an_answer_that_goes_on_after_the_body_was_there_does_not_count_for_it() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 1", method="POST")
        lab.begin()
        lab.exchange.upload(b"x")
        moved = lab.exchange.body._moved
        lab.say_head()
        await asyncio.sleep(0.002)
        lab.exchange.received()
        assert lab.exchange.body._moved == moved

    story(work)


def test_a_body_of_which_no_more_comes_is_refused() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        upstream = lab.begin()
        lab.exchange.check_time(time.monotonic() + 31)
        assert (status(lab), lab.decision.code) == (408, "timeout")
        assert "30" in lab.decision.detail
        assert lab.lane.told == ["keep awake", ("over", True, False)]
        assert upstream.told[-1] == "close"

    story(work)


def test_an_upstream_that_takes_no_more_of_a_body_is_given_up() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        lab.begin()
        lab.exchange.hold(True)
        assert lab.lane.told == [("hold", True)]
        lab.exchange.check_time(time.monotonic() + 59)  # the client is not to blame
        assert not lab.exchange.ended
        lab.exchange.check_time(time.monotonic() + 61)
        assert (status(lab), lab.line.code) == (504, "upstream")
        assert lab.line.error == "the upstream took no more of the body in time"

    story(work)


def test_an_upstream_that_takes_a_body_again_leaves_it_to_the_client() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        lab.begin()
        lab.exchange.hold(True)
        lab.exchange.hold(False)
        assert lab.lane.told == [("hold", True), ("hold", False)]
        lab.exchange.check_time(time.monotonic() + 31)
        assert status(lab) == 408

    story(work)


def test_a_failure_while_the_time_is_looked_at_ends_the_exchange() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.lane.fails_at = "keep awake"
        lab.exchange.check_time(0.0)
        assert status(lab) == 500
        assert lab.lane.told[-1] == "cut"
        assert upstream.told[-1] == "close"
        assert lab.is_over()

    story(work)
