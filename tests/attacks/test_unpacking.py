"""Answers that become a thousandfold once they are unpacked, and clients that take their time."""

import gzip
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, wire
from support.gateways import MakeGateway
from support.h2frames import DATA, END_STREAM, WINDOW_UPDATE, RawH2, frame, head_of
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import connect
from support.recorder import Recorder

CID = "conn_packed"
MB = 1024 * 1024
ELSEWHERE = {"TE": "trailers", "Connection": "close"}
"""With it a request goes the way of flows."""
BODY = random.Random(0).randbytes(4096) * (2 * MB // 1024)


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, upstream: Recorder) -> Iterator[Mitm]:
    with pytest.MonkeyPatch.context() as patch:
        for name, body in {"bomb": bytes(200 * MB), "packed": BODY}.items():
            answer = Answer(headers=(("Content-Encoding", "gzip"),), body=gzip.compress(body, 6))
            patch.setitem(BEHAVIOURS, name, lambda _, answer=answer: answer)
        plain = Answer(body=bytes(4 * MB))
        patch.setitem(BEHAVIOURS, "plain", lambda _: plain)
        yield module_gateway({"connections": {CID: bearer_connection(upstream.url, SECRET)}})


def settled(gateway: Mitm) -> int:
    """The memory of a gateway that has come to rest."""
    last, now = 0, gateway.rss()
    while now > last:
        time.sleep(0.3)
        last, now = now, gateway.rss()
    return now


@pytest.mark.parametrize("kind", ["h1", "h2"])
def test_clients_that_read_nothing_of_what_is_unpacked_fill_no_memory(kind: str, gateway: Mitm) -> None:
    """64 MB were kept for each: the holder of a URL, and an object that he had put there himself, were enough
    to end a worker.
    """
    target = Grant(CID).target("bomb")
    before = gateway.rss()
    with ExitStack() as clients:
        if kind == "h2":
            client = clients.enter_context(RawH2(gateway.port))
            client.send(b"".join(frame(1, head_of(target.encode()), 5, stream) for stream in (1, 3, 5, 7, 9)))
        for _ in range(5 if kind == "h1" else 0):
            sock = clients.enter_context(connect(gateway.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(wire(target, ELSEWHERE))
        time.sleep(0.5)
        assert settled(gateway) - before < 60 * MB


def test_a_client_over_http1_that_takes_its_time_gets_all_of_it(gateway: Mitm) -> None:
    with connect(gateway.port) as sock:
        sock.sendall(wire(Grant(CID).target("packed"), ELSEWHERE))
        time.sleep(0.5)
        received = b"".join(iter(lambda: sock.recv(MB), b""))
    pieces, chunks = [], received.partition(b"\r\n\r\n")[2]
    while size := int(chunks[: (start := chunks.index(b"\r\n"))], 16):
        pieces.append(chunks[start + 2 : start + 2 + size])
        chunks = chunks[start + 4 + size :]
    assert b"".join(pieces) == BODY


def test_a_client_over_http2_that_takes_its_time_gets_all_of_it(gateway: Mitm) -> None:
    received = bytearray()
    with RawH2(gateway.port) as client:
        client.request(1, head_of(Grant(CID).target("packed").encode()))
        time.sleep(0.5)
        wide = (1 << 24).to_bytes(4, "big")
        client.send(frame(WINDOW_UPDATE, wide) + frame(WINDOW_UPDATE, wide, 0, 1))
        for one in client.frames():
            if one.kind == DATA:
                received += one.payload
                if one.flags & END_STREAM:
                    break
    assert bytes(received) == BODY


def test_what_goes_away_while_it_is_unpacked_leaves_the_gateway_in_order(gateway: Mitm) -> None:
    logged = len(gateway.log())
    for _ in range(5):
        with connect(gateway.port) as sock:
            sock.sendall(wire(Grant(CID).target("bomb"), ELSEWHERE))
            sock.recv(1000)
    with connect(gateway.port) as sock:
        sock.sendall(wire(Grant(CID).target("v1/models"), ELSEWHERE))
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert "presign: failed" not in gateway.log()[logged:]
    assert "Traceback" not in gateway.log()[logged:]


def test_a_client_that_reads_none_of_many_answers_fills_no_memory(gateway: Mitm) -> None:
    """Four megabytes were kept of each: a hundred requests on one connection came to 400."""
    before = gateway.rss()
    with RawH2(gateway.port) as client:
        block = head_of(Grant(CID).target("plain").encode())
        client.send(b"".join(frame(1, block, 5, stream) for stream in range(1, 120, 2)))
        time.sleep(0.5)
        assert settled(gateway) - before < 60 * MB
        wide = (1 << 28).to_bytes(4, "big")
        client.send(frame(WINDOW_UPDATE, wide))
        client.send(b"".join(frame(WINDOW_UPDATE, wide, 0, stream) for stream in range(1, 120, 2)))
        received = dict.fromkeys(range(1, 120, 2), 0)
        open_streams = set(received)
        for one in client.frames():
            if one.kind == DATA:
                received[one.stream] += len(one.payload)
                if one.flags & END_STREAM:
                    open_streams.discard(one.stream)
            if not open_streams:
                break
    assert set(received.values()) == {4 * MB}


def test_clients_that_ask_on_and_on_and_read_nothing_fill_no_memory(gateway: Mitm) -> None:
    """Of each, a mebibyte of heads was kept that it had sent ahead."""
    asked, before = wire(Grant(CID).target("v1/models")) * 4000, gateway.rss()
    with ExitStack() as clients:
        left = {clients.enter_context(connect(gateway.port)): asked for _ in range(30)}
        for sock in left:
            sock.setblocking(False)
        resting = 0
        while resting < 10:  # half a second in which no socket takes anything more
            sent = 0
            for sock, rest in left.items():
                with suppress(BlockingIOError):
                    size = sock.send(rest)
                    left[sock], sent = rest[size:] or asked, sent + size
            resting = 0 if sent else resting + 1
            time.sleep(0.05)
        assert settled(gateway) - before < 20 * MB
