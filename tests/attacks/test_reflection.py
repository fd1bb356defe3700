"""An upstream that says the credential back, in every place and form it has: no client and no log sees it."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.h2client import H2Client, H2Reply
from support.h2frames import h2_context
from support.leaks import forms, fully_quoted
from support.proxy import Mitm
from support.raw import connect, parse_response

KEY = "sk-R3AL/S+e=cr&t<'\"~!0123456789"
USER, PASSWORD = "someuser", "p4ssw0rd-R3AL-0123456789"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
H2_NAME = "h2.tls.test"

# A form that no encoder at hand produces; docs/threat-model.md says so.
UNMASKED = {fully_quoted(text).encode() for text in (KEY, PASSWORD, BASIC)}
UNMASKED |= {form.upper() for form in UNMASKED}
TRACES = {form for text in (KEY, PASSWORD, BASIC) for form in forms(text)} - UNMASKED


def said_back(key: str, scheme: str) -> dict[str, bytes]:
    """What an upstream makes of a header it was sent."""
    whole = f"{scheme} {key}"
    texts = {
        "raw": key,
        "with its scheme": whole,
        "URL": quote(key, safe=""),
        "URL, path": quote(key),
        "URL, lower-case escapes": "".join(f"%{ord(c):02x}" if quote(c, safe="") != c else c for c in key),
        "form": quote_plus(whole),
        "JSON": json.dumps(whole),
        "JSON in JSON": json.dumps(key.replace('"', "").replace("\\", ""))
        if '"' not in key
        else json.dumps(key),
        "JSON, PHP": json.dumps(whole).replace("/", "\\/"),
        "hex": key.encode().hex(),
        "HEX, with its scheme": whole.encode().hex().upper(),
        "dump": f"b'{key}'" if "'" not in key else key,
    }
    found = {how: text.encode() for how, text in texts.items()}
    for before in ("", "x", "xy", "xyz", f"{scheme} ", f"Authorization: {scheme} ", "{"):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            for after in ("", "z", "zz"):
                found[f"{name} of {before}…{after}"] = encode((before + key + after).encode())
    return found


EVERY_FORM = b"\n".join(said_back(KEY, "Bearer").values())
EVERY_BASIC = b"\n".join([*said_back(BASIC, "Basic").values(), *said_back(PASSWORD, "Basic").values()])
HEADERS = [  # those that may stand in a header
    (f"x-echo-{number}", form)
    for number, form in enumerate(said_back(KEY, "Bearer").values())
    if b"\n" not in form
][:60]


class H2ByHand:
    """An HTTP/2 upstream that answers each request with one scripted function."""

    def __init__(self, cert: trustme.LeafCert) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._context = h2_context(cert)
        self.script: Callable[[h2.connection.H2Connection, int], bytes | None] = lambda *_: None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        config = h2.config.H2Configuration(
            client_side=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding=None,
        )
        side = h2.connection.H2Connection(config)
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as sock:
            side.initiate_connection()
            sock.sendall(side.data_to_send())
            while data := sock.recv(65536):
                for event in side.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        raw = self.script(side, event.stream_id)
                        sock.sendall(side.data_to_send() + (raw or b""))
                sock.sendall(side.data_to_send())

    def stop(self) -> None:
        self._listener.close()


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    h2: H2ByHand
    seen: list[bytes] = field(default_factory=list)

    @contextlib.contextmanager
    def asked(self, cid: str = "conn") -> Iterator[tuple[Wire, Wire]]:
        """A client that has asked, and the upstream that has read it."""
        with Wire(connect(self.gateway.port)) as client:
            client.send(wire(Grant(cid).target("v1/models"), {"Connection": "close"}))
            with self.hand.accept() as upstream:
                head = upstream.read_head()
                assert (BASIC if cid == "conn_basic" else KEY).encode() in head
                assert b"\r\nAccept-Encoding: identity\r\n" in head
                yield client, upstream

    def check(self, received: bytes) -> None:
        for data in (received, self.gateway.log_path.read_bytes()):
            assert not [form for form in TRACES if form in data]


@pytest.fixture(scope="module")
def lab(module_gateway: Any, ca: trustme.CA) -> Iterator[Lab]:
    hand, second = ByHand(), H2ByHand(ca.issue_cert(H2_NAME))
    keys = [{"secret": SECRET}]
    bearer = {"type": "bearer", "token": KEY}
    basic = {"type": "basic", "username": USER, "password": PASSWORD}
    config = {
        "connections": {
            "conn": {"upstream": hand.url, "auth": bearer, "signing_keys": keys},
            "conn_basic": {"upstream": hand.url, "auth": basic, "signing_keys": keys},
            "conn_h2": {"upstream": f"https://{H2_NAME}:{second.port}", "auth": bearer, "signing_keys": keys},
        }
    }
    yield Lab(module_gateway(config, "--set", "flow_detail=4", dns={H2_NAME: ["127.0.0.1"]}), hand, second)
    hand.stop()
    second.stop()


def bodies(text: bytes) -> dict[str, tuple[bytes, bytes]]:
    """A text framed and cut in different ways."""
    one_by_one = b"".join(b"1\r\n" + text[at : at + 1] + b"\r\n" for at in range(len(text)))
    in_sevens = [text[at : at + 7] for at in range(0, len(text), 7)]
    sevens = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in in_sevens)
    return {
        "whole": (b"Content-Length: %d" % len(text), text),
        "until the end": (b"Connection: close", text),
        "chunks of a byte": (b"Transfer-Encoding: chunked", one_by_one + b"0\r\n\r\n"),
        "chunks of seven": (b"Transfer-Encoding: chunked", sevens + b"0\r\n\r\n"),
        "trailers": (
            b"Transfer-Encoding: chunked\r\nTrailer: X-Echo",
            sevens + b"0\r\nX-Echo: " + KEY.encode() + b"\r\n\r\n",
        ),
    }


@pytest.mark.parametrize("cid", ["conn", "conn_basic"])
@pytest.mark.parametrize("framed", bodies(b""))
def test_a_body_that_holds_the_key_in_every_form_is_masked(framed: str, cid: str, lab: Lab) -> None:
    text = EVERY_BASIC if cid == "conn_basic" else EVERY_FORM
    fields, body = bodies(text)[framed]
    with lab.asked(cid) as (client, upstream):
        upstream.send(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + body)
        upstream.close()
        response = parse_response(client.read_to_end())
    lab.check(response.body)
    assert len(response.body) == len(text)
    length = response.header("content-length")
    assert length is None or int(length) == len(text)
    assert response.body.count(b"\n") == text.count(b"\n")


def test_a_body_that_comes_in_two_segments_is_masked_wherever_it_is_cut(lab: Lab) -> None:
    """On the wire, in time: the first part has gone to the client when the second one comes."""
    text = b"before " + KEY.encode() + b" after"
    for at in range(5, len(text) - 4, 3):
        with lab.asked() as (client, upstream):
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text[:at])
            early = client.read_until(b"before"[: min(at, 6)])
            upstream.send(text[at:])
            received = early + client.read_to_end()
        assert parse_response(received).body == b"before " + b"*" * len(KEY) + b" after"


def test_an_event_that_ends_like_the_key_begins_is_not_held_back(lab: Lab) -> None:
    with lab.asked() as (client, upstream):
        upstream.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.read_head()
        for number in range(5):
            event = f"data: {number} {KEY[:-1]}\n\n".encode()
            started = time.monotonic()
            upstream.send(b"%x\r\n%b\r\n" % (len(event), event))
            client.read_until(event)
            assert time.monotonic() - started < 0.5
        upstream.send(b"0\r\n\r\n")
        client.read_to_end()


def test_a_head_that_holds_the_key_in_every_form_and_place_is_masked(lab: Lab) -> None:
    raw = KEY.encode()
    fields = [b"%b: %b" % (name.encode(), form) for name, form in HEADERS]
    fields += [b"Location: /x?key=" + quote(KEY, safe="").encode(), b'ETag: "%b"' % raw.hex().encode()]
    fields += [b"Cache-Control: x=" + raw.hex().encode(), b"X-" + raw.hex().encode() + b": 1"]
    with lab.asked() as (client, upstream):
        head = b"HTTP/1.1 200 fine, " + raw + b"\r\n" + b"\r\n".join(fields)
        upstream.send(b"HTTP/1.1 103 Early\r\nLink: " + raw + b"\r\n\r\n")
        upstream.send(head + b"\r\nContent-Length: 2\r\n\r\nok")
        received = client.read_to_end()
    assert received.startswith(b"HTTP/1.1 200 fine, " + b"*" * len(raw) + b"\r\n")
    lab.check(received)
    assert parse_response(received).body == b"ok"


RAW = KEY.encode()
BROKEN = {
    "a status line": b"HTTP/1.1 " + RAW + b"\r\n\r\n",
    "no HTTP": RAW + b"\r\n\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nX-Echo: " + RAW,
    "a header without colon": b"HTTP/1.1 200 OK\r\n" + RAW + b"\r\n\r\n",
    "a header with a blank": b"HTTP/1.1 200 OK\r\nX " + RAW + b": 1\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n " + RAW + b"\r\nContent-Length: 0\r\n\r\n",
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: " + RAW + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: " + RAW + b"\r\n\r\n",
    "a transfer coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + RAW + b"\r\n\r\n",
    "a content coding": b"HTTP/1.1 200 OK\r\nContent-Encoding: br, " + RAW + b"\r\nContent-Length: 0\r\n\r\n",
    "a protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: " + RAW + b"\r\nConnection: upgrade\r\n\r\n",
    "a control": b"HTTP/1.1 200 OK\r\nX-Echo: \x01" + RAW + b"\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_head_that_holds_the_key_is_answered_without_it(how: str, lab: Lab) -> None:
    with lab.asked() as (client, upstream):
        upstream.send(BROKEN[how])
        upstream.close()
        received = client.read_to_end()
    assert received.startswith(b"HTTP/1.1 502 "), received
    lab.check(received)


@pytest.mark.parametrize("line", [RAW, b"5;" + RAW, b"-" + RAW, b"ffffffffffffffffffff" + RAW])
def test_a_broken_chunk_that_holds_the_key_ends_the_answer_without_it(line: bytes, lab: Lab) -> None:
    with lab.asked() as (client, upstream):
        upstream.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + line + b"\r\nhello\r\n"
        )
        upstream.close()
        lab.check(client.read_to_end())


# -- HTTP/2 -------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def plainly(side: h2.connection.H2Connection, stream: int) -> None:
    side.send_headers(stream, [(":status", "200"), *HEADERS, ("content-length", str(len(EVERY_FORM)))])
    for at in range(0, len(EVERY_FORM), 11):
        side.send_data(stream, EVERY_FORM[at : at + 11])
    side.send_headers(stream, [("x-echo", KEY)], end_stream=True)


def ask_h2(lab: Lab, *fields: tuple[str, str]) -> H2Reply:
    """Over HTTP/2: for a client of HTTP/1.1 mitmproxy speaks HTTP/1.1 to the upstream too."""
    target = Grant("conn_h2").target("v1/models")
    head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local"), (":path", target)]
    with H2Client.through(lab.gateway.port, "presign.local", cafile=lab.gateway.ca) as client:
        return client.request([*head, *fields])


def test_an_http2_answer_and_its_trailers_are_masked(lab: Lab) -> None:
    lab.h2.script = plainly
    reply = ask_h2(lab)
    assert (reply.status, len(reply.body), reply.trailers) == (200, len(EVERY_FORM), [])
    lab.check(reply.received)
    reply = ask_h2(lab, ("te", "trailers"))
    assert (reply.status, reply.trailers) == (200, [("x-echo", "*" * len(KEY))])
    lab.check(reply.received)


def headers_with(*fields: tuple[str, str]) -> Callable[[h2.connection.H2Connection, int], None]:
    return lambda side, stream: side.send_headers(stream, list(fields), end_stream=True)


GOAWAY = (0).to_bytes(4, "big") + (1).to_bytes(4, "big")
BROKEN_H2: dict[str, Callable[[h2.connection.H2Connection, int], Any]] = {
    "a name in upper case": headers_with((":status", "200"), (KEY, "1")),
    "a name with blanks": headers_with((":status", "200"), (f"x {KEY}", "1")),
    "a value with a line break": headers_with((":status", "200"), ("x-echo", f"a\r\n{KEY}")),
    "a status": headers_with((":status", KEY)),
    "a status with a sign": headers_with((":status", "+200"), ("x-echo", KEY)),
    "a status with an underscore": headers_with((":status", "2_0_0"), ("x-echo", KEY)),
    "a status of four digits": headers_with((":status", "0200"), ("x-echo", KEY)),
    "no status": headers_with(("x-echo", KEY)),
    "a pseudo header": headers_with((":status", "200"), (f":{KEY}", KEY)),
    "a length": headers_with((":status", "200"), ("content-length", KEY)),
    "a connection header": headers_with((":status", "200"), ("connection", KEY)),
    "GOAWAY": lambda side, stream: frame(7, 0, 0, GOAWAY + KEY.encode()),
    "an unknown frame": lambda side, stream: frame(99, 0, 0, KEY.encode()) + frame(7, 0, 0, GOAWAY),
    "RST_STREAM": lambda side, stream: side.reset_stream(stream, 2),
    "bytes that are no frame": lambda side, stream: KEY.encode() * 10,
    "a broken header block": lambda side, stream: frame(1, 5, stream, b"\xff\xff\xff" + KEY.encode()),
}


@pytest.mark.parametrize("how", BROKEN_H2)
def test_a_broken_http2_answer_that_holds_the_key_is_answered_without_it(how: str, lab: Lab) -> None:
    lab.h2.script = BROKEN_H2[how]
    reply = ask_h2(lab)
    assert (reply.status, reply.header("x-presign-error")) == (502, "upstream")
    lab.check(reply.received)
    assert "has crashed" not in lab.gateway.log()
    assert "Traceback" not in lab.gateway.log()
