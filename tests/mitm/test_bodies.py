"""Bodies of every size and framing, in both directions: event by event, in constant memory, and without a
byte that some upstream could take for another request.
"""

import contextlib
import re
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h2.events
import pytest

from support.answers import BEHAVIOURS, PIECE, Answer
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.h2client import H2Client, H2Reply
from support.leaks import FOREVER, LONG_AGO, Issuer
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, parse_response
from support.recorder import Recorder

GATEWAY = "presign.local"
CREDENTIAL = "REALSECRET-stream-0123456789"
CONNECTIONS = ("conn_plain", "conn_hand", "conn_tls", "conn_h2")
SIGNING = {name: f"sk_signing_secret_of_{name}_0123456789" for name in CONNECTIONS}
MIB = 1024 * 1024
GIB = 1024 * MIB
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass
class Lab:
    """A gateway with one connection to each kind of upstream."""

    gateway: Mitm
    upstream: Recorder
    hand: ByHand
    tls: Recorder
    h2: Recorder
    issuer: Issuer

    def head(
        self,
        path: str,
        *fields: str,
        cid: str = "conn_plain",
        method: str = "GET",
        expires: int | None = None,
    ) -> bytes:
        """The head of a presigned request; an `expires` makes another one than forever of it."""
        grant = {} if expires is None else {"expires": expires}
        target = self.issuer.url(cid, path, **grant)
        return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {GATEWAY}", *fields, "", ""]).encode()

    def h2_head(self, path: str, *fields: tuple[str, str], method: str = "GET", **grant: Any) -> list[Any]:
        cid = grant.pop("cid", "conn_plain")
        pseudo = [(":method", method), (":scheme", "https"), (":authority", GATEWAY)]
        return [*pseudo, (":path", self.issuer.url(cid, path, **grant)), *fields]

    def client(self) -> Wire:
        return Wire(connect(self.gateway.port))

    def h2_client(self) -> H2Client:
        return H2Client.through(self.gateway.port, GATEWAY, cafile=self.gateway.ca)


@pytest.fixture(scope="module")
def module_lab(
    module_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder, h2_upstream: Recorder
) -> Iterator[Lab]:
    hand = ByHand()
    urls = {
        "conn_plain": upstream.url,
        "conn_hand": hand.url,
        "conn_tls": f"https://api.tls.test:{tls_upstream.tls_port}",
        "conn_h2": f"https://api.tls.test:{h2_upstream.tls_port}",
    }
    connections = {
        cid: {
            "upstream": url,
            "auth": {"type": "bearer", "token": CREDENTIAL},
            "signing_keys": [{"secret": SIGNING[cid]}],
        }
        for cid, url in urls.items()
    }
    config = {"gateway": {"hosts": [GATEWAY]}, "connections": connections}
    gateway = module_gateway(config, dns={"api.tls.test": ["127.0.0.1"]})
    yield Lab(gateway, upstream, hand, tls_upstream, h2_upstream, Issuer(SIGNING))
    hand.stop()


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """The lab, which every test leaves without a crash."""
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    assert "has crashed" not in log
    assert "Traceback" not in log


@contextlib.contextmanager
def flat(gateway: Mitm, growth: int) -> Iterator[Callable[[], None]]:
    """Resident memory grows by less than `growth`, each time the function that it yields is called."""
    before = gateway.rss()
    peak = before

    def look() -> None:
        nonlocal peak
        peak = max(peak, gateway.rss())

    yield look
    look()
    assert peak - before < growth, f"{(peak - before) / MIB:.0f} MiB more"


class Answering:
    """Accepts one request in a thread of its own, answers it as told, and closes."""

    def __init__(self, hand: ByHand, answer: Callable[[Wire], None]) -> None:
        self._hand, self._answer = hand, answer
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with self._hand.accept() as api:
            api.read_head()
            self._answer(api)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)


# -- event by event --------------------------------------------------------------------------------------


def test_each_event_arrives_before_the_next_one_is_sent(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("events", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.read_head()
        for number in range(5):
            event = f"data: event {number}\n\n".encode()
            api.send(b"%x\r\n%b\r\n" % (len(event), event))
            assert client.read_until(b"\n\n").endswith(event)
        api.send(b"0\r\n\r\n")
        assert client.read_until(b"0\r\n\r\n")


def test_each_event_of_an_unframed_answer_arrives_at_once(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("events", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        client.read_head()
        for number in range(3):
            event = f"data: event {number}\n\n".encode()
            api.send(event)
            assert client.read_until(b"\n\n").endswith(event)
        api.close()
        client.read_until(b"\r\n0\r\n\r\n")


def test_each_event_reaches_an_h2_client_before_the_next_one_is_sent(lab: Lab) -> None:
    events = [f"data: event {number}\n\n".encode() for number in range(5)]
    arrived = threading.Semaphore(0)

    def answer(api: Wire) -> None:
        api.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in events:
            api.send(b"%x\r\n%b\r\n" % (len(event), event))
            if not arrived.acquire(timeout=5):
                return
        api.send(b"0\r\n\r\n")

    with (
        Watching.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client,
        Answering(lab.hand, answer),
    ):
        client.arrived = arrived
        reply = client.request(lab.h2_head("events", cid="conn_hand"))
    assert (reply.status, reply.body, reply.detail) == (200, b"".join(events), "")


class Watching(H2Client):
    """Tells of each piece of a body as it arrives."""

    arrived: threading.Semaphore

    def _take(self, event: h2.events.Event, stream: int, reply: H2Reply) -> None:
        super()._take(event, stream, reply)
        if isinstance(event, h2.events.DataReceived):
            self.arrived.release()


def test_each_piece_of_an_upload_arrives_before_the_next_one_is_sent(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("up", "Transfer-Encoding: chunked", cid="conn_hand", method="POST"))
        api = lab.hand.accept()
        assert b"Transfer-Encoding: chunked" in api.read_head()
        for number in range(5):
            client.send(b"7\r\npiece %d\r\n" % number)
            assert b"piece %d\r\n" % number in api.read_until(b"%d\r\n" % number)
        client.send(b"0\r\n\r\n")
        assert api.read_until(b"0\r\n\r\n")
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.read_response().endswith(b"\r\n\r\nok")


# -- large bodies ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _firehose() -> Iterator[None]:
    """A chunked download of 1 GiB."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(GIB // len(PIECE)):
            yield PIECE

    headers = (("Content-Type", "application/octet-stream"),)
    BEHAVIOURS["firehose"] = lambda request: Answer(headers=headers, stream=pieces)
    BEHAVIOURS["sized"] = lambda request: Answer(headers=headers, stream=pieces, length=GIB)
    yield
    del BEHAVIOURS["firehose"], BEHAVIOURS["sized"]


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "with a length"])
def test_an_upload_of_1_gib_goes_through_in_constant_memory(chunked: bool, lab: Lab) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {GIB}"
    piece = PIECE * (MIB // len(PIECE))
    framed = b"%x\r\n%b\r\n" % (MIB, piece) if chunked else piece
    with lab.client() as client, flat(lab.gateway, 40 * MIB) as look:
        client.sock.settimeout(10)
        client.send(lab.head("up", framing, method="POST"))
        for number in range(GIB // MIB):
            client.send(framed)
            if number % 32 == 0:
                look()
        client.send(b"0\r\n\r\n" if chunked else b"")
        assert parse_response(client.read_response(timeout=20)).status == 200
    (seen,) = lab.upstream.wait_for(1)
    assert (seen.length, seen.complete) == (GIB, True)
    assert len(seen.all("transfer-encoding")) + len(seen.all("content-length")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", ["firehose", "sized"])
def test_a_download_of_1_gib_goes_through_in_constant_memory(path: str, lab: Lab) -> None:
    with lab.client() as client, flat(lab.gateway, 40 * MIB) as look:
        client.send(lab.head(path))
        head = client.read_head()
        assert (b"chunked" in head) == (path == "firehose")
        size = received = 0
        for data in read_body(client, chunked=path == "firehose"):
            # The body repeats: each piece is known by where it begins.
            assert zlib.crc32(data) == zlib.crc32(expected(received, len(data)))
            received += len(data)
            if received - size > 32 * MIB:
                size = received
                look()
        assert received == GIB


def expected(start: int, size: int) -> bytes:
    start %= len(PIECE)
    return (PIECE * (2 + size // len(PIECE)))[start : start + size]


def read_body(client: Wire, *, chunked: bool) -> Iterator[bytes]:
    """Pieces of the body, until its end."""
    if not chunked:
        for _ in range(GIB // MIB):
            yield client.read_exactly(MIB)
        return
    while size := int(client.read_until(b"\r\n")[:-2], 16):
        yield client.read_exactly(size)
        assert client.read_exactly(2) == b"\r\n"


@pytest.mark.slow
def test_an_h2_upload_of_200_mb_goes_through_in_constant_memory(lab: Lab) -> None:
    with lab.h2_client() as client, flat(lab.gateway, 40 * MIB) as look:

        def pieces() -> Iterator[bytes]:
            for number in range(200):
                if number % 20 == 0:
                    look()
                yield PIECE * (MIB // len(PIECE))

        reply = client.request(lab.h2_head("up", method="POST"), pieces(), timeout=30)
    assert reply.status == 200
    (seen,) = lab.upstream.wait_for(1)
    assert (seen.length, seen.header("transfer-encoding")) == (200 * MIB, "chunked")


@pytest.mark.parametrize("framing", ["Content-Length: 209715200", "Transfer-Encoding: chunked"])
def test_a_denied_upload_is_answered_before_its_body_is_sent(framing: str, lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("up", framing, method="POST", expires=LONG_AGO))
        assert parse_response(client.read_response()).status == 403
    assert not lab.upstream.touched


@pytest.mark.slow
def test_a_denied_upload_that_is_sent_all_the_same_is_not_kept(lab: Lab) -> None:
    """The client reads no answer before all is sent, or the gateway has had enough."""
    with lab.client() as client, flat(lab.gateway, 10 * MIB) as look:
        client.send(lab.head("up", f"Content-Length: {200 * MIB}", method="POST", expires=LONG_AGO))
        client.sock.settimeout(10)
        with contextlib.suppress(ConnectionError):
            for number in range(200):
                client.send(PIECE * (MIB // len(PIECE)))
                if number % 20 == 0:
                    look()
        received = client.read_to_end(10)
    assert received == b"" or parse_response(received).status == 403
    assert not lab.upstream.touched


@pytest.mark.slow
@pytest.mark.slow
def test_a_denied_h2_upload_is_not_kept(lab: Lab) -> None:
    with lab.h2_client() as client, flat(lab.gateway, 10 * MIB):
        body = (PIECE for _ in range(200 * MIB // len(PIECE)))
        reply = client.request(lab.h2_head("up", method="POST", expires=LONG_AGO), body)
        assert reply.status == 403
        assert client.request(lab.h2_head("v1/models")).status == 200


# -- framing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cid", ["conn_plain", "conn_tls"])
def test_an_h2_upload_without_length_is_framed_for_an_h1_upstream(cid: str, lab: Lab) -> None:
    upstream = lab.upstream if cid == "conn_plain" else lab.tls
    with lab.h2_client() as client:
        body = [b"0\r\n\r\n", SMUGGLED, SMUGGLED]
        assert client.request(lab.h2_head("up", method="POST", cid=cid), body).status == 200
        assert client.request(lab.h2_head("next", cid=cid)).status == 200
    first, second = upstream.wait_for(2)
    assert (first.header("transfer-encoding"), first.body) == ("chunked", b"".join(body))
    assert second.target == "/next"
    assert not upstream.fragments


def test_an_h2_upload_with_a_length_keeps_it(lab: Lab) -> None:
    with lab.h2_client() as client:
        head = lab.h2_head("up", ("content-length", str(len(SMUGGLED))), method="POST")
        assert client.request(head, SMUGGLED).status == 200
    (seen,) = lab.upstream.wait_for(1)
    assert (seen.header("content-length"), seen.body) == (str(len(SMUGGLED)), SMUGGLED)
    assert seen.header("transfer-encoding") is None


@pytest.mark.parametrize("length", [0, 5, len(SMUGGLED) + 5])
def test_an_h2_upload_that_lies_about_its_length_smuggles_nothing(length: int, lab: Lab) -> None:
    with lab.h2_client() as client:
        head = lab.h2_head("up", ("content-length", str(length)), method="POST")
        # Of a request without a body, the answer may have been there before the body that it must not have.
        assert client.request(head, SMUGGLED, timeout=3).status != 200 or length == 0
        client.request(lab.h2_head("afterwards"))  # what was sent before has arrived by then
    assert not any(seen.complete and seen.body for seen in lab.upstream.requests)
    assert not any("smuggled" in seen.target for seen in lab.upstream.requests)


def test_an_h2_upload_to_an_h2_upstream_is_not_chunked(lab: Lab) -> None:
    with lab.h2_client() as client:
        assert (
            client.request(lab.h2_head("up", method="POST", cid="conn_h2"), [b"one ", b"two"]).status == 200
        )
    (seen,) = lab.h2.wait_for(1)
    assert (seen.body, seen.alpn, seen.header("transfer-encoding")) == (b"one two", "h2", None)


def test_a_chunked_h1_upload_is_framed_for_an_upstream_that_speaks_both(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("up", "Transfer-Encoding: chunked", cid="conn_h2", method="POST"))
        client.send(b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")
        assert parse_response(client.read_response()).status == 200
    (seen,) = lab.h2.wait_for(1)
    # RFC 9113, 8.2.2: Transfer-Encoding has no place in HTTP/2.
    framing = None if seen.alpn == "h2" else "chunked"
    assert (seen.body, seen.header("transfer-encoding")) == (b"one two", framing)


def test_an_h2_request_with_no_field_of_its_own_is_served(lab: Lab) -> None:
    with lab.h2_client() as client:
        assert client.request(lab.h2_head("v1/models")).status == 200


# -- 100-continue ----------------------------------------------------------------------------------------


def test_a_denied_upload_gets_no_100_continue(lab: Lab) -> None:
    with lab.client() as client:
        fields = ("Content-Length: 6", "Expect: 100-continue")
        client.send(lab.head("up", *fields, method="POST", expires=LONG_AGO))
        assert client.read_response().startswith(b"HTTP/1.1 403 ")
        assert b"HTTP/1.1" not in client.read_to_end(10)
    assert not lab.upstream.touched


def test_a_granted_upload_gets_100_continue_and_goes_through(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("up", "Content-Length: 6", "Expect: 100-continue", method="POST"))
        assert client.read_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"upload")
        assert parse_response(client.read_response()).status == 200
    (seen,) = lab.upstream.wait_for(1)
    assert (seen.body, seen.header("expect")) == (b"upload", None)


def test_an_interim_response_of_the_upstream_is_not_taken_for_the_final_one(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("hints", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        api.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.")
        time.sleep(0.05)  # one segment each
        api.send(b"1 103 Early")
        time.sleep(0.05)
        api.send(b" Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal")
        # Whether hints are passed on is open; what comes last is the response.
        response = parse_response(client.read_until(b"final"))
        assert (response.status, response.body) == (200, b"final")


# -- answers without a body --------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("nocontent", 204), ("notmodified", 304)])
def test_an_answer_that_has_no_body_keeps_the_connection(path: str, status: int, lab: Lab) -> None:
    with lab.client() as client:
        for _ in range(2):
            client.send(lab.head(path))
            assert client.read_head().startswith(f"HTTP/1.1 {status} ".encode())
        client.send(lab.head("v1/models"))
        assert parse_response(client.read_response()).body == b'{"ok": true}'
    with lab.h2_client() as second:
        reply = second.request(lab.h2_head(path))
        assert (reply.status, reply.body, reply.ended) == (status, b"", True)


@pytest.mark.parametrize("path", ["v1/models", "chunked", "download?bytes=1000"])
def test_a_head_request_gets_the_head_and_keeps_the_connection(path: str, lab: Lab) -> None:
    path, _, query = path.partition("?")
    target = lab.issuer.url("conn_plain", path) + (f"&{query}" if query else "")
    with lab.client() as client:
        for _ in range(2):
            client.send(f"HEAD {target} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode())
            head = client.read_head()
            assert head.startswith(b"HTTP/1.1 200 ")
        client.send(lab.head("v1/models"))
        assert parse_response(client.read_response()).body == b'{"ok": true}'
    if query:
        assert b"Content-Length: 1000\r\n" in head


def test_a_refused_head_request_gets_no_body(lab: Lab) -> None:
    with lab.client() as client:
        for _ in range(2):
            client.send(lab.head("v1/models", method="HEAD", expires=LONG_AGO))
            assert client.read_head().startswith(b"HTTP/1.1 403 ")
        assert client.is_silent()


# -- what breaks off ---------------------------------------------------------------------------------------


def test_an_early_answer_reaches_a_client_that_is_still_uploading(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("up", f"Content-Length: {GIB}", cid="conn_hand", method="POST") + PIECE)
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        assert client.read_response().startswith(b"HTTP/1.1 413 ")


def test_an_early_answer_does_not_stop_an_upload_that_goes_on(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("early", f"Content-Length: {4 * MIB}", method="POST"))
        assert parse_response(client.read_response()).status == 200
        client.send(PIECE * (4 * MIB // len(PIECE)))
        (seen,) = lab.upstream.wait_for(1)
        assert (seen.length, seen.complete) == (4 * MIB, True)
        client.send(lab.head("v1/models"))
        assert parse_response(client.read_response()).status == 200


BROKEN_OFF = {
    "with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly this",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\nzz\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nonly this",
}


@pytest.mark.parametrize("answer", BROKEN_OFF.values(), ids=BROKEN_OFF.keys())
def test_an_answer_that_breaks_off_is_seen_to_be_broken(answer: bytes, lab: Lab) -> None:
    """Nothing may follow that a client could take for the rest of it, and the connection ends."""
    with lab.client() as client:
        client.send(lab.head("broken", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
        api.send(answer)
        client.read_head()
        api.close()
        rest = client.read_to_end()
    assert b"HTTP/1.1" not in rest
    assert re.fullmatch(rb"(?:9\r\n)?(?:only this)?(?:\r\n)?", rest), rest


@pytest.mark.parametrize("answer", BROKEN_OFF.values(), ids=BROKEN_OFF.keys())
def test_an_answer_that_breaks_off_resets_one_h2_stream_only(answer: bytes, lab: Lab) -> None:
    with lab.h2_client() as client, Answering(lab.hand, lambda api: api.send(answer)):
        reply = client.request(lab.h2_head("broken", cid="conn_hand"), timeout=5)
        assert b"error" not in reply.body
        assert "RST_STREAM" in reply.detail or reply.status == 502
        assert client.request(lab.h2_head("v1/models")).status == 200


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"SSH-2.0-x\r\n"])
def test_an_upstream_that_gives_no_answer_is_a_502(answer: bytes, lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("broken", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
        api.send(answer)
        api.close()
        response = parse_response(client.read_response())
    assert (response.status, response.header("x-presign-error")) == (502, "upstream")


def test_an_upstream_that_nobody_listens_for_is_a_502(lab: Lab, make_gateway: MakeGateway) -> None:
    closed = ByHand()
    closed.stop()
    connection = {
        "upstream": closed.url,
        "auth": {"type": "bearer", "token": CREDENTIAL},
        "signing_keys": [{"secret": SIGNING["conn_plain"]}],
    }
    config = {"gateway": {"hosts": [GATEWAY]}, "connections": {"conn_plain": connection}}
    gateway = make_gateway(config)
    with Wire(connect(gateway.port)) as client:
        client.send(lab.head("v1/models"))
        response = parse_response(client.read_response())
    assert (response.status, response.header("x-presign-error")) == (502, "upstream")


@pytest.mark.parametrize("length", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked"])
def test_a_client_that_vanishes_ends_the_upstream_connection(length: bytes, lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("down", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n1\r\nx\r\n")
        client.read_head()
    assert api.read_to_end() == b""


def test_a_client_that_vanishes_before_the_answer_ends_the_upstream_connection(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("down", cid="conn_hand"))
        api = lab.hand.accept()
        api.read_head()
    assert api.read_to_end() == b""


def test_a_client_that_vanishes_while_uploading_ends_the_upstream_connection(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("up", "Content-Length: 1000000", cid="conn_hand", method="POST") + b"some of it")
        api = lab.hand.accept()
        api.read_head()
        api.read_until(b"some of it")
    assert api.read_to_end() == b""


# -- one connection, several requests ------------------------------------------------------------------------


def test_several_presigned_requests_share_a_connection(lab: Lab) -> None:
    with lab.client() as client:
        for number in range(5):
            client.send(lab.head(f"v1/{number}"))
            assert parse_response(client.read_response()).status == 200
    seen = lab.upstream.wait_for(5)
    assert [request.target for request in seen] == [f"/v1/{number}" for number in range(5)]
    assert {request.header("authorization") for request in seen} == {f"Bearer {CREDENTIAL}"}
    assert len({request.connection for request in seen}) == 1


def test_a_connection_serves_on_after_a_refusal(lab: Lab) -> None:
    with lab.client() as client:
        for expires, status in ((FOREVER, 200), (LONG_AGO, 403), (LONG_AGO, 403), (FOREVER, 200)):
            client.send(lab.head("v1/models", expires=expires))
            assert parse_response(client.read_response()).status == status
    assert len(lab.upstream.requests) == 2


def test_a_connection_serves_on_after_a_refused_upload_that_had_arrived(lab: Lab) -> None:
    with lab.client() as client:
        refused = lab.head("up", "Content-Length: 6", method="POST", expires=LONG_AGO) + b"upload"
        client.send(refused)
        assert parse_response(client.read_response()).status == 403
        with contextlib.suppress(ConnectionError):
            client.send(lab.head("v1/models"))
            assert parse_response(client.read_response()).status == 200
    assert {request.method for request in lab.upstream.requests} <= {"GET"}


def test_the_body_of_a_refused_upload_is_not_read_as_a_request(lab: Lab) -> None:
    inner = lab.head("smuggled")
    with lab.client() as client:
        client.send(lab.head("up", f"Content-Length: {len(inner)}", method="POST", expires=LONG_AGO))
        assert parse_response(client.read_response()).status == 403
        with contextlib.suppress(ConnectionError):
            client.send(inner)
        assert b"HTTP/1.1 200" not in client.read_to_end(10)
    assert not lab.upstream.touched


def test_requests_sent_in_one_go_are_answered_in_order(lab: Lab) -> None:
    with lab.client() as client:
        heads = [lab.head("v1/1"), lab.head("v1/2", expires=LONG_AGO), lab.head("v1/3")]
        client.send(b"".join(heads))
        statuses = [parse_response(client.read_response()).status for _ in heads]
    assert statuses == [200, 403, 200]
    assert [request.target for request in lab.upstream.requests] == ["/v1/1", "/v1/3"]


def test_several_h2_requests_share_a_connection_with_refusals(lab: Lab) -> None:
    with lab.h2_client() as client:
        statuses = [
            client.request(lab.h2_head("v1/models", **grant)).status
            for grant in ({}, {"expires": LONG_AGO}, {}, {"cid": "conn_h2"}, {"cid": "conn_tls"})
        ]
    assert statuses == [200, 403, 200, 200, 200]


class Crowd(H2Client):
    """Requests beside one another."""

    def begin(self, headers: list[Any], *, end: bool = True) -> int:
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, headers, end_stream=end)
        self._flush()
        return stream

    def upload(self, streams: list[int], size: int) -> dict[int, H2Reply]:
        """Send `size` bytes on each, as fast as its window opens; the replies."""
        left = dict.fromkeys(streams, size)
        replies = {stream: H2Reply() for stream in streams}
        deadline = time.monotonic() + 60
        while not all(reply.ended for reply in replies.values()) and time.monotonic() < deadline:
            for stream in [one for one in streams if left[one]]:
                room = min(self._h2.local_flow_control_window(stream), PIECE_OF_FRAME, left[stream])
                if room > 0:
                    left[stream] -= room
                    self._h2.send_data(stream, bytes(room), end_stream=not left[stream])
            self._flush()
            self._pump(replies)
        return replies

    def _pump(self, replies: dict[int, H2Reply]) -> None:
        self._sock.settimeout(0.002)
        with contextlib.suppress(TimeoutError):
            for event in self._h2.receive_data(self._sock.recv(65536)):
                stream = getattr(event, "stream_id", None)
                if stream in replies:
                    self._take(event, stream, replies[stream])
        self._sock.settimeout(10)  # for what is sent next


PIECE_OF_FRAME = 16 * 1024


def test_many_h2_uploads_at_once_do_not_wait_for_one_another(lab: Lab) -> None:
    size = 4 * MIB
    with Crowd.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client:
        length = ("content-length", str(size))
        heads = [lab.h2_head("up", length, method="POST") for _ in range(7)]
        replies = client.upload([client.begin(head, end=False) for head in heads], size)
    assert [reply.outcome for reply in replies.values()] == ["200"] * 7
    assert [request.length for request in lab.upstream.wait_for(7)] == [size] * 7


def test_a_download_that_an_h2_client_does_not_read_holds_up_no_other(lab: Lab) -> None:
    with (
        Crowd.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client,
        flat(lab.gateway, 24 * MIB),
    ):
        client.begin(lab.h2_head(f"download?bytes={64 * MIB}"))
        assert client.request(lab.h2_head("v1/models")).status == 200
        time.sleep(1)
        assert client.request(lab.h2_head("v1/models")).status == 200


def test_an_h2_upload_whose_upstream_does_not_read_is_held_back(lab: Lab) -> None:
    with (
        Crowd.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client,
        flat(lab.gateway, 24 * MIB),
    ):
        head = lab.h2_head("up", ("content-length", str(64 * MIB)), method="POST", cid="conn_hand")
        stream = client.begin(head, end=False)
        lab.hand.accept().read_head()
        reply = H2Reply()
        deadline = time.monotonic() + 2
        sent = 0
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline and sent < 64 * MIB:
                room = min(client._h2.local_flow_control_window(stream), PIECE_OF_FRAME)
                if room > 0:
                    client._h2.send_data(stream, bytes(room))
                    sent += room
                    client._sock.settimeout(0.5)
                    client._flush()
                client._pump({stream: reply})
    assert sent < 24 * MIB
    assert not reply.ended


# -- trailers ------------------------------------------------------------------------------------------


def test_trailers_of_an_answer_are_dropped_unless_asked_for_over_http2(lab: Lab) -> None:
    with lab.client() as client:
        for _ in range(2):
            client.send(lab.head("trailers"))
            received = client.read_response()
            assert parse_response(received).body == b"one two"
            assert b"X-Checksum: 12" not in received
    with lab.h2_client() as second:
        for cid in ("conn_plain", "conn_tls", "conn_h2"):
            reply = second.request(lab.h2_head("trailers", cid=cid))
            assert (reply.status, reply.body, reply.trailers) == (200, b"one two", [])
            reply = second.request([*lab.h2_head("trailers", cid=cid), ("te", "trailers")])
            passed = [("x-checksum", "12")] if cid == "conn_h2" else []  # mitmproxy reads none over HTTP/1
            assert (reply.status, reply.body, reply.trailers) == (200, b"one two", passed)


def test_trailers_of_a_request_are_dropped(lab: Lab) -> None:
    with lab.client() as client:
        for _ in range(2):
            client.send(lab.head("up", "Transfer-Encoding: chunked", method="POST"))
            client.send(b"6\r\nupload\r\n0\r\nX-Trailer: 1\r\nAuthorization: Bearer other\r\n\r\n")
            assert parse_response(client.read_response()).status == 200
    with lab.h2_client() as second:
        for cid in ("conn_plain", "conn_h2"):
            trailers = [("x-trailer", "1"), ("authorization", "Bearer other")]
            reply = second.request(lab.h2_head("up", method="POST", cid=cid), b"upload", trailers)
            assert reply.status == 200
    seen = [*lab.upstream.wait_for(3), *lab.h2.wait_for(1)]
    assert [(request.body, request.trailers) for request in seen] == [(b"upload", b"")] * 4


def test_trailers_of_a_refused_request_break_nothing(lab: Lab) -> None:
    with lab.h2_client() as second:
        head = lab.h2_head("up", method="POST", expires=LONG_AGO)
        assert second.request(head, b"upload", [("x-trailer", "1")]).status == 403
        assert second.request(lab.h2_head("v1/models")).status == 200
    with lab.client() as client:
        client.send(lab.head("up", "Transfer-Encoding: chunked", method="POST", expires=LONG_AGO))
        client.send(b"6\r\nupload\r\n0\r\nX-Trailer: 1\r\n\r\n")
        assert client.read_response().startswith(b"HTTP/1.1 403 ")
    assert eventually(lambda: len(lab.upstream.requests) == 1)
