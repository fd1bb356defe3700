"""The express lane: what takes it, what is handed over, and that nobody gets what is another's.

An upstream by hand, raw clients; every test has a connection of its own, and so a pool that starts empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import trustme

from presign_proxy.http.message import Origin
from presign_proxy.mitm.lane.upstream_pool import MAX_IDLE, Pool, PoolKey
from presign_proxy.mitm.lane.write_batch import WriteBatch
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import GATEWAY, LEAST, LaneLab, config, is_closed, lane_lab
from support.proxy import Mitm
from support.puppet import SCRIPTS, Puppeteer
from support.raw import parse_response
from support.recorder import Recorder

MIB = 1024 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def module_lab(module_gateway: MakeGateway) -> Iterator[LaneLab]:
    with lane_lab(module_gateway, "--set", "tcp_timeout=4") as made:
        yield made


def status(received: bytes) -> int:
    return int(received[9:12])


# -- who shares what ----------------------------------------------------------------------------------


def test_clients_share_upstream_connections(lab: LaneLab) -> None:
    api = lab.warm()
    for _ in range(3):
        with lab.client() as client:
            client.send(lab.head())
            api.read_head()
            api.send(LEAST)
            assert status(client.read_response()) == 200


def test_another_connection_gets_an_upstream_connection_of_its_own(lab: LaneLab) -> None:
    lab.warm()
    lab.fresh()
    with lab.client() as client:
        client.send(lab.head())
        lab.serve()
        assert status(client.read_response()) == 200


@pytest.mark.slow
@pytest.mark.parametrize("off", [False, "off"])
def test_where_the_pool_is_off_an_upstream_connection_stays_with_its_client(
    off: Any, make_gateway: MakeGateway
) -> None:
    hand = ByHand()
    lab = LaneLab(make_gateway(config(hand.url, pool=off), "--set", "presign_lane=on"), hand).fresh()
    with lab.client() as one, lab.client() as other:
        for client in (one, other):
            client.send(lab.head())
            api, _ = lab.serve()
            assert client.read_response().endswith(b"ok")
            client.send(lab.head())
            assert b"GET /x " in api.read_head()
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")
    hand.stop()


def test_two_exchanges_at_a_time_never_share_a_connection(lab: LaneLab) -> None:
    with lab.client() as one, lab.client() as other:
        one.send(lab.head(path="one"))
        first = lab.hand.accept()
        assert b"/one " in first.read_head()
        other.send(lab.head(path="other"))
        second = lab.hand.accept()
        assert b"/other " in second.read_head()
        second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother")
        assert other.read_response().endswith(b"other")
        first.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
        assert one.read_response().endswith(b"one")


# -- an upstream that says more than was asked ------------------------------------------------------------

MORE = {
    "two responses": LEAST + LEAST.replace(b"ok", b"ko"),
    "bytes after the end": LEAST + b"more",
    "a byte after the end": LEAST + b"x",
    "half a response": LEAST + b"HTTP/1.1 200 OK\r\n",
    "an interim response after the end": LEAST + b"HTTP/1.1 100 Continue\r\n\r\n",
    "bytes after the last chunk": CHUNKED + b"X",
    "a body after 204": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
    "a body after 304": b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\nok",
    "a chunked body after 204": b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "it is going to close": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "400, after which nobody knows": LEAST.replace(b"200 OK", b"400 Bad"),
    "413, after which nobody knows": LEAST.replace(b"200 OK", b"413 Big"),
}


def next_is_untouched(lab: LaneLab, api: Wire) -> None:
    """The old connection is closed, and the next client's request goes on a new one."""
    with lab.client() as client:
        client.send(lab.head(path="next"))
        _, asked = lab.serve(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
        assert b"/next " in asked
        assert client.read_response().endswith(b"\r\n\r\nmine")
    assert api.read_to_end() == b""


@pytest.mark.parametrize("how", MORE)
def test_a_connection_on_which_more_was_said_serves_nobody_else(how: str, lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        api, _ = lab.serve(MORE[how])
        got = client.read_head() if how.endswith(("204", "304")) else client.read_response()
        assert got.count(b"HTTP/1.") == 1
        assert not got.endswith((b"ko", b"more", b"X"))
        assert client.is_silent(0.03) or status(got) >= 400
    next_is_untouched(lab, api)


@pytest.mark.parametrize("how", ["in one segment", "a moment later"])
@pytest.mark.parametrize("framing", ["Content-Length: 4", "Transfer-Encoding: chunked"])
def test_a_body_after_the_answer_to_head_is_nobodys_answer(framing: str, how: str, lab: LaneLab) -> None:
    evil = b"4\r\nevil\r\n0\r\n\r\n" if "chunked" in framing else b"evil"
    with lab.client() as client:
        client.send(lab.head(method="HEAD"))
        api = lab.hand.accept()
        api.read_head()
        head = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode()
        api.send(head + evil if how == "in one segment" else head)
        assert status(client.read_head()) == 200
        if how != "in one segment":
            api.send(evil)
        assert client.is_silent(0.05)
    next_is_untouched(lab, api)


def test_what_an_upstream_says_on_an_idle_connection_is_nobodys_answer(lab: LaneLab) -> None:
    api = lab.warm()
    api.send(LEAST.replace(b"ok", b"ko"))
    time.sleep(0.05)
    next_is_untouched(lab, api)


def test_an_answer_that_came_before_its_request_is_nobodys(lab: LaneLab) -> None:
    """On a kept connection, in the very moment in which the next request comes."""
    for _ in range(10):
        api = lab.warm()
        with lab.client() as client:
            api.send(LEAST.replace(b"ok", b"ko"))
            client.send(lab.head(path="next"))
            new = lab.hand.accept()
            assert b"/next " in new.read_head()
            new.send(LEAST)
            assert client.read_response().endswith(b"\r\n\r\nok")
        lab.fresh()


def test_an_answer_that_came_before_the_first_request_is_an_error(lab: LaneLab) -> None:
    with lab.client() as client:
        started = time.monotonic()
        client.send(lab.head())
        api = lab.hand.accept()
        api.send(LEAST)
        got = client.read_response()
        # Whether the answer overtakes the request, only the system knows.
        assert status(got) in (200, 502)
        assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("when", ["at once", "after the request"])
def test_an_upstream_that_accepts_and_closes_is_answered_for_at_once(when: str, lab: LaneLab) -> None:
    for _ in range(5):
        with lab.client() as client:
            started = time.monotonic()
            client.send(lab.head())
            api = lab.hand.accept()
            if when != "at once":
                api.read_head()
            api.close()
            assert status(client.read_response()) == 502
            assert time.monotonic() - started < 1.5


BROKEN = {
    "not HTTP": b"NOT HTTP\r\n\r\n",
    "TE and CL": CHUNKED.replace(b"\r\n", b"\r\nContent-Length: 2\r\n", 1),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "a length over 64 bits": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "a blank in a name": b"HTTP/1.1 200 OK\r\nX : b\r\nContent-Length: 2\r\n\r\nok",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nX",
    "switching without upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a head over its size": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "a reason over its size": b"HTTP/1.1 200 " + b"x" * 300_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "a head of many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60_000 + b"Content-Length: 2\r\n\r\nok",
    "a fourth digit": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_answer_that_is_not_http_is_answered_by_us(how: str, lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        lab.serve(BROKEN[how])
        got = client.read_response()
        assert status(got) == 502
        # And the client's connection is as good as before.
        client.send(lab.head(path="next"))
        lab.serve()
        assert client.read_response().endswith(b"\r\n\r\nok")
    (first, second) = lab.audited(2)
    assert (first["status"], first["code"], first["decision"]) == (502, "upstream", "forward")
    assert (second["status"], second["code"]) == (200, None)


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 \r\nX: y\r\n\r\n"])
def test_interim_answers_without_end_are_ended(piece: bytes, lab: LaneLab) -> None:
    before = lab.gateway.rss()
    with lab.client() as client:
        client.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        started = time.monotonic()
        with pytest.raises(OSError, match=r"Broken|reset|timed out"):
            while time.monotonic() - started < 10:
                api.send(piece * 2000)
        assert status(client.read_response()) in (502, 504)
    assert lab.gateway.rss() - before < 16 * MIB


def test_some_interim_answers_are_passed_over(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        api, _ = lab.serve(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" + LEAST)
        got = client.read_response()
        assert status(got) == 200
        assert b"Link" not in got
        client.send(lab.head())
        api.read_head()
        api.send(LEAST)
        assert status(client.read_response()) == 200


def test_a_head_without_an_end_is_ended_in_bounded_memory(lab: LaneLab) -> None:
    before = lab.gateway.rss()
    with lab.client() as client:
        client.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\n")
        with pytest.raises(OSError, match=r"Broken|reset"):
            for _ in range(500):
                api.send(b"X-" + b"x" * 64_000)
        assert status(client.read_response()) == 502
    assert lab.gateway.rss() - before < 16 * MIB


@pytest.mark.parametrize("sent", [b"HTTP", LEAST[:-20], LEAST[:-1]])
@pytest.mark.parametrize("hard", [False, True])
def test_an_answer_that_breaks_off_is_not_whole(sent: bytes, hard: bool, lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        api, _ = lab.serve(sent)
        time.sleep(0.05)
        if hard:
            api.sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: a reset
        api.close()
        if sent == LEAST[:-1]:
            got = client.read_to_end()
            assert status(got) == 200
            assert got.endswith(b"\r\n\r\no")
        else:
            assert status(client.read_response()) == 502
    (line,) = lab.audited()
    assert line["detail"] == (
        "the upstream broke off its response" if sent == LEAST[:-1] else "the upstream failed while waiting"
    )


def test_a_chunk_that_is_broken_ends_the_answer(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        lab.serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")
        got = client.read_to_end()
        assert b"0\r\n\r\n" not in got
    (line,) = lab.audited()
    assert line["detail"] == "the body of the upstream's answer is not framed as HTTP/1.1 has it"


# -- an upstream that closes what is kept ---------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [("POST", b""), ("POST", b"body"), ("PUT", b""), ("DELETE", b""), ("GET", b"body")]
)
def test_what_is_not_safe_is_sent_once_also_where_a_kept_connection_was_closed(
    sent: tuple[str, bytes], lab: LaneLab
) -> None:
    method, body = sent
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head(f"Content-Length: {len(body)}", method=method, path="once") + body)
        assert b"/once " in api.read_head()
        api.close()
        assert status(client.read_head()) == 502
        with pytest.raises(TimeoutError):
            lab.hand.accept(0.2)


def test_an_answer_that_has_begun_is_not_asked_for_again(lab: LaneLab) -> None:
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head())
        api.read_head()
        api.send(b"HTTP/1.1 2")
        time.sleep(0.05)
        api.close()
        assert status(client.read_response()) == 502
        with pytest.raises(TimeoutError):
            lab.hand.accept(0.2)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_was_closed_before_is_not_used(method: str, lab: LaneLab) -> None:
    """The end has come, and perhaps nobody has looked at it yet when the next request comes."""
    for _ in range(10):
        api = lab.warm()
        with lab.client() as client:
            api.close()
            client.send(lab.head("Content-Length: 0", method=method))
            lab.serve()
            assert status(client.read_response()) == 200
        lab.fresh()


def test_a_connection_is_not_kept_for_long(lab: LaneLab) -> None:
    assert lab.warm().read_to_end(6) == b""


# -- bodies ------------------------------------------------------------------------------------------------


def test_events_arrive_at_once(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.read_head()
        for number in range(3):
            event = b"data: %d\n\n" % number
            api.send(b"%x\r\n%b\r\n" % (len(event), event))
            assert event in client.read_until(b"\n\n\r\n")
        api.send(b"0\r\n\r\n")
        client.read_until(b"0\r\n\r\n")


def test_a_stream_outlasts_the_time_in_which_a_silent_client_is_cut(lab: LaneLab) -> None:
    """mitmproxy cuts whoever neither sends nor gets anything, here after two seconds."""
    with lab.client() as reader:
        reader.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10):
            api.send(b"3\r\n:\n\n\r\n")
            time.sleep(0.28)
        api.send(b"0\r\n\r\n")
        assert reader.read_until(b"\r\n0\r\n\r\n").count(b"3\r\n:\n\n") == 10


@pytest.mark.parametrize("cut", [1, 7, 4096])
@pytest.mark.parametrize("client", ["client", "kept_client"])
def test_chunks_go_both_ways_however_they_are_cut(cut: int, client: str, lab: LaneLab) -> None:
    body = b"5;x=y\r\nhello\r\n" + b"a\r\n0123456789\r\n" + b"0\r\nX-Trailer: evil\r\n\r\n"
    data = lab.head("Transfer-Encoding: chunked", method="POST") + body
    with getattr(lab, client)() as sender:
        at = data.index(b"\r\n\r\n")
        sender.send(data[:at])
        for start in range(at, len(data), cut):
            sender.send(data[start : start + cut])
            if cut < 10:
                time.sleep(0.001)
        api = lab.hand.accept()
        assert b"\r\nTransfer-Encoding: chunked\r\n" in api.read_head()
        got = api.read_until(b"0\r\n\r\n")
        assert b"evil" not in got
        assert b";" not in got
        assert (
            re.sub(rb"[0-9a-f]+\r\n(.*?)\r\n", rb"\1", got.removesuffix(b"0\r\n\r\n")) == b"hello0123456789"
        )
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        for start in range(0, len(answer), max(cut, 4)):
            api.send(answer[start : start + max(cut, 4)])
        received = sender.read_until(b"0\r\n\r\n")
        assert b"evil" not in received
        assert parse_response(received).body == b"hello0123456789"
        sender.send(lab.head(path="next"))
        assert b"/next " in api.read_head()
        api.send(LEAST)
        assert sender.read_response().endswith(b"\r\n\r\nok")


CHUNKS = (b"3 \r\nabc\r\n", b"0x3\r\nabc\r\n", b"+3\r\nabc\r\n", b"3\nabc\n", b"3\r\nabcd\r\n",
          b"\r\n3\r\nabc\r\n",
          b"ffffffffffffffff\r\nabc", b"3;\x00\r\nabc\r\n", b"zz\r\n", b"3\r\nabc\rX")  # fmt: skip


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("client", ["client", "kept_client"])
def test_an_upload_in_odd_chunks_is_refused_and_its_end_never_sent(
    chunk: bytes, client: str, lab: LaneLab
) -> None:
    with getattr(lab, client)() as sender:
        sender.send(lab.head("Transfer-Encoding: chunked", method="POST"))
        api = lab.hand.accept()
        api.read_head()
        sender.send(b"1\r\nx\r\n" + chunk + b"0\r\n\r\n" + lab.head(path="smuggled"))
        got = sender.read_response()
        assert status(got) == 400
        assert b"\r\nConnection: close\r\n" in got
        end = api.read_to_end()
        assert b"0\r\n\r\n" not in end
        assert b"smuggled" not in end
    (line,) = lab.audited()
    assert (line["decision"], line["code"]) == ("deny", "malformed")


@pytest.mark.parametrize("client", ["client", "kept_client"])
def test_an_early_answer_reaches_a_client_that_is_still_uploading(client: str, lab: LaneLab) -> None:
    with getattr(lab, client)() as sender:
        sender.send(lab.head("Content-Length: 10", method="POST") + b"01234")
        api, _ = lab.serve(LEAST)
        assert sender.read_response().endswith(b"ok")
        sender.send(b"56789" + lab.head(path="next"))
        assert api.read_exactly(10) == b"0123456789"
        # Whether the upstream reads the body at all, its early answer does not tell.
        _, asked = lab.serve(LEAST)
        assert b"/next " in asked
        assert sender.read_response().endswith(b"ok")
        assert api.read_to_end() == b""


@pytest.mark.parametrize("end", ["it reads on", "it closes", "it speaks"])
def test_an_upload_behind_an_early_answer_is_passed_on_no_faster_than_it_is_read(
    end: str, lab: LaneLab
) -> None:
    size = 64 * MIB
    before = lab.gateway.rss()
    with lab.client() as client:
        client.send(lab.head(f"Content-Length: {size}", method="POST"))
        api, _ = lab.serve(LEAST)
        assert client.read_response().endswith(b"ok")
        client.sock.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < size:
                sent += client.sock.send(bytes(min(MIB, size - sent)))
        assert lab.gateway.rss() - before < 16 * MIB
        if end == "it closes":
            api.close()
            assert is_closed(client, 4)
            return
        if end == "it speaks":
            api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            assert b"evil" not in client.read_to_end(4)
            return
        api.sock.settimeout(5)
        got = 0
        while got < size:
            if sent < size:
                client.sock.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    sent += client.sock.send(bytes(min(MIB, size - sent)))
            api.sock.settimeout(5 if sent == size else 0.01)
            try:
                got += len(api.sock.recv(MIB))
            except TimeoutError:
                assert sent < size
        assert api.read_to_end() == b""
        client.send(lab.head(path="next"))
        _, asked = lab.serve(LEAST)
        assert b"/next " in asked


# -- hand-over -------------------------------------------------------------------------------------------

LF_ONLY = f"GET /api/proxy/none/x HTTP/1.1\nHost: {GATEWAY}\n\n".encode()
NOT_FOR_THE_LANE = {
    "unsigned": f"GET /api/proxy/none/x HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode(),
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "a control character": f"GET / HTTP/1.1\r\nHost: {GATEWAY}\r\nX: \x00\r\n\r\n".encode(),
    "lines that end in LF": LF_ONLY,
    "two Hosts": f"GET / HTTP/1.1\r\nHost: {GATEWAY}\r\nHost: {GATEWAY}\r\n\r\n".encode(),
    "a head over its size": b"GET /" + b"x" * 70_000,
}


@pytest.mark.parametrize("client", ["client", "kept_client", "tls_client", "direct_tls_client"])
@pytest.mark.parametrize("how", NOT_FOR_THE_LANE)
def test_what_follows_a_presigned_request_in_one_segment_is_answered_after_it(
    how: str, client: str, lab: LaneLab
) -> None:
    with getattr(lab, client)() as sender:
        sender.send(lab.head(path="first") + NOT_FOR_THE_LANE[how])
        api = lab.hand.accept()
        assert b"/first " in api.read_head()
        time.sleep(0.05)
        api.send(LEAST)
        assert sender.read_response().endswith(b"\r\n\r\nok")
        assert status(sender.read_response()) in (400, 403, 404, 431)
        assert api.is_silent(0.05)


@pytest.mark.parametrize("how", NOT_FOR_THE_LANE)
@pytest.mark.parametrize("client", ["client", "kept_client"])
def test_what_is_not_for_the_lane_is_answered_at_once(how: str, client: str, lab: LaneLab) -> None:
    with getattr(lab, client)() as sender:
        sender.send(NOT_FOR_THE_LANE[how])
        assert status(sender.read_response(2)) in (400, 403, 431)


# -- the pool itself, with real sockets --------------------------------------------------------------------


def in_a_pool(work: Callable[[Pool, PoolKey, ByHand], Awaitable[None]]) -> None:
    hand = ByHand()
    place = PoolKey("conn", Origin("http", "127.0.0.1", hand.port), "127.0.0.1")
    write_batch = WriteBatch()
    pool = Pool(ssl.create_default_context, time.monotonic, write_batch)
    try:
        asyncio.run(work(pool, place, hand))
    finally:
        hand.stop()


@pytest.mark.parametrize("said", [LEAST, b"x", None])
def test_a_kept_connection_on_which_something_has_just_come_is_not_used(said: bytes | None) -> None:
    """What the event loop has not read yet would be the answer to whatever is sent next."""

    async def work(pool: Pool, place: PoolKey, hand: ByHand) -> None:
        upstream = await pool.open(place)
        api = hand.accept()
        pool.give_back(place, upstream)
        api.send(said) if said else api.close()
        time.sleep(0.02)  # noqa: ASYNC251 - nobody else shall run
        assert pool.take(place) is None
        again = await pool.open(place)
        pool.give_back(place, again)
        assert pool.take(place) is again

    in_a_pool(work)


def test_a_connection_that_was_verified_by_other_options_is_not_kept() -> None:
    async def work(pool: Pool, place: PoolKey, hand: ByHand) -> None:
        in_use = await pool.open(place)
        opening = asyncio.ensure_future(pool.open(place))
        await asyncio.sleep(0)
        pool.reset()
        for upstream in (in_use, await opening):
            pool.give_back(place, upstream)
            assert pool.take(place) is None

    in_a_pool(work)


class Holding:
    """An exchange, as far as a link tells it whether to send on."""

    def __init__(self) -> None:
        self.held: list[bool] = []

    def hold(self, on: bool) -> None:
        self.held.append(on)


def test_a_connection_that_has_not_taken_the_last_upload_in_full_is_not_kept() -> None:
    """Its upstream has answered; whether it still reads the rest of the request, nobody knows."""

    async def work(pool: Pool, place: PoolKey, hand: ByHand) -> None:
        first = Holding()
        upstream = await pool.open(place)
        hand.accept()
        upstream.begin(cast(Any, first), b"POST", whole=False)
        upstream.write(bytes(16 * MIB))
        assert first.held == [True]
        upstream.reader = None  # its answer has come
        pool.give_back(place, upstream)
        assert pool.take(place) is None

    in_a_pool(work)


def test_a_pool_has_an_end() -> None:
    async def work(pool: Pool, place: PoolKey, hand: ByHand) -> None:
        upstreams = []
        for _ in range(MAX_IDLE + 2):
            upstreams.append(await pool.open(place))
            hand.accept()
        for upstream in upstreams:
            pool.give_back(place, upstream)
        kept = 0
        while pool.take(place) is not None:
            kept += 1
        assert kept == MAX_IDLE

    in_a_pool(work)


# -- a client that goes, is slow, or sends fast ---------------------------------------------------------


@pytest.mark.parametrize("client", ["client", "kept_client"])
def test_a_client_that_goes_while_it_uploads_ends_the_upload(client: str, lab: LaneLab) -> None:
    with getattr(lab, client)() as sender:
        sender.send(lab.head("Content-Length: 10", method="POST") + b"01234")
        api = lab.hand.accept()
        assert b"\r\n\r\n" in api.read_head()
    assert api.read_to_end() == b"01234"
    (line,) = lab.audited()
    assert (line["status"], line["detail"], line["bytes_in"]) == (None, "the client went away", 5)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
@pytest.mark.parametrize("client", ["client", "kept_client", "tls_client"])
def test_a_client_that_goes_ends_its_exchange(said: bytes, client: str, lab: LaneLab) -> None:
    with getattr(lab, client)() as sender:
        sender.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        api.send(said)
        if said.endswith(b"half"):
            sender.read_until(b"half")
    assert api.read_to_end() == b""
    (line,) = lab.audited()
    assert line["detail"] == "the client went away"


def test_a_client_that_goes_between_its_requests_leaves_the_connection_to_others(lab: LaneLab) -> None:
    api = lab.warm()
    with lab.client() as client:
        client.send(lab.head())
        api.read_head()
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("client", ["client", "kept_client", "tls_client"])
def test_a_slow_reader_holds_its_upstream_back(client: str, lab: LaneLab) -> None:
    size = 64 * MIB
    with getattr(lab, client)() as reader:
        reader.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        before = lab.gateway.rss()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        api.sock.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < size:
                sent += api.sock.send(bytes(min(MIB, size - sent)))
        assert lab.gateway.rss() - before < 12 * MIB
        reader.read_head()
        feeder = threading.Thread(target=send_rest, args=(api.sock, size - sent), daemon=True)
        feeder.start()
        got = len(reader.buffer)
        reader.sock.settimeout(5)
        while got < size:
            got += len(reader.sock.recv(MIB))
        feeder.join(5)
        assert lab.gateway.rss() - before < 12 * MIB


def send_rest(sock: socket.socket, size: int) -> None:
    sock.settimeout(10)
    sock.sendall(bytes(size))


@pytest.mark.parametrize("client", ["client", "kept_client", "tls_client"])
def test_an_upstream_that_reads_slowly_holds_its_client_back(client: str, lab: LaneLab) -> None:
    size = 64 * MIB
    with getattr(lab, client)() as sender:
        sender.send(lab.head(f"Content-Length: {size}", method="POST"))
        api = lab.hand.accept()
        api.read_head()
        before = lab.gateway.rss()
        sender.sock.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < size:
                sent += sender.sock.send(bytes(min(MIB, size - sent)))
        assert lab.gateway.rss() - before < 12 * MIB
        feeder = threading.Thread(target=send_rest, args=(sender.sock, size - sent), daemon=True)
        feeder.start()
        got = len(api.buffer)
        api.sock.settimeout(5)
        while got < size:
            got += len(api.sock.recv(MIB))
        assert got == size
        feeder.join(5)
        api.send(LEAST)
        assert sender.read_response().endswith(b"ok")


# -- time ---------------------------------------------------------------------------------------------


def test_an_upstream_that_does_not_answer_in_time_is_answered_for(lab: LaneLab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        api = lab.hand.accept()
        api.read_head()
        assert status(client.read_response(4)) == 504
        assert api.read_to_end() == b""
        client.send(lab.head())
        lab.serve()
        assert client.read_response().endswith(b"ok")


# -- where the lane is shut ------------------------------------------------------------------------------


def is_lane(gateway: Mitm, lab: LaneLab) -> bool:
    """Whether two clients of this gateway share an upstream connection, as none do on the flow path."""
    other = LaneLab(gateway, lab.hand, cid="conn_0")
    other.warm()
    with other.client() as client:
        client.send(other.head())
        try:
            lab.hand.accept(0.3).send(LEAST)
        except TimeoutError:
            return True
        client.read_response()
    return False


SHUT = (("presign_lane=auto", "save_stream_file=+flows"),)
OPEN: tuple[tuple[str, ...], ...] = ((),)


@pytest.mark.slow
@pytest.mark.parametrize("options", [*SHUT, *OPEN], ids=" ".join)
def test_the_lane_is_open_or_shut_as_the_options_say(
    options: tuple[str, ...], lab: LaneLab, make_gateway: MakeGateway
) -> None:
    arguments = [part for option in options for part in ("--set", option)]
    assert is_lane(make_gateway(config(lab.hand.url), *arguments), lab) is (options in OPEN)


@pytest.mark.slow
def test_another_script_shuts_the_lane_and_options_move_it_at_run_time(
    lab: LaneLab, make_gateway: MakeGateway
) -> None:
    gateway = make_gateway(config(lab.hand.url), "-s", str(SCRIPTS / "puppet.py"))
    puppet = Puppeteer(gateway.port)
    assert not is_lane(gateway, lab)
    puppet.tell("options", presign_lane="on")
    assert is_lane(gateway, lab)
    puppet.tell("options", connect_addr="127.0.0.1")
    assert not is_lane(gateway, lab)
    puppet.tell("options", connect_addr=None, anticache=True)
    assert is_lane(gateway, lab)  # which is of flows, and "on" does not care for them
    puppet.tell("options", presign_lane="auto")
    assert not is_lane(gateway, lab)
    assert "presign_lane" in puppet.tell("options", presign_lane="sometimes")["error"]
    assert puppet.tell("option", name="presign_lane") == {"value": "auto"}
    puppet.tell("options", presign_lane="on", proxyauth="user:password")
    with LaneLab(gateway, lab.hand, cid="conn_0").client() as client:
        client.send(LaneLab(gateway, lab.hand, cid="conn_0").head())
        assert status(client.read_head()) == 407


@pytest.mark.slow
def test_a_lane_that_is_shut_is_left_at_the_next_request(lab: LaneLab, make_gateway: MakeGateway) -> None:
    gateway = make_gateway(config(lab.hand.url), "-s", str(SCRIPTS / "puppet.py"), "--set", "presign_lane=on")
    other = LaneLab(gateway, lab.hand, cid="conn_0")
    with other.client() as client:
        client.send(other.head())
        api = lab.hand.accept()
        api.read_head()
        Puppeteer(gateway.port).tell("options", presign_lane="off")
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        assert api.read_to_end() == b""  # it was opened by other options
        client.send(other.head())
        lab.serve()
        assert client.read_response().endswith(b"ok")


@pytest.mark.slow
def test_an_unknown_word_for_the_lane_is_refused_at_the_start(make_gateway: MakeGateway) -> None:
    returncode, log = make_gateway(
        config("http://127.0.0.1:9"), "--set", "presign_lane=sometimes", start=False
    ).run()
    assert returncode == 1
    assert "presign_lane is one of auto, on, off" in log


# -- limits ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_uses_and_slots_are_exact(make_gateway: MakeGateway, upstream: Recorder) -> None:
    limited = config(upstream.url, timeouts={"response": "20s"})
    limited["connections"] = {
        "conn_0": limited["connections"]["conn_0"] | {"max_uses": 10},
        "conn_1": limited["connections"]["conn_1"] | {"limits": [{"concurrency": 3}]},
    }
    gateway = make_gateway(limited, "--set", "presign_lane=on")
    lab = LaneLab(gateway, ByHand(), cid="conn_0")
    with ThreadPoolExecutor(20) as many:
        statuses = list(many.map(lambda _: ask_once(lab, "x"), range(60)))
    assert Counter(statuses) == {200: 10, 429: 50}
    lab.cid = "conn_1"
    with ThreadPoolExecutor(20) as many:
        statuses = list(many.map(lambda _: ask_once(lab, "slow"), range(20)))
    assert Counter(statuses) == {200: 3, 429: 17}
    # However an exchange ends, its slot is free.
    for path in ("garbage", "close", "rawecho", "nocontent"):
        assert [ask_once(lab, path) for _ in range(4)].count(429) == 0, path
    lab.hand.stop()


def ask_once(lab: LaneLab, path: str) -> int:
    with lab.client() as client:
        name, _, query = path.partition("?")
        client.send(
            lab.head(path=name)
            if not query
            else lab.head(path=name).replace(b"?", b"?" + query.encode() + b"&", 1)
        )
        return status(client.read_head(8))


# -- upstreams over TLS ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_upstream_whose_certificate_is_wrong_is_sent_nothing(
    make_gateway: MakeGateway, make_recorder: Callable[..., Recorder], ca: trustme.CA, tls_upstream: Recorder
) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    wrong = [
        make_recorder(cert=ca.issue_cert("other.tls.test")),
        make_recorder(cert=trustme.CA().issue_cert("api.tls.test")),
        make_recorder(cert=ca.issue_cert("api.tls.test", not_after=past)),
        make_recorder(),  # which speaks no TLS
    ]
    ports = [recorder.tls_port or recorder.port for recorder in wrong]
    many = config("http://127.0.0.1:9")
    for number, port in enumerate([*ports, tls_upstream.tls_port]):
        many["connections"][f"conn_{number}"]["upstream"] = f"https://api.tls.test:{port}"
    gateway = make_gateway(many, dns={"api.tls.test": ["127.0.0.1"]})
    hand = ByHand()
    for number in range(4):
        lab = LaneLab(gateway, hand, cid=f"conn_{number}")
        with lab.client() as client:
            for _ in range(2):
                client.send(lab.head())
                assert status(client.read_response()) in (502, 504)
        assert not wrong[number].requests
        assert REAL_SECRET.encode() not in b"".join(wrong[number].fragments)
    # And where it is right, every way in shares one connection.
    lab = LaneLab(gateway, hand, cid="conn_4")
    for shape in ("client", "tls_client", "direct_tls_client"):
        with getattr(lab, shape)() as client:
            client.send(lab.head())
            assert status(client.read_response()) == 200
    assert tls_upstream.connections == 1
    assert {one.sni for one in tls_upstream.requests} == {"api.tls.test"}
    hand.stop()


@pytest.mark.slow
def test_an_upstream_that_takes_no_connection_is_answered_for_in_time(
    lab: LaneLab, make_gateway: MakeGateway
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as crowd:
        for _ in range(3):
            one = crowd.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        gateway = make_gateway(
            config(f"http://127.0.0.1:{full.getsockname()[1]}"), "--set", "presign_lane=on"
        )
        started = time.monotonic()
        with LaneLab(gateway, lab.hand, cid="conn_0").client() as client:
            client.send(LaneLab(gateway, lab.hand, cid="conn_0").head())
            assert status(client.read_response()) == 504
        assert time.monotonic() - started < 3.5
