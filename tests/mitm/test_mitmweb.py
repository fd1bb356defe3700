"""mitmweb shows what a granted request sent and got, as its client did; and why a request was refused."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader

from presign_proxy.mitm.flow.shown_bodies import MAX_SHOWN, ShownBody
from support.answers import PIECE
from support.asking import Grant, wire
from support.byhand import ByHand, Wire
from support.h2client import H2Client
from support.lab import REAL_SECRET
from support.leaks import Traces
from support.mitmweb import MitmWeb
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, exchange, parse_response
from support.recorder import Recorder

SECRET = "sk_signing_secret_of_the_page_0123456789"
HOST = "presign.local"
EXPIRES = 4102444800
SHORT = "short"
"""A credential too short to be masked: compressed answers pass as they are."""
WIRE_GZIP = gzip.compress(b"compressed and passed on as it came")


def config(upstream: str, by_hand: str) -> dict[str, Any]:
    def connection(url: str, secret: str) -> dict[str, Any]:
        keys = [{"id": "k1", "secret": SECRET}]
        return {"upstream": url, "auth": {"type": "bearer", "token": secret}, "signing_keys": keys}

    return {
        "gateway": {"hosts": [HOST]},
        "connections": {
            "conn": connection(upstream, REAL_SECRET),
            "conn_hand": connection(by_hand, REAL_SECRET),
            "conn_short": connection(by_hand, SHORT),
        },
    }


@dataclass
class Web:
    """A mitmweb whose page is emptied for each test."""

    gateway: Mitm
    page: MitmWeb
    hand: ByHand
    signatures: set[str] = field(default_factory=set)

    def grant(self, connection: str = "conn", **signed: Any) -> Grant:
        made = Grant(connection, **{"expires": EXPIRES, "secret": SECRET, **signed})
        self.signatures.add(made.headers["X-Presign-Signature"])
        return made

    def ask(self, data: bytes) -> bytes:
        """The body of the answer."""
        with connect(self.gateway.port) as client:
            return parse_response(exchange(client, data)).body

    def ended(self) -> dict[str, Any]:
        """The only flow there is, with the body of its answer or the reason why there is none."""

        def is_over() -> bool:
            flows = self.page.flows()
            ended = flows and (flows[0].get("response") or {}).get("timestamp_end")
            return bool(flows and (ended or flows[0].get("error")))

        assert eventually(is_over), self.page.flows()
        (found,) = self.page.flows()
        return found

    def content(self, message: str) -> bytes:
        """Of a message of the only flow, as the page gets it."""
        return self.page.get(f"/flows/{self.ended()['id']}/{message}/content.data")

    def text(self, message: str) -> str:
        """As the page shows it."""
        return str(
            json.loads(self.page.get(f"/flows/{self.ended()['id']}/{message}/content/auto.json"))["text"]
        )


@pytest.fixture(scope="module")
def module_web(module_gateway, upstream: Recorder) -> Iterator[Web]:
    hand = ByHand()
    gateway = module_gateway(config(upstream.url, hand.url), "-w", "dump", binary="mitmweb")
    page = MitmWeb(gateway.web_port)
    assert eventually(page.answers)
    web = Web(gateway, page, hand)
    yield web
    hand.stop()
    log = gateway.log_path.read_bytes()
    assert not Traces([REAL_SECRET, SECRET]).found_in(log)
    assert b"Traceback" not in log


@pytest.fixture
def web(module_web: Web) -> Iterator[Web]:
    module_web.page.clear()
    module_web.signatures.clear()
    yield module_web
    module_web.hand.hang_up()
    # The dump holds every body as the page has it.
    shown = b"".join(module_web.page.get(path) for path in ("/flows", "/flows/dump", "/events"))
    assert not Traces([REAL_SECRET, SECRET, *module_web.signatures]).found_in(shown)


def answer(web: Web, asked: bytes, *fields: bytes, body: bytes) -> bytes:
    """What the client gets of an answer that is sent by hand."""
    with Wire(connect(web.gateway.port)) as client:
        client.send(asked)
        api = web.hand.accept()
        api.read_head()
        head = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), b"Content-Type: text/plain", *fields]
        api.send(b"\r\n".join([*head, b"", b""]) + body)
        return client.read_response()


def hidden(body: bytes) -> bytes:
    """As a page shows it: what is as long as a signature is shown in part, checksums included."""
    return re.sub(rb"(?<![0-9a-f])([0-9a-f]{8})[0-9a-f]{56}(?![0-9a-f])", rb"\1" + b"*" * 56, body)


def test_the_page_shows_what_was_sent_and_what_came_back(web: Web) -> None:
    body = b'{"model": "gpt-5-mini", "input": "hello"}'
    got = web.ask(
        wire(web.grant().target("v1/echo"), {"Content-Type": "application/json"}, "POST", body=body)
    )
    assert b"POST" in got
    assert web.content("request") == body
    assert web.content("response") == hidden(got)
    flow = web.ended()
    assert (flow["request"]["contentLength"], flow["response"]["contentLength"]) == (len(body), len(got))
    assert "gpt-5-mini" in web.text("request")


def test_the_page_shows_bodies_of_requests_over_http2(web: Web) -> None:
    with H2Client.through(web.gateway.port, HOST, cafile=web.gateway.ca) as client:
        target = web.grant().target("v1/echo")
        head = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", target)]
        got = client.request(head, b"sent over HTTP/2")
        assert got.status == 200
    (shown,) = [flow for flow in web.page.flows() if flow["request"]["method"] == "POST"]
    at = f"/flows/{shown['id']}"
    assert eventually(lambda: web.page.get(f"{at}/response/content.data") == hidden(got.body))
    assert web.page.get(f"{at}/request/content.data") == b"sent over HTTP/2"


def test_a_key_that_the_upstream_echoes_is_not_on_the_page(web: Web) -> None:
    got = web.ask(wire(web.grant().target("bodyreflect")))
    assert got == b"you sent Bearer " + b"*" * len(REAL_SECRET) + b" to me"
    assert web.content("response") == got


def test_a_compressed_answer_is_shown_as_the_client_got_it(web: Web) -> None:
    plain = b"you sent " + REAL_SECRET.encode() + b" to me"
    got = answer(
        web, wire(web.grant("conn_hand").target("x")), b"Content-Encoding: gzip", body=gzip.compress(plain)
    )
    shown = plain.replace(REAL_SECRET.encode(), b"*" * len(REAL_SECRET))
    assert shown in got
    assert web.content("response") == shown
    assert web.text("response").strip() == shown.decode()


def test_what_passes_compressed_is_shown_decompressed(web: Web) -> None:
    asked = wire(
        web.grant("conn_short").target("x"),
        {"Content-Encoding": "gzip"},
        "POST",
        body=gzip.compress(b"uploaded"),
    )
    got = answer(web, asked, b"Content-Encoding: gzip", body=WIRE_GZIP)
    assert got.endswith(WIRE_GZIP)
    assert web.text("response").strip() == "compressed and passed on as it came"
    assert web.text("request").strip() == "uploaded"


def test_half_of_what_is_compressed_is_not_shown(web: Web) -> None:
    noise = bytes((n * 7919 >> 5) & 255 for n in range(2 * MAX_SHOWN))
    packed = gzip.compress(noise, 0)
    got = answer(web, wire(web.grant("conn_short").target("x")), b"Content-Encoding: gzip", body=packed)
    assert got.endswith(packed)
    flow = web.ended()
    assert flow["response"]["contentLength"] is None
    assert (
        f"the response body of {len(packed)} bytes is compressed, and too long to be shown" in flow["comment"]
    )


def test_a_long_answer_streams_and_its_beginning_is_shown(web: Web) -> None:
    """Its first bytes are there before the upstream has made the others."""
    size = 5 * 1024 * 1024
    with Wire(connect(web.gateway.port)) as client:
        client.send(wire(web.grant("conn_hand").target("x")))
        api = web.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + PIECE)
        client.read_head()
        assert client.read_exactly(len(PIECE)) == PIECE
        for _ in range(size // len(PIECE) - 1):
            api.send(PIECE)
            assert client.read_exactly(len(PIECE)) == PIECE
    assert web.content("response") == PIECE * (MAX_SHOWN // len(PIECE))
    assert f"; of the response body of {size} bytes the first {MAX_SHOWN} are shown" in web.ended()["comment"]


def test_a_long_upload_streams_and_its_beginning_is_shown(web: Web) -> None:
    size = 3 * 1024 * 1024
    with Wire(connect(web.gateway.port)) as client:
        client.send(wire(web.grant("conn_hand").target("x"), {"Content-Length": str(size)}, "POST") + PIECE)
        api = web.hand.accept()
        api.read_head()
        assert api.read_exactly(len(PIECE)) == PIECE
        for _ in range(size // len(PIECE) - 1):
            client.send(PIECE)
            assert api.read_exactly(len(PIECE)) == PIECE
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        client.read_response()
    assert web.content("request") == PIECE * (MAX_SHOWN // len(PIECE))
    assert web.content("response") == b"ok"
    assert f"; of the request body of {size} bytes the first {MAX_SHOWN} are shown" in web.ended()["comment"]


def test_a_very_long_answer_takes_no_memory(web: Web) -> None:
    web.ask(wire(web.grant().target("download?bytes=1048576")))
    before, size = web.gateway.rss(), 64 * 1024 * 1024
    with connect(web.gateway.port, timeout=60) as client:
        client.sendall(wire(web.grant().target(f"download?bytes={size}")))
        left = size
        while left > 0:
            left -= len(client.recv(1 << 18))
    assert web.gateway.rss() - before < size // 2


def test_events_come_one_by_one_and_are_shown_together(web: Web) -> None:
    events = [b"data: event %d\n\n" % number for number in range(3)]
    with Wire(connect(web.gateway.port)) as client:
        client.send(wire(web.grant("conn_hand").target("x")))
        api = web.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            api.send(b"%x\r\n%b\r\n" % (len(event), event))
            client.read_until(event)
        api.send(b"0\r\n\r\n")
        client.read_until(b"0\r\n\r\n")
    assert web.content("response") == b"".join(events)


def test_what_came_of_a_broken_answer_is_shown_with_the_reason(web: Web) -> None:
    with Wire(connect(web.gateway.port)) as client:
        client.send(wire(web.grant("conn_hand").target("x")))
        api = web.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
        client.read_until(b"half of it")
        api.close()
        client.read_to_end()
    assert web.content("response") == b"half of it"
    assert web.ended()["comment"].endswith("; the upstream broke off its response")


def test_a_presign_inside_a_body_cannot_be_used(web: Web) -> None:
    grant = web.grant(paths="v1/other")
    body = json.dumps({"url": f"https://{HOST}{grant.target('v1/other')}", "key": grant.token}).encode()
    web.ask(wire(web.grant().target("v1/echo"), {"Content-Type": "application/json"}, "POST", body=body))
    shown = web.content("request")
    assert len(shown) == len(body)
    assert shown.startswith(b'{"url": "https://presign.local/api/proxy/conn/v1/other')
    assert shown.count(b"*" * 56) == 2


# -- comments ------------------------------------------------------------------------------------------


def test_the_comment_says_who_was_granted_what_until_when(web: Web) -> None:
    web.ask(wire(web.grant(expires=int(time.time()) + 3590).target("v1/models")))
    told = (
        r"presign: granted by conn \(key k1, query, expires in 59m, "
        r"at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\)"
    )
    assert re.fullmatch(told, web.ended()["comment"])
    assert web.ended()["marked"]


def test_the_comment_says_that_a_key_never_expires(web: Web) -> None:
    grant = web.grant(expires=0)
    web.ask(wire("/api/proxy/conn/v1/models", {"Authorization": f"Bearer {grant.token}"}))
    assert web.ended()["comment"] == "presign: granted by conn (key k1, key, never expires)"


@pytest.mark.parametrize(
    ("signed", "told"),
    [
        (
            {"expires": 1700000000},
            r"presign: refused: expired: expired \d+ s ago "
            r"\(conn, key k1, query, expired \d+d ago, req_\w+\)",
        ),
        (
            {"paths": "v2/*"},
            r"presign: refused: path_not_allowed: [a-z -]+ \(conn, key k1, query, expires in \d+d, req_\w+\)",
        ),
        (
            {"secret": "sk_somebody_elses_secret_0123456789"},
            r"presign: refused: invalid: no signing key of the connection made this signature "
            r"\(conn, query, req_\w+\)",
        ),
    ],
)
def test_the_comment_says_exactly_why_a_request_was_refused(
    signed: dict[str, Any], told: str, web: Web
) -> None:
    web.ask(wire(web.grant(**signed).target("v1/models")))
    assert re.fullmatch(told, web.ended()["comment"]), web.ended()["comment"]
    assert web.ended()["marked"]


# -- where nobody looks --------------------------------------------------------------------------------


def dumped(gateway: Mitm) -> list[http.HTTPFlow]:
    gateway.stop()
    with (gateway.directory / "dump").open("rb") as file:
        return [flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]


def test_a_dump_of_mitmdump_holds_no_body_of_ours(make_gateway, upstream: Recorder) -> None:
    gateway = make_gateway(config(upstream.url, upstream.url), "-w", "dump")
    target = Grant("conn", secret=SECRET).target("v1/echo")
    with connect(gateway.port) as client:
        exchange(client, wire(target, method="POST", body=b"sent"))
    (flow,) = dumped(gateway)
    assert flow.request.raw_content is None
    assert flow.response is not None
    assert flow.response.raw_content is None


def test_a_dump_of_mitmweb_holds_what_it_shows(make_gateway, upstream: Recorder) -> None:
    gateway = make_gateway(config(upstream.url, upstream.url), "-w", "dump", binary="mitmweb")
    target = Grant("conn", secret=SECRET).target("bodyreflect")
    with connect(gateway.port) as client:
        got = parse_response(exchange(client, wire(target, method="POST", body=b"sent"))).body
    (flow,) = dumped(gateway)
    assert (flow.request.raw_content, flow.response and flow.response.raw_content) == (b"sent", got)
    assert not Traces([REAL_SECRET]).found_in((gateway.directory / "dump").read_bytes())


# -- without a process ---------------------------------------------------------------------------------


SPELLINGS = (
    "https://h/?X-Presign-Signature=",
    "X-Presign-Signature: ",
    '"X-Presign-Signature":"',
    '"X-Presign-Signature":            "',
    "X-Presign-Signature%3D",
    "X-Presign-Signature%253D",
    "X%2DPresign%2DSignature%3D",
    "X-Presign-Signature\\u003d",
    "X-Presign-Signature&#61;",
    "X-Presign-Signature&#x3D;",
    "x_presign_signature = '",
    "ps1_Y29ubg.",
    "ps1_Y29ubg%2E",
    "ps1_Y29ubg\\u002e",
    "/v1/pk/aHR0.png?sig=",
    "sig%3D",
    "sig\\u003d",
    '"sig": "',
)


@pytest.mark.parametrize("before", SPELLINGS)
def test_the_signature_of_a_presign_is_hidden_wherever_it_stands_in_a_body(before: str) -> None:
    signature = "5123456789abcdef" * 4
    for text in (signature, signature.upper()):
        body = ShownBody()
        body.add(f"{before}{text} and more".encode())
        shown = body.content().decode()
        assert shown.startswith(before)
        assert shown.endswith("*" * 56 + " and more")
        assert text[8:16] not in shown


@pytest.mark.parametrize("digits", range(9, 65))
def test_a_signature_of_which_a_body_holds_only_the_beginning_is_hidden(digits: int) -> None:
    """63 of its 64 digits were shown where a body was cut."""
    signature, before = b"0123456789abcdef" * 4, b"X-Presign-Signature="
    body = ShownBody()
    body.add(b"." * (MAX_SHOWN - len(before) - digits) + before + signature)
    assert body.content().endswith(before + signature[:8] + b"*" * (digits - 8))


def test_of_a_checksum_in_a_body_the_first_digits_are_shown() -> None:
    body = ShownBody()
    body.add(b"sha256:" + b"ab" * 32 + b" of 4b825dc642cb6eb9a060e54bf8d69288fbee4904")
    assert body.content() == b"sha256:abababab" + b"*" * 56 + b" of 4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_a_body_is_kept_up_to_its_bound() -> None:
    body = ShownBody()
    for _ in range(40):
        body.add(b"x" * 65_537)
    assert (body.size, len(body.content()), body.is_cut) == (40 * 65_537, MAX_SHOWN, True)
    whole = ShownBody()
    whole.add(b"x" * MAX_SHOWN)
    assert (len(whole.content()), whole.is_cut) == (MAX_SHOWN, False)
