"""Each way in which an exchange on the lane fails, is sent once more, or is ended from outside."""

import asyncio
from typing import Any

import pytest

from presign_proxy.errors import Denied
from presign_proxy.mitm.lane import client_head, exchange
from support.exchanging import REFUSED, Lab, UpstreamConnection, granted, story


def status(lab: Lab) -> int:
    assert lab.lane.output.startswith(b"HTTP/1.1 ")
    return int(lab.lane.output[9:12])


# -- an upstream that fails -------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["", "it said something else"])
@pytest.mark.parametrize("whole", [True, False])
def test_an_upstream_that_ends_before_it_answers_is_answered_for(why: str, whole: bool) -> None:
    async def work() -> None:
        lab = Lab("Content-Length: 5", method="POST")
        upstream = lab.begin()
        if whole:
            lab.exchange.upload(b"hello")
        lab.exchange.lost(why)
        expected = why or f"the upstream failed while {'waiting' if whole else 'sending'}"
        assert (status(lab), lab.line.code, lab.line.error) == (502, "upstream", expected)
        assert lab.line.status == 502
        assert (b"\r\nConnection: close\r\n" in lab.lane.output) is not whole
        assert lab.lane.told == [("over", not whole, False)]
        assert upstream.told[-1] == "close"
        assert lab.is_over()
        lab.exchange.lost(why)
        assert len(lab.shared.booked) == 1

    story(work)


@pytest.mark.parametrize("why", ["", "it said something else"])
def test_an_answer_that_breaks_off_is_seen_to_be_broken(why: str) -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.say_head((b"Transfer-Encoding", b"chunked"), size=None)
        lab.exchange.data(b"some")
        lab.exchange.received()
        lab.exchange.lost(why)
        assert lab.lane.output.endswith(b"4\r\nsome\r\n")
        assert lab.lane.told == [("over", True, True)]
        assert (lab.line.status, lab.line.error) == (200, why or "the upstream broke off its response")
        assert lab.decision is lab.forward
        assert upstream.told[-1] == "close"
        assert lab.is_over()

    story(work)


def test_an_answer_of_which_only_the_head_came_is_passed_on_and_broken_off() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.say_head(size=9)
        lab.exchange.lost()
        assert status(lab) == 200
        assert lab.lane.told == [("over", True, True)]
        assert lab.is_over()

    story(work)


def test_an_answer_that_cannot_be_decoded_is_broken_off() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.say_head((b"Content-Encoding", b"gzip"), size=9)
        lab.exchange.data(b"not gzip!")
        lab.exchange.received()
        assert lab.line.error == "the response cannot be decoded"
        assert lab.lane.told == [("over", True, True)]
        assert upstream.told[-1] == "close"

    story(work)


@pytest.mark.parametrize("status_and_field", [(200, b"a\x01b"), (101, b"fine")])
def test_an_answer_that_must_not_be_passed_on_is_answered_for(status_and_field: Any) -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        assert lab.say_head((b"X", status_and_field[1]), status=status_and_field[0]) is False
        assert (status(lab), lab.line.code) == (502, "upstream")
        assert lab.line.upstream_status == status_and_field[0]
        assert lab.line.error
        assert upstream.told[-1] == "close"
        assert lab.is_over()

    story(work)


def test_a_redirect_that_is_not_allowed_keeps_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()

        def refuse(*_: Any) -> Any:
            raise Denied("redirect_not_allowed", "elsewhere")

        monkeypatch.setattr(client_head, "rewrite", refuse)
        assert lab.say_head(status=302) is False
        assert lab.line.code == "redirect_not_allowed"
        assert status(lab) == 403

    story(work)


def test_a_failure_of_ours_at_an_answer_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        monkeypatch.setattr(client_head.request_head, "response", lambda *_, **__: 1 // 0)
        assert lab.say_head() is False
        assert (status(lab), lab.line.code) == (500, "internal")
        assert lab.line.error == "the gateway failed at the response"
        assert upstream.told[-1] == "close"
        assert lab.is_over()

    story(work)


# -- once more --------------------------------------------------------------------------------------------


def test_what_is_safe_is_sent_once_more_on_a_new_connection() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.pool.kept = [UpstreamConnection(was_kept=True)]
        lab.pool.new = [new := UpstreamConnection()]
        lab.exchange.lost()
        assert upstream.told[-1] == "close"
        assert not lab.exchange.ended
        await lab.settle()
        assert new.told == [("begin", b"GET", True), (lab.wire, False)]
        assert lab.lane.output == b""
        assert len(lab.pool.kept) == 1, "another that was kept may be closed too"
        assert lab.admission.confirmed == 2
        new.was_kept = True
        lab.exchange.lost()
        assert status(lab) == 502
        assert lab.is_over()

    story(work)


def test_what_waits_again_before_it_is_sent_once_more_goes_to_a_new_connection_too() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.pool.new = [first := UpstreamConnection(), new := UpstreamConnection()]
        lab.admission.confirms = [granted()]
        lab.exchange.lost()
        for _ in range(3):
            await asyncio.sleep(0)
        lab.pool.kept = [UpstreamConnection(was_kept=True)]
        await lab.settle()
        assert first.told == []
        assert new.written == lab.wire
        assert len(lab.pool.kept) == 1

    story(work)


@pytest.mark.parametrize("how", ["why", "new", "heard", "sending", "head is out", "counted"])
def test_what_may_have_arrived_is_not_sent_twice(how: str) -> None:
    async def work() -> None:
        lab = Lab(*(["Content-Length: 2"] if how == "sending" else []))
        upstream = lab.begin()
        if how == "new":
            upstream.was_kept = False
        if how == "heard":
            upstream.has_answered = True
        if how == "head is out":
            lab.say_head()
        if how == "counted":
            terms = lab.exchange.granted.forward.terms._replace(max_uses=3)
            lab.exchange.granted = lab.exchange.granted.under(granted(terms=terms))
        lab.exchange.lost("it said something else" if how == "why" else "")
        assert lab.shared.tasks == []
        assert lab.is_over()

    story(work)


# -- ended from outside -----------------------------------------------------------------------------------


def test_a_client_that_goes_ends_its_upstream_and_is_sent_nothing() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.exchange.abandon("the client went away")
        assert upstream.told[-1] == "close"
        assert (lab.lane.output, lab.lane.told) == (b"", [])
        assert (lab.line.status, lab.line.error) == (None, "the client went away")
        assert lab.decision is lab.forward
        assert lab.is_over()
        lab.exchange.abandon("again")
        lab.exchange.lose("again")
        lab.exchange.spoilt("again")
        assert len(lab.shared.booked) == 1
        assert lab.lane.output == b""

    story(work)


def test_a_client_that_goes_while_its_request_waits_ends_what_is_waited_for() -> None:
    async def work() -> None:
        lab = Lab()
        lab.shared.at_once = None
        lab.pool.new = [upstream := UpstreamConnection()]
        lab.exchange.begin()
        await asyncio.sleep(0)
        lab.exchange.abandon("gone")
        await lab.settle()
        assert lab.shared.tasks[0].cancelled()
        assert lab.pool.new == [upstream]
        assert lab.admission.confirmed == 0

    story(work)


def test_what_ends_itself_is_not_cancelled_in_the_middle_of_it() -> None:
    async def work() -> None:
        lab = Lab(forward=granted(sent=None))
        lab.admission.completes = [REFUSED]
        lab.exchange.begin()
        await lab.settle()
        assert not lab.shared.tasks[0].cancelled()
        assert not lab.shared.tasks[0].cancelling()

    story(work)


def test_what_has_lost_its_slot_is_ended_and_told_so() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.exchange.lose("its slot was lost")
        assert (status(lab), lab.line.error, lab.line.code) == (502, "its slot was lost", "upstream")
        assert upstream.told[-1] == "close"
        assert lab.is_over()

    story(work)


def test_what_cannot_be_answered_is_cut_off() -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        lab.lane.fails_at = "send"
        lab.exchange.lose("its slot was lost")
        assert lab.lane.told == ["cut"]
        assert upstream.told[-1] == "close"
        assert lab.exchange.stage == "done"
        assert lab.is_over()

    story(work)


def test_a_failure_leaves_nothing_behind_however_much_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab()
        upstream = lab.begin()
        monkeypatch.setattr(exchange, "denial", lambda *_: 1 // 0)
        lab.exchange.collapse(ZeroDivisionError())
        assert (lab.exchange.stage, lab.exchange.ended) == ("done", True)
        assert lab.exchange not in lab.shared.exchanges
        assert upstream.told[-1] == "close"
        assert lab.freed == 1
        assert lab.lane.told == ["cut"]
        assert lab.lane.output == b""

    story(work)


def test_an_answer_of_ours_takes_the_place_of_a_head_that_was_not_sent() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.say_head()
        lab.exchange.lose("its slot was lost")
        assert status(lab) == 502
        assert lab.lane.output.count(b"HTTP/1.1 ") == 1

    story(work)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_of_ours_to_head_has_no_body(method: str) -> None:
    async def work() -> None:
        lab = Lab(method=method)
        upstream = lab.begin()
        upstream.has_answered = True
        lab.exchange.lost()
        assert lab.lane.output.endswith(b"\r\n\r\n") is (method == "HEAD")

    story(work)


def test_a_refusal_of_the_last_request_closes_its_connection() -> None:
    async def work() -> None:
        lab = Lab("Connection: close")
        lab.admission.confirms = [REFUSED]
        lab.begin()
        assert b"\r\nConnection: close\r\n" in lab.lane.output
        assert lab.lane.told == [("over", True, False)]

    story(work)


def test_what_is_freed_holds_no_exchange_that_waits_for_a_garbage_collection() -> None:
    async def work() -> None:
        lab = Lab()
        lab.begin()
        lab.answer()
        assert lab.exchange._delivery._source is not lab.exchange

    story(work)
