"""An upstream over HTTP/2: what is offered to it, what it ends, and that nothing leaves late on a connection
that it does not read.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from h2.errors import ErrorCodes
from OpenSSL import SSL

from support.asking import SECRET, Grant
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2frames import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    accept_h2,
    frame,
    h2_context,
    next_of,
    read_frame,
)
from support.h2streams import Streams
from support.lab import bearer_connection
from support.puppet import eventually
from support.serving import Serve

GATEWAY: Final = "presign.local"
PATIENT: Final = 20.0
OK: Final = b"\x88"
"""`:status: 200` in HPACK's own table."""
WIDE: Final = (4).to_bytes(2, "big") + (2**30).to_bytes(4, "big")
"""SETTINGS_INITIAL_WINDOW_SIZE, of an upstream that takes whatever is sent."""
MIB: Final = 1024 * 1024


@dataclass
class Lab:
    """A gateway, and an upstream over HTTP/2 whose frames the test writes."""

    gateway: Any
    hand: ByHand
    context: ssl.SSLContext
    directory: Path

    def client(self) -> Streams:
        return Streams.direct(self.gateway.port, GATEWAY, self.gateway.ca)

    def begin(self, client: Streams, method: str = "GET", *, end: bool = True, **grant: Any) -> int:
        cid = grant.pop("connection", "conn_h2")
        target = Grant(cid, **grant).target("x")
        pseudo = [(":method", method), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        return client.begin(pseudo, end=end)

    def accept(self, settings: bytes = b"") -> Wire:
        return accept_h2(self.hand, self.context, settings, timeout=PATIENT)


@pytest.fixture(scope="module", params=["mitmdump", "serve"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    ca: trustme.CA,
    ca_pem: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    context = h2_context(ca.issue_cert(*TLS_NAMES))
    one = bearer_connection(f"https://localhost:{hand.port}", SECRET)
    config = {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {"conn_h2": one, "conn_one": one | {"limits": [{"concurrency": 1}]}},
        "limits": {"store": "memory://"},
        "audit": {"file": "audit.jsonl"},
    }
    if request.param == "serve":
        directory = tmp_path_factory.mktemp("serve")
        with Serve(directory, config, "--upstream-ca", str(ca_pem)) as served:
            yield Lab(served, hand, context, directory)
        return
    gateway = module_gateway(config)
    yield Lab(gateway, hand, context, gateway.directory)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    assert "Traceback" not in log
    assert "failed at the" not in log


# -- an upstream that stops reading ------------------------------------------------------------------------


def fill(lab: Lab, client: Streams, size: int) -> tuple[int, Wire]:
    """Upload so much to an upstream that takes everything, and reads nothing of it."""
    stream = lab.begin(client, "POST", end=False)
    api = lab.accept(WIDE)
    api.send(frame(WINDOW_UPDATE, (2**30).to_bytes(4, "big")))
    next_of(api, HEADERS, PATIENT)
    sent, idle = 0, time.monotonic()
    while sent < size and time.monotonic() < idle + 1:
        room = min(client._h2.local_flow_control_window(stream), 16 * 1024)
        if room > 0:
            client.send(stream, bytes(room))
            sent, idle = sent + room, time.monotonic()
        else:
            client._pump(time.monotonic() + 0.1)
    return stream, api


def test_no_head_waits_behind_an_upload_that_the_upstream_does_not_read(lab: Lab) -> None:
    """It was granted, and left with its credential whenever the upstream read on: long after its end."""
    with lab.client() as client:
        _, stuck = fill(lab, client, 2 * MIB)
        second = lab.begin(client)
        api = lab.accept()
        next_of(api, HEADERS, PATIENT)
        answer(api)
        assert client.wait([second], PATIENT)[0].status == 200
        third = lab.begin(client)
        next_of(api, HEADERS, PATIENT)  # on the connection that moves
        answer(api, 3)
        assert client.wait([third], PATIENT)[0].status == 200
    heads = [one for one in all_frames(stuck) if one.kind == HEADERS]
    assert not heads


def test_what_is_read_once_the_upstream_reads_on_is_judged_then(lab: Lab) -> None:
    """So much waits that the client is not read either: its next head is not granted before it is."""
    expires = int(time.time()) + 2
    with lab.client() as client:
        _, stuck = fill(lab, client, 16 * MIB)
        second = lab.begin(client, expires=expires)
        time.sleep(max(0.0, expires + 1.1 - time.time()))
        drained = threading.Thread(target=all_frames, args=(stuck,), daemon=True)
        drained.start()
        reply = client.wait([second], PATIENT)[0]
        assert (reply.status, reply.header("x-presign-error")) == (403, "expired")
    drained.join(PATIENT)


def answer(api: Wire, stream: int = 1) -> None:
    api.send(frame(HEADERS, OK, END_HEADERS | END_STREAM, stream))


def all_frames(api: Wire) -> list[Frame]:
    """What still comes, until the other side closes or says nothing for a while."""
    found = []
    with contextlib.suppress(OSError):
        while True:
            found.append(read_frame(api, 3.0))
    return found


# -- what an upstream ends -----------------------------------------------------------------------------------


def pair(lab: Lab, client: Streams) -> tuple[int, int, Wire]:
    """Two requests that wait for their answers on one connection."""
    first = lab.begin(client)
    api = lab.accept()
    next_of(api, HEADERS, PATIENT)
    second = lab.begin(client)
    assert next_of(api, HEADERS, PATIENT).stream == 3
    return first, second, api


@pytest.mark.parametrize("code", [ErrorCodes.REFUSED_STREAM, ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL])
def test_a_stream_that_the_upstream_resets_is_answered_and_not_sent_again(lab: Lab, code: ErrorCodes) -> None:
    """No grant allows to send it twice, though a refused stream could be (RFC 9113, 8.7)."""
    with lab.client() as client:
        first, second, api = pair(lab, client)
        api.send(frame(RST_STREAM, code.to_bytes(4, "big"), 0, 3))
        reply = client.wait([second], PATIENT)[0]
        assert (reply.status, reply.header("x-presign-error")) == (502, "upstream")
        assert not lab.hand.waits()
        answer(api)
        assert client.wait([first], PATIENT)[0].status == 200
        third = lab.begin(client)
        assert next_of(api, HEADERS, PATIENT).stream == 5
        answer(api, 5)
        assert client.wait([third], PATIENT)[0].status == 200


def test_a_goodbye_ends_what_was_not_taken_and_the_next_request_finds_another_connection(lab: Lab) -> None:
    with lab.client() as client:
        first, second, api = pair(lab, client)
        api.send(frame(GOAWAY, (1).to_bytes(4, "big") + bytes(4)))
        assert client.wait([second], PATIENT)[0].status == 502
        third = lab.begin(client)
        other = lab.accept()
        next_of(other, HEADERS, PATIENT)
        answer(other)
        answer(api)
        assert [one.status for one in client.wait([first, third], PATIENT)] == [200, 200]


def test_more_streams_than_an_upstream_takes_go_on_other_connections(lab: Lab) -> None:
    """They would wait there, and leave without being judged again."""
    one = (3).to_bytes(2, "big") + (1).to_bytes(4, "big")
    with lab.client() as client:
        first = lab.begin(client)
        api = lab.accept(one)
        next_of(api, HEADERS, PATIENT)
        next_of(api, SETTINGS, PATIENT)  # its acknowledgement
        second = lab.begin(client)
        other = lab.accept(one)
        next_of(other, HEADERS, PATIENT)
        answer(other)
        answer(api)
        assert [one.status for one in client.wait([first, second], PATIENT)] == [200, 200]


@pytest.mark.parametrize("how", ["the upstream resets it", "the client resets it", "it is answered"])
def test_a_stream_holds_a_slot_until_it_ends(lab: Lab, how: str) -> None:
    with lab.client() as client:
        first = lab.begin(client, connection="conn_one")
        api = lab.accept()
        next_of(api, HEADERS, PATIENT)
        second = lab.begin(client, connection="conn_one")
        assert client.wait([second], PATIENT)[0].status == 429
        if how == "the upstream resets it":
            api.send(frame(RST_STREAM, (2).to_bytes(4, "big"), 0, 1))
            client.wait([first], PATIENT)
        elif how == "the client resets it":
            client.reset(first)
            next_of(api, RST_STREAM, PATIENT)
        else:
            answer(api)
            client.wait([first], PATIENT)
        assert eventually(lambda: is_let_in(lab, client, api), PATIENT)


def is_let_in(lab: Lab, client: Streams, api: Wire) -> bool:
    stream = lab.begin(client, connection="conn_one")
    client.wait_for_head(stream, 0.2)
    if client.replies[stream].status is None:
        answer(api, next_of(api, HEADERS, PATIENT).stream)
    return client.wait([stream], PATIENT)[0].status == 200


# -- what is offered -----------------------------------------------------------------------------------


class Chooser:
    """An upstream over TLS that ends the handshake where HTTP/1.1 is not offered, and notes what was."""

    def __init__(self, cert: trustme.LeafCert) -> None:
        self.offered: list[list[bytes]] = []
        self.heads: list[bytes] = []
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        cert.configure_cert(self._context)
        self._context.set_alpn_select_callback(self._choose)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _choose(self, _: SSL.Connection, offered: list[bytes]) -> bytes:
        self.offered.append(offered)
        if b"http/1.1" not in offered:
            raise ValueError("nothing that is spoken here")
        return b"http/1.1"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                with contextlib.suppress(SSL.Error, ValueError):
                    secure = SSL.Connection(self._context, plain)
                    secure.set_accept_state()
                    secure.do_handshake()
                    self.heads.append(secure.recv(65536))
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    secure.shutdown()
                plain.close()

    def stop(self) -> None:
        self._listener.close()


def test_a_client_of_http2_alone_reaches_an_upstream_of_http1_alone(
    make_gateway: MakeGateway, ca: trustme.CA
) -> None:
    """The upstream was offered what the client had offered, and ended the handshake."""
    upstream = Chooser(ca.issue_cert(*TLS_NAMES))
    known = bearer_connection(f"https://localhost:{upstream.port}", SECRET)
    gateway = make_gateway({"gateway": {"hosts": [GATEWAY]}, "connections": {"conn_h2": known}})
    lab = Lab(gateway, ByHand(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), gateway.directory)
    with lab.client() as client:
        reply = client.wait([lab.begin(client)], PATIENT)[0]
    lab.hand.stop()
    upstream.stop()
    assert (reply.status, reply.body) == (200, b"ok")
    assert upstream.offered == [[b"h2", b"http/1.1"]]
    assert upstream.heads[0].startswith(b"GET /x HTTP/1.1\r\n")
