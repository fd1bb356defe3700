"""Bodies in chunks of one byte, six bytes on the wire each: as dear as chunks of 64 KiB, once."""

import socket
from collections.abc import Iterator

import h11
import pytest
from h11._receivebuffer import ReceiveBuffer

from presign_proxy.mitm.chunked import MAX_JOINED, JoinedChunks, StrictChunks
from presign_proxy.mitm.lane.request_body import Chunked, UploadError
from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import connect

CID = "conn_tiny"
BODY = bytes(range(32, 127)) * 60
TINY = b"".join(b"1\r\n%c\r\n" % octet for octet in BODY)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ELSEWHERE = {"TE": "trailers"}
"""With it a request goes the way of flows."""


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, hand: ByHand) -> Mitm:
    return module_gateway({"connections": {CID: bearer_connection(hand.url, SECRET)}})


@pytest.fixture
def client(gateway: Mitm, hand: ByHand) -> Iterator[Wire]:
    with Wire(connect(gateway.port)) as found:
        yield found
    hand.hang_up()


def read_chunks(end: Wire) -> list[bytes]:
    """The chunks of one body, as they came."""
    found = []
    while size := int(end.read_until(b"\r\n"), 16):
        found.append(end.read_exactly(size))
        assert end.read_exactly(2) == b"\r\n"
    assert end.read_exactly(2) == b"\r\n"
    return found


@pytest.mark.parametrize("fields", [{}, ELSEWHERE], ids=["lane", "flows"])
def test_an_answer_in_single_bytes_is_passed_on_in_few_pieces(
    fields: dict[str, str], client: Wire, hand: ByHand
) -> None:
    """Three megabytes of it kept everybody else waiting for ten seconds."""
    client.send(wire(Grant(CID).target("x"), fields))
    api = hand.accept()
    api.read_head()
    api.send(CHUNKED + TINY + b"0\r\n\r\n")
    client.read_head()
    found = read_chunks(client)
    assert b"".join(found) == BODY
    assert len(found) < len(BODY) / 10


@pytest.mark.parametrize("fields", [{}, ELSEWHERE], ids=["lane", "flows"])
def test_an_upload_in_single_bytes_is_passed_on_in_few_pieces(
    fields: dict[str, str], client: Wire, hand: ByHand
) -> None:
    """One holder of a URL kept a worker from everybody else for eighteen seconds."""
    head = wire(Grant(CID).target("x"), {"Transfer-Encoding": "chunked"} | fields, "POST")
    client.send(head)
    api = hand.accept()
    api.read_head()
    client.send(TINY + b"0\r\n\r\n")
    found = read_chunks(api)
    assert b"".join(found) == BODY
    assert len(found) < len(BODY) / 10


@pytest.mark.parametrize("half", [False, True], ids=["stays", "says no more"])
def test_what_comes_behind_an_upload_in_single_bytes_is_the_next_request(
    half: bool, client: Wire, hand: ByHand
) -> None:
    """The body takes several turns; in none of them is a part of it taken for a request."""
    client.send(wire(Grant(CID).target("x")))
    api = hand.accept()
    api.read_head()
    api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.read_response()
    upload = wire(Grant(CID).target("x"), {"Transfer-Encoding": "chunked"}, "POST") + TINY + b"0\r\n\r\n"
    client.send(upload + wire(Grant(CID).target("behind")))
    if half:
        client.sock.shutdown(socket.SHUT_WR)
    api.read_head()
    assert b"".join(read_chunks(api)) == BODY
    api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
    client.read_until(b"first")
    assert b"GET /behind " in api.read_head()
    api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
    client.read_until(b"second")


def test_what_was_good_in_front_of_a_broken_chunk_is_told_first() -> None:
    buffer, reader = ReceiveBuffer(), JoinedChunks(StrictChunks())
    buffer += b"1\r\na\r\n1\r\nb\r\nnothing\r\n"
    assert reader(buffer).data == b"ab"
    assert not reader.failed
    with pytest.raises(h11.ProtocolError):
        reader(buffer)
    assert reader.failed


def test_a_body_in_small_chunks_is_read_so_many_at_a_time() -> None:
    body = Chunked()
    sent, rest = body.feed(b"1\r\nx\r\n" * (2 * MAX_JOINED) + b"0\r\n\r\nGET ")
    assert (body.size, body.done) == (MAX_JOINED, False)
    assert rest.endswith(b"1\r\nx\r\n" * MAX_JOINED + b"0\r\n\r\nGET ")
    sent, rest = body.feed(rest)
    assert (body.size, body.done) == (2 * MAX_JOINED, False)
    sent, rest = body.feed(rest)
    assert (sent, rest, body.done) == (b"0\r\n\r\n", b"GET ", True)


def test_a_broken_chunk_behind_many_good_ones_is_refused_in_its_turn() -> None:
    body = Chunked()
    _, rest = body.feed(b"1\r\nx\r\n" * MAX_JOINED + b"nothing\r\n")
    with pytest.raises(UploadError):
        body.feed(rest)
