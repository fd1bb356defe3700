"""A kept connection on which something came that is not for the lane: the lane serves what comes after it.

Only the lane takes an upstream connection that another client has left. So a test sees which of the two asks.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
import trustme

from support.alternating import KINDS, PAGE, TLS_TUNNEL, WAYS, Alternating, answer
from support.byhand import ByHand
from support.gateways import MakeGateway
from support.lanes import LaneLab, config
from support.leaks import FOREVER, LONG_AGO
from support.raw import parse_response
from support.serving import Serve
from support.websocket import HANDSHAKE, frame, switching

ONE_SLOT = "conn_150"


@pytest.fixture(scope="module", params=["mitmdump", "serve"])
def module_lab(
    request: pytest.FixtureRequest, module_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LaneLab]:
    hand = ByHand()
    settings = config(hand.url, cors={"origins": [PAGE]})
    settings["gateway"]["unsigned"] = "pass"
    settings["connections"][ONE_SLOT]["limits"] = [{"concurrency": 1}]
    try:
        if request.param == "serve":
            with Serve(tmp_path_factory.mktemp("serve"), settings, "--unsigned", "pass") as served:
                yield LaneLab(served, hand)
        else:
            yield LaneLab(module_gateway(settings), hand)
    finally:
        hand.stop()


def fits(kind: str, way: str) -> bool:
    """Whether a client on this way can send it: through TLS to the gateway itself nothing is passed."""
    return kind != "passed" or way in ("client", "tunnel")


CASES = [(kind, way) for kind in KINDS for way in WAYS if fits(kind, way)]


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_the_lane_serves_a_client_again_after(kind: str, way: str, count: int, lab: LaneLab) -> None:
    with Alternating.begin(lab, way) as talk:
        talk.ours("first")
        for number in range(count):
            talk.other(kind, f"other{number}")
        talk.ours("second")
        talk.ours("third")


@pytest.mark.parametrize("way", WAYS)
def test_a_client_may_alternate_two_hundred_times(way: str, lab: LaneLab) -> None:
    with Alternating.begin(lab, way) as talk:
        kinds = itertools.cycle([kind for kind in KINDS if fits(kind, way)])
        for number in range(200):
            talk.ours(f"ours{number}")
            talk.other(next(kinds), f"other{number}")
        talk.ours("last")


@pytest.fixture(scope="module")
def tls_lab(module_gateway: MakeGateway, ca: trustme.CA) -> Iterator[LaneLab]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    hand = ByHand(context)
    settings = config(hand.url, cors={"origins": [PAGE]})
    settings["gateway"]["unsigned"] = "pass"
    yield LaneLab(module_gateway(settings), hand)
    hand.stop()


def test_through_tls_to_an_upstream_a_client_may_alternate_too(tls_lab: LaneLab) -> None:
    with tls_lab.checked() as lab, Alternating.begin(lab, TLS_TUNNEL) as talk:
        for number in range(10):
            for kind in KINDS:
                talk.ours(f"ours{number}")
                talk.other(kind, f"other{number}")
        evil = talk.head("evil")
        talk.client.send(talk.foreign("outer", f"Content-Length: {len(evil)}", method="POST") + evil)
        talk.answered("passed", "outer", evil)
        talk.ours("last")


# -- what is sent ahead ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["client", "tunnel"])
def test_what_is_sent_at_once_is_answered_in_order_and_then_the_lane_goes_on(way: str, lab: LaneLab) -> None:
    """All that stands behind the first foreign head stays with mitmproxy: its parser has those bytes."""
    with Alternating.begin(lab, way) as talk:
        kinds = ["granted", "passed", "granted", "passed", "granted"]
        heads = [talk.head(f"n{n}") if k == "granted" else talk.foreign(f"n{n}") for n, k in enumerate(kinds)]
        talk.client.send(b"".join(heads))
        talk.served("n0")
        for number, kind in list(enumerate(kinds))[1:]:
            talk.answered(kind, f"n{number}")
        talk.ours("next")


@pytest.mark.parametrize("way", ["client", "tunnel"])
def test_a_request_before_the_answer_to_a_foreign_one_waits_for_it(way: str, lab: LaneLab) -> None:
    with Alternating.begin(lab, way) as talk:
        talk.client.send(talk.foreign("slow"))
        api = talk.upstream()
        api.read_head()
        talk.client.send(talk.head("ahead"))
        assert api.is_silent(0.05)
        assert talk.api.is_silent(0.05)
        api.send(answer("beside slow"))
        talk.gets("beside slow")
        talk.answered("granted", "ahead")
        talk.ours("next")


@pytest.mark.parametrize("way", ["client", "tunnel"])
def test_a_head_that_was_begun_before_the_answer_to_a_foreign_one_stays_with_mitmproxy(
    way: str, lab: LaneLab
) -> None:
    with Alternating.begin(lab, way) as talk:
        head = talk.head("ahead")
        talk.client.send(talk.foreign("slow") + head[:9])
        talk.answered("passed", "slow")
        talk.client.send(head[9:])
        talk.answered("granted", "ahead")
        talk.ours("next")


# -- where a request ends ----------------------------------------------------------------------------------

FRAMINGS = {
    "a length": (["Content-Length: %d"], b"%b"),
    "chunks": (["Transfer-Encoding: chunked"], b"%x\r\n%b\r\n0\r\n\r\n"),
    "chunks and a trailer": (["Transfer-Encoding: chunked"], b"%x\r\n%b\r\n0\r\nX: GET / HTTP/1.1\r\n\r\n"),
}


def framed(how: str, inner: bytes) -> tuple[list[str], bytes]:
    """The fields and the body of a request that holds another one."""
    fields, body = FRAMINGS[how]
    if how == "a length":
        return [field % len(inner) for field in fields], inner
    return fields, body % (len(inner), inner)


def whole(chunks: bytes) -> bytes:
    """A body that came in chunks."""
    return parse_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks).body


@pytest.mark.parametrize("pieces", ["whole", "head and body", "but for a byte", "byte by byte"])
@pytest.mark.parametrize("how", FRAMINGS)
@pytest.mark.parametrize("kind", ["passed", "granted with TE"])
def test_a_presigned_request_in_the_body_of_a_foreign_one_is_a_body(
    kind: str, how: str, pieces: str, lab: LaneLab
) -> None:
    with Alternating.begin(lab) as talk:
        evil = talk.head("evil")
        fields, body = framed(how, evil)
        make = talk.foreign if kind == "passed" else talk.head
        te = ["TE: trailers"] if kind == "granted with TE" else []
        head = make("outer", *te, *fields, method="POST")
        cuts = {"whole": [], "head and body": [len(head)], "but for a byte": [len(head) + len(body) - 1]}
        data = head + body
        cut = cuts.get(pieces, range(len(head) - 2, len(data), 7))
        for begin, end in itertools.pairwise([0, *cut, len(data)]):
            talk.client.send(data[begin:end])
            time.sleep(0.05 if len(cut) == 1 else 0.001)
        api = talk.upstream(kind)
        assert b"/outer " in api.read_head()
        if how == "a length":
            assert api.read_exactly(len(evil)) == evil
        else:
            assert whole(api.read_until(b"\r\n0\r\n\r\n")) == evil
        api.send(answer("beside outer"))
        talk.gets("beside outer")
        assert talk.api.is_silent(0.05)
        talk.ours("next")


UNCLEAR = {
    "a length and chunks": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "chunks and a length": ["Transfer-Encoding: chunked", "Content-Length: 4"],
    "two lengths": ["Content-Length: 0", "Content-Length: 4"],
    "a signed length": ["Content-Length: +4"],
    "another coding": ["Transfer-Encoding: xchunked"],
    "chunked twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "a blank before the colon": ["Content-Length : 4"],
    "a bare LF": ["X: y\nContent-Length: 4"],
    "a bare CR": ["X: y\rContent-Length: 4"],
}


@pytest.mark.parametrize("body", [b"", b"0\r\n\r\n", b"abcd"])
@pytest.mark.parametrize("how", UNCLEAR)
def test_behind_a_foreign_request_whose_end_is_unclear_nothing_is_served(
    how: str, body: bytes, lab: LaneLab
) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("refused", "before")
        talk.client.send(talk.foreign("outer", *UNCLEAR[how], method="POST") + body + talk.head("evil"))
        received = talk.client.read_to_end()
        assert received.count(b"HTTP/1.") <= 1
        assert b" 200 " not in received
        assert talk.api.is_silent(0.05)
        assert not lab.hand.waits(0.05)


CHUNKS = [
    b"0\n\n",
    b"4 \r\nabcd\r\n0\r\n\r\n",
    b"0x4\r\nabcd\r\n0\r\n\r\n",
    b"4\r\nabcdX0\r\n\r\n",
    b"0\r\n\n",
]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_behind_chunks_whose_end_is_unclear_nothing_is_served(chunks: bytes, lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("refused", "before")
        head = talk.foreign("outer", "Transfer-Encoding: chunked", method="POST")
        talk.client.send(head + chunks + talk.head("evil"))
        assert b" 200 " not in talk.client.read_to_end()
        assert talk.api.is_silent(0.05)


@pytest.mark.parametrize("kind", ["refused", "granted with TE"])
def test_the_rest_of_a_body_whose_answer_came_early_is_no_request(kind: str, lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        evil = talk.head("evil")
        fields = [f"Content-Length: {4 + len(evil)}", "TE: trailers"]
        expires = LONG_AGO if kind == "refused" else FOREVER
        talk.client.send(talk.head("outer", *fields, method="POST", expires=expires) + b"abcd")
        if kind == "refused":
            assert b" 403 " in talk.client.read_response()
        else:
            api = talk.upstream(kind)
            api.read_head()
            assert api.read_exactly(4) == b"abcd"
            api.send(answer("beside outer"))
            talk.gets("beside outer")
        assert talk.api.is_silent(0.1)
        with contextlib.suppress(OSError):
            talk.client.send(evil)
        assert talk.api.is_silent(0.1)
        if kind == "refused":
            assert talk.client.read_to_end() == b""
            return
        assert api.read_exactly(len(evil)) == evil
        talk.ours("next")


@pytest.mark.parametrize("lines", [1, 4])
def test_empty_lines_behind_a_body_are_passed_over(lines: int, lab: LaneLab) -> None:
    """Some clients send one behind each body. mitmproxy counts them."""
    with Alternating.begin(lab) as talk:
        for number in range(20):
            body = b"abcd" + b"\r\n" * lines
            talk.client.send(talk.foreign(f"n{number}", "Content-Length: 4", method="POST") + body)
            talk.answered("passed", f"n{number}", b"abcd")
        talk.client.send(talk.foreign("last"))
        talk.answered("passed", "last")
        talk.ours("next")


def test_too_many_empty_lines_are_refused(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("passed", "before")
        talk.client.send(b"\r\n" * 5 + talk.head("evil"))
        assert b" 200 " not in talk.client.read_to_end()
        assert talk.api.is_silent(0.05)


# -- where an answer ends ------------------------------------------------------------------------------------

ANSWERS = {
    "an interim answer first": ("GET", b"HTTP/1.1 100 Continue\r\n\r\n" + answer("text"), b"text"),
    "early hints first": ("GET", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + answer("text"), b"text"),
    "to HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", None),
    "to HEAD, in chunks": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    "204 with a length": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", None),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", None),
    "chunks and a trailer": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntext\r\n0\r\nX: y\r\n\r\n",
        b"text",
    ),
    "two answers": ("GET", answer("text") + answer("evil"), b"text"),
    "more than its length": ("GET", answer("text") + b"evil", b"text"),
    "a body after 204": ("GET", b"HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nevil", None),
    "a body after HEAD": ("HEAD", answer("evil"), None),
    "bytes after the last chunk": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntext\r\n0\r\n\r\n" + answer("evil"),
        b"text",
    ),
}


@pytest.mark.parametrize("kind", ["passed", "granted with TE"])
@pytest.mark.parametrize("how", ANSWERS)
def test_behind_a_foreign_answer_comes_the_lanes_own(how: str, kind: str, lab: LaneLab) -> None:
    method, said, text = ANSWERS[how]
    with Alternating.begin(lab) as talk:
        head = talk.foreign("outer", method=method)
        if kind != "passed":
            head = talk.head("outer", "TE: trailers", method=method)
        talk.client.send(head)
        api = talk.upstream(kind)
        api.read_head()
        api.send(said)
        received = talk.client.read_head() if text is None else talk.client.read_response()
        assert received.startswith(said[:12] if said[9:10] != b"1" else b"HTTP/1.1 200")
        assert text is None or text in received
        assert b"evil" not in received
        talk.ours("next")
        talk.ours("last")


ENDING = {
    "without a length": b"HTTP/1.1 200 OK\r\n\r\ntext",
    "with its connection": answer("text", "Connection: close"),
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntext",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntextX\r\n",
}


@pytest.mark.parametrize("how", ENDING)
def test_behind_a_foreign_answer_that_ends_the_connection_nothing_is_served(how: str, lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer"))
        api = talk.upstream()
        api.read_head()
        api.send(ENDING[how])
        api.close()
        talk.client.read_head()
        with contextlib.suppress(OSError):
            talk.client.send(talk.head("evil"))
        assert b"HTTP/1.1 200 " not in talk.client.read_to_end()
        assert talk.api.is_silent(0.05)


def test_behind_a_foreign_request_that_is_the_last_one_nothing_is_served(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer", "Connection: close") + talk.head("evil"))
        talk.answered("passed", "outer")
        assert talk.client.read_to_end() == b""
        assert talk.api.is_silent(0.05)


# -- what stays with mitmproxy -----------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["websocket", "h2c"])
def test_a_client_that_wanted_another_protocol_stays_with_mitmproxy(field: str, lab: LaneLab) -> None:
    """What it sends may be meant in that protocol."""
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer", f"Upgrade: {field}", "Connection: Upgrade"))
        talk.answered("passed", "outer")
        talk.client.send(talk.head("next"))
        talk.answered("granted", "next")
        assert talk.api.is_silent(0.05)


@pytest.mark.parametrize("fields", [[], ["Upgrade: x", "Connection: Upgrade"]])
def test_an_upstream_that_switches_unasked_gets_no_request_that_comes_behind(
    fields: list[str], lab: LaneLab
) -> None:
    """It would be sent every request that comes then as it came, with its signature, whoever it is for."""
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer"))
        api = talk.upstream()
        api.read_head()
        api.send("\r\n".join(["HTTP/1.1 101 Switching", *fields, "", ""]).encode())
        assert parse_response(talk.client.read_response()).status == 502
        talk.beside.clear()
        assert api.read_to_end() == b""
        talk.ours("next")
        talk.other("passed", "again")
        talk.ours("last")


@pytest.mark.parametrize("asked", [["Upgrade: x"], ["Upgrade:", "Connection: Upgrade"]])
def test_a_client_asks_for_another_protocol_only_if_it_names_one_and_says_so_in_connection(
    asked: list[str], lab: LaneLab
) -> None:
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer", *asked))
        api = talk.upstream()
        api.read_head()
        api.send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
        assert parse_response(talk.client.read_response()).status == 502
        assert api.read_to_end() == b""
        talk.client.send(talk.head("next"))
        talk.answered("granted", "next")


def test_frames_behind_a_foreign_handshake_are_no_requests(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer", *HANDSHAKE))
        api = talk.upstream()
        api.read_head()
        api.send(switching())
        assert talk.client.read_head().startswith(b"HTTP/1.1 101 ")
        talk.client.send(frame(b"hello", masked=True))
        assert api.read_exactly(2)[:1] == frame(b"hello")[:1]
        talk.client.send(talk.head("evil"))
        assert talk.api.is_silent(0.1)


def test_what_stands_in_a_tunnel_is_not_read_as_if_it_stood_outside(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.ours("before")
        talk.client.send(f"CONNECT 127.0.0.1:{lab.hand.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert talk.client.read_head().startswith(b"HTTP/1.1 200 ")
        talk.client.send(talk.head("evil"))
        assert b" 200 " not in talk.client.read_response()
        assert talk.api.is_silent(0.05)


def test_a_client_of_http_1_0_stays_with_mitmproxy(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer", "Connection: keep-alive", version="HTTP/1.0"))
        api = talk.upstream()
        api.read_head()
        api.send(answer("text", "Connection: keep-alive"))
        talk.gets("text")
        talk.client.send(talk.head("next"))
        talk.answered("granted", "next")


# -- ends --------------------------------------------------------------------------------------------------


def test_a_client_that_says_no_more_behind_a_foreign_request_is_answered_and_let_go(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.client.send(talk.foreign("outer"))
        talk.client.sock.shutdown(socket.SHUT_WR)
        api = talk.upstream()
        api.read_head()
        api.send(answer("text"))
        assert talk.client.read_to_end().endswith(b"\r\n\r\ntext")


def test_a_client_that_says_no_more_behind_a_foreign_answer_is_answered_by_the_lane(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("passed", "outer")
        talk.client.send(talk.head("last"))
        talk.client.sock.shutdown(socket.SHUT_WR)
        assert b"/last " in talk.api.read_head()
        talk.api.send(answer("text"))
        assert talk.client.read_to_end().endswith(b"\r\n\r\ntext")


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_the_lane_ends_what_mitmproxy_has_opened_for_it(how: str, lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("passed", "outer")
        talk.ours("ours")
        if how == "resets":
            talk.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert talk.upstream().read_to_end() == b""


def test_an_upstream_that_closes_what_mitmproxy_keeps_does_not_disturb_the_lane(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("passed", "outer")
        talk.client.send(talk.head("ours"))
        assert b"/ours " in talk.api.read_head()
        talk.beside.pop("passed").close()
        time.sleep(0.1)
        talk.api.send(answer("lane ours"))
        talk.gets("lane ours")
        talk.other("passed", "again")
        talk.ours("last")


def test_what_an_upstream_says_to_mitmproxy_unasked_is_no_answer_of_the_lanes(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("passed", "outer")
        talk.client.send(talk.head("ours"))
        assert b"/ours " in talk.api.read_head()
        beside = talk.beside.pop("passed")
        beside.send(answer("evil"))
        assert beside.read_to_end() == b""
        assert talk.client.is_silent(0.05)
        talk.api.send(answer("lane ours"))
        talk.gets("lane ours")
        talk.other("passed", "again")


@pytest.mark.slow
def test_a_head_behind_a_foreign_answer_has_to_come_in_time(lab: LaneLab) -> None:
    with Alternating.begin(lab) as talk:
        talk.other("refused", "outer")
        talk.client.send(talk.head("never")[:20])
        began = time.monotonic()
        assert talk.client.read_to_end(15) == b""
        assert time.monotonic() - began > 5


def test_a_slot_is_free_again_whoever_has_served(lab: LaneLab) -> None:
    lab.cid = ONE_SLOT
    with Alternating.begin(lab) as talk:
        for number in range(20):
            talk.ours(f"ours{number}")
            talk.other("granted with TE", f"other{number}")
