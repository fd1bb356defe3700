"""Answers without a length, which end with their connection: one that is cut off does not look whole."""

import os
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import trustme

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.lab import bearer_connection
from support.programs import find
from support.proxy import Mitm
from support.raw import connect

HEADS = {
    "HTTP/1.1": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n",
    "Connection: close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
}
WHOLE = b"a\r\nonly  this\r\n0\r\n\r\n"
CUT = b"a\r\nonly  this\r\n"


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    context: ssl.SSLContext

    def upstream(self, scheme: str) -> Wire:
        plain = self.hand.accept()
        if scheme == "http":
            return plain
        return Wire(self.context.wrap_socket(plain.sock.dup(), server_side=True, suppress_ragged_eofs=False))

    def target(self, scheme: str) -> str:
        return Grant(f"conn_{scheme}").target("v1/stream")


@pytest.fixture(scope="module", params=["on", "off"], ids=["lane", "flow path"])
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway, ca: trustme.CA) -> Iterator[Lab]:
    hand = ByHand()
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {
            "conn_http": bearer_connection(hand.url, SECRET),
            "conn_https": bearer_connection(f"https://localhost:{hand.port}", SECRET),
        },
    }
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*TLS_NAMES).configure_cert(context)
    gateway = module_gateway(config, "--set", f"presign_lane={request.param}")
    yield Lab(gateway, hand, context)
    hand.stop()


def says_goodbye(api: Wire) -> None:
    """An end as it should be, over TLS with a closure alert."""
    if isinstance(api.sock, ssl.SSLSocket):
        api.sock.setblocking(False)
        with suppress(OSError):
            api.sock.unwrap()
    socket.socket.shutdown(api.sock, socket.SHUT_WR)


def resets(api: Wire) -> None:
    api.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(api.sock.detach())


def is_cut(api: Wire) -> None:
    """An end of the TCP connection alone, as anybody on the way could make it."""
    os.close(api.sock.detach())


def received(lab: Lab, scheme: str, head: bytes, end: object) -> bytes:
    """What the client gets of a body."""
    with Wire(connect(lab.gateway.port)) as client:
        client.send(wire(lab.target(scheme)))
        api = lab.upstream(scheme)
        api.read_head()
        api.send(head + b"only  this")
        client.read_until(b"only  this")  # so that nothing but the end is told of next
        lab.hand.hang_up() if scheme == "https" else None
        assert callable(end)
        end(api)
        body = bytearray()
        with suppress(TimeoutError):
            while not body.endswith(b"0\r\n\r\n") and (more := client.sock.recv(4096)):
                body += more
    return b"a\r\nonly  this" + client.buffer + bytes(body)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize(("scheme", "end"), [("http", resets), ("https", resets), ("https", is_cut)])
def test_an_answer_without_a_length_that_is_cut_off_is_seen_to_be_cut(
    scheme: str, end: object, head: bytes, lab: Lab
) -> None:
    assert received(lab, scheme, head, end) == CUT


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_without_a_length_that_is_whole_is_passed_on_whole(
    scheme: str, head: bytes, lab: Lab
) -> None:
    assert received(lab, scheme, head, says_goodbye) == WHOLE


@pytest.mark.needs("curl")
@pytest.mark.parametrize(("scheme", "end"), [("http", resets), ("https", is_cut), ("https", says_goodbye)])
def test_curl_over_http2_is_told_whether_an_answer_without_a_length_is_whole(
    scheme: str, end: object, lab: Lab
) -> None:
    url = f"https://presign.local:{lab.gateway.port}{lab.target(scheme)}"
    argv = [find("curl"), "-sS", "--http2", "--cacert", lab.gateway.ca, "--max-time", "20"]
    argv += ["--connect-to", f"::127.0.0.1:{lab.gateway.port}", "--no-buffer", url]
    with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        api = lab.upstream(scheme)
        api.read_head()
        api.send(HEADS["HTTP/1.1"] + b"only  this")
        assert curl.stdout.read(10) == b"only  this"
        lab.hand.hang_up() if scheme == "https" else None
        assert callable(end)
        end(api)
        assert (curl.wait(20) == 0) is (end is says_goodbye)
