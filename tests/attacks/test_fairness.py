"""Clients over HTTP/2 that begin as much as they can, take nothing of it, or leave: and everybody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask
from support.gateways import MakeGateway
from support.h2frames import END_STREAM, GOAWAY, HEADERS, RST_STREAM, RawH2, frame, head_of
from support.lab import bearer_connection
from support.proxy import Mitm
from support.recorder import Recorder

CID = "conn_shared"
MB = 1024 * 1024
ON_FLOWS = {"TE": "trailers", "Connection": "close"}


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, upstream: Recorder) -> Iterator[Mitm]:
    large = Answer(body=bytes(4 * MB))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BEHAVIOURS, "large", lambda _: large)
        yield module_gateway({"connections": {CID: bearer_connection(upstream.url, SECRET)}})


def packet(streams: int, path: str = "large") -> bytes:
    """The heads of so many requests."""
    block = head_of(Grant(CID).target(path).encode())
    return b"".join(frame(HEADERS, block, 5, 2 * number + 1) for number in range(streams))


def asked(upstream: Recorder, name: str) -> list[int]:
    """Which of the requests that an upstream got, in their order, had this path."""
    found = [request.target.partition("?")[0] for request in upstream.requests]
    return [number for number, path in enumerate(found) if path.endswith(f"/{name}")]


def test_ten_clients_that_begin_a_hundred_requests_each_and_leave_have_hardly_any_of_them_sent(
    gateway: Mitm, upstream: Recorder
) -> None:
    """More than half were dialled after their clients had gone, with the credential."""
    upstream.clear()
    logged = len(gateway.log())
    clients = [RawH2(gateway.port) for _ in range(10)]
    for client in clients:
        client.send(packet(100))
        client.close()
    for _ in range(30):
        assert ask(gateway.port, Grant(CID).target("v1/models"), ON_FLOWS).status == 200
    assert len(asked(upstream, "large")) < 100
    assert "failed" not in gateway.log()[logged:]


def test_a_client_that_begins_more_than_it_may_is_refused_what_is_too_much_and_keeps_the_rest(
    gateway: Mitm,
) -> None:
    """Its connection was ended, with all that was under way, though it could not know of the limit yet."""
    with RawH2(gateway.port) as client:
        client.send(packet(130))
        refused: dict[int, int] = {}
        begun: set[int] = set()
        for one in client.frames():
            assert one.kind != GOAWAY
            if one.kind == RST_STREAM:
                refused[one.stream] = int.from_bytes(one.payload, "big")
            elif one.kind == HEADERS:
                begun.add(one.stream)
            if len(refused) + len(begun) == 130:
                break
    assert refused == dict.fromkeys(range(201, 261, 2), ErrorCodes.REFUSED_STREAM)
    assert begun == set(range(1, 201, 2))


def test_what_was_refused_is_served_when_it_is_asked_for_again(gateway: Mitm) -> None:
    with RawH2(gateway.port) as client:
        client.send(packet(101, "v1/models"))
        ended: set[int] = set()
        for one in client.frames():
            if one.kind == RST_STREAM or one.flags & END_STREAM:
                ended.add(one.stream)
            if len(ended) == 101:
                break
        client.request(301, head_of(Grant(CID).target("v1/models").encode()))
        assert client.answer(301).endswith(b'{"ok": true}')
