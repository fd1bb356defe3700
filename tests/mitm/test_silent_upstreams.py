"""An upstream that is silent for longer than mitmproxy lets a client be idle."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.h2streams import Streams
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import Mitm
from support.raw import connect, parse_response

GATEWAY = "presign.local"
CONN = "conn_slow"
IDLE = 2
"""Seconds after which mitmproxy takes a client for idle; ten minutes, unless told otherwise."""
PATIENT = 15.0
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand

    def request(self) -> bytes:
        return wire(Grant(CONN).target("v1/models"), host=GATEWAY)


@pytest.fixture(params=["lane", "flows"])
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway) -> Iterator[Lab]:
    hand = ByHand()
    lane = "on" if request.param == "lane" else "off"
    connection = bearer_connection(hand.url, SECRET, timeouts={"response": "5s"})
    config = {"gateway": {"hosts": [GATEWAY]}, "connections": {CONN: connection}}
    gateway = module_gateway(config, "--set", f"presign_lane={lane}", "--set", f"tcp_timeout={IDLE}")
    yield Lab(gateway, hand)
    hand.stop()


@pytest.mark.slow
def test_a_response_may_take_as_long_as_its_timeout_says(lab: Lab) -> None:
    """The client got an empty reply after ten minutes, and the audit log said that it had gone away."""
    with Wire(connect(lab.gateway.port)) as client:
        client.send(lab.request())
        lab.hand.accept(PATIENT).read_head(PATIENT)
        began = time.monotonic()
        assert parse_response(client.read_response(PATIENT)).status == 504
        assert time.monotonic() - began > IDLE + 1


@pytest.mark.slow
def test_an_event_stream_may_be_silent_as_long_as_both_sides_stay(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        client.send(lab.request())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(STREAM + EVENT)
            client.read_until(EVENT, PATIENT)
            assert client.is_silent(3 * IDLE)
            api.send(EVENT + b"0\r\n\r\n")
            client.read_until(b"0\r\n\r\n", PATIENT)


def test_the_last_letter_of_a_word_does_not_wait_for_the_next_word(lab: Lab) -> None:
    """It could be the first one of the credential, whose rest is masked if it comes."""
    rest = REAL_SECRET[1:].encode()
    with Wire(connect(lab.gateway.port)) as client:
        client.send(lab.request())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            first = b"text " + REAL_SECRET[:1].encode()
            api.send(STREAM + b"%x\r\n%b\r\n" % (len(first), first))
            client.read_head(PATIENT)
            client.read_until(REAL_SECRET[:1].encode() + b"\r\n", PATIENT)  # nothing else is sent meanwhile
            api.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
            assert b"*" * len(rest) in client.read_until(b"0\r\n\r\n", PATIENT)


@pytest.mark.slow
def test_an_event_stream_over_http2_may_be_silent_too(lab: Lab) -> None:
    pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY)]
    with Streams.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client:
        stream = client.begin([*pseudo, (":path", Grant(CONN).target("v1/models"))])
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(STREAM + EVENT)
            time.sleep(3 * IDLE)
            api.send(EVENT + b"0\r\n\r\n")
            (reply,) = client.wait([stream], PATIENT)
            assert (reply.status, reply.body) == (200, b"data: 1\n\n" * 2)


@pytest.mark.slow
def test_a_client_that_does_not_take_its_answer_is_idle_all_the_same(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        client.send(lab.request())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            api.sock.settimeout(PATIENT)
            with pytest.raises((ConnectionError, BrokenPipeError)):
                while True:
                    api.sock.sendall(bytes(65536))


@pytest.mark.slow
def test_the_system_watches_for_peers_that_vanish(lab: Lab) -> None:
    """A machine that loses its power says nothing: its event streams would stay for ever."""
    with Wire(connect(lab.gateway.port)) as client:
        client.send(lab.request())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            assert is_watched(lab.gateway.port, client.sock.getsockname()[1])
            assert is_watched(api.sock.getpeername()[1], lab.hand.port)
            api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            client.read_response(PATIENT)


def is_watched(local: int, remote: int) -> bool:
    """Whether one end of a connection over TCP has a keep-alive timer (proc_net_tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, mine, other, _, _, timer, *_ = line.split()
        if (int(mine.rpartition(":")[2], 16), int(other.rpartition(":")[2], 16)) == (local, remote):
            return timer.startswith("02:")
    raise LookupError(f"no connection from {local} to {remote}")
