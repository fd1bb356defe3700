"""How an upstream frames its answer: one reading, the same on every path, or none.

`READ` has one reading, `CUT` goes wrong behind its head, `REFUSED` never gets that far. `KEPT` says that the
upstream's connection may be used again; after everything else it is closed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

import pytest

from presign_proxy.http.response_head import MAX_RESPONSE_HEAD, HeadSearch, UnreadableHead
from presign_proxy.mitm.lane.response_reader import TURN_HEADS, Incoming
from presign_proxy.mitm.response_chunks import MAX_LINE, TURN_CHUNKS, ResponseChunks
from support.byhand import ByHand
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lanes import GATEWAY, WAYS, LaneLab, config, is_closed
from support.leaks import FOREVER
from support.raw import exchange, is_complete, parse_response
from support.serving import Serve

PATIENT: Final = 20.0
OK: Final = b"HTTP/1.1 200 OK\r\n"
SIZED: Final = b"Content-Length: 2\r\n\r\nok"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS: Final = b"2\r\nok\r\n0\r\n\r\n"

FRAMING: Final = ("content-length", "transfer-encoding")
NO_LINE: Final = "the upstream's answer has no status line of HTTP/1.0 or HTTP/1.1"
NO_HEAD: Final = "the head of the upstream's answer is not as HTTP/1.1 has it"
NO_CODING: Final = "the upstream uses a transfer coding that was not asked for"
NO_LENGTH: Final = "the upstream's answer has a Content-Length that is no one number"
TWICE: Final = "the upstream's answer has a Content-Length and a Transfer-Encoding"
NO_BODY: Final = "the body of the upstream's answer is not framed as HTTP/1.1 has it"
TOO_MANY: Final = "the head of the upstream's answer has too many fields"
SWITCHES: Final = "the upstream switches protocols, or sends an interim response as final"

KEPT: Final = {
    "a length": OK + SIZED,
    "blanks around a length": OK + b"Content-Length: \t 2 \t\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\n" + SIZED,
    "chunks": CHUNKED + CHUNKS,
    "chunked in capitals": OK + b"TRANSFER-ENCODING: Chunked\r\n\r\n" + CHUNKS,
    "zeros before a size": CHUNKED + b"0002\r\nok\r\n000\r\n\r\n",
    "an extension": CHUNKED + b"2;a=b\r\nok\r\n0;c\r\n\r\n",
    "an extension that is none": CHUNKED + b'2;;=;" \t\r\nok\r\n0\r\n\r\n',
    "a trailer": CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n\r\n",
    "interim heads": b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" * 3 + OK + SIZED,
    "HTTP/1.0 that goes on": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + SIZED,
}
READ: Final = {
    "chunked in two lines": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + CHUNKS,
    "chunked in a list": OK + b"Transfer-Encoding: chunked , Chunked\r\n\r\n" + CHUNKS,
    "a blank behind a size": CHUNKED + b"2 \r\nok\r\n0 \t\r\n\r\n",
    "a blank before an extension": CHUNKED + b"2 ; a=b\r\nok\r\n0\r\n\r\n",
    "LF in all of the head": OK.replace(b"\r", b"") + b"Content-Length: 2\n\nok",
    "LF in one line": OK + b"X: y\n" + SIZED,
    "LF as the empty line": OK + b"Content-Length: 2\r\n\nok",
    "LF in a chunked answer": (CHUNKED + CHUNKS).replace(b"\r", b""),
    "LF behind a size": CHUNKED + b"2\nok\r\n0\r\n\r\n",
    "LF behind a chunk": CHUNKED + b"2\r\nok\n0\r\n\r\n",
    "LF behind the last size": CHUNKED + b"2\r\nok\r\n0\n\r\n",
    "LF behind a trailer": CHUNKED + b"2\r\nok\r\n0\r\nX: y\n\r\n",
    "LF behind the trailers": CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n\n",
    "LF in an interim head": b"HTTP/1.1 102 Processing\n\n" + CHUNKED.replace(b"\r", b"") + CHUNKS,
    "more than its length": OK + SIZED + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "more than its chunks": CHUNKED + CHUNKS + OK + SIZED,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + SIZED,
    "the last one": OK + b"Connection: Close\r\n" + SIZED,
}
REFUSED: Final = {
    "another coding": (OK + b"Transfer-Encoding: identity\r\n" + SIZED, NO_CODING),
    "a coding before chunked": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS, NO_CODING),
    "a coding behind chunked": (OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS, NO_CODING),
    "no coding": (OK + b"Transfer-Encoding:\r\n\r\n" + CHUNKS, NO_CODING),
    "a coding with a vertical tab": (OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS, NO_HEAD),
    "chunked in HTTP/1.0": (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, NO_CODING),
    "a length and chunks": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, TWICE),
    "chunks and a length": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n" + CHUNKS, TWICE),
    "two lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", NO_LENGTH),
    "the same length twice": (OK + b"Content-Length: 2\r\n" + SIZED, NO_LENGTH),
    "a list of lengths": (OK + b"Content-Length: 2,2\r\n\r\nok", NO_LENGTH),
    "a length with a sign": (OK + b"Content-Length: +2\r\n\r\nok", NO_LENGTH),
    "a length with a zero before": (OK + b"Content-Length: 02\r\n\r\nok", NO_LENGTH),
    "a length in hexadecimal": (OK + b"Content-Length: 0x2\r\n\r\nok", NO_LENGTH),
    "no length": (OK + b"Content-Length:\r\n\r\nok", NO_LENGTH),
    "a length over 63 bits": (OK + b"Content-Length: 18446744073709551618\r\n\r\nok", NO_LENGTH),
    "HTTP/1.2": (b"HTTP/1.2 200 OK\r\n" + SIZED, NO_LINE),
    "HTTP/2": (b"HTTP/2 200 OK\r\n" + SIZED, NO_LINE),
    "HTTP/2.0": (b"HTTP/2.0 200 OK\r\n" + SIZED, NO_LINE),
    "HTTP/0.9": (b"HTTP/0.9 200 OK\r\n" + SIZED, NO_LINE),
    "http in small letters": (b"http/1.1 200 OK\r\n" + SIZED, NO_LINE),
    "a status of four digits": (b"HTTP/1.1 1000 OK\r\n" + SIZED, NO_LINE),
    "status 099": (b"HTTP/1.1 099 OK\r\n" + SIZED, NO_LINE),
    "a status with a letter": (b"HTTP/1.1 2x0 OK\r\n" + SIZED, NO_LINE),
    "two blanks before the status": (b"HTTP/1.1  200 OK\r\n" + SIZED, NO_LINE),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", NO_LINE),
    "an empty line before": (b"\r\n" + OK + SIZED, NO_LINE),
    "a reason with a NUL": (b"HTTP/1.1 200 O\0K\r\n" + SIZED, NO_LINE),
    "a folded line": (OK + b"X: a\r\n b\r\n" + SIZED, NO_HEAD),
    "a folded length": (OK + b"Content-Length:\r\n 2\r\n\r\nok", NO_HEAD),
    "a NUL in a value": (OK + b"X: a\0b\r\n" + SIZED, NO_HEAD),
    "a CR in a value": (OK + b"X: a\rb\r\n" + SIZED, NO_HEAD),
    "two CRs before an LF": (OK + b"X: a\r\r\n" + SIZED, NO_HEAD),
    "a blank before a colon": (OK + b"X : a\r\n" + SIZED, NO_HEAD),
    "a blank behind Content-Length": (OK + b"Content-Length : 2\r\n\r\nok", NO_HEAD),
    "a line without a colon": (OK + b"nonsense\r\n" + SIZED, NO_HEAD),
    "a line without a name": (OK + b": x\r\n" + SIZED, NO_HEAD),
    "a body behind an interim head": (b"HTTP/1.1 102 P\r\n" + SIZED + OK + SIZED, NO_LINE),
    "more fields than curl takes": (OK + b"a:\r\n" * 5001 + SIZED, TOO_MANY),
    "more fields, behind LF alone": (OK + b"a:\n" * 5001 + SIZED, TOO_MANY),
    "101 that nobody asked for": (
        b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nok",
        SWITCHES,
    ),
    "101 with a length": (b"HTTP/1.1 101 S\r\n" + SIZED, SWITCHES),
}  # fmt: skip
CUT: Final = {
    "a size with a prefix": b"0x2\r\nok\r\n0\r\n\r\n",
    "a size with a sign": b"+2\r\nok\r\n0\r\n\r\n",
    "a blank before a size": b" 2\r\nok\r\n0\r\n\r\n",
    "a word behind a size": b"2 a\r\nok\r\n0\r\n\r\n",
    "a size over 64 bits": b"10000000000000002\r\nok\r\n0\r\n\r\n",
    "no size": b"\r\nok\r\n0\r\n\r\n",
    "a size that never becomes one": b"2z",
    "a CR in an extension": b"2;a\rb\r\nok\r\n0\r\n\r\n",
    "no line end behind a chunk": b"2\r\nok0\r\n\r\n",
    "more in a chunk than its size": b"2\r\noks\r\n0\r\n\r\n",
    "a chunk that never ends": b"2\r\nokX",
    "a NUL in a trailer": b"2\r\nok\r\n0\r\nX: \0\r\n\r\n",
    "an extension without end": b"2;" + b"x" * MAX_LINE,
}
BODILESS: Final = {
    "204 with a length and a body": b"HTTP/1.1 204 No Content\r\n" + SIZED,
    "204 with chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "304 with a length and a body": b"HTTP/1.1 304 Not Modified\r\n" + SIZED,
    "304 with chunks": b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "HEAD with a length and a body": OK + SIZED,
    "HEAD with chunks": CHUNKED + CHUNKS,
    "HEAD with neither": OK + b"\r\nok",
}


class Got(NamedTuple):
    """What a client has. `whole` says that it can tell so, `fields` are those that frame the body."""

    status: int
    fields: list[str]
    body: bytes
    whole: bool


@dataclass
class Lab(LaneLab):
    over_h2: bool = False

    def ask(self, answer: bytes, method: str = "GET", *, kept: bool = False) -> Got:
        """What comes of an answer.

        Its connection is `kept` by the gateway, or is closed before the client's.
        """
        self.fresh()
        with ThreadPoolExecutor() as beside:
            served = beside.submit(lambda: self.serve(answer)[0])
            with self._over_h2(method) if self.over_h2 else self._over_h1(method) as got:
                api = served.result()
                # Over HTTP/2 mitmproxy asks each request over a connection of its own.
                assert is_closed(api) if not kept else self.over_h2 or api.is_silent(0.02)
                return got

    @contextlib.contextmanager
    def _over_h1(self, method: str) -> Iterator[Got]:
        with self.client() as client:
            received = exchange(client.sock, self.head(method=method), PATIENT)
            response = parse_response(received, method == "HEAD")
            fields = [name.lower() for name, _ in response.headers if name.lower() in FRAMING]
            yield Got(response.status, fields, response.body, is_complete(received, method == "HEAD"))

    @contextlib.contextmanager
    def _over_h2(self, method: str) -> Iterator[Got]:
        target = self.issuer.url(self.cid, "x", expires=FOREVER)
        head = [(":method", method), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]
        with H2Client.direct(self.gateway.port, GATEWAY, self.gateway.ca) as client:
            reply = client.request(head, timeout=PATIENT)
            assert reply.status is not None, reply
            fields = [name for name, _ in reply.headers if name in FRAMING]
            yield Got(reply.status, fields, reply.body, reply.ended and not reply.detail)


@pytest.fixture(scope="module", params=[*WAYS, "flows as served over HTTP/2", "serve", "serve over HTTP/2"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    way, _, over_h2 = request.param.partition(" over ")
    settings = config(hand.url, timeouts={"connect": "10s", "response": "20s"})
    if way == "serve":
        with Serve(tmp_path_factory.mktemp("serve"), settings) as served:
            yield Lab(served, hand, over_h2=bool(over_h2))
    else:
        yield Lab(module_gateway(settings, *WAYS[way]), hand, over_h2=bool(over_h2))


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    with module_lab.checked() as lab:
        assert isinstance(lab, Lab)
        yield lab


@pytest.mark.parametrize("how", [*KEPT, *READ])
def test_an_answer_with_one_reading_is_framed_anew(how: str, lab: Lab) -> None:
    got = lab.ask((KEPT | READ)[how], kept=how in KEPT)
    assert (got.status, got.body, got.whole) == (200, b"ok", True)
    assert len(got.fields) == 1 or (lab.over_h2 and not got.fields)
    (line,) = lab.audited()
    assert (line["status"], line["upstream_status"], line["code"]) == (200, 200, None)


@pytest.mark.parametrize("how", REFUSED)
def test_an_answer_that_has_two_readings_is_refused(how: str, lab: Lab) -> None:
    answer, why = REFUSED[how]
    got = lab.ask(answer)
    assert (got.status, got.whole) == (502, True)
    assert b'"upstream"' in got.body
    (line,) = lab.audited()
    assert (line["status"], line["code"], line["detail"]) == (502, "upstream", why)


@pytest.mark.parametrize("how", CUT)
def test_a_body_that_has_two_readings_is_cut_off(how: str, lab: Lab) -> None:
    got = lab.ask(CHUNKED + CUT[how])
    assert got.status in (200, 502)
    assert got.whole == (got.status == 502)
    (line,) = lab.audited()
    assert line["detail"] == NO_BODY


@pytest.mark.parametrize("how", BODILESS)
def test_a_body_where_there_is_none_is_nobodys_answer(how: str, lab: Lab) -> None:
    """Kept, the connection would answer the next request with it."""
    got = lab.ask(BODILESS[how], "HEAD" if how.startswith("HEAD") else "GET")
    assert got.status == int(BODILESS[how].split()[1])
    assert (got.body, got.whole) == (b"", True)
    assert got.status != 204 or not got.fields
    (line,) = lab.audited()
    assert (line["status"], line["code"]) == (got.status, None)


def test_a_body_of_head_that_comes_later_is_nobodys_answer(lab: Lab) -> None:
    """Whoever writes it would write the answer to the next request of somebody else."""
    got = lab.ask(OK + b"Content-Length: 40\r\n\r\n", "HEAD")
    assert (got.status, got.body) == (200, b"")


def test_a_head_over_its_size_is_refused(lab: Lab) -> None:
    got = lab.ask(OK + b"X: " + b"x" * MAX_RESPONSE_HEAD + b"\r\n" + SIZED)
    assert got.status == 502
    lab.audited()


def test_a_head_just_under_its_size_is_read(lab: Lab) -> None:
    """The two paths had limits of their own."""
    size = MAX_RESPONSE_HEAD - 100 if not lab.over_h2 else 40_000
    got = lab.ask(OK + b"X: " + b"x" * size + b"\r\n" + SIZED, kept=True)
    assert (got.status, got.body) == (200, b"ok")


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 \r\nX: y\r\n\r\n"])
def test_interim_heads_without_end_are_refused(piece: bytes, lab: Lab) -> None:
    got = lab.ask(piece * (MAX_RESPONSE_HEAD // len(piece) + 1))
    assert (got.status, got.whole) == (502, True)
    (line,) = lab.audited()
    assert line["detail"] == "the head of the upstream's answer is too large"


# -- byte by byte -----------------------------------------------------------------------------------------


def read(answer: bytes, size: int) -> bytes | None:
    """The body of an answer that comes in pieces of `size` bytes; None where it is refused."""
    incoming, found = Incoming(), b""
    try:
        for at in range(0, len(answer), size):
            found += incoming.feed(answer[at : at + size], lambda head: head.status != 204)
            while incoming.lags:
                found += incoming.feed(b"", lambda head: head.status != 204)
            if incoming.done:
                return found
    except UnreadableHead:
        return None
    return found


@pytest.mark.parametrize("how", [*KEPT, *READ, *REFUSED])
def test_an_answer_is_read_alike_in_pieces_of_any_size(how: str) -> None:
    answer = (KEPT | READ)[how] if how not in REFUSED else REFUSED[how][0]
    whole = read(answer, len(answer))
    assert [read(answer, size) for size in (1, 2, 3, 7)] == [whole] * 4


@pytest.mark.parametrize("how", CUT)
def test_a_body_is_refused_in_pieces_of_any_size(how: str) -> None:
    for size in (1, 2, 3, len(CUT[how])):
        assert read(CHUNKED + CUT[how], size) is None


@pytest.mark.parametrize("how", [*KEPT, *READ])
def test_what_is_written_anew_is_regular_and_says_the_same(how: str) -> None:
    answer = (KEPT | READ)[how]
    found = HeadSearch().find(answer)
    assert found is not None
    again = HeadSearch().find(found[0].written())
    assert again is not None
    assert again[0] == found[0]._replace(regular=True, keeps=again[0].keeps)


def test_a_head_has_as_many_fields_as_curl_takes() -> None:
    found = HeadSearch().find(OK + b"a:\r\n" * 4999 + SIZED)
    assert found is not None
    assert len(found[0].fields) == 5000


def test_a_long_first_line_is_looked_at_once_however_its_head_comes() -> None:
    """Each further byte of a head had its first line read again, of 256 KiB: half a millisecond a byte."""
    looked = 0

    def count(_frame: object, event: str, called: object) -> None:
        nonlocal looked
        looked += event == "c_call" and getattr(called, "__name__", "") == "match"

    head, heads = b"HTTP/1.1 200 " + b"a" * 1000 + b"\r\nX: ", HeadSearch()
    sys.setprofile(count)
    try:
        for size in range(len(head)):
            heads.find(head[: size + 1])
        for size in range(500):
            heads.find(head + b"b" * size)
    finally:
        sys.setprofile(None)
    assert looked == 1


@pytest.mark.parametrize("unit", [b"1\r\nx\r\n", b"1\nx\n", b"1;\r\nx\r\n"], ids=["plain", "LF", "extended"])
def test_so_many_chunks_are_read_before_others_have_their_turn(unit: bytes) -> None:
    """Counted for the smallest chunks there are: a quarter of a mebibyte of them kept everybody waiting."""
    chunks, sizes = ResponseChunks(), []
    body, size = unit * (5 * TURN_CHUNKS) + b"0\r\n\r\nrest", 5 * TURN_CHUNKS
    while not chunks.done:
        sizes.append(len(chunks.feed(body)))
        body = b""
    assert (sum(sizes), chunks.rest, chunks.lags) == (size, b"rest", False)
    assert max(sizes) <= TURN_CHUNKS


def test_trailers_are_read_by_turns_as_well() -> None:
    chunks, turns = ResponseChunks(), 1
    chunks.feed(b"0\r\n" + b"x\n" * (4 * TURN_CHUNKS) + b"\r\n")
    while chunks.lags:
        turns += 1
        chunks.feed(b"")
    assert chunks.done
    assert turns > 4


def test_interim_heads_are_read_by_turns() -> None:
    incoming, heard = Incoming(), []
    incoming.feed(b"HTTP/1.1 100\r\n\r\n" * (3 * TURN_HEADS) + OK + SIZED, lambda _: not heard.append(1))
    turns = 1
    while incoming.lags:
        turns += 1
        incoming.feed(b"", lambda _: not heard.append(1))
    assert (turns, len(heard), incoming.done, incoming.keeps) == (4, 1, True, True)


def test_what_comes_while_chunks_wait_for_their_turn_stays_behind_them() -> None:
    chunks = ResponseChunks()
    found = chunks.feed(b"1\r\na\r\n" * (2 * TURN_CHUNKS))
    assert chunks.waiting == 6 * TURN_CHUNKS
    found += chunks.feed(b"1\r\nb\r\n0\r\n\r\n")
    while chunks.lags:
        found += chunks.feed(b"")
    assert found == b"a" * (2 * TURN_CHUNKS) + b"b"
    assert chunks.done


def test_what_was_good_in_front_of_a_broken_chunk_is_told_in_the_turn_before() -> None:
    chunks = ResponseChunks()
    assert chunks.feed(b"1\r\na\r\nnothing\r\n") == b"a"
    assert chunks.lags
    with pytest.raises(UnreadableHead):
        chunks.feed(b"")
    assert not chunks.lags
