"""A client that takes every place of a gateway, at no cost to itself: the next one is served all the same."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from presign_proxy.mitm.room import LASTING, PATIENCE
from support.asking import SECRET, Grant, wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import bearer_connection
from support.raw import connect, exchange, parse_response
from support.recorder import Recorder
from support.serving import Serve

PLACES = 25
CONN = "conn"
CONNECT = b"CONNECT presign.local:443 HTTP/1.1\r\nHost: presign.local:443\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"

Hold = Callable[[int, contextlib.ExitStack], None]


def granted() -> bytes:
    return wire(Grant(CONN).target("v1/models"))


def saying(data: bytes) -> Hold:
    """A client that sends this and nothing more."""

    def hold(port: int, crowd: contextlib.ExitStack) -> None:
        with contextlib.suppress(ConnectionError):
            client = crowd.enter_context(connect(port))
            client.sendall(data)
            if data.startswith(CONNECT):  # the deadline of what comes inside begins with the answer
                client.recv(1)

    return hold


def after_a_grant(data: bytes) -> Hold:
    """A client that is granted one request, and sends this and nothing more."""

    def hold(port: int, crowd: contextlib.ExitStack) -> None:
        client = crowd.enter_context(connect(port))
        assert parse_response(exchange(client, granted())).status == 200
        client.sendall(data)

    return hold


def over_http2(port: int, crowd: contextlib.ExitStack) -> None:
    client = crowd.enter_context(H2Client.direct(port, "presign.local"))
    target = Grant(CONN).target("v1/models")
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local"), (":path", target)]
    assert client.request(fields).status == 200


REFUSED = b"GET /nothing HTTP/1.1\r\nHost: presign.local\r\n\r\n"

HOLDS: dict[str, Hold] = {
    "refused requests that were sent ahead": saying(REFUSED * 2000),
    "heads that do not end": saying(b"GET / HTTP/1.1\r\nHost: presign"),
    "handshakes that do not end": saying(HELLO),
    "tunnels in which nothing comes": saying(CONNECT),
    "handshakes in a tunnel": saying(CONNECT + HELLO),
    "nothing": saying(b""),
    "one granted request": after_a_grant(b""),
    "one granted request and half a head": after_a_grant(b"GET / HT"),
    "one granted request over HTTP/2": over_http2,
}


@pytest.fixture(params=["mitmdump", "serve"])
def port(
    request: pytest.FixtureRequest, make_gateway: MakeGateway, tmp_path: Path, upstream: Recorder
) -> Iterator[int]:
    """The port of a gateway that has few places."""
    config = {
        "gateway": {"max_clients": PLACES},
        "connections": {CONN: bearer_connection(upstream.url, SECRET)},
    }
    if request.param == "mitmdump":
        yield make_gateway(config).port
        return
    served = Serve(tmp_path, config).start()
    try:
        yield served.port
    finally:
        served.stop()


@pytest.mark.parametrize("what", HOLDS)
def test_one_client_that_holds_every_place_shuts_nobody_out(port: int, what: str) -> None:
    with contextlib.ExitStack() as crowd:
        for _ in range(PLACES):
            HOLDS[what](port, crowd)
        time.sleep(PATIENCE + 0.3)
        for _ in range(5):
            with connect(port) as newcomer:
                assert parse_response(exchange(newcomer, granted())).status == 200


def test_an_address_that_connects_again_and_again_shuts_no_other_address_out(port: int) -> None:
    """Each of its connections is too new to have to make room, and is followed by the next one."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as crowd:
        storm = crowd.submit(connect_again_and_again, port, "127.0.0.2", over)
        try:
            time.sleep(PATIENCE + 0.3)
            for _ in range(20):
                with connect(port) as newcomer:
                    assert parse_response(exchange(newcomer, granted())).status == 200
        finally:
            over.set()
        assert storm.result() > PLACES


def test_requests_that_are_refused_again_and_again_keep_no_place(port: int) -> None:
    """Behind each refused request comes half of the next one: so its head is never awaited for long."""
    cut, over = len(REFUSED) // 2, threading.Event()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        crowd = [stack.enter_context(connect(port)) for _ in range(PLACES)]
        for one in crowd:
            one.sendall(REFUSED[:cut])

        def ask_again() -> None:
            while not over.wait(PATIENCE / 4):
                for one in crowd:
                    with contextlib.suppress(OSError):  # it had to make room
                        one.sendall(REFUSED[cut:] + REFUSED[:cut])

        storm = threads.submit(ask_again)
        try:
            time.sleep(LASTING + 0.5)
            for _ in range(5):
                with connect(port) as newcomer:
                    assert parse_response(exchange(newcomer, granted())).status == 200
        finally:
            over.set()
        storm.result()


def connect_again_and_again(port: int, address: str, over: threading.Event) -> int:
    """Keep all places, and take each anew that was lost. Return the number of connections."""
    kept: set[socket.socket] = set()
    count = 0
    while not over.is_set():
        while len(kept) < PLACES + 5 and not over.is_set():
            with contextlib.suppress(OSError):
                kept.add(socket.create_connection(("127.0.0.1", port), 5, (address, 0)))
                count += 1
        for one in select.select(kept, (), (), 0.02)[0]:
            kept.discard(one)
            one.close()
    for one in kept:
        one.close()
    return count


def test_a_request_that_is_under_way_does_not_have_to_go(port: int) -> None:
    head = wire(Grant(CONN).target("v1/models"), {"Content-Length": "4"}, "POST")
    with contextlib.ExitStack() as crowd:
        under_way = [crowd.enter_context(connect(port)) for _ in range(PLACES)]
        for one in under_way:
            one.sendall(head + b"bo")
        time.sleep(PATIENCE + 0.3)
        assert is_turned_away(crowd.enter_context(connect(port)))
        for one in under_way:
            assert parse_response(exchange(one, b"dy")).status == 200


def is_turned_away(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        client.settimeout(5)
        return client.recv(1) == b""
    return True
