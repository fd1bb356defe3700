"""WebSocket under attack, on every way that a request may take: clients and upstreams that smuggle."""

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET
from support.lanes import GATEWAY, LEAST, WAYS, LaneLab, config, is_closed
from support.mutations import LINES
from support.raw import parse_response
from support.websocket import HANDSHAKE, KEYED, UPGRADE, VERSION, frame, opened, switching

EVIL = b"GET /admin HTTP/1.1\r\nHost: evil.test\r\n\r\n"
PATIENCE = 6.0


def settings(upstream: str) -> dict[str, Any]:
    more = {
        "websocket": True,
        "limits": [{"concurrency": 1}],
        "timeouts": {"connect": "2s", "response": "1s"},
        "key_slots": {"headers": ["Sec-WebSocket-Protocol"]},
    }
    found = config(upstream, **more)
    found["connections"]["without"] = found["connections"]["conn_0"] | {"websocket": False}
    found["connections"]["unlisted"] = found["connections"]["conn_0"] | {"key_slots": {}}
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


def is_free(lab: LaneLab) -> bool:
    """Whether the only slot of the connection is free, and the next client is served on a new connection."""
    with lab.client() as other:
        other.send(lab.head())
        _, asked = lab.serve()
        return asked.startswith(b"GET /x HTTP/1.1\r\n") and b"\r\n\r\nok" in other.read_response()


# -- handshakes that are none -----------------------------------------------------------------------------

HEADS: dict[str, tuple[tuple[str, ...], str, bytes, int]] = {
    "POST": (HANDSHAKE, "POST", b"", 400),
    "HEAD": (HANDSHAKE, "HEAD", b"", 400),
    "a body": ((*HANDSHAKE, "Content-Length: 5"), "GET", b"hello", 400),
    "a POST with a body": ((*HANDSHAKE, f"Content-Length: {len(EVIL)}"), "POST", EVIL, 400),
    "no length": ((*HANDSHAKE, "Content-Length: 0"), "GET", b"", 400),
    "chunks": ((*HANDSHAKE, "Transfer-Encoding: chunked"), "GET", b"0\r\n\r\n", 400),
    "an expectation": ((*HANDSHAKE, "Expect: 100-continue"), "GET", b"", 400),
    "another expectation": ((*HANDSHAKE, "Expect: 101-switching"), "GET", b"", 400),
    "no Connection": (("Upgrade: websocket", VERSION, KEYED), "GET", b"", 400),
    "a Connection that closes": ((*HANDSHAKE, "Connection: close"), "GET", b"", 400),
    "a nominated key": ((*HANDSHAKE, "Connection: Sec-WebSocket-Key"), "GET", b"", 400),
    "a nominated host": ((*HANDSHAKE, "Connection: Host"), "GET", b"", 400),
    "h2c beside it": (("Upgrade: h2c, websocket", *HANDSHAKE[1:]), "GET", b"", 400),
    "h2c in front": (("Upgrade: h2c", *HANDSHAKE, "HTTP2-Settings: AA"), "GET", b"", 400),
    "two keys": ((*HANDSHAKE, KEYED), "GET", b"", 400),
    "no key": ((*UPGRADE, VERSION), "GET", b"", 400),
    "a bad key": ((*UPGRADE, VERSION, "Sec-WebSocket-Key: AAAA"), "GET", b"", 400),
    "an old version": ((*UPGRADE, "Sec-WebSocket-Version: 8", KEYED), "GET", b"", 426),
}


@pytest.mark.parametrize("what", HEADS)
def test_what_is_no_handshake_never_reaches_an_upstream(lab: LaneLab, client: Wire, what: str) -> None:
    fields, method, body, status = HEADS[what]
    client.send(lab.head(*fields, method=method) + body)
    assert client.read_head().startswith(b"HTTP/1.1 %d " % status)
    assert is_closed(client)
    assert not lab.hand.waits()
    assert is_free(lab)


def test_http10_has_no_upgrades(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
    assert b" 426 " in client.read_to_end()[:20]
    assert not lab.hand.waits()


def test_a_connection_that_does_not_allow_it_refuses(lab: LaneLab, client: Wire) -> None:
    lab.issuer._secrets["without"] = lab.issuer._secrets["conn_0"]
    client.send(lab.head(*HANDSHAKE, cid="without") + EVIL)
    answer = parse_response(client.read_to_end())
    assert (answer.status, answer.header("x-presign-error")) == (426, "upgrade_required")
    assert not lab.hand.waits()


def test_an_unsigned_handshake_learns_nothing(lab: LaneLab, client: Wire) -> None:
    fields = "".join(f"{field}\r\n" for field in HANDSHAKE)
    client.send(f"GET /api/proxy/{lab.cid}/x HTTP/1.1\r\nHost: {GATEWAY}\r\n{fields}\r\n".encode())
    assert parse_response(client.read_to_end()).status == 400
    assert not lab.hand.waits()


@pytest.mark.parametrize("grant", [{"methods": "POST"}, {"paths": "other"}, {"expires": 1714808400}])
def test_a_handshake_needs_a_grant_for_a_get(lab: LaneLab, client: Wire, grant: dict[str, Any]) -> None:
    client.send(lab.head(*HANDSHAKE, **grant))
    assert parse_response(client.read_to_end()).status == 403
    assert not lab.hand.waits()


@pytest.mark.parametrize("protocol", ["websocket", None])
def test_over_http2_nothing_is_upgraded(lab: LaneLab, protocol: str | None) -> None:
    """Extended CONNECT (RFC 8441) is not offered, and Upgrade is no field of HTTP/2 (RFC 9113, 8.2.2)."""
    target = lab.head().split(b" ")[1].decode()
    pseudo = [(":method", "CONNECT" if protocol else "GET"), (":scheme", "https"), (":authority", GATEWAY)]
    pseudo += [(":path", target), *([(":protocol", protocol)] if protocol else [])]
    fields = [("sec-websocket-version", "13"), *([] if protocol else [("upgrade", "websocket")])]
    with H2Client.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as h2:
        reply = h2.request([*pseudo, *fields])
    assert reply is None or reply.status is None or reply.status >= 400
    assert not lab.hand.waits()


# -- keys among the subprotocols ----------------------------------------------------------------------------

KEY = "openai-insecure-api-key."
OFFERS: dict[str, tuple[str, int]] = {
    "a bare token": ("Sec-WebSocket-Protocol: realtime, {0}", 400),
    "a token alone": ("Sec-WebSocket-Protocol: {0}", 400),
    "a token behind another beginning": (
        "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{0}", 400
    ),
    "a beginning in other letters": ("Sec-WebSocket-Protocol: OPENAI-insecure-api-key.{0}", 400),
    "a shape that is not listed": (f"Sec-WebSocket-Protocol: {KEY}sk-{{0}}", 400),
    "the token twice": (f"Sec-WebSocket-Protocol: {KEY}{{0}}, {KEY}{{0}}", 400),
    "the token twice, once bare": (f"Sec-WebSocket-Protocol: {KEY}{{0}}, {{0}}", 400),
    "the token in two lines": (
        f"Sec-WebSocket-Protocol: {KEY}{{0}}\r\nSec-WebSocket-Protocol: {KEY}{{0}}", 400
    ),
    "two tokens": (f"Sec-WebSocket-Protocol: {KEY}{{0}}, {KEY}{{1}}", 400),
    "another token in Authorization": (
        f"Sec-WebSocket-Protocol: {KEY}{{0}}\r\nAuthorization: Bearer {{1}}", 400
    ),
    "another header": (f"Sec-WebSocket-Extensions: realtime, {KEY}{{0}}", 400),
    "another spelling of the header": (f"Sec_WebSocket_Protocol: realtime, {KEY}{{0}}", 400),
    "a nominated header": (
        f"Sec-WebSocket-Protocol: {KEY}{{0}}\r\nConnection: Sec-WebSocket-Protocol", 400
    ),
    "an expired token": (f"Sec-WebSocket-Protocol: realtime, {KEY}{{2}}", 403),
    "a forged token": (f"Sec-WebSocket-Protocol: realtime, {KEY}{{3}}", 403),
}  # fmt: skip


@pytest.mark.parametrize("what", OFFERS)
def test_a_key_in_a_wrong_place_among_the_subprotocols_never_reaches_an_upstream(
    lab: LaneLab, client: Wire, what: str
) -> None:
    offer, status = OFFERS[what]
    token, issuer = lab.issuer.token(lab.cid), lab.issuer
    other, late = issuer.token(lab.cid, methods="GET"), issuer.token(lab.cid, expires=1714808400)
    given = offer.format(token, other, late, token[:-64] + "0" * 64)
    client.send("\r\n".join(["GET /x HTTP/1.1", f"Host: {GATEWAY}", *HANDSHAKE, given, "", ""]).encode())
    assert parse_response(client.read_to_end()).status == status
    assert not lab.hand.waits()
    assert is_free(lab)


@pytest.mark.parametrize(
    ("cid", "fields", "status"),
    [
        ("", (), 400),  # an ordinary GET
        ("", UPGRADE[1:], 400),
        ("", ("Upgrade: h2c", *HANDSHAKE[1:]), 400),
        ("", UPGRADE, 400),
        ("without", HANDSHAKE, 426),
        ("unlisted", HANDSHAKE, 400),
    ],
)
def test_a_key_among_the_subprotocols_needs_a_handshake_and_a_connection_that_lists_it(
    lab: LaneLab, client: Wire, cid: str, fields: tuple[str, ...], status: int
) -> None:
    lab.issuer._secrets |= dict.fromkeys(("without", "unlisted"), lab.issuer._secrets["conn_0"])
    given = f"Sec-WebSocket-Protocol: realtime, {KEY}{lab.issuer.token(cid or lab.cid)}"
    client.send("\r\n".join(["GET /x HTTP/1.1", f"Host: {GATEWAY}", *fields, given, "", ""]).encode())
    assert parse_response(client.read_head()).status == status
    assert not lab.hand.waits()


# -- bytes before the 101 ---------------------------------------------------------------------------------


def test_frames_before_the_101_wait_for_it(lab: LaneLab, client: Wire) -> None:
    early = frame(b"early", masked=True)
    client.send(lab.head(*HANDSHAKE) + early)
    api = lab.hand.accept()
    api.read_head()
    assert api.is_silent()
    api.send(switching())
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    assert api.read_exactly(len(early)) == early


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"404 Not Found"])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_request_behind_a_handshake_that_fails_is_served_by_nobody(
    lab: LaneLab, client: Wire, status: bytes, when: str
) -> None:
    """The upstream never gets it, and to the gateway what follows is no request either."""
    second = lab.head(path="second")
    if when == "at once":
        client.send(lab.head(*HANDSHAKE) + second + EVIL)
    else:
        client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    asked = api.read_head()
    assert asked.count(b"\r\n\r\n") == 1
    if when == "later":
        client.send(second + EVIL)
    assert api.is_silent()
    api.send(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status)
    answer = client.read_to_end()
    assert answer.startswith(b"HTTP/1.1 %b\r\n" % status)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"Connection: close\r\n" in answer
    assert api.read_to_end() == b""
    assert not lab.hand.waits()
    assert is_free(lab)


def test_an_upstream_that_holds_the_handshake_gets_no_flood(lab: LaneLab, client: Wire) -> None:
    """What a client sends ahead is held up to a bound: then it is not read, or cut off."""
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    client.sock.settimeout(1.0)
    sent = 0
    with pytest.raises(OSError):
        while sent < 64 << 20:
            sent += client.sock.send(bytes(1 << 16))
    assert sent < 16 << 20
    assert not api.buffer


# -- what an upstream answers -----------------------------------------------------------------------------

ANSWERS: dict[str, bytes] = {
    "no Accept": switching().replace(b"Sec-WebSocket-Accept", b"X-Accept"),
    "a wrong Accept": switching(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "two Accepts": switching("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    "no Upgrade": switching().replace(b"Upgrade: websocket", b"X-Upgrade: websocket"),
    "another protocol": switching().replace(b"websocket", b"h2c", 1),
    "no Connection": switching().replace(b"Connection:", b"X-Connection:"),
    "a length": switching("Content-Length: 0"),
    "a body": switching("Content-Length: 5") + b"hello",
    "chunks": switching("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "an extension": switching("Sec-WebSocket-Extensions: permessage-deflate"),
    "a subprotocol": switching("Sec-WebSocket-Protocol: admin"),
    "nothing but 101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a folded line": switching("X-A: b\r\n c"),
    "a bare CR": switching("X-A: b\rc"),
    "a NUL": switching("X-A: b\0c"),
    "another 1xx as final": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 No\r\n\r\ngarbage\r\n\r\n",
    "no HTTP": b"\x81\x05hello" + bytes(64) + b"\r\n\r\n",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_101_that_is_no_answer_is_a_502_and_its_connection_is_closed(
    lab: LaneLab, client: Wire, what: str
) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    api.send(ANSWERS[what] + frame(b"for the client"))
    answer = parse_response(client.read_to_end(PATIENCE))
    assert answer.status == 502
    assert b"for the client" not in answer.body
    assert is_closed(api)
    line = lab.audited()[0]
    assert (line["status"], line["code"]) == (502, "upstream")
    assert is_free(lab)


def test_a_101_to_an_ordinary_get_is_a_502(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head())
    api = lab.hand.accept()
    api.read_head()
    api.send(switching() + frame(b"hello"))
    assert client.read_head().startswith(b"HTTP/1.1 502 ")
    assert is_closed(api)
    assert is_free(lab)


def test_interim_answers_before_the_101_are_passed_over(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    api.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + switching())
    assert client.read_head().startswith(b"HTTP/1.1 101 ")


def test_a_second_101_is_bytes_like_all_others(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    api.send(switching() + switching())
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    assert client.read_exactly(len(switching())) == switching()


def test_behind_a_101_requests_are_bytes_too(lab: LaneLab, client: Wire) -> None:
    """A client whose handshake was granted reaches no other path of the gateway, nor is it given the key."""
    api = opened(lab, client)
    second = lab.head(path="second")
    client.send(second + EVIL)
    got = api.read_exactly(len(second + EVIL))
    assert got == second + EVIL
    assert REAL_SECRET.encode() not in got
    api.send(LEAST)
    assert client.read_exactly(len(LEAST)) == LEAST
    assert len(lab.audit()) == 0


def test_an_upstream_that_never_answers_is_a_504(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    assert client.read_head(PATIENCE).startswith(b"HTTP/1.1 504 ")
    assert is_closed(api)
    assert is_free(lab)


def test_an_upstream_that_breaks_off_before_the_101_is_a_502(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    api.send(switching()[:40])
    api.close()
    assert client.read_head().startswith(b"HTTP/1.1 502 ")


def test_a_client_that_leaves_before_the_101_frees_its_slot(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE))
    api = lab.hand.accept()
    api.read_head()
    client.close()
    assert is_closed(api)
    assert lab.audited()
    assert is_free(lab)


def test_an_upstream_connection_of_a_websocket_is_never_used_again(lab: LaneLab, client: Wire) -> None:
    api = opened(lab, client)
    client.close()
    assert is_closed(api)
    api.close()
    assert lab.audited()
    assert is_free(lab)


def test_an_echoed_credential_is_masked_in_the_101(lab: LaneLab, client: Wire) -> None:
    client.send(lab.head(*HANDSHAKE, "Sec-WebSocket-Extensions: x-a"))
    api = lab.hand.accept()
    api.read_head()
    chosen = f"Sec-WebSocket-Extensions: x-a; key={REAL_SECRET}"
    api.send(switching(f"X-Echo: Bearer {REAL_SECRET}", chosen, "Location: http://evil.test/"))
    head = client.read_head()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert REAL_SECRET.encode() not in head


# -- mutated handshakes -----------------------------------------------------------------------------------

TRICKS = (
    b"Upgrade: h2c",
    b"Upgrade : websocket",
    b"Upgrade:\twebsocket",
    b"Upgrade: websocket\r\n folded",
    b"Connection: Upgrade, Sec-WebSocket-Version",
    b"Connection: Origin",
    b"Connection:",
    b"Connection: ,,Upgrade",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b'Sec-WebSocket-Extensions: a; b="c, d"',
    b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-mine",
    b"Sec-WebSocket-Protocol: a\x00b",
    b"Sec-WebSocket-Location: /admin",
    b"sec_websocket_key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Sec-WebSocket-Key1: 1 2 3",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
)
COUNT = int(os.environ.get("PRESIGN_REQUESTS", "90"))
WRITTEN = {
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": KEYED.partition(": ")[2].encode(),
}
OFFERED = (b"sec-websocket-protocol", b"sec-websocket-extensions")


def mutated(head: bytes, chance: random.Random) -> bytes:
    """A handshake in which lines are added, doubled, taken out or changed a little, and what comes behind."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(1, len(lines))
        what = chance.choice(["add", "add", "double", "drop", "case", "splice"])
        if what == "add":
            lines.insert(at, chance.choice(TRICKS + LINES))
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "drop" and len(lines) > 2:
            del lines[at]
        elif what == "case":
            lines[at] = lines[at].swapcase()
        elif what == "splice":
            place = chance.randrange(len(lines[at]) + 1)
            lines[at] = (
                lines[at][:place] + chance.choice([b" ", b",", b"\t", b"\x0b", b"x"]) + lines[at][place:]
            )
    behind = chance.choice([b"", b"", EVIL, frame(b"early", masked=True), b"hello"])
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n" + behind


def is_exact(asked: bytes) -> bool:
    """Whether a head has these fields once each, as they are written, and of its family nothing else."""
    fields = [line.split(b": ", 1) for line in asked.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]]
    family = [(name.lower(), value) for name, value in fields if _of_handshake(name)]
    offers = [name for name, _ in family if name in OFFERED]
    written = [field for field in family if field[0] not in OFFERED]
    framed = any(name.lower() in (b"content-length", b"transfer-encoding", b"expect") for name, _ in fields)
    return sorted(written) == sorted(WRITTEN.items()) and len(set(offers)) == len(offers) and not framed


def _of_handshake(name: bytes) -> bool:
    key = name.lower().replace(b"_", b"-")
    return key in WRITTEN or key.startswith(b"sec-websocket-")


@pytest.mark.slow
def test_of_mutated_handshakes_only_exact_ones_arrive(lab: LaneLab) -> None:
    """Exact, with nothing behind; or as an ordinary request without any part of a handshake."""
    chance, arrived, upgraded = random.Random(20261130), 0, 0
    for _ in range(COUNT):
        lab.fresh()
        with lab.client() as client:
            client.send(sent := mutated(lab.head(*HANDSHAKE), chance))
            with contextlib.suppress(OSError):
                client.sock.settimeout(0.6)
                client.buffer += client.sock.recv(65536)
            if not lab.hand.waits(0):
                continue
            arrived += 1
            api = lab.hand.accept()
            asked = api.read_head()
            assert asked.count(b"Host: ") == 1, sent
            assert REAL_SECRET.encode() in asked, sent
            assert b"mine" not in asked.replace(b"client_max", b""), sent
            if b"upgrade: websocket" in asked.lower():
                upgraded += 1
                assert is_exact(asked), sent
                assert api.is_silent(0.05), sent
            else:
                assert not any(_of_upgrade(line) for line in asked.split(b"\r\n")), sent
        lab.hand.hang_up()
    assert upgraded > COUNT // 20
    assert arrived < COUNT


def _of_upgrade(line: bytes) -> bool:
    return line.lower().startswith((b"upgrade:", b"connection:"))
