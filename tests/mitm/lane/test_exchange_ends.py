"""The answer of an upstream on its way through the lane, and what is left once it is whole."""

import gzip
import time

import pytest

from support.deciding import KEY
from support.exchanging import Lab, story


def status(lab: Lab) -> int:
    assert lab.lane.output.startswith(b"HTTP/1.1 ")
    return int(lab.lane.output[9:12])


# -- an answer that is whole ------------------------------------------------------------------------------


def test_a_whole_answer_frees_the_slot_is_booked_and_leaves_both_connections_to_others() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        assert lab.answer() is True
        assert status(lab) == 200
        assert lab.lane.output.endswith(b"\r\n\r\nok")
        assert b"Connection:" not in lab.lane.output
        assert lab.decision is lab.forward
        assert (lab.line.status, lab.line.upstream_status, lab.line.bytes_out) == (200, 200, 2)
        assert (lab.line.code, lab.line.error) == (None, None)
        assert lab.lane.told == [("over", False, False)]
        assert lab.pool.back == [upstream]
        assert "close" not in upstream.told
        assert not upstream.odd
        assert lab.is_over()

    story(work)


def test_the_slot_is_free_before_the_connection_is_anybodys() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        seen: list[int] = []
        give_back = lab.pool.give_back
        lab.pool.give_back = lambda *given: (seen.append(lab.freed), give_back(*given))  # type: ignore[method-assign]
        lab.answer()
        assert seen == [1]

    story(work)


def test_while_it_is_received_it_is_passed_on() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        assert lab.say_head(size=4) is True
        assert lab.exchange.stage == "receiving"
        assert not lab.exchange.is_sending
        lab.exchange.data(b"so")
        lab.exchange.received()
        assert lab.lane.output.endswith(b"\r\n\r\nso")
        lab.exchange.data(b"me")
        lab.exchange.complete()
        assert lab.lane.output.endswith(b"\r\n\r\nsome")
        assert lab.is_over()

    story(work)


def test_an_answer_that_ends_with_its_connection_has_an_end_that_the_client_sees() -> None:
    """If it ended with the client's connection too, one that was cut off would look like a whole one."""

    async def work() -> None:
        lab = Lab()
        lab.begin()
        assert lab.say_head(size=None) is True
        lab.exchange.data(b"some")
        lab.exchange.complete()
        assert b"\r\nTransfer-Encoding: chunked\r\n" in lab.lane.output
        assert lab.lane.output.endswith(b"\r\n\r\n4\r\nsome\r\n0\r\n\r\n")
        assert lab.lane.told == [("over", False, False)]

    story(work)


@pytest.mark.parametrize("how", ["chunked", "packed"])
def test_an_answer_whose_length_is_not_known_is_sent_in_chunks(how: str) -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        packed = gzip.compress(KEY.encode())
        if how == "chunked":
            lab.say_head((b"Transfer-Encoding", b"chunked"), size=None)
            lab.exchange.data(KEY.encode())
        else:
            lab.say_head((b"Content-Encoding", b"gzip"), size=len(packed))
            lab.exchange.data(packed)
        lab.exchange.complete()
        assert b"\r\nTransfer-Encoding: chunked\r\n" in lab.lane.output
        assert b"Connection: close" not in lab.lane.output
        assert lab.lane.output.endswith(b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(KEY), b"*" * len(KEY)))
        assert lab.lane.told == [("over", False, False)]

    story(work)


@pytest.mark.parametrize(("method", "code"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_without_a_body_has_none_whatever_it_says(method: str, code: int) -> None:
    async def work() -> None:
        lab = Lab(method=method)
        lab.begin()
        assert lab.say_head((b"Transfer-Encoding", b"chunked"), status=code, size=None) is False
        lab.exchange.complete()
        assert b"Connection: close" not in lab.lane.output
        assert lab.lane.output.endswith(b"\r\n\r\n")
        assert b"\r\n0\r\n" not in lab.lane.output
        assert lab.lane.told == [("over", False, False)]

    story(work)


def test_a_client_that_wants_its_connection_closed_gets_that() -> None:
    async def work() -> None:
        lab = Lab("Connection: close")
        upstream = lab.begin()
        lab.answer()
        assert b"\r\nConnection: close\r\n" in lab.lane.output
        assert lab.lane.told == [("over", True, False)]
        assert lab.pool.back == [upstream]

    story(work)


def test_while_the_gateway_drains_each_answer_is_the_last_one_on_its_connection() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.shared.draining = True
        lab.answer()
        assert b"\r\nConnection: close\r\n" in lab.lane.output
        assert lab.lane.told == [("over", True, False)]

    story(work)


@pytest.mark.parametrize("code", [*range(400, 418), 422, 426, 428, 429, 430, 431, 432, *range(500, 508)])
def test_a_connection_whose_upstream_may_not_have_understood_the_request_serves_nobody_else(
    code: int,
) -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.answer(status=code)
        assert upstream.odd is (code in (400, 408, 411, 413, 414, 431, 501, 505))
        assert lab.line.status == code

    story(work)


def test_an_answer_whose_head_shows_the_credential_is_masked() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.answer((b"X-Key", KEY.encode()), body=KEY.encode())
        assert KEY.encode() not in lab.lane.output
        assert status(lab) == 200

    story(work)


def test_a_body_that_the_client_does_not_take_holds_up_its_upstream() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.say_head(size=200_000)
        lab.lane.is_full = True
        lab.exchange.data(bytes(100_000))
        lab.exchange.received()
        assert upstream.told[-1] == "pause"
        assert "when drained" in lab.lane.told
        lab.exchange.resume()
        assert upstream.told[-1] == "resume"
        lab.exchange.abandon("gone")
        told = list(upstream.told)
        lab.exchange.pause()
        lab.exchange.resume()
        assert upstream.told == told, "it may be another one's by now"

    story(work)


# -- an answer that is there before the request is whole --------------------------------------------------


def test_an_early_answer_waits_for_the_rest_of_the_request() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        upstream = lab.begin()
        lab.answer()
        assert lab.lane.output.endswith(b"\r\n\r\nok")
        assert (lab.exchange.stage, lab.exchange.ended, lab.exchange.is_sending) == ("trailing", False, True)
        assert (lab.shared.booked, lab.lane.told, lab.freed) == ([], [], 0)
        lab.exchange.passed_on()
        assert lab.exchange.stage == "trailing"
        assert lab.lane.output.count(b"\r\n\r\nok") == 1
        assert lab.exchange.upload(b"helloGET") == b"GET"
        assert upstream.told[2:] == [(b"hello", True)]
        assert lab.lane.told == [("over", False, False)]
        assert lab.pool.back == [upstream]
        assert (lab.line.status, lab.line.error, lab.line.bytes_in) == (200, None, 5)
        assert lab.is_over()

    story(work)


def test_a_request_that_ends_within_its_answer_does_not_end_the_answer() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        upstream = lab.begin()
        lab.say_head(size=4)
        lab.exchange.data(b"so")
        lab.exchange.received()
        lab.exchange.upload(b"hello")
        assert (lab.exchange.stage, lab.lane.told) == ("receiving", [])
        lab.exchange.data(b"me")
        lab.exchange.complete()
        assert lab.lane.output.endswith(b"\r\n\r\nsome")
        assert lab.pool.back == [upstream]

    story(work)


def test_a_request_that_goes_on_behind_its_answer_is_passed_on() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        upstream = lab.begin()
        lab.answer()
        lab.exchange.upload(b"hel")
        assert (lab.exchange.stage, lab.lane.told) == ("trailing", [])
        assert upstream.told[-1] == (b"hel", False)

    story(work)


def test_an_early_answer_in_chunks_has_its_end_once() -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        lab.begin()
        lab.say_head((b"Transfer-Encoding", b"chunked"), size=None)
        lab.exchange.data(b"some")
        lab.exchange.complete()
        lab.exchange.passed_on()
        lab.exchange.upload(b"hello")
        assert lab.lane.output.count(b"0\r\n\r\n") == 1

    story(work)


@pytest.mark.parametrize("how", ["stalls", "lost", "last", "odd"])
def test_an_early_answer_behind_which_nothing_is_read_ends_both_connections(how: str) -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", *(["Connection: close"] if how == "last" else []), method="POST")
        upstream = lab.begin()
        lab.exchange.upload(b"hel")
        upstream.odd = how == "odd"
        lab.answer()
        if how == "stalls":
            lab.exchange.check_time(time.monotonic() + 31)
            assert lab.lane.told.pop(0) == "keep awake"
        if how == "lost":
            lab.exchange.lost()
        assert upstream.told[-1] == "close", "it would take the rest of the body for a request"
        assert lab.pool.back == []
        assert lab.lane.told == [("over", True, False)]
        assert (lab.line.status, lab.line.code, lab.line.error) == (200, None, None)
        assert status(lab) == 200
        assert lab.is_over()

    story(work)
