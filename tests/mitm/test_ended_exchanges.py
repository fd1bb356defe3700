"""An exchange ends with its client: its upstream, its slot, its descriptors, on whatever way it ends."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.descriptors import links_of
from support.gateways import MakeGateway
from support.h2streams import Streams, abort
from support.holding import DROPS, LARGE, Holding
from support.lab import bearer_connection
from support.proxy import PROMPTLY
from support.puppet import eventually
from support.raw import Tls, connect, parse_response
from support.serving import Serve

GATEWAY = "presign.local"
MOST = 60
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""
CONFIG = {"limits": [{"concurrency": MOST}]}
KILLING = """
def responseheaders(flow):
    flow.kill()
"""


@dataclass
class Lab:
    """A gateway, and an upstream that keeps what it is asked."""

    gateway: Any
    pid: int
    upstream: Holding
    cid: str = "conn_many"

    def target(self, path: str) -> str:
        return Grant(self.cid).target(path)

    def streams(self, count: int, path: str) -> tuple[Streams, list[int]]:
        client = Streams.through(self.gateway.port, GATEWAY, cafile=self.gateway.ca)
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY)]
        return client, [client.begin([*pseudo, (":path", self.target(path))]) for _ in range(count)]

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def descriptors_at_rest(self) -> int:
        """Counted once the store of the limits is open, which is not waited for at a start."""
        assert eventually(self._has_store, PATIENT)
        return self.descriptors()

    def _has_store(self) -> bool:
        found = links_of(self.pid)
        return all(any(name.endswith(end) for name in found) for end in ("-wal", "-shm"))

    def holds(self, count: int) -> bool:
        return eventually(lambda: self.upstream.gauge.now == count, PATIENT)

    def is_empty(self, descriptors: int) -> bool:
        """Whether nothing is left: at the upstream, in the gateway's tables of descriptors, of its slots."""
        assert self.holds(0), f"{self.upstream.gauge.now} requests are still at the upstream"
        assert eventually(lambda: self.descriptors() <= descriptors, PATIENT), (
            self.descriptors() - descriptors
        )
        self.has_free_slots()
        return True

    def has_free_slots(self) -> None:
        """All of them: as many requests as may be get through at once, and no more than that ever did.

        A slot is free a moment after its upstream has been let go of, so a refusal is asked for again.
        """
        with ExitStack() as clients:
            deadline = time.monotonic() + PATIENT
            while self.upstream.gauge.now < MOST and time.monotonic() < deadline:
                client = clients.enter_context(Wire(connect(self.gateway.port)))
                decided = partial(self._is_decided, client, self.upstream.gauge.total)
                client.send(wire(self.target("wait")))
                assert eventually(decided, PATIENT)
            assert self.upstream.gauge.now == MOST
            with Wire(connect(self.gateway.port)) as one_more:
                one_more.send(wire(self.target("wait")))
                assert parse_response(one_more.read_response(PATIENT)).status == 429
        assert self.holds(0)
        assert self.upstream.gauge.most <= MOST

    def _is_decided(self, client: Wire, before: int) -> bool:
        """Whether a request has come to the upstream, or was answered by the gateway."""
        client.sock.setblocking(False)
        try:
            return bool(client.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return self.upstream.gauge.total > before


@pytest.fixture(scope="module")
def holding() -> Iterator[Holding]:
    with Holding() as upstream:
        yield upstream


def config(upstream: Holding, **more: Any) -> dict[str, Any]:
    connection = bearer_connection(upstream.url, SECRET, **CONFIG, **more)
    brief = {"timeouts": {"response": "1s"}}
    return {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {"conn_many": connection, "conn_brief": connection | brief},
    }


KINDS = ("mitmdump, lane", "mitmdump, flows", "serve")


# A worker of `serve` takes the lane as mitmdump does: `make slow` asks both.
@pytest.fixture(scope="module", params=[pytest.param(KINDS[0], marks=pytest.mark.slow), *KINDS[1:]])
def lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    holding: Holding,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    if request.param == "serve":
        shared = {"limits": {"store": "sqlite:///limits.db"}}
        with Serve(tmp_path_factory.mktemp("serve"), config(holding) | shared) as served:
            yield Lab(served, served.serving()[0], holding)
            return
    lane = "on" if request.param == "mitmdump, lane" else "off"
    gateway = module_gateway(config(holding), "--set", f"presign_lane={lane}")
    yield Lab(gateway, gateway.pid, holding)


# -- HTTP/2 -------------------------------------------------------------------------------------------

H2_ENDS: dict[str, Callable[[Streams, list[int]], None]] = {
    "RST": lambda client, _: client.abort(),
    "FIN": lambda client, _: client.shut(),
    "close": lambda client, _: client.close(),
    "RST_STREAM": lambda client, streams: client.reset(*streams),
    "GOAWAY": lambda client, _: client.go_away(),
    "close_notify": lambda client, _: client.say_goodbye(),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["wait", "stream"])
@pytest.mark.parametrize("end", H2_ENDS)
def test_no_stream_outlives_its_client_at_the_upstream(lab: Lab, end: str, path: str) -> None:
    before = lab.descriptors_at_rest()
    for count in (1, 5, 6, 50):
        client, streams = lab.streams(count, path)
        assert lab.holds(count)
        H2_ENDS[end](client, streams)
        assert lab.holds(0), f"{lab.upstream.gauge.now} of {count} are still at the upstream"
        client.close()
    assert lab.is_empty(before)


def test_an_upstream_that_is_silent_for_too_long_is_let_go(lab: Lab) -> None:
    before = lab.descriptors_at_rest()
    lab.cid = "conn_brief"
    try:
        client, streams = lab.streams(6, "wait")
        with client:
            assert [reply.status for reply in client.wait(streams, PATIENT)] == [504] * 6
    finally:
        lab.cid = "conn_many"
    assert lab.is_empty(before)


# -- HTTP/1.1 -----------------------------------------------------------------------------------------

H1_ENDS: dict[str, Callable[[socket.socket], None]] = {"RST": abort, "FIN": socket.socket.close}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["wait", "stream"])
@pytest.mark.parametrize("end", H1_ENDS)
def test_no_request_outlives_its_client_at_the_upstream(lab: Lab, end: str, path: str) -> None:
    before = lab.descriptors_at_rest()
    for count in (1, 6, 50):
        clients = [connect(lab.gateway.port) for _ in range(count)]
        for client in clients:
            client.sendall(wire(lab.target(path)))
        assert lab.holds(count)
        for client in clients:
            H1_ENDS[end](client)
        assert lab.holds(0), f"{lab.upstream.gauge.now} of {count} are still at the upstream"
    assert lab.is_empty(before)


def test_a_request_behind_another_does_not_outlive_its_client_at_the_upstream(lab: Lab) -> None:
    """The second one was begun after its client had gone, and nobody was there to end it."""
    before = lab.descriptors_at_rest()
    for end in (*H1_ENDS.values(), *H1_ENDS.values()):
        clients = [connect(lab.gateway.port) for _ in range(6)]
        for client in clients:
            client.sendall(FIRST["the path of flows"] + wire(lab.target("wait")) + wire(lab.target("wait")))
        assert lab.holds(6)
        for client in clients:
            end(client)
        assert lab.holds(0), f"{lab.upstream.gauge.now} are still at the upstream"
    assert lab.is_empty(before)


# -- what only some can do -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flow_that_a_script_kills_is_over_at_the_upstream_too(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    script = tmp_path / "killing.py"
    script.write_text(KILLING, "utf-8")
    with Holding() as upstream:
        gateway = make_gateway(config(upstream) | {"gateway": {"hosts": [GATEWAY]}}, "-s", str(script))
        lab = Lab(gateway, gateway.pid, upstream)
        before = lab.descriptors_at_rest()
        client, streams = lab.streams(6, "stream")
        with client:
            replies = client.wait(streams, PATIENT)
            assert [(reply.outcome, reply.detail) for reply in replies] == [("reset", "RST_STREAM 2")] * 6
            assert upstream.gauge.total == 6
            assert lab.holds(0)  # while the client stays
        assert lab.is_empty(before)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-s", str(PROMPTLY))], ids=["hooks as ever", "hooks at once"])
@pytest.mark.parametrize("path", ["wait", "stream"])
def test_a_client_that_resets_one_stream_is_not_taken_for_a_failing_upstream(
    path: str, options: tuple[str, ...], make_gateway: MakeGateway
) -> None:
    with Holding() as upstream:
        gateway = make_gateway(config(upstream) | {"audit": {"file": "audit.jsonl"}}, *options)
        lab = Lab(gateway, gateway.pid, upstream)
        client, streams = lab.streams(3, path)
        with client:
            assert lab.holds(3)
            client.reset(streams[1])
            assert lab.holds(2)
            log = gateway.directory / "audit.jsonl"
            assert eventually(lambda: log.exists() and len(log.read_text("utf-8").splitlines()) == 1)
            line = json.loads(log.read_text("utf-8"))
            assert (line["decision"], line["code"]) == ("forward", None)
            assert line["detail"] == "the client went away"
            assert line["status"] == (200 if path == "stream" else None)


@pytest.mark.slow
def test_what_a_drain_cuts_off_is_over_at_the_upstream_too(tmp_path: Path) -> None:
    with Holding() as upstream:
        shared = {"limits": {"store": "sqlite:///limits.db"}}
        with Serve(tmp_path, config(upstream) | shared, "--drain", "1s") as served:
            lab = Lab(served, served.serving()[0], upstream)
            client, _ = lab.streams(6, "stream")
            with client:
                assert lab.holds(6)
                served.signal(signal.SIGTERM)
                served.ends(PATIENT)
                assert lab.holds(0)


# -- a client that says no more --------------------------------------------------------------------------

FIRST = {"the path of flows": b"\r\n", "as it comes": b""}
"""The lane leaves what begins with an empty line to the path of flows."""


def test_a_client_that_shuts_its_writing_side_behind_its_request_is_answered(lab: Lab) -> None:
    before = lab.descriptors() + 3  # what first requests open; the four of here would be more
    with ExitStack() as stack:
        clients = {}
        for tls in (None, Tls(GATEWAY, lab.gateway.ca)):
            for method, body in (("GET", b""), ("POST", b"x" * 1000)):
                client = stack.enter_context(Wire(connect(lab.gateway.port, tls)))
                clients[tls is not None, method] = client
                client.send(wire(lab.target("answer"), method=method, body=body))
                socket.socket.shutdown(client.sock, socket.SHUT_WR)
        for kind, client in clients.items():
            answers = client.read_to_end(PATIENT)
            assert answers.count(b"HTTP/1.1 200 OK") == 1, kind
            assert answers.endswith(b"\r\n\r\nok"), kind
    assert lab.is_empty(before)


def test_requests_in_one_go_are_all_answered_though_the_client_says_no_more(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        client.send(b"".join(wire(lab.target(f"{number}/answer")) for number in range(3)))
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        answered = client.read_to_end(PATIENT).count(b"HTTP/1.1 200 OK")
    assert answered == 3


def test_a_client_that_says_no_more_in_its_answer_gets_the_rest(lab: Lab) -> None:
    with ExitStack() as stack:
        clients = {}
        for path, first in FIRST.items():
            clients[path] = stack.enter_context(Wire(connect(lab.gateway.port)))
            clients[path].send(first + wire(lab.target("drip")))
        for client in clients.values():
            client.read_until(b"..", PATIENT)
            socket.socket.shutdown(client.sock, socket.SHUT_WR)
        for path, client in clients.items():
            rest = client.read_to_end(PATIENT)
            assert rest == b"." * (DROPS - 2), path


def test_a_client_that_reads_slowly_and_says_no_more_gets_all_its_answers(lab: Lab) -> None:
    with Wire(socket.socket()) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.connect(("127.0.0.1", lab.gateway.port))
        client.send(b"".join(wire(lab.target(f"{number}/large")) for number in range(8)))
        assert eventually(lambda: lab.upstream.gauge.now == 0, PATIENT)
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        time.sleep(1)
        answers = client.read_to_end(PATIENT)
        assert answers.count(b"HTTP/1.1 200 OK") == 8
        assert answers.count(b".") >= 8 * LARGE


BEHIND = {
    "the lane": ("", {"Content-Length": "1000"}),
    "chunks": ("", {"Transfer-Encoding": "chunked"}),
    "the path of flows": ("\r\n", {"Content-Length": "1000"}),
    "a request left to the path of flows": ("", {"Content-Length": "1000", "Expect": "100-continue"}),
}


def test_half_a_body_behind_another_request_is_not_waited_for_after_the_end(lab: Lab) -> None:
    """Its client said no more while it waited for the answer before: that end was told to nobody."""
    before = lab.descriptors() + 3
    clients = []
    for behind, (start, fields) in BEHIND.items():
        for _ in range(6):
            client = Wire(connect(lab.gateway.port))
            clients.append((behind, client))
            head = wire(lab.target("wait"), fields, method="POST")
            client.send(wire(lab.target("answer")) + start.encode() + head + b"5\r\nhe")
            socket.socket.shutdown(client.sock, socket.SHUT_WR)
    for behind, client in clients:
        with client:
            answer = client.read_to_end(PATIENT)
            assert b"HTTP/1.1 200 OK" in answer, behind
    assert lab.is_empty(before)


def test_clients_that_reset_behind_their_end_stop_nothing_that_is_done_in_time(lab: Lab) -> None:
    """Its socket was closed before it was ended. Reloads, revocations and deadlines waited meanwhile."""
    before, logged = lab.descriptors() + 3, len(lab.gateway.log())
    for number in range(30):
        client = connect(lab.gateway.port)
        client.sendall(b"\r\n" + wire(lab.target("wait")))
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.05 * (number % 3))
        abort(client)
    assert lab.is_empty(before)
    assert "housekeeping failed" not in lab.gateway.log()[logged:]
    assert "failed in the lane" not in lab.gateway.log()[logged:]


def test_half_a_head_behind_an_answer_is_not_waited_for_after_the_end(lab: Lab) -> None:
    """The deadline of a head is ten seconds."""
    with Wire(connect(lab.gateway.port)) as client:
        client.send(wire(lab.target("answer")) + b"GET /api/pro")
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        assert client.read_to_end(8).endswith(b"ok")


def test_a_client_that_is_asked_whether_it_is_there_and_then_closes_is_noticed(lab: Lab) -> None:
    """It has read what asked it, so that its system answers with FIN, which has been sent before."""
    before = lab.descriptors() + 3
    with ExitStack() as stack:
        clients = [stack.enter_context(Wire(connect(lab.gateway.port))) for _ in range(6)]
        for number, client in enumerate(clients):
            client.send(tuple(FIRST.values())[number % 2] + wire(lab.target("wait")))
            socket.socket.shutdown(client.sock, socket.SHUT_WR)
        for client in clients:
            client.read_until(b"HTTP/1.1 100 Continue\r\n\r\n", PATIENT)
    assert lab.is_empty(before)


def test_a_client_that_says_no_more_in_the_middle_of_its_body_is_not_waited_for(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port)) as client:
        head = wire(lab.target("answer"), {"Content-Length": "1000"}, method="POST")
        client.send(head + b"x")
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        assert b"HTTP/1.1 200" not in client.read_to_end(PATIENT)
    assert lab.holds(0)


# -- an upstream that says too much ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("more", ["a second answer", "its end"])
def test_an_upstream_that_goes_on_after_its_answer_to_an_upload_ends_no_other_stream(
    make_gateway: MakeGateway, more: str
) -> None:
    hand = ByHand()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    connections = {name: bearer_connection(hand.url, SECRET) for name in ("conn_up", "conn_down")}
    gateway = make_gateway({"gateway": {"hosts": [GATEWAY]}, "connections": connections})
    pseudo = ((":scheme", "https"), (":authority", GATEWAY))
    with Streams.through(gateway.port, GATEWAY, cafile=gateway.ca) as client:
        path = (":path", Grant("conn_up").target("up"))
        upload = client.begin([(":method", "POST"), *pseudo, path], end=False)
        client.send(upload, b"half")
        api = hand.accept(PATIENT)
        api.read_until(b"half\r\n", PATIENT)
        path = (":path", Grant("conn_down").target("down"))
        download = client.begin([(":method", "GET"), *pseudo, path])
        other = hand.accept(PATIENT)
        other.read_head(PATIENT)
        api.send(answer)
        while client.replies[upload].body != b"ok":
            client.wait([upload], 0.05)
        if more == "its end":
            api.close()
        else:
            api.send(answer)
            assert api.read_to_end(PATIENT) == b""
        other.send(answer)
        assert client.wait([download], PATIENT)[0].outcome == "200"
        assert client.replies[download].ended
        assert client.replies[upload].body == b"ok"
    hand.stop()
    assert "failed at the protocol" not in gateway.log()
