"""WebSocket on every way that a request may take: the handshake, frames both ways, and how it ends."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from presign_proxy import Signer
from presign_proxy.signing.signed_policy import Terms
from support.asking import in_an_hour
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.lanes import GATEWAY, SIGNING, WAYS, LaneLab, config, is_closed
from support.leaks import Traces
from support.process import resident
from support.raw import parse_response
from support.websocket import ACCEPT, BINARY, CLOSE, HANDSHAKE, KEY, frame, opened, switching

HELLO = frame(b"hello", masked=True)
WORLD = frame(b"world")


def settings(upstream: str) -> dict[str, Any]:
    slots = {"headers": ["Sec-WebSocket-Protocol"]}
    limits = [{"concurrency": 1}]
    found = config(upstream, websocket=True, limits=limits, max_duration="1h", key_slots=slots)
    found["connections"]["short"] = found["connections"]["conn_0"] | {"max_duration": "2s"}
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


# -- how a client may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["TLS", "TLS in a tunnel"])
def test_frames_pass_both_ways_over_tls(lab: LaneLab, how: str) -> None:
    with lab.direct_tls_client() if how == "TLS" else lab.tls_client() as client:
        api = opened(lab, client)
        for _ in range(3):
            client.send(HELLO)
            assert api.read_exactly(len(HELLO)) == HELLO
            api.send(WORLD)
            assert client.read_exactly(len(WORLD)) == WORLD
        api.close()
        assert is_closed(client)
    assert lab.audited()[0]["bytes_out"] == 3 * len(WORLD)


def asked_by(lab: LaneLab, carrier: str) -> tuple[bytes, str]:
    """What opens the way, and the head of a handshake with this carrier."""
    host = f"127.0.0.1:{lab.hand.port}"
    fields = "".join(f"{name}: {value}\r\n" for name, value in lab.issuer.headers(lab.cid))
    token = lab.issuer.token(lab.cid)
    offer = f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{token}\r\n"
    heads = {
        "headers": (f"/api/proxy/{lab.cid}/x", GATEWAY, fields),
        "path token": (f"/p/{token}/x", GATEWAY, ""),
        "key token": ("/x", GATEWAY, f"Authorization: Bearer {token}\r\n"),
        "headers, absolute": (f"http://{host}/x", host, fields),
        "key token, absolute": (f"http://{host}/x", host, f"Authorization: Bearer {token}\r\n"),
        "headers, tunnel": ("/x", host, fields),
        "key token, tunnel": ("/x", host, f"Authorization: Bearer {token}\r\n"),
        "subprotocol": ("/x", GATEWAY, offer),
        "subprotocol below the connection": (f"/api/proxy/{lab.cid}/x", GATEWAY, offer),
        "subprotocol, absolute": (f"http://{host}/x", host, offer),
        "subprotocol, tunnel": ("/x", host, offer),
        "subprotocol and key token": ("/x", GATEWAY, f"{offer}Authorization: Bearer {token}\r\n"),
        "query, tunnel": (f"/x?{lab.issuer.query(lab.cid)}&X-Presign-Connection={lab.cid}", host, ""),
    }
    target, named, more = heads[carrier]
    connect = f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() if "tunnel" in carrier else b""
    lines = "".join(f"{field}\r\n" for field in HANDSHAKE)
    return connect, f"GET {target} HTTP/1.1\r\nHost: {named}\r\n{more}{lines}\r\n"


CARRIERS = [
    "headers",
    "path token",
    "key token",
    "headers, absolute",
    "key token, absolute",
    "headers, tunnel",
    "key token, tunnel",
    "query, tunnel",
    "subprotocol",
    "subprotocol below the connection",
    "subprotocol, absolute",
    "subprotocol, tunnel",
    "subprotocol and key token",
]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_carrier_opens_a_websocket(lab: LaneLab, client: Wire, carrier: str) -> None:
    first, head = asked_by(lab, carrier)
    if first:
        client.send(first)
        assert client.read_head().startswith(b"HTTP/1.1 200 ")
    client.send(head.encode())
    api = lab.hand.accept()
    asked = api.read_head()
    assert asked.startswith(b"GET /x HTTP/1.1\r\n")
    assert f"Authorization: Bearer {REAL_SECRET}".encode() in asked
    assert b"presign" not in asked.lower()
    assert b"ps1_" not in asked
    offered = [line for line in parse_head(asked) if line.startswith("Sec-WebSocket-Protocol")]
    assert offered == (["Sec-WebSocket-Protocol: realtime"] if "subprotocol" in carrier else [])
    api.send(switching(*offered))
    answer = parse_response(client.read_head())
    assert answer.status == 101
    assert answer.header("sec-websocket-protocol") == ("realtime" if offered else None)
    client.send(HELLO)
    assert api.read_exactly(len(HELLO)) == HELLO
    api.send(WORLD)
    assert client.read_exactly(len(WORLD)) == WORLD
    api.close()
    assert is_closed(client)
    (line,) = lab.audited()
    assert line["carrier"] == ("key" if offered else line["carrier"])


def test_a_client_on_a_kept_connection_opens_a_websocket(lab: LaneLab) -> None:
    with lab.kept_client() as client:
        api = opened(lab, client)
        client.send(HELLO)
        assert api.read_exactly(len(HELLO)) == HELLO


# -- while it lasts ---------------------------------------------------------------------------------------


def test_each_side_may_say_no_more_and_be_told_the_rest(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    client.send(HELLO)
    client.sock.shutdown(socket.SHUT_WR)
    assert api.read_exactly(len(HELLO)) == HELLO
    assert is_closed(api)
    for _ in range(4):  # more than two seconds in all, and no pause as long as that
        api.send(WORLD)
        assert client.read_exactly(len(WORLD)) == WORLD
        time.sleep(0.6)
    api.close()
    assert is_closed(client)
    assert lab.audited()[0]["bytes_out"] == 4 * len(WORLD)


def test_an_upstream_may_say_no_more_and_be_told_the_rest(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    api.send(WORLD)
    api.sock.shutdown(socket.SHUT_WR)
    assert client.read_exactly(len(WORLD)) == WORLD
    assert is_closed(client)
    for _ in range(4):
        client.send(HELLO)
        assert api.read_exactly(len(HELLO)) == HELLO
        time.sleep(0.6)
    client.close()
    assert is_closed(api)
    assert lab.audited()[0]["bytes_in"] == 4 * len(HELLO)


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_who_goes_and_leaves_the_other_silent_frees_the_slot(lab: LaneLab, client: Wire, who: str) -> None:
    """The other side neither ends nor sends: it is not waited for."""
    api = opened(lab, client)
    began = time.monotonic()
    (client if who == "client" else api).close()
    lab.audited()
    assert time.monotonic() - began < 4


def test_a_reset_ends_it(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    api.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    api.close()
    assert is_closed(client)
    lab.audited()


def test_a_websocket_lasts_no_longer_than_the_connection_allows(lab: LaneLab, client: Wire) -> None:
    lab.issuer._secrets["short"], lab.cid = lab.issuer._secrets["conn_0"], "short"
    before = len(lab.audit())
    api = opened(lab, client)
    deadline = time.monotonic() + 8
    with pytest.raises(ConnectionError):
        while time.monotonic() < deadline:  # traffic does not prolong it
            api.send(WORLD)
            client.read_exactly(len(WORLD))
            time.sleep(0.1)
    assert is_closed(api)
    assert lab.audited(before + 1)[-1]["detail"] == "the WebSocket lasted as long as the connection allows"


def test_what_one_side_does_not_take_is_not_read_from_the_other(lab: LaneLab, client: Wire) -> None:
    """In both directions: what is sent ends in a timeout, far below what memory could hold."""
    api = opened(lab, client)
    for sender, taker in ((client, api), (api, client)):
        sender.sock.settimeout(1.0)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 256 << 20:
                sent += sender.sock.send(bytes(1 << 16))
        assert sent < 64 << 20
        assert len(taker.read_exactly(sent, 30)) == sent
    client.send(HELLO)
    assert api.read_exactly(len(HELLO)) == HELLO


def test_a_lot_passes_through_little_memory(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    piece, count = frame(bytes(1 << 20), BINARY), 96
    before = resident(lab.gateway.pid)

    def send() -> None:
        for _ in range(count):
            api.send(piece)

    sender = threading.Thread(target=send)
    sender.start()
    digest = 0
    for _ in range(count):
        digest += client.read_exactly(len(piece), 30) == piece
    sender.join()
    assert digest == count
    assert resident(lab.gateway.pid) - before < 48 << 20


def test_the_signed_size_of_a_body_holds_for_frames(lab: LaneLab, client: Wire) -> None:
    signer = Signer(lab.cid, SIGNING)
    target = signer.sign(["GET"], ["*"], expires_at=in_an_hour(), terms=Terms(max_body=20)).url("x", "")
    head = "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {GATEWAY}", *HANDSHAKE, "", ""])
    client.send(head.encode())
    api = lab.hand.accept()
    api.read_head()
    api.send(switching())
    client.read_head()
    client.send(HELLO)
    assert api.read_exactly(len(HELLO)) == HELLO
    client.send(frame(b"far too much", masked=True))
    assert is_closed(client)
    assert api.read_to_end() == b""
    assert lab.audited()[0]["code"] == "too_large"


def test_a_websocket_lives_as_long_as_its_peers(lab: LaneLab, client: Wire) -> None:
    """Silence alone ends nothing: `timeouts.response` (2 s here) is for the answer to the handshake."""
    api = opened(lab, client)
    time.sleep(3.5)
    client.send(HELLO)
    assert api.read_exactly(len(HELLO)) == HELLO


def test_a_dump_holds_the_handshake_with_a_placeholder_and_no_message(
    make_gateway: MakeGateway, hand: ByHand
) -> None:
    gateway = make_gateway(settings(hand.url), "-w", dump := "flows.mitm", "--set", "presign_lane=auto")
    lab = LaneLab(gateway, hand).fresh()
    with lab.client() as client:
        api = opened(lab, client)
        client.send(HELLO)
        api.read_exactly(len(HELLO))
        api.send(frame(REAL_SECRET.encode()))
        client.read_exactly(2)
    api.close()
    assert lab.audited()[0]["status"] == 101
    gateway.stop()
    raw = (gateway.directory / dump).read_bytes()
    assert not Traces([REAL_SECRET, *lab.issuer.issued]).found_in(raw)
    assert f"presign:{lab.cid}".encode() in raw
    assert b"Sec-WebSocket-Key" in raw
    assert b"websocket" in raw


def parse_head(raw: bytes) -> list[str]:
    return raw.decode("latin-1").split("\r\n")[:-2]
