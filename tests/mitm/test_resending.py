"""A kept upstream connection is closed as the next request comes: what is sent once more, and what is not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lanes import LEAST, WAYS, LaneLab, config
from support.raw import parse_response
from support.serving import Serve

PATIENT = 20.0
LIMITED = {"conn_497": {"max_uses": 2}, "conn_498": {"limits": [{"quota": "3/month"}]}}


@pytest.fixture(scope="module", params=["lane", "serve"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LaneLab]:
    settings = config(hand.url, timeouts={"connect": "10s", "response": "10s"})
    for cid, more in LIMITED.items():
        settings["connections"][cid] |= more
    if request.param == "serve":
        with Serve(tmp_path_factory.mktemp("serve"), settings) as served:
            yield LaneLab(served, hand)
    else:
        yield LaneLab(module_gateway(settings, *WAYS["lane"]), hand)


def close(api: Wire, how: str) -> None:
    if how == "reset":
        api.sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0
    api.close()


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_is_safe_is_sent_once_more_where_a_kept_connection_is_closed(
    method: str, how: str, lab: LaneLab
) -> None:
    """It was 502, for a moment that the client cannot know of."""
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head(method=method, path="once"))
        first = api.read_head()
        close(api, how)
        again, second = lab.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert second == first
        assert parse_response(client.read_head(PATIENT), head_only=True).status == 200
        # And the client's next request is a request like any other.
        client.send(lab.head(path="next"))
        if method == "HEAD":
            again = lab.hand.accept()
        assert b"/next " in again.read_head()
        again.send(LEAST)
        assert client.read_response(PATIENT).endswith(b"\r\n\r\nok")
    line = lab.audited(3)[1]
    assert (line["method"], line["status"], line["code"]) == (method, 200, None)


def test_a_second_reset_is_the_upstreams_answer(lab: LaneLab) -> None:
    """Whatever is kept besides: the second copy goes over a new connection, and there is no third."""
    one, other = lab.client(), lab.client()
    with one, other:
        for client in (one, other):
            client.send(lab.head())
        kept = [lab.hand.accept(), lab.hand.accept()]
        for api in kept:
            api.read_head()
            api.send(LEAST)
        for client in (one, other):
            assert client.read_response(PATIENT).endswith(b"ok")
        one.send(lab.head(path="once"))
        used = kept[1] if kept[0].is_silent(0.1) else kept[0]
        used.read_head()
        used.close()
        fresh = lab.hand.accept()
        assert b"/once " in fresh.read_head()
        fresh.close()
        assert one.read_response(PATIENT).startswith(b"HTTP/1.1 502 ")
        assert not lab.hand.waits()
        assert all(api.is_silent(0.01) for api in kept if api is not used)
    line = lab.audited(3)[2]
    assert (line["status"], line["code"], line["detail"]) == (
        502,
        "upstream",
        "the upstream failed while waiting",
    )


@pytest.mark.parametrize(
    "sent", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"NO HTTP\r\n\r\n"]
)
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_what_was_answered_with_a_byte_is_not_sent_again(sent: bytes, how: str, lab: LaneLab) -> None:
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head())
        api.read_head()
        api.send(sent)
        time.sleep(0.05)
        close(api, how)
        assert client.read_response(PATIENT).startswith(b"HTTP/1.1 502 ")
        assert not lab.hand.waits()
    lab.audited(2)


def test_a_new_connection_that_is_closed_is_not_tried_again(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        api.close()
        assert client.read_response(PATIENT).startswith(b"HTTP/1.1 502 ")
        assert not lab.hand.waits()
    lab.audited()


def test_a_grant_that_ended_meanwhile_is_not_sent_again(lab: LaneLab) -> None:
    expires = int(time.time()) + 1
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head(path="late", expires=expires))
        api.read_head()
        time.sleep(max(0.0, expires + 1.05 - time.time()))
        api.close()
        answer = parse_response(client.read_response(PATIENT))
        assert (answer.status, answer.header("x-presign-error")) == (403, "expired")
        if lab.hand.waits():  # a connection may be there before it is judged what goes over it
            with pytest.raises((TimeoutError, ConnectionError)):
                lab.hand.accept().read_exactly(1, 0.2)
    assert [line["code"] for line in lab.audited(2)] == [None, "expired"]


def test_where_uses_are_counted_nothing_is_sent_twice(lab: LaneLab) -> None:
    lab.cid = "conn_497"
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head())
        api.read_head()
        api.close()
        assert client.read_response(PATIENT).startswith(b"HTTP/1.1 502 ")
        assert not lab.hand.waits()
    lab.audited(2)


def test_what_is_sent_twice_is_counted_once(lab: LaneLab) -> None:
    lab.cid = "conn_498"
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head())
        api.read_head()
        api.close()
        again, _ = lab.serve()
        assert client.read_response(PATIENT).endswith(b"ok")
        client.send(lab.head())
        again.read_head()
        again.send(LEAST)
        assert client.read_response(PATIENT).endswith(b"ok")
        client.send(lab.head())
        assert client.read_response(PATIENT).startswith(b"HTTP/1.1 429 ")
    assert [line["status"] for line in lab.audited(4)] == [200, 200, 200, 429]


def test_a_client_that_goes_meanwhile_is_not_asked_for_again(lab: LaneLab) -> None:
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head())
        api.read_head()
    assert api.read_to_end(PATIENT) == b""
    assert not lab.hand.waits()
    assert lab.audited(2)[1]["detail"] == "the client went away"


def test_what_came_behind_it_waits_for_its_turn(lab: LaneLab) -> None:
    """Two requests in one segment, of which the first is sent twice."""
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head(path="first") + lab.head(path="second"))
        assert b"/first " in api.read_head()
        api.close()
        again = lab.hand.accept()
        assert b"/first " in again.read_head()
        assert again.is_silent(0.05)
        again.send(LEAST)
        assert b"/second " in again.read_head()
        again.send(LEAST)
        assert client.read_response(PATIENT).endswith(b"ok")
        assert client.read_response(PATIENT).endswith(b"ok")
    lab.audited(3)
