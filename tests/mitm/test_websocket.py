"""WebSocket on every way that a request may take: the handshake, frames both ways, and how it ends."""

from collections.abc import Iterator
from typing import Any

import pytest

from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import WAYS, LaneLab, config, is_closed
from support.raw import parse_response
from support.websocket import ACCEPT, CLOSE, HANDSHAKE, KEY, frame, opened, switching

HELLO = frame(b"hello", masked=True)
WORLD = frame(b"world")


def settings(upstream: str) -> dict[str, Any]:
    found = config(upstream, websocket=True, limits=[{"concurrency": 1}])
    return found | {"limits": {"store": "memory://"}}


@pytest.fixture(scope="module", params=list(WAYS))
def module_lab(request: pytest.FixtureRequest, module_gateway: MakeGateway) -> Iterator[LaneLab]:
    hand = ByHand()
    yield LaneLab(module_gateway(settings(hand.url), *WAYS[request.param]), hand)
    hand.stop()


@pytest.fixture
def lab(module_lab: LaneLab) -> Iterator[LaneLab]:
    with module_lab.checked() as fresh:
        yield fresh


@pytest.fixture
def client(lab: LaneLab) -> Iterator[Wire]:
    with lab.client() as wire:
        yield wire


def test_a_handshake_reaches_the_upstream_with_the_credential_and_without_the_presign(
    lab: LaneLab, client: Wire
) -> None:
    client.send(
        lab.head(*HANDSHAKE, "Origin: https://app.example", "Authorization: Bearer mine", path="v1/realtime")
    )
    api = lab.hand.accept()
    asked = parse_head(api.read_head())
    assert asked[0] == "GET /v1/realtime HTTP/1.1"
    assert sorted(one.lower() for one in asked[1:]) == sorted(
        (
            f"host: 127.0.0.1:{lab.hand.port}",
            "origin: https://app.example",
            "accept-encoding: identity",
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
            f"sec-websocket-key: {KEY.lower()}",
            f"authorization: bearer {REAL_SECRET.lower()}",
        )
    )


def test_the_client_gets_the_upstreams_101(lab: LaneLab, client: Wire) -> None:
    client.send(
        lab.head(*HANDSHAKE, "Sec-WebSocket-Protocol: chat, realtime", "Sec-WebSocket-Extensions: x-a; b=1")
    )
    api = lab.hand.accept()
    asked = parse_head(api.read_head())
    assert "Sec-WebSocket-Protocol: chat, realtime" in asked
    assert "Sec-WebSocket-Extensions: x-a; b=1" in asked
    chosen = ("Sec-WebSocket-Protocol: realtime", "Sec-WebSocket-Extensions: x-a")
    api.send(switching(*chosen, "Set-Cookie: a=b", f"X-Echo: {REAL_SECRET}"))
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 101 ")
    answer = parse_response(head)
    assert answer.header("upgrade") == "websocket"
    assert answer.header("connection") == "Upgrade"
    assert answer.header("sec-websocket-accept") == ACCEPT
    assert answer.header("sec-websocket-protocol") == "realtime"
    assert answer.header("sec-websocket-extensions") == "x-a"
    assert answer.header("set-cookie") is None
    assert REAL_SECRET.encode() not in head
    assert answer.header("x-presign-request-id")


def test_frames_pass_both_ways_as_they_come(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    for _ in range(3):
        client.send(HELLO)
        assert api.read_exactly(len(HELLO)) == HELLO
        api.send(WORLD)
        assert client.read_exactly(len(WORLD)) == WORLD


def test_frames_come_with_the_101(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    api.send(switching() + WORLD)
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    assert client.read_exactly(len(WORLD)) == WORLD


def test_a_close_ends_both_connections_and_frees_the_slot(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    client.send(HELLO)
    api.read_exactly(len(HELLO))
    goodbye = frame(b"\x03\xe8", CLOSE, masked=True)
    client.send(goodbye)
    assert api.read_exactly(len(goodbye)) == goodbye
    answer = frame(b"\x03\xe8", CLOSE)
    api.send(answer)
    assert client.read_exactly(len(answer)) == answer
    api.close()
    assert is_closed(client)
    line = lab.audited()[0]
    assert (line["decision"], line["status"], line["upstream_status"]) == ("forward", 101, 101)
    assert (line["bytes_in"], line["bytes_out"]) == (len(HELLO) + len(goodbye), len(answer))
    with lab.client() as second:
        opened(lab, second)


def test_a_client_that_leaves_ends_the_upstream_connection(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    client.send(HELLO)
    client.close()
    assert api.read_exactly(len(HELLO)) == HELLO
    assert is_closed(api)
    api.close()
    assert lab.audited()[0]["status"] == 101


def test_a_websocket_holds_its_slot_until_its_end(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    with lab.client() as second:
        second.send(lab.head(*HANDSHAKE))
        assert second.read_head().startswith(b"HTTP/1.1 429 ")
    api.close()
    assert is_closed(client)

    assert lab.audited(2)
    with lab.client() as third:
        opened(lab, third)


def test_another_answer_than_101_is_an_ordinary_response(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    body = REAL_SECRET.encode()
    api.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    answer = parse_response(client.read_to_end())
    assert answer.status == 403
    assert answer.body == b"*" * len(body)
    assert answer.header("connection") == "close"
    assert is_closed(api)
    assert lab.audited()[0]["upstream_status"] == 403


def parse_head(raw: bytes) -> list[str]:
    return raw.decode("latin-1").split("\r\n")[:-2]
