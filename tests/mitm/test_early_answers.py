"""An upstream that answers before it has read the upload, and closes: the client gets that answer."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import trustme

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import connect, parse_response

# Uploads of many megabytes, over six ways.
pytestmark = pytest.mark.slow

GATEWAY = "presign.local"
CONN = "conn_small"
PATIENT = 15.0
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge"
SIZES = [70_000, 1_000_000, 8_000_000]
TIMES = 12
"""Which comes first, the answer or the end, is up to the system: what is lost once in a while is lost."""


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    context: ssl.SSLContext | None

    def accept(self) -> Wire:
        api = self.hand.accept(PATIENT)
        # Else the system keeps a small answer back (Nagle), and drops it where it ends with a reset.
        api.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:
            api.sock.settimeout(PATIENT)
            api.sock = self.context.wrap_socket(api.sock, server_side=True)
        return api


@pytest.fixture(params=["lane", "flows", "lane, TLS", "flows, TLS"])
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway, ca: trustme.CA) -> Iterator[Lab]:
    hand, context = ByHand(), None
    way, _, tls = request.param.partition(", ")
    url = hand.url
    if tls:
        context, url = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), f"https://localhost:{hand.port}"
        ca.issue_cert("localhost").configure_cert(context)
    config = {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {CONN: bearer_connection(url, SECRET)},
    }
    gateway = module_gateway(config, "--set", f"presign_lane={'on' if way == 'lane' else 'off'}")
    yield Lab(gateway, hand, context)
    hand.stop()


def upload(client: Wire, size: int) -> threading.Thread:
    """Send it in a thread, as far as the gateway takes it."""
    head = wire(Grant(CONN).target("v1/files"), {"Content-Length": str(size)}, "POST", GATEWAY)

    def work() -> None:
        with contextlib.suppress(OSError):
            client.sock.sendall(head + bytes(size))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def reset(api: Wire) -> None:
    api.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    api.close()


@pytest.mark.parametrize("size", SIZES)
def test_an_answer_before_the_upload_was_read_arrives_though_its_upstream_closes(size: int, lab: Lab) -> None:
    """The client got 502, "the upstream failed while sending"."""
    for _ in range(TIMES):
        with Wire(connect(lab.gateway.port, timeout=PATIENT)) as client:
            sender = upload(client, size)
            api = lab.accept()
            api.read_head(PATIENT)
            api.send(TOO_LARGE)
            api.close()  # with unread data: the system answers what comes with RST
            answer = parse_response(client.read_response(PATIENT))
            assert (answer.status, answer.body) == (413, b"large")
        sender.join(PATIENT)


def test_an_answer_arrives_though_a_reset_follows_it(lab: Lab) -> None:
    for _ in range(TIMES):
        with Wire(connect(lab.gateway.port, timeout=PATIENT)) as client:
            sender = upload(client, 1_000_000)
            api = lab.accept()
            api.read_until(bytes(200_000), PATIENT)
            api.send(TOO_LARGE)
            reset(api)
            answer = parse_response(client.read_response(PATIENT))
            assert (answer.status, answer.body) == (413, b"large")
        sender.join(PATIENT)
