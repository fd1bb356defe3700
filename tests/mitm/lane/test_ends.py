"""How an exchange on the lane ends: its slot, its connections, its audit line, and what is kept of it.

Each of the connections here has one slot: a request that is answered shows that the one before it is over.
"""

import gzip
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import CONNECTIONS, GATEWAY, LEAST, SIGNING, LaneLab, config, is_closed
from support.leaks import Issuer
from support.policy import Policy
from support.puppet import eventually
from support.raw import parse_response

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"


def settings(upstream: str) -> dict[str, Any]:
    found = config(
        upstream,
        limits=[{"concurrency": 1}],
        timeouts={"connect": "2s", "response": "1s", "body": "1s"},
    )
    one = found["connections"]["conn_0"]
    found["connections"] |= {
        "rated": one | {"limits": [{"rate": "1/day"}]},
        "program": one | {"auth": PROGRAM},
    }
    return found | {"limits": {"store": "memory://"}}


PROGRAM = {"type": "bearer", "token": {"exec": ["sh", "-c", f"echo {REAL_SECRET}"], "ttl": "1s"}}
"""A credential that is fetched, and again each second."""


@pytest.fixture(scope="module")
def module_lab(module_gateway: MakeGateway) -> Iterator[LaneLab]:
    hand = ByHand()
    names = [*(f"conn_{number}" for number in range(CONNECTIONS)), "rated", "program"]
    gateway = module_gateway(settings(hand.url), "--set", "presign_lane=on")
    yield LaneLab(gateway, hand, Issuer(dict.fromkeys(names, SIGNING)))
    hand.stop()


def status(received: bytes) -> int:
    return int(received[9:12])


def begun(lab: LaneLab, client: Wire, data: bytes = b"") -> tuple[Wire, bytes]:
    """A request that its upstream has got as far as its head."""
    client.send(data or lab.head())
    api = lab.hand.accept()
    return api, api.read_head()


def is_busy(lab: LaneLab) -> bool:
    """Whether the only slot is taken."""
    with lab.client() as other:
        other.send(lab.head(path="other"))
        return status(other.read_response()) == 429


def is_free(lab: LaneLab, api: Wire | None = None) -> bool:
    """Whether the slot is free now, at once: another request goes to the upstream, on a new connection or on
    the one that is given.
    """
    with lab.client() as other:
        other.send(lab.head(path="free"))
        try:
            api = api or lab.hand.accept(1.0)
        except TimeoutError:
            return False
        assert b"/free " in api.read_head()
        api.send(LEAST)
        return status(other.read_response()) == 200


def reset(wire: Wire) -> None:
    """Close with RST."""
    wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def told(lab: LaneLab, number: int = 0) -> dict[str, Any]:
    """The audit line of that number, without those of the requests that asked for the slot."""
    assert eventually(lambda: len(kept(lab)) > number), lab.audit()
    return kept(lab)[number]


def kept(lab: LaneLab) -> list[dict[str, Any]]:
    return [line for line in lab.audit() if line["path"] not in ("/free", "/other")]


# -- an upstream that ends it -----------------------------------------------------------------------------


def test_an_answer_that_is_whole_frees_the_slot_and_is_booked(lab: LaneLab) -> None:
    with lab.client() as client:
        api, head = begun(lab, client, lab.post(b"hello"))
        assert REAL_SECRET.encode() in head
        assert api.read_exactly(5) == b"hello"
        assert is_busy(lab)
        api.send(SIZED + b"four")
        assert client.read_response().endswith(b"\r\n\r\nfour")
        line = told(lab)
        assert (line["decision"], line["status"], line["upstream_status"]) == ("forward", 200, 200)
        assert (line["bytes_in"], line["bytes_out"], line["code"], line["detail"]) == (5, 4, None, None)
        assert 0 < line["upstream_duration"] <= line["duration"] < 30
        # The connection is free for the next, and so is the slot.
        client.send(lab.head(path="again"))
        assert b"/again " in api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


NO_STATUS = "the upstream's answer has no status line of HTTP/1.0 or HTTP/1.1"
ENDS = {
    "it closes before it answers": (b"", 502, "the upstream failed while waiting"),
    "it says something else": (b"SSH-2.0-OpenSSH\r\n\r\n", 502, NO_STATUS),
    "it breaks off in its head": (b"HTTP/1.1 200 OK\r\nContent", 502, "the upstream failed while waiting"),
    "it breaks off in its body": (SIZED + b"tw", 200, "the upstream broke off its response"),
}


@pytest.mark.parametrize("how", ENDS)
def test_an_upstream_that_ends_it_frees_the_slot(how: str, lab: LaneLab) -> None:
    said, code, why = ENDS[how]
    with lab.client() as client:
        api, _ = begun(lab, client)
        assert is_busy(lab)
        api.send(said)
        if code == 200:
            client.read_until(b"tw")
        api.close()
        if code == 200:
            assert is_closed(client)
        else:
            got = client.read_response()
            assert status(got) == code
            assert b"\r\nConnection: close" not in got
        assert is_free(lab)
    line = told(lab)
    assert (line["status"], line["detail"]) == (code, why)
    assert line["upstream_status"] == (200 if code == 200 else None)
    assert line["code"] == (None if code == 200 else "upstream")
    assert line["bytes_out"] == (2 if code == 200 else 0)


def test_an_upstream_that_does_not_answer_in_time_frees_the_slot(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client)
        got = client.read_response()
        assert status(got) == 504
        assert api.read_to_end() == b""
        assert is_free(lab)
    line = told(lab)
    assert (line["code"], line["detail"]) == ("upstream", "the upstream did not answer in time")


# -- a client that ends it --------------------------------------------------------------------------------

GONE = {
    "before the answer": (b"", b""),
    "in the middle of the answer": (SIZED + b"tw", b"tw"),
    "while it uploads": (b"", b""),
}


@pytest.mark.parametrize("when", GONE)
@pytest.mark.parametrize("shape", ["client", "kept_client", "tls_client"])
def test_a_client_that_resets_frees_the_slot_and_ends_the_upstream(
    when: str, shape: str, lab: LaneLab
) -> None:
    said, seen = GONE[when]
    client = getattr(lab, shape)()
    uploads = when == "while it uploads"
    data = lab.head("Content-Length: 10", method="POST") + b"01234" if uploads else b""
    api, _ = begun(lab, client, data)
    if uploads:
        assert api.read_exactly(5) == b"01234"
    if said:
        api.send(said)
        client.read_until(seen)
    assert is_busy(lab)
    if shape == "tls_client":
        client.close()
    else:
        reset(client)
    assert api.read_to_end() == b""
    assert is_free(lab)
    line = told(lab)
    assert (line["detail"], line["code"]) == ("the client went away", None)
    assert (line["status"], line["upstream_status"]) == ((200, 200) if said else (None, None))
    assert line["bytes_in"] == (5 if uploads else 0)


# -- bodies -----------------------------------------------------------------------------------------------


def limited(lab: LaneLab, *fields: str) -> bytes:
    """The head of an upload of ten bytes at most."""
    target = Policy(SIGNING, {"Max-Body": "10"}, lab.cid, methods="*", paths="*")
    start = f"POST {target.target('up')} HTTP/1.1"
    return "\r\n".join([start, f"Host: {GATEWAY}", *fields, "", ""]).encode()


def test_a_body_that_is_as_long_as_was_signed_arrives(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(limited(lab, "Transfer-Encoding: chunked") + b"a\r\n0123456789\r\n0\r\n\r\n")
        api = lab.hand.accept()
        api.read_head()
        assert api.read_until(b"0\r\n\r\n") == b"a\r\n0123456789\r\n0\r\n\r\n"
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
    assert told(lab)["bytes_in"] == 10


def test_a_body_over_what_was_signed_is_cut_and_its_slot_free(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, limited(lab, "Transfer-Encoding: chunked"))
        client.send(b"a\r\n0123456789\r\n")
        assert api.read_until(b"789\r\n")
        client.send(b"1\r\nx\r\n0\r\n\r\n")
        got = client.read_response()
        assert status(got) == 413
        assert b"\r\nConnection: close\r\n" in got
        assert api.read_to_end() == b""
        assert is_closed(client)
    line = told(lab)
    assert (line["decision"], line["code"], line["status"]) == ("deny", "too_large", 413)
    assert is_free(lab)


def test_a_body_over_what_was_signed_breaks_an_answer_off_that_has_begun(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, limited(lab, "Transfer-Encoding: chunked"))
        api.send(SIZED + b"tw")
        client.read_until(b"tw")
        client.send(b"b\r\n0123456789x\r\n")
        assert client.read_to_end() == b""
        assert b"0123456789x" not in api.read_to_end()
    line = told(lab)
    assert (line["decision"], line["code"], line["status"]) == ("deny", "too_large", 200)
    assert is_free(lab)


@pytest.mark.parametrize("shape", ["client", "kept_client"])
def test_a_body_of_which_no_more_comes_is_answered_and_its_slot_free(shape: str, lab: LaneLab) -> None:
    with getattr(lab, shape)() as client:
        api, _ = begun(lab, client, lab.head("Content-Length: 5", method="POST"))
        client.send(b"ab")
        assert api.read_exactly(2) == b"ab"
        got = client.read_response()
        assert status(got) == 408
        assert b"\r\nConnection: close\r\n" in got
        assert api.read_to_end() == b""
        assert is_free(lab)
    assert told(lab)["code"] == "timeout"


def test_a_body_of_which_no_more_comes_after_its_answer_ends_the_connection(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, lab.head("Content-Length: 5", method="POST"))
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        assert is_busy(lab)  # the upstream still reads
        assert is_closed(client, 4)
        assert api.read_to_end() == b""
        assert is_free(lab)
    line = told(lab)
    assert (line["status"], line["code"], line["detail"]) == (200, None, None)


def test_an_upstream_that_ends_after_its_early_answer_ends_the_exchange(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, lab.head("Content-Length: 5", method="POST"))
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        assert is_busy(lab)
        api.close()
        assert is_closed(client)
        assert is_free(lab)
    assert told(lab)["detail"] is None


# -- what is waited for -----------------------------------------------------------------------------------


def test_a_limit_that_is_reached_is_so_also_where_a_connection_is_there_at_once(lab: LaneLab) -> None:
    lab.cid = "rated"
    with lab.client() as client:
        api, _ = begun(lab, client)
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        for _ in range(2):
            client.send(lab.head())
            assert status(client.read_response()) == 429
        assert api.is_silent(0.1)


@pytest.mark.parametrize("shape", ["client", "kept_client", "tls_client"])
def test_a_credential_that_was_fetched_is_sent_with_each_request_and_masked(shape: str, lab: LaneLab) -> None:
    client = getattr(lab, shape)()
    lab.cid = "program"
    api = None
    with client:
        for body in (b"", b"hello"):
            client.send(lab.post(body) if body else lab.head())
            api = api or lab.hand.accept()
            assert f"Authorization: Bearer {REAL_SECRET}\r\n".encode() in api.read_head()
            assert api.read_exactly(len(body)) == body
            api.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(REAL_SECRET))
            api.send(REAL_SECRET.encode())
            assert client.read_response().endswith(b"*" * len(REAL_SECRET))
    api.close()


def test_a_body_that_came_while_a_credential_was_fetched_goes_on_after_it(lab: LaneLab) -> None:
    lab.cid = "program"
    with lab.client() as client:
        client.send(lab.post(b"hello") + lab.head(path="next"))
        api = lab.hand.accept()
        api.read_head()
        assert api.read_exactly(5) == b"hello"
        api.send(LEAST)
        assert b"/next " in api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        assert client.read_response().endswith(b"ok")
    api.close()


# -- who shares what --------------------------------------------------------------------------------------


def shares(lab: LaneLab, answer: bytes, method: str = "GET", *fields: str) -> bool:
    """Whether the connection on which this was answered serves the next request."""
    with lab.client() as client:
        api, _ = begun(lab, client, lab.head(*fields, method=method))
        api.send(answer)
        client.read_response() if b"Length" in answer and method != "HEAD" else client.read_head()
    with lab.client() as client:
        client.send(lab.head(path="next"))
        try:
            other = lab.hand.accept(0.15)
        except TimeoutError:
            assert b"/next " in api.read_head()
            api.send(LEAST)
            return status(client.read_response()) == 200
        other.read_head()
        other.send(LEAST)
        client.read_response()
        return False


@pytest.mark.parametrize("code", [400, 408, 411, 413, 414, 431, 501, 505])
def test_a_connection_whose_upstream_may_not_have_understood_the_request_is_not_shared(
    code: int, lab: LaneLab
) -> None:
    assert not shares(lab, b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % code)


@pytest.mark.parametrize("code", [200, 401, 404, 409, 410, 412, 415, 500, 502, 503, 504])
def test_a_connection_whose_upstream_has_understood_the_request_is_shared(code: int, lab: LaneLab) -> None:
    assert shares(lab, b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % code)


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
])  # fmt: skip
def test_an_answer_without_a_body_leaves_both_connections_open(answer: bytes, lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client)
        api.send(answer)
        got = client.read_head()
        assert b"Transfer-Encoding" not in got
        assert b"Connection: close" not in got
        client.send(lab.head(path="next"))
        assert b"/next " in api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


def test_the_answer_to_head_leaves_the_client_there_and_its_upstream_goes(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, lab.head(method="HEAD"))
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        assert b"Content-Length: 4" in client.read_head()
        assert api.read_to_end() == b""
        api, _ = begun(lab, client, lab.head(path="next"))
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
    assert told(lab)["bytes_out"] == 0


def test_a_refusal_of_ours_to_head_has_no_body(lab: LaneLab) -> None:
    with lab.client() as client:
        begun(lab, client, lab.head(method="HEAD"))[0].close()
        assert status(client.read_head()) == 502
        client.send(lab.head(path="next"))
        lab.serve()
        assert client.read_response().startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_answer_that_ends_with_its_connection_goes_to_the_client_in_chunks(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client)
        api.send(ENDLESS + b"some")
        head = client.read_head()
        assert b"\r\nTransfer-Encoding: chunked\r\n" in head
        assert client.read_until(b"some\r\n") == b"4\r\nsome\r\n"
        assert is_busy(lab)
        api.send(b"more")
        api.close()
        assert client.read_until(b"0\r\n\r\n") == b"4\r\nmore\r\n0\r\n\r\n"
        assert is_free(lab)
    line = told(lab)
    assert (line["detail"], line["bytes_out"]) == (None, 8)


def test_a_client_that_wants_its_connection_closed_gets_that(lab: LaneLab) -> None:
    with lab.client() as client:
        api, head = begun(lab, client, lab.head("Connection: close"))
        assert b"Connection: close" not in head
        api.send(LEAST)
        got = client.read_response()
        assert b"\r\nConnection: close\r\n" in got
        assert client.read_to_end() == b""
    # The upstream's connection is another one, and is kept.
    with lab.client() as client:
        client.send(lab.head(path="next"))
        assert b"/next " in api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("said", [b"Connection: close\r\n", b"Connection: CLOSE\r\n"])
def test_an_upstream_that_closes_after_its_answer_is_not_asked_again(said: bytes, lab: LaneLab) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + said + b"Content-Length: 2\r\n\r\nok"
    assert not shares(lab, answer)


def test_an_answer_of_http_1_0_that_says_its_length_is_whole_and_its_connection_is_not_kept(
    lab: LaneLab,
) -> None:
    assert not shares(lab, b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert told(lab)["detail"] is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a_connection_on_which_a_body_may_have_been_left_is_not_shared(method: str, lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, lab.head("Content-Length: 2", method=method) + b"xx")
        assert api.read_exactly(2) == b"xx"
        api.send(LEAST if method != "HEAD" else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        client.read_head()
        client.buffer = b""
    with lab.client() as client:
        client.send(lab.head(path="next"))
        other = lab.hand.accept()
        assert b"/next " in other.read_head()
        other.send(LEAST)
        assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_connection_on_which_a_body_was_read_is_shared(method: str, lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client, lab.head("Content-Length: 2", method=method) + b"xx")
        assert api.read_exactly(2) == b"xx"
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        client.send(lab.head(path="next"))
        assert b"/next " in api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


# -- what the client is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["header", "body", "chunks", "gzip", "reason"])
def test_a_credential_that_the_upstream_sends_back_is_hidden(where: str, lab: LaneLab) -> None:
    secret = REAL_SECRET.encode()
    packed = gzip.compress(secret)
    answers = {
        "header": b"HTTP/1.1 200 OK\r\nX-Key: Bearer %b\r\nContent-Length: 2\r\n\r\nok" % secret,
        "reason": b"HTTP/1.1 200 %b\r\nContent-Length: 2\r\n\r\nok" % secret,
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(secret), secret),
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(secret), secret),
        "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
        % (len(packed), packed),
    }
    with lab.client() as client:
        api, _ = begun(lab, client)
        api.send(answers[where])
        got = client.read_response()
        assert status(got) == 200
        assert secret not in got
        body = parse_response(got).body
        assert len(body) == (2 if where in ("header", "reason") else len(secret))
        client.send(lab.head(path="next"))
        assert b"/next " in api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
])  # fmt: skip
def test_an_answer_that_must_not_be_passed_on_is_answered_for_and_frees_the_slot(
    answer: bytes, lab: LaneLab
) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client)
        api.send(answer)
        assert status(client.read_response()) == 502
        assert api.read_to_end() == b""
        assert is_free(lab)
    assert told(lab)["code"] == "upstream"


def test_a_body_that_cannot_be_decoded_is_broken_off(lab: LaneLab) -> None:
    with lab.client() as client:
        api, _ = begun(lab, client)
        api.send(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\nnot gzip at all....."
        )
        assert b"0\r\n\r\n" not in client.read_to_end()
        assert api.read_to_end() == b""
        assert is_free(lab)
    assert told(lab)["detail"] == "the response cannot be decoded"


# -- clients that have said all ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["client", "kept_client"])
def test_a_client_that_shuts_its_side_gets_its_answer_and_its_end(shape: str, lab: LaneLab) -> None:
    with getattr(lab, shape)() as client:
        api, _ = begun(lab, client)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_silent(0.05) or client.buffer == b"HTTP/1.1 100 Continue\r\n\r\n"
        api.send(LEAST)
        got = client.read_to_end()
        assert got.endswith(b"\r\n\r\nok")
        assert got.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert is_free(lab, api)
    assert told(lab)["detail"] is None


@pytest.mark.parametrize("shape", ["client", "kept_client"])
def test_a_client_that_shuts_its_side_in_its_body_is_refused(shape: str, lab: LaneLab) -> None:
    with getattr(lab, shape)() as client:
        api, _ = begun(lab, client, lab.head("Content-Length: 5", method="POST") + b"ab")
        client.sock.shutdown(socket.SHUT_WR)
        is_closed(client)
        assert api.read_to_end() == b"ab"
        assert is_free(lab)


@pytest.mark.parametrize("shape", ["client", "kept_client"])
def test_a_client_that_shuts_its_side_between_requests_is_let_go(shape: str, lab: LaneLab) -> None:
    with getattr(lab, shape)() as client:
        api, _ = begun(lab, client)
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        client.send(lab.head()[:30])
        client.sock.shutdown(socket.SHUT_WR)
        assert is_closed(client)


@pytest.mark.parametrize("shape", ["client", "kept_client", "on the flow path"])
def test_all_that_was_sent_ahead_is_answered_in_order_before_the_end(
    shape: str, lab: LaneLab, make_gateway: MakeGateway
) -> None:
    """Each has the only slot: that of the one before is free as soon as this has its answer."""
    if shape == "on the flow path":
        shape = "client"
        lab = LaneLab(make_gateway(settings(lab.hand.url), "--set", "presign_lane=off"), lab.hand).fresh()
    with getattr(lab, shape)() as client:
        client.send(lab.head(path="a") + lab.head(path="b") + lab.head(path="c"))
        client.sock.shutdown(socket.SHUT_WR)
        api = lab.hand.accept()
        for name in (b"a", b"b", b"c"):
            assert b"/%b " % name in api.read_head()
            api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)
        got = client.read_to_end().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        assert got.count(b"HTTP/1.1 200 OK") == 3
        assert got.index(b"\r\n\r\na") < got.index(b"\r\n\r\nb") < got.index(b"\r\n\r\nc")


# -- a refusal and what may still come --------------------------------------------------------------------


def test_what_is_still_sent_after_a_refusal_is_read_for_a_while_and_passed_on_to_nobody(lab: LaneLab) -> None:
    """To close at once would destroy the answer on its way."""
    with lab.client() as client:
        api, _ = begun(lab, client, limited(lab, "Transfer-Encoding: chunked"))
        client.send(b"b\r\n0123456789x\r\n")
        assert status(client.read_response()) == 413
        for _ in range(3):
            client.send(b"1\r\ny\r\n")  # nothing answers this with a RST
            time.sleep(0.05)
        client.send(lab.head(path="smuggled"))
        assert client.read_to_end() == b""
        assert b"smuggled" not in api.read_to_end()
    assert len(kept(lab)) == 1
