"""Bytes that nobody signed and that were dear once, against real gateways: everybody else is served,
and no worker dies of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from presign_proxy.http.message import MAX_FIELDS, MAX_HEAD
from support.asking import SECRET, Grant, ask, wire
from support.flood import DEAR, dear_over_h1, dear_over_h2
from support.gateways import MakeGateway
from support.h2frames import (
    CALM,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NEWEST,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawH2,
    frame,
    head_of,
    literal,
)
from support.lab import bearer_connection
from support.places import ROOT
from support.proxy import Mitm
from support.raw import connect, exchange
from support.recorder import Recorder
from support.serving import CONN, Serve

Gateway = Mitm | Serve


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: Recorder) -> Iterator[Serve]:
    config = {"connections": {CONN: bearer_connection(upstream.url, SECRET)}}
    with ExitStack() as started:
        found = Serve(tmp_path_factory.mktemp("served"), config, workers=2)
        started.callback(found.stop)
        yield found.start(240)


@pytest.fixture(scope="module", params=["serve", "flows"])
def attacked(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Gateway:
    """`presign serve` with two workers, and a mitmdump without the lane."""
    if request.param == "serve":
        found: Serve = request.getfixturevalue("served")
        return found
    config = {"connections": {CONN: bearer_connection(upstream.url, SECRET)}}
    return module_gateway(config, "--set", "presign_lane=off")


def good(gateway: Gateway) -> int:
    return ask(gateway.port, Grant(CONN).target("v1/models"), {"Connection": "close"}).status


def pids(gateway: Gateway) -> list[int]:
    return sorted(gateway.serving()) if isinstance(gateway, Serve) else [gateway.pid]


@pytest.mark.parametrize("variant", DEAR)
def test_a_flood_of_the_dearest_heads_over_http1_ends_no_worker(variant: str, attacked: Gateway) -> None:
    before = pids(attacked)
    with ExitStack() as open_:
        socks = [open_.enter_context(connect(attacked.port, timeout=60)) for _ in range(10)]
        for sock in socks:
            sock.sendall(dear_over_h1(variant))
        assert good(attacked) == 200
        for sock in socks:
            assert exchange(sock, b"", 60).startswith(b"HTTP/1.1 4")
    assert good(attacked) == 200
    assert pids(attacked) == before


@pytest.mark.parametrize("line", [b" x\r\n", b"a:b\r\n", b" \n"], ids=["folded", "short", "bare"])
def test_a_head_of_thousands_of_folded_lines_is_refused_before_it_is_parsed(
    line: bytes, attacked: Gateway
) -> None:
    """mitmproxy joins what is folded line by line, each time all that came before."""
    head = b"GET /api/proxy/conn/x HTTP/1.1\r\nHost: presign.local\r\nX: y\r\n"
    with connect(attacked.port, timeout=60) as sock:
        sock.sendall(head + line * (60_000 // len(line)) + b"\r\n")
        assert exchange(sock, b"", 60)[8:13] in (b" 431 ", b" 400 ")
    assert good(attacked) == 200


def test_a_field_that_a_table_repeats_is_refused_over_http2_and_ends_no_worker(attacked: Gateway) -> None:
    """27 bytes became 56 KB of head, a hundred times in one segment."""
    before = pids(attacked)
    with ExitStack() as open_:
        clients = [open_.enter_context(RawH2(attacked.port, 60)) for _ in range(10)]
        for client in clients:
            client.send(dear_over_h2())
        assert good(attacked) == 200
        for client in clients:
            assert client.goaway() == CALM
    assert good(attacked) == 200
    assert pids(attacked) == before


def test_one_head_that_becomes_more_than_was_sent_is_answered_and_the_next_ends_the_connection(
    attacked: Gateway,
) -> None:
    head = head_of(b"/api/proxy/conn/x")
    with RawH2(attacked.port) as client:
        client.request(1, head + literal(b"x-a", b"%" * 4000, kept=True) + NEWEST * 13)
        assert b"too_large" in client.answer(1)
        client.request(3, head)
        assert b"malformed" in client.answer(3)  # the connection is as good as before
        client.request(5, head + NEWEST * 14)
        assert client.goaway() == CALM


def test_the_hundred_and_first_field_is_answered_over_http2(attacked: Gateway) -> None:
    field = literal(b"x", b"y")
    head = head_of(b"/api/proxy/conn/x")
    with RawH2(attacked.port) as client:
        client.request(1, head + field * MAX_FIELDS)
        assert b"malformed" in client.answer(1)
        client.request(3, head + field * (MAX_FIELDS + 1))
        assert b"too_large" in client.answer(3)
        client.request(5, head + field * (MAX_FIELDS + 1))
        assert client.goaway() == CALM


def test_a_large_upload_with_a_head_that_is_too_large_is_refused_before_its_body(attacked: Gateway) -> None:
    with RawH2(attacked.port) as client:
        block = head_of(b"/api/proxy/conn/x", method=b"POST") + literal(b"x", b"y") * 150
        client.send(frame(HEADERS, block, END_HEADERS, 1))
        assert b"too_large" in client.answer(1)
        client.send(frame(DATA, b"x" * 1000, END_STREAM, 1))
        client.request(3, head_of(b"/api/proxy/conn/x"))
        assert b"malformed" in client.answer(3)


# What may come in the same segment behind a head that is too large.
BEHIND = {
    "nothing": (END_HEADERS | END_STREAM, b""),
    "its body": (END_HEADERS, frame(DATA, b"x" * 10, END_STREAM, 3)),
    "its reset": (END_HEADERS | END_STREAM, frame(RST_STREAM, (8).to_bytes(4, "big"), 0, 3)),
    "a piece of its body and its reset": (
        END_HEADERS,
        frame(DATA, b"x" * 10, 0, 3) + frame(RST_STREAM, (8).to_bytes(4, "big"), 0, 3),
    ),
    "its trailers": (END_HEADERS, frame(HEADERS, literal(b"a", b"b"), END_HEADERS | END_STREAM, 3)),
}


@pytest.mark.parametrize("behind", BEHIND)
def test_a_head_that_is_too_large_costs_its_neighbours_nothing(behind: str, attacked: Gateway) -> None:
    """h2 has closed its stream by the time it is answered; the whole connection was cut."""
    flags, more = BEHIND[behind]
    block = head_of(b"/api/proxy/conn/x", method=b"POST") + literal(b"x", b"y") * 150
    slow = head_of(Grant(CONN).target("v1/slow").encode())
    before = len(attacked.log())
    with RawH2(attacked.port) as client:
        client.send(
            frame(HEADERS, slow, END_HEADERS | END_STREAM, 1) + frame(HEADERS, block, flags, 3) + more
        )
        found = {1: b"", 3: b""}
        for one in client.frames():
            assert one.goaway is None
            if one.stream in found:
                found[one.stream] += one.payload
            if one.stream == 1 and one.flags & END_STREAM:
                break
        assert found[1]
        assert (b"too_large" in found[3]) == ("reset" not in behind)
        client.request(5, head_of(b"/api/proxy/conn/x"))
        assert b"malformed" in client.answer(5)
    assert "failed at the protocol" not in attacked.log()[before:]


def test_a_goodbye_behind_a_head_that_is_too_large_is_no_failure(attacked: Gateway) -> None:
    block = head_of(b"/api/proxy/conn/x") + literal(b"x", b"y") * 150
    before = len(attacked.log())
    with RawH2(attacked.port) as client:
        client.send(frame(HEADERS, block, END_HEADERS | END_STREAM, 1) + frame(GOAWAY, bytes(8)))
        list(client.frames())
    assert "failed at the protocol" not in attacked.log()[before:]
    assert good(attacked) == 200


def test_trailers_in_the_segment_of_their_head_do_not_make_the_head_too_large(
    attacked: Gateway, upstream: Recorder
) -> None:
    """A legal head was held against the size of its trailers on the wire."""
    grant = Grant(CONN).target("v1/models").encode()
    block = head_of(grant, method=b"POST") + literal(b"x-long", b"c" * 12_000)
    with RawH2(attacked.port) as client:
        client.send(
            frame(HEADERS, block, END_HEADERS, 1)
            + frame(DATA, b"hi", 0, 1)
            + frame(HEADERS, literal(b"a", b"b"), END_HEADERS | END_STREAM, 1)
        )
        answer = client.answer(1)
    assert b"too_large" not in answer
    assert upstream.wait_for(1)[0].body == b"hi"


def test_trailers_that_a_table_makes_large_end_the_connection(attacked: Gateway) -> None:
    grant = Grant(CONN).target("v1/models").encode()
    with RawH2(attacked.port) as client:
        block = head_of(grant, method=b"POST") + literal(b"x-a", b"%" * 4000, kept=True)
        client.send(frame(HEADERS, block, END_HEADERS, 1))
        client.send(frame(HEADERS, NEWEST * 14, END_HEADERS | END_STREAM, 1))
        assert client.goaway() == CALM
    assert good(attacked) == 200


def test_a_head_of_64_kib_in_continuations_that_says_nothing_ends_the_connection(attacked: Gateway) -> None:
    with RawH2(attacked.port) as client:
        client.send(frame(HEADERS, b"", END_STREAM, 1))
        for _ in range(MAX_HEAD // 16_000 + 1):
            client.send(frame(CONTINUATION, b"\x20" * 16_000, 0, 1))
        assert client.goaway() == CALM


FLOODS: dict[str, Callable[[int], bytes]] = {
    "SETTINGS": lambda n: frame(SETTINGS),
    "SETTINGS of one": lambda n: frame(SETTINGS, b"\x00\x04" + (65_535 + n % 2).to_bytes(4, "big")),
    "PING": lambda n: frame(PING, n.to_bytes(8, "big")),
    "PRIORITY": lambda n: frame(PRIORITY, bytes(5), 0, 2 * n + 1),
    "WINDOW_UPDATE": lambda n: frame(WINDOW_UPDATE, (1).to_bytes(4, "big")),
    "RST_STREAM": lambda n: frame(RST_STREAM, (8).to_bytes(4, "big"), 0, 1),
    "empty DATA": lambda n: frame(DATA, b"", 0, 1),
    "unknown": lambda n: frame(0xBE, b""),
    "DATA of one byte": lambda n: frame(DATA, b"x", 0, 1),
    "padding": lambda n: frame(DATA, b"\0", PADDED, 1),
    "the end of a body": lambda n: frame(DATA, b"", END_STREAM, 1),
    "one head again and again": lambda n: frame(HEADERS, head_of(b"/x"), END_HEADERS | END_STREAM, 3),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_that_are_no_requests_ends_the_connection(kind: str, attacked: Gateway) -> None:
    """192 KB of SETTINGS kept a worker from everybody else for one to two seconds."""
    flood = b"".join(map(FLOODS[kind], range(192_000 // len(FLOODS[kind](0)))))
    before = pids(attacked)
    with RawH2(attacked.port, 60) as client:
        client.send(frame(HEADERS, head_of(b"/api/proxy/conn/x", method=b"POST"), END_HEADERS, 1))
        client.send(flood)
        assert client.goaway() == CALM
    assert good(attacked) == 200
    assert pids(attacked) == before


def test_heads_that_are_reset_at_once_end_the_connection_at_some_point(attacked: Gateway) -> None:
    """CVE-2023-44487. A browser that is closed resets as many as it has under way, a hundred at most."""
    pairs = [
        frame(HEADERS, head_of(b"/api/proxy/conn/x"), END_HEADERS | END_STREAM, 2 * n + 1)
        + frame(RST_STREAM, (8).to_bytes(4, "big"), 0, 2 * n + 1)
        for n in range(600)
    ]
    with RawH2(attacked.port, 60) as client:
        client.send(b"".join(pairs))
        assert client.goaway() == CALM
    assert good(attacked) == 200


def test_a_hundred_requests_at_once_with_pings_and_windows_are_all_answered(attacked: Gateway) -> None:
    """What a busy client sends in one segment; turns change nothing of it."""
    target = Grant(CONN).target("v1/models").encode()
    sent = b""
    for n in range(100):
        stream = 2 * n + 1
        sent += frame(HEADERS, head_of(target), END_HEADERS | END_STREAM, stream)
        sent += frame(PRIORITY, bytes(4) + b"\x10", 0, stream) + frame(
            WINDOW_UPDATE, b"\x00\x00\x40\x00", 0, stream
        )
        sent += frame(PING, n.to_bytes(8, "big"))
    done: set[int] = set()
    with RawH2(attacked.port, 60) as client:
        client.send(sent)
        for one in client.frames():
            assert one.goaway is None
            if one.kind in (HEADERS, DATA) and one.flags & END_STREAM:
                done.add(one.stream)
            if len(done) == 100:
                break
    assert done == {2 * n + 1 for n in range(100)}


def test_an_upload_in_single_bytes_arrives_whole_by_the_clock(attacked: Gateway, upstream: Recorder) -> None:
    """Each byte costs a worker as much as sixteen KiB: eight clients made all others wait half a second."""
    target, body = Grant(CONN).target("v1/bytes").encode(), bytes(range(256)) * 6
    with RawH2(attacked.port, 60) as client:
        client.send(frame(HEADERS, head_of(target, method=b"POST"), END_HEADERS, 1))
        client.send(
            b"".join(frame(DATA, bytes([one]), 0, 1) for one in body) + frame(DATA, b"", END_STREAM, 1)
        )
        assert client.answer(1)
    (request,) = [one for one in upstream.requests if one.target.endswith("/v1/bytes")]
    assert request.body == body


def test_a_body_that_trailers_end_before_its_length_is_refused(attacked: Gateway, upstream: Recorder) -> None:
    """h2 holds a body against its length only where a DATA frame ends it."""
    target = Grant(CONN).target("v1/short").encode()
    head = head_of(target, method=b"POST") + literal(b"content-length", b"1000")
    with RawH2(attacked.port, 30) as client:
        client.send(frame(HEADERS, head, END_HEADERS, 1) + frame(DATA, b"abc", 0, 1))
        client.send(frame(HEADERS, literal(b"x-trailer", b"y"), END_HEADERS | END_STREAM, 1))
        client.answer(1)
    assert good(attacked) == 200
    assert not [one for one in upstream.requests if one.target.endswith("/v1/short") and one.complete]


def test_a_client_that_pings_as_a_keepalive_does_is_answered_each_time(attacked: Gateway) -> None:
    with RawH2(attacked.port) as client:
        for n in range(300):
            client.send(frame(PING, n.to_bytes(8, "big")))
            answer = next(one for one in client.frames() if one.kind == PING)
            assert answer.payload == n.to_bytes(8, "big")


def test_a_name_that_h2_refuses_is_not_logged_at_any_length(attacked: Gateway) -> None:
    before = len(attacked.log())
    with RawH2(attacked.port) as client:
        client.request(1, head_of(b"/api/proxy/conn/x") + literal(b"X-MARK" + b"A" * 15_000, b"1"))
        assert client.goaway() is not None
    time.sleep(0.2)
    assert "X-MARK" not in attacked.log()[before:]


def test_a_good_request_beside_the_dearest_heads_is_served_on_the_lane(served: Serve) -> None:
    request = wire(Grant(CONN).target("v1/models"))
    with connect(served.port, timeout=60) as kept:
        assert exchange(kept, request).startswith(b"HTTP/1.1 200")
        with ExitStack() as open_:
            for _ in range(10):
                sock = open_.enter_context(connect(served.port, timeout=60))
                sock.sendall(dear_over_h1("parameters"))
            assert exchange(kept, request, 60).startswith(b"HTTP/1.1 200")


# -- once ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counting(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    """A gateway that says in its log what it decides; the lane is open all the same."""
    config = {"connections": {CONN: bearer_connection(upstream.url, SECRET)}}
    script = str(ROOT / "tests/support/scripts/counting.py")
    return module_gateway(config, "-s", script, "--set", "presign_lane=on")


LEFT = {
    "a bad signature": (wire(Grant(CONN, secret="sk_of_somebody_else_0123456789").target("x")), b" 403 "),
    "an unknown connection": (wire(Grant("conn_none").target("x")), b" 403 "),
    "a malformed presign": (wire("/api/proxy/conn/x?X-Presign-Expires=1"), b" 400 "),
    "another path than was signed": (wire(Grant(CONN, paths="v2/*").target("v1/models")), b" 403 "),
    "no such form": (wire("/nothing/here"), b" 404 "),
    "the dearest head": (dear_over_h1("parameters"), b" 400 "),
    "more fields than are served": (
        wire(Grant(CONN).target("v1/models"), [("X-A", "1")] * (MAX_FIELDS + 1)),
        b" 431 ",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_the_lane_has_refused_is_neither_decided_nor_redacted_twice(case: str, counting: Mitm) -> None:
    sent, status = LEFT[case]
    before = len(counting.log())
    with connect(counting.port, timeout=60) as sock:
        assert status in exchange(sock, sent, 60)[:16]
    told = counting.log()[before:]
    assert told.count("counted: decide") == 1
    assert told.count("counted: redact") == 1


def test_of_equal_heads_in_one_second_two_are_decided_on_and_the_others_known(counting: Mitm) -> None:
    """On connections of their own, as long as they come from one address."""
    request = wire(Grant(CONN).target("v1/models"))
    for _ in range(10):  # a machine that is busy may take longer than a second for them
        time.sleep(1.02 - time.time() % 1)
        second, before = int(time.time()), len(counting.log())
        for _ in range(4):
            with connect(counting.port, timeout=60) as sock:
                assert exchange(sock, request, 60).startswith(b"HTTP/1.1 200")
        if int(time.time()) == second:
            break
    assert counting.log()[before:].count("counted: decide") == 2


def test_somebody_elses_request_is_decided_on_once(counting: Mitm, upstream: Recorder) -> None:
    before = len(counting.log())
    with connect(counting.port, timeout=60) as sock:
        asked = wire(f"http://127.0.0.1:{upstream.port}/v1/models", host=f"127.0.0.1:{upstream.port}")
        assert b" 200 " in exchange(sock, asked, 60)[:16]
    with connect(counting.port, timeout=60) as sock:
        assert exchange(sock, wire(Grant(CONN).target("v1/models")), 60).startswith(b"HTTP/1.1 200")
    assert counting.log()[before:].count("counted: decide") == 2


def test_what_is_decided_for_one_request_is_not_used_for_the_next(counting: Mitm) -> None:
    """Both in one segment: the second one is decided on by itself."""
    bad = wire(Grant(CONN, secret="sk_of_somebody_else_0123456789").target("v1/models"))
    before = len(counting.log())
    with connect(counting.port, timeout=60) as sock:
        sock.sendall(bad + wire(Grant(CONN).target("v1/models"), {"Connection": "close"}))
        received = b""
        while data := sock.recv(1 << 16):
            received += data
    assert received.startswith(b"HTTP/1.1 403")
    assert b"HTTP/1.1 200" in received
    assert counting.log()[before:].count("counted: decide") == 2
