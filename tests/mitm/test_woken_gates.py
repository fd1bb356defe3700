"""Clients over HTTP/2 that leave their answers for a while, and what happens once they take them.

A shut gate is looked at an hour later here, if nobody rings for it: what goes on does so because of what the
client has said.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from conftest import MakeGateway
from support.asking import SECRET, Grant
from support.byhand import ByHand, Wire
from support.h2frames import DATA, RST_STREAM, SETTINGS, WINDOW_UPDATE, RawH2, frame, head_of
from support.lab import bearer_connection
from support.proxy import ROOT, Mitm

CID = "conn_left"
MB = 1024 * 1024
SIZE = 64 * MB
INITIAL_WINDOW = 4
WIDE = 1 << 28


@pytest.fixture(scope="module")
def hand() -> Iterator[ByHand]:
    hand = ByHand()
    yield hand
    hand.stop()


@pytest.fixture(scope="module", params=["mitmdump", "as served"])
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, hand: ByHand) -> Mitm:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "as served":
            patch.setenv("AS_SERVED", "1")
        config = {"connections": {CID: bearer_connection(hand.url, SECRET)}}
        return module_gateway(config, "-s", str(ROOT / "tests/support/scripts/unasked.py"))


def opened(by: int, stream: int = 0) -> bytes:
    return frame(WINDOW_UPDATE, by.to_bytes(4, "big"), 0, stream)


def initial_window(size: int) -> bytes:
    return frame(SETTINGS, INITIAL_WINDOW.to_bytes(2, "big") + size.to_bytes(4, "big"))


def begin(client: RawH2, stream: int, hand: ByHand) -> Wire:
    client.request(stream, head_of(Grant(CID).target("v1/things").encode()))
    upstream = hand.accept()
    upstream.read_head()
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    return upstream


def fill(upstream: Wire) -> int:
    """How much of an answer is taken, until no more of it is."""
    sent = 0
    upstream.sock.setblocking(False)
    while select.select([], [upstream.sock], [], 1)[1]:
        sent += upstream.sock.send(bytes(min(MB, SIZE - sent)))
        assert sent < SIZE, "all of it was read, though the client takes nothing"
    upstream.sock.setblocking(True)
    return sent


@pytest.mark.parametrize("by", ["WINDOW_UPDATE", "SETTINGS"])
def test_a_client_that_opens_its_window_again_is_served_because_of_that(
    by: str, gateway: Mitm, hand: ByHand
) -> None:
    with RawH2(gateway.port) as client:
        client.send(initial_window(0))
        with begin(client, 1, hand) as upstream:
            rest = bytes(SIZE - fill(upstream))
            sending = threading.Thread(target=upstream.send, args=(rest,), daemon=True)
            sending.start()
            client.send(opened(WIDE) + (opened(WIDE, 1) if by == "WINDOW_UPDATE" else initial_window(WIDE)))
            received = 0
            for one in client.frames():
                received += len(one.payload) if one.kind == DATA else 0
                if received == SIZE:
                    break
            assert received == SIZE
            sending.join()


def test_a_client_that_resets_some_of_its_answers_has_room_for_the_others_at_once(
    gateway: Mitm, hand: ByHand
) -> None:
    with RawH2(gateway.port) as client, ExitStack() as upstreams:
        client.send(initial_window(0))
        left = range(1, 11, 2)
        for stream in left:
            fill(upstreams.enter_context(begin(client, stream, hand)))
        last = upstreams.enter_context(begin(client, 11, hand))
        fill(last)
        for stream in left:
            client.send(frame(RST_STREAM, (8).to_bytes(4, "big"), 0, stream))
        last.sock.settimeout(10)
        last.send(bytes(2 * MB))
