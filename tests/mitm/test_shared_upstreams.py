"""Upstream connections that several requests share: none gets another one's answer, or credential.

On the lane two clients share them; on the flow path it is one client, who may be a balancer with many behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
import trustme

from presign_proxy.http.message import Origin
from presign_proxy.mitm.lane.upstream_pool import Pool, PoolKey
from presign_proxy.mitm.lane.write_batch import WriteBatch
from support.byhand import ByHand, Wire
from support.careless import Careless
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import LEAST, WAYS, LaneLab, config, lane_lab


@pytest.fixture(scope="module")
def careless() -> Iterator[Careless]:
    with Careless() as upstream:
        yield upstream


@pytest.fixture(scope="module", params=WAYS)
def before_careless(
    request: pytest.FixtureRequest, module_gateway: MakeGateway, careless: Careless
) -> LaneLab:
    return LaneLab(module_gateway(config(careless.url), *WAYS[request.param]), ByHand())


@pytest.fixture(scope="module", params=WAYS)
def module_lab(request: pytest.FixtureRequest, module_gateway: MakeGateway) -> Iterator[LaneLab]:
    _, lane, *more = WAYS[request.param]
    with lane_lab(module_gateway, *more, lane=lane.partition("=")[2]) as made:
        yield made


def framed(lab: LaneLab, method: str, framing: str, body: bytes, path: str = "x") -> bytes:
    if framing == "chunked":
        head = lab.head("Transfer-Encoding: chunked", method=method, path=path)
        return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return lab.head(f"Content-Length: {len(body)}", method=method, path=path) + body


# -- an upstream that ignores bodies --------------------------------------------------------------------

SMUGGLED = {
    "a request": b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a request": b"GET /smuggled HTTP/1.1\r\nHost: x\r\nX-Swallow: ",
}


@pytest.mark.parametrize("body", SMUGGLED)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PROPFIND"])
def test_a_request_in_a_body_that_nobody_reads_swallows_no_other(
    method: str, framing: str, body: str, before_careless: LaneLab, careless: Careless
) -> None:
    lab = before_careless.fresh()
    careless.requests.clear()
    with lab.client() as attacker, lab.client() as victim:
        attacker.send(framed(lab, method, framing, SMUGGLED[body], "first"))
        assert attacker.read_head().startswith(b"HTTP/1.1 200 ")
        # The attacker's own connection too: a balancer sends others' requests on it.
        for client in (victim, attacker):
            client.buffer = b""
            client.send(lab.head(path="mine"))
            assert client.read_response().endswith(b"\r\n\r\n/mine")
    # What was in the body may be a request to that upstream. It has no credential, its own or another's.
    held = [line for line, fields in careless.requests if REAL_SECRET in str(fields)]
    assert held == [f"{method} /first HTTP/1.1", "GET /mine HTTP/1.1", "GET /mine HTTP/1.1"]
    assert not [line for line, _ in careless.requests if "X-Presign" in line]


def test_a_body_of_no_bytes_costs_no_connection(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head("Content-Length: 0"))
        api, _ = lab.serve()
        assert client.read_response().endswith(b"ok")
        client.send(lab.head())
        api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_upload_that_was_read_leaves_its_connection_to_others(method: str, lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(framed(lab, method, "length", b"upload"))
        api = lab.hand.accept()
        api.read_head()
        assert api.read_exactly(6) == b"upload"
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        client.send(lab.head())
        api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


# -- answers that come at another time, or hold more, than they should ----------------------------------


def next_is_untouched(lab: LaneLab, client: Wire, api: Wire) -> None:
    client.send(lab.head(path="next"))
    _, asked = lab.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
    assert b"GET /next " in asked
    assert client.read_response().endswith(b"\r\n\r\nmine")
    assert b"/next" not in api.read_to_end()


def test_a_connection_that_has_taken_the_upload_in_part_serves_nobody_else(lab: LaneLab) -> None:
    """The next head, with its credential, waited in the kernel until long after it had expired."""
    listener, body = lab.hand._listener, b"x" * 1_000_000
    before = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        with lab.client() as client:
            client.send(lab.post(body))
            api = lab.hand.accept()
            api.read_head()
            time.sleep(0.5)  # the gateway has read it all, and written it to where the upstream does not read
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")
            client.send(lab.head(path="next"))
            _, asked = lab.serve()
            assert b"GET /next " in asked
            assert client.read_response().endswith(b"ok")
        with contextlib.suppress(TimeoutError):
            api.read_to_end(1)
        assert b"/next" not in api.buffer
    finally:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, before)


@pytest.mark.parametrize("begun", [LEAST, LEAST[:20]], ids=["whole", "begun"])
def test_a_connection_that_answered_before_the_upload_was_there_serves_nobody_else(
    begun: bytes, lab: LaneLab
) -> None:
    """It may take what still comes for the next request."""
    with lab.client() as client:
        client.send(lab.head("Content-Length: 10", method="POST") + b"01234")
        api = lab.hand.accept()
        api.read_head()
        assert api.read_exactly(5) == b"01234"
        api.send(begun)
        if begun == LEAST:
            assert client.read_response().endswith(b"ok")
        else:
            time.sleep(0.1)
        client.send(b"56789")
        assert api.read_exactly(5) == b"56789"
        if begun != LEAST:
            api.send(LEAST[len(begun) :])
            assert client.read_response().endswith(b"ok")
        next_is_untouched(lab, client, api)


def test_an_interim_answer_before_the_upload_was_there_costs_no_connection(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head("Content-Length: 10", method="POST") + b"01234")
        api = lab.hand.accept()
        api.read_head()
        assert api.read_exactly(5) == b"01234"
        api.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.1)
        client.send(b"56789")
        assert api.read_exactly(5) == b"56789"
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        client.send(lab.head())
        api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


EVIL = LEAST.replace(b"ok", b"ko")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MORE = {
    "a second answer": ("GET", LEAST, EVIL),
    "a body after HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n", EVIL.ljust(60)),
    "chunks after HEAD": (
        "HEAD",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n\r\n" + EVIL,
    ),
    "a last chunk after HEAD": (
        "HEAD",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n\r\n",
    ),
    "a body after 204": ("GET", b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n", b"ok"),
    "an answer after 204": ("GET", b"HTTP/1.1 204 No\r\n\r\n", EVIL),
    "an answer after 304": ("GET", b"HTTP/1.1 304 No\r\n\r\n", EVIL),
    "more than its length": ("GET", LEAST, b"X"),
    "an interim answer": ("GET", LEAST, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "half an answer": ("GET", LEAST, EVIL[:20]),
}


@pytest.mark.parametrize("when", ["in one segment", "with the next request"])
@pytest.mark.parametrize("how", MORE)
def test_what_an_upstream_says_after_its_answer_is_nobodys_answer(how: str, when: str, lab: LaneLab) -> None:
    method, answer, more = MORE[how]
    with lab.client() as client:
        client.send(lab.head(method=method))
        api = lab.hand.accept()
        api.read_head()
        api.send(answer + more if when == "in one segment" else answer)
        assert client.read_head().startswith(b"HTTP/1.1 ")
        if answer == LEAST:
            assert client.read_exactly(2) == b"ok"
        if when != "in one segment":
            api.send(more)  # it is there when the gateway looks, whether or not it was read
        client.buffer = b""
        next_is_untouched(lab, client, api)


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("said", [EVIL, EVIL[:20], None], ids=["an answer", "half an answer", "its end"])
def test_what_was_said_before_the_request_in_the_same_turn_is_not_its_answer(
    said: bytes | None, first: str, lab: LaneLab
) -> None:
    """A gateway that is busy finds both at once, in whichever order."""
    with lab.client() as client:
        client.send(lab.head())
        api, _ = lab.serve()
        assert client.read_response().endswith(b"ok")
        time.sleep(0.05)
        os.kill(lab.gateway.pid, signal.SIGSTOP)
        try:
            sent = [
                lambda: client.send(lab.head(path="next")),
                lambda: api.send(said) if said else api.close(),
            ]
            for send in sent if first == "client" else reversed(sent):
                send()
        finally:
            os.kill(lab.gateway.pid, signal.SIGCONT)
        _, asked = lab.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
        assert b"GET /next " in asked
        assert client.read_response().endswith(b"\r\n\r\nmine")


def test_an_end_that_comes_with_the_next_request_fails_nobody(lab: LaneLab) -> None:
    for _ in range(5):
        with lab.client() as client:
            client.send(lab.head())
            api, _ = lab.serve()
            assert client.read_response().endswith(b"ok")
            api.close()
            client.send(lab.head(path="next"))
            lab.serve()
            assert client.read_response().endswith(b"ok")
        lab.fresh()


# -- who shares what ------------------------------------------------------------------------------------


def test_credentials_of_two_connections_never_share_an_upstream_connection(lab: LaneLab) -> None:
    """Some servers bind what a credential may do to the TCP connection on which it came first."""
    with lab.client() as client:
        one, other = lab.cid, lab.fresh().cid
        client.send(lab.head(cid=one))
        first, _ = lab.serve()
        assert client.read_response().endswith(b"ok")
        client.send(lab.head(cid=other))
        second, _ = lab.serve()
        assert client.read_response().endswith(b"ok")
        for cid, api in ((one, first), (other, second)):
            client.send(lab.head(cid=cid))
            api.read_head()
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")


def test_a_request_without_a_grant_never_shares_an_upstream_connection_with_one(lab: LaneLab) -> None:
    """Of what passes nothing is checked: it could hide the next request in its own."""
    with lab.client() as client:
        host = lab.hand.url.removeprefix("http://")
        plain = f"GET {lab.hand.url}/plain HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        client.send(plain)
        first, _ = lab.serve()
        assert client.read_response().endswith(b"ok")
        client.send(lab.head(path="granted"))
        second, asked = lab.serve()
        assert b"GET /granted " in asked
        assert REAL_SECRET.encode() in asked
        assert client.read_response().endswith(b"ok")
        client.send(plain)
        assert REAL_SECRET.encode() not in first.read_head()
        first.send(LEAST)
        assert client.read_response().endswith(b"ok")
        assert second.is_silent(0.05)


# -- the pool, over TLS ---------------------------------------------------------------------------------

ENDS = ("an answer", "a goodbye", "an answer that was read while reading was paused")


@pytest.mark.parametrize("later", [False, True], ids=["just now", "a moment ago"])
@pytest.mark.parametrize("how", ENDS)
def test_a_kept_connection_over_tls_on_which_something_has_come_is_not_used(
    how: str, later: bool, ca: trustme.CA
) -> None:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.num_tickets = 0  # which would be something that has come
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(client)

    async def work(pool: Pool, hand: ByHand) -> None:
        place = PoolKey("conn", Origin("https", "localhost", hand.port), "127.0.0.1")
        opening = asyncio.ensure_future(pool.open(place))
        api = await asyncio.to_thread(lambda: server.wrap_socket(hand.accept().sock, server_side=True))
        link = await opening
        pool.give_back(place, link)
        assert pool.take(place) is link
        if "paused" in how:
            link.pause()
        if how == "a goodbye":
            api.settimeout(0.05)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(api.unwrap) if later else api.unwrap()
        else:
            api.send(EVIL)
        if "paused" in how:
            await asyncio.sleep(0.05)
            link.resume()
        pool.give_back(place, link)
        if later:
            await asyncio.sleep(0.05)
        assert pool.take(place) is None
        api.close()

    hand = ByHand()
    try:
        asyncio.run(work(Pool(lambda tls: client, time.monotonic, WriteBatch()), hand))
    finally:
        hand.stop()
