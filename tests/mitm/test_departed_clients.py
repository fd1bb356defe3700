"""A client that has gone, in whatever way and whatever its request waits for, leaves nothing behind it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.asking import SECRET, Grant, wire
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.descriptors import links_of
from support.gateways import MakeGateway
from support.h2streams import Streams, abort
from support.lab import REAL_SECRET, bearer_connection
from support.puppet import eventually
from support.raw import Tls, connect
from support.serving import Serve

GATEWAY = "presign.local"
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""
LONG = "10m"
"""Of all deadlines of a request: none of them ends it here."""
AHEAD = 90_000
"""Bytes that a client sends ahead: more than is held of them, and less than its socket takes."""
LEAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONNECTIONS = 100
WAYS = {
    "lane": (b"", False),
    "flows": (b"\r\n", False),
    "lane, TLS": (b"", True),
    "flows, TLS": (b"\r\n", True),
}
"""What stands before a request, and whether it comes over TLS: the lane leaves an empty line to the flows."""


@dataclass
class Lab:
    """A gateway whose connections take one request at a time, and whose upstream the test plays."""

    gateway: Any
    pid: int
    hand: ByHand
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(CONNECTIONS)))
    cid: str = ""

    def fresh(self, kind: str) -> Grant:
        self.cid = f"{kind}_{next(self.numbers)}"
        return Grant(self.cid)

    def client(self, *, tls: bool = False) -> Wire:
        return Wire(connect(self.gateway.port, Tls(GATEWAY, self.gateway.ca) if tls else None))

    def asks(self, way: str, grant: Grant, **more: Any) -> Wire:
        """A client, and its request."""
        first, tls = WAYS[way]
        client = self.client(tls=tls)
        client.send(first + wire(grant.target("wait"), **more))
        return client

    def path(self, end: str) -> Path:
        return Path(self.gateway.directory) / f"{self.cid}.{end}"

    def holds(self, client: Wire) -> Callable[[], bool]:
        """What tells whether the gateway has a client's connection open, also once that has gone."""
        inode = f"socket:[{_inode(client.sock.getsockname()[1], self.gateway.port)}]"

        def still() -> bool:
            return inode in links_of(self.pid)

        assert still()
        return still

    def next_one(self) -> Wire:
        """The next client, once the slot of its connection is free: within half a second or so."""
        deadline = time.monotonic() + PATIENT
        while True:
            other = self.client()
            other.send(wire(Grant(self.cid).target("next")))
            if other.is_silent(0.3):
                return other
            assert b" 429 " in other.buffer[:20]
            assert time.monotonic() < deadline, "the slot is not free"
            other.close()

    def is_served(self, other: Wire) -> None:
        """Nothing came to the upstream before it."""
        api = self.hand.accept(PATIENT)
        assert b" /next" in api.read_head(PATIENT)
        api.send(LEAST)
        assert other.read_response(PATIENT).endswith(b"ok")
        assert not self.hand.waits()

    def audited(self) -> list[dict[str, Any]]:
        path = Path(self.gateway.directory) / "audit.jsonl"
        return [line for line in audit_lines(path) if line["connection"] == self.cid]

    def told(self) -> None:
        """There is one line about the client that has gone, before that of the one that came next."""
        found: list[dict[str, Any]] = []

        def both() -> bool:
            found[:] = [line for line in self.audited() if line["code"] != "limited"]
            return len(found) >= 2

        assert eventually(both, PATIENT), self.audited()
        gone, served = found
        assert (gone["decision"], gone["code"], gone["detail"]) == ("forward", None, "the client went away")
        assert served["status"] == 200


def _inode(remote: int, local: int) -> str:
    """Of the gateway's end of a connection."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    ends = (f":{local:04X}", f":{remote:04X}")
    return next(line[9] for line in lines if (line[1][-5:], line[2][-5:]) == ends)


def config(hand: ByHand) -> dict[str, Any]:
    """Connections of one slot each: some have a program that prints their credential once it may."""
    found = {}
    for number in range(CONNECTIONS):
        limits: dict[str, Any] = {"limits": [{"concurrency": 1}]}
        limits["timeouts"] = {"connect": LONG, "response": LONG, "body": LONG}
        found[f"plain_{number}"] = bearer_connection(hand.url, SECRET, **limits)
        cid = f"slow_{number}"
        script = f"touch {cid}.began; until [ -e {cid}.go ]; do sleep 0.05; done"
        script += f"; [ -e {cid}.fails ] && exit 1; echo {REAL_SECRET}"
        auth = {"type": "bearer", "token": {"exec": ["sh", "-c", script], "ttl": LONG}}
        found[cid] = bearer_connection(hand.url, SECRET, **limits) | {"auth": auth}
        found[f"secure_{number}"] = bearer_connection(f"https://127.0.0.1:{hand.port}", SECRET, **limits)
    return {"gateway": {"hosts": [GATEWAY]}, "connections": found, "audit": {"file": "audit.jsonl"}}


# `make test` asks the workers of `serve`, whose ways are the same; `make slow` asks mitmdump too.
@pytest.fixture(scope="module", params=[pytest.param("mitmdump", marks=pytest.mark.slow), "serve"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    if request.param == "serve":
        shared = {"limits": {"store": "sqlite:///limits.db"}}
        with Serve(tmp_path_factory.mktemp("serve"), config(hand) | shared) as served:
            yield Lab(served, served.serving()[0], hand)
            return
    gateway = module_gateway(config(hand), "--set", "presign_lane=on")
    yield Lab(gateway, gateway.pid, hand)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    for wrong in ("Traceback", "failed at the protocol", "failed in the lane", "housekeeping failed"):
        assert wrong not in log


def shut(client: Wire) -> None:
    socket.socket.shutdown(client.sock, socket.SHUT_WR)


def reset(client: Wire) -> None:
    abort(client.sock)


def shut_and_reset(client: Wire) -> None:
    shut(client)
    reset(client)


def shut_and_reset_later(client: Wire) -> None:
    """Once it was asked whether it is there."""
    shut(client)
    assert eventually(lambda: client.sock.recv(1) if not client.sock.settimeout(PATIENT) else b"", PATIENT)
    reset(client)


def close_unread(client: Wire) -> None:
    """The system of one that closes before it has read all answers for it with RST."""
    shut(client)
    client.sock.settimeout(PATIENT)
    assert socket.socket.recv(client.sock, 1, socket.MSG_PEEK)
    client.close()


ENDS: dict[str, Callable[[Wire], None]] = {
    "RST": reset,
    "FIN and RST": shut_and_reset,
    "FIN, and RST once it was asked": shut_and_reset_later,
    "close, with what asked it unread": close_unread,
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_sent_for_a_client_that_has_gone_while_its_credential_was_fetched(
    lab: Lab, way: str
) -> None:
    """It was dialled once its client was forgotten, sent the credential, and ended by nobody."""
    gone = []
    for end in ENDS.values():
        grant = lab.fresh("slow")
        client = lab.asks(way, grant)
        assert eventually(lab.path("began").exists, PATIENT)
        gone.append((lab.cid, lab.holds(client)))
        end(client)
    for lab.cid, still in gone:
        assert eventually(lambda still=still: not still(), PATIENT)
        with lab.next_one() as other:  # waits for the program, and is not refused for want of a slot
            lab.path("go").touch()
            lab.is_served(other)
        lab.told()


@pytest.mark.parametrize("size", [10, 3 * 1024 * 1024], ids=["a few bytes", "more than is held"])
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_is_reset_in_the_middle_of_its_body_while_its_credential_is_fetched_frees_its_slot(
    lab: Lab, way: str, size: int
) -> None:
    """Of a body that nobody takes yet, no more is read than is held. So nobody heard of its end before the
    program had ended.
    """
    grant = lab.fresh("slow")
    client = lab.asks(way, grant, method="POST", headers={"Content-Length": str(2 * size)})
    assert eventually(lab.path("began").exists, PATIENT)
    client.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        client.send(bytes(size))
    still = lab.holds(client)
    time.sleep(0.2)  # as far as it is read at all
    reset(client)
    assert eventually(lambda: not still(), PATIENT)
    with lab.next_one() as other:
        lab.path("go").touch()
        lab.is_served(other)
    lab.told()


def test_a_stream_that_is_reset_while_its_credential_is_fetched_frees_its_slot(lab: Lab) -> None:
    grant = lab.fresh("slow")
    with Streams.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client:
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY)]
        stream = client.begin([*pseudo, (":path", grant.target("wait"))])
        assert eventually(lab.path("began").exists, PATIENT)
        client.reset(stream)
        with lab.next_one() as other:
            lab.path("go").touch()
            lab.is_served(other)
    lab.told()


@pytest.mark.parametrize("way", ["lane", "flows"])
def test_a_program_that_fails_once_its_client_has_gone_leaves_no_traceback_in_the_log(
    lab: Lab, way: str
) -> None:
    logged = len(lab.gateway.log())
    client = lab.asks(way, lab.fresh("slow"))
    assert eventually(lab.path("began").exists, PATIENT)
    reset(client)
    assert eventually(lambda: len(lab.audited()) == 1, PATIENT)
    lab.path("fails").touch()
    lab.path("go").touch()
    assert eventually(lambda: "ended with exit code 1" in lab.gateway.log()[logged:], PATIENT)
    assert "never retrieved" not in lab.gateway.log()[logged:]


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_has_gone_while_its_upstream_was_connected_to_takes_the_connection_along(
    lab: Lab, way: str
) -> None:
    gone = []
    for end in ENDS.values():
        client = lab.asks(way, lab.fresh("secure"))
        gone.append((lab.cid, lab.hand.accept(PATIENT)))  # which says nothing to what would begin with TLS
        end(client)
    for lab.cid, api in gone:
        assert api.read_to_end(PATIENT)[:1] in (b"", b"\x16")
        lab.next_one().close()


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_has_gone_is_not_answered(lab: Lab, way: str) -> None:
    gone = []
    for end in ENDS.values():
        client = lab.asks(way, lab.fresh("plain"))
        api = lab.hand.accept(PATIENT)
        api.read_head(PATIENT)
        gone.append((lab.cid, api))
        end(client)
    for lab.cid, api in gone:
        assert api.read_to_end(PATIENT) == b""
        lab.is_served(lab.next_one())
        lab.told()


# -- a client that is not read from, or takes nothing, for now ---------------------------------------------


def takes_no_more(lab: Lab, way: str) -> tuple[Wire, Wire]:
    """Of its answer."""
    client = lab.asks(way, lab.fresh("plain"))
    api = lab.hand.accept(PATIENT)
    api.read_head(PATIENT)
    api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    fill(api)
    return client, api


def is_held_up(lab: Lab, way: str) -> tuple[Wire, Wire]:
    """Its upload, by its upstream."""
    fields = {"Content-Length": "1000000000"}
    client = lab.asks(way, lab.fresh("plain"), headers=fields, method="POST")
    api = lab.hand.accept(PATIENT)
    api.read_head(PATIENT)
    fill(client)
    return client, api


def has_sent_too_much_ahead(lab: Lab, way: str) -> tuple[Wire, Wire]:
    grant = lab.fresh("plain")
    client = lab.asks(way, grant)
    api = lab.hand.accept(PATIENT)
    api.read_head(PATIENT)
    fill(client, wire(grant.target("ahead")) * 100, 200)
    return client, api


def fill(wire: Wire, piece: bytes = bytes(65536), most: int = 10_000) -> None:
    """Send until nothing more is taken for a second."""
    wire.sock.settimeout(1)
    with contextlib.suppress(TimeoutError, ConnectionError):
        for _ in range(most):
            wire.sock.send(piece)


def is_cut(api: Wire) -> bool:
    """Whether the gateway is no longer there to take what is no answer."""
    deadline = time.monotonic() + PATIENT
    api.sock.settimeout(0.1)
    while time.monotonic() < deadline:
        try:
            api.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.1)
        except TimeoutError:  # it takes nothing for now
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize("state", [takes_no_more, is_held_up, has_sent_too_much_ahead])
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_has_gone_while_nothing_moved_ends_its_upstream(
    lab: Lab, way: str, state: Callable[[Lab, str], tuple[Wire, Wire]]
) -> None:
    """Nothing was read from it, neither its end, as long as its upstream was in no hurry."""
    gone = []
    for end in (reset, shut_and_reset):
        client, api = state(lab, way)
        gone.append((lab.cid, api))
        with contextlib.suppress(OSError):  # on the path of flows a megabyte sent ahead is refused
            end(client)
    for lab.cid, api in gone:
        assert is_cut(api)
        lab.is_served(lab.next_one())


@pytest.mark.parametrize("begun", [False, True], ids=["not answered yet", "in its answer"])
@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_closes_behind_more_than_is_held_of_it_ends_its_upstream(
    lab: Lab, way: str, begun: bool
) -> None:
    """It was not read from, nor was its end. It kept its slot for as long as its upstream liked."""
    grant = lab.fresh("plain")
    client = lab.asks(way, grant)
    api = lab.hand.accept(PATIENT)
    api.read_head(PATIENT)
    if begun:
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
        client.read_until(b"begun", PATIENT)
    ahead = wire(grant.target("ahead"))
    client.send(ahead * (AHEAD // len(ahead)))
    client.close()
    assert api.read_to_end(PATIENT) == b""
    lab.is_served(lab.next_one())


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_says_no_more_behind_more_than_is_held_of_it_is_answered_in_full(
    lab: Lab, way: str
) -> None:
    with lab.asks(way, lab.fresh("plain")) as client:
        ahead = wire(Grant(lab.cid).target("ahead"))
        client.send(ahead * (AHEAD // len(ahead)))
        shut(client)
        api = lab.hand.accept(PATIENT)
        api.read_head(PATIENT)
        time.sleep(1)  # its end is looked for twice meanwhile
        for number in range(AHEAD // len(ahead) + 1):
            api.send(LEAST)
            if number < AHEAD // len(ahead):
                api.read_head(PATIENT)
        got = client.read_to_end(PATIENT)
        assert got.count(b"HTTP/1.1 200 OK") == AHEAD // len(ahead) + 1


# -- other addons ------------------------------------------------------------------------------------------

HOOKS = """
import asyncio, pathlib

HERE = pathlib.Path(__file__).parent

async def wait(*_):
    if (HERE / "hold").exists():
        (HERE / "began").touch()
        while (HERE / "hold").exists():
            await asyncio.sleep(0.02)

{hook} = wait
"""


@pytest.mark.parametrize("end", ["RST", "FIN and RST"])
@pytest.mark.parametrize("hook", ["requestheaders", "request", "server_connect", "server_connected"])
def test_nothing_is_sent_for_a_client_that_has_gone_while_another_addon_waited(
    make_gateway: MakeGateway, hand: ByHand, tmp_path: Path, hook: str, end: str
) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(HOOKS.format(hook=hook), "utf-8")
    gateway = make_gateway(config(hand), "-s", str(script), "--set", "presign_lane=off")
    lab = Lab(gateway, gateway.pid, hand)
    grant = lab.fresh("plain")
    (tmp_path / "hold").touch()
    client = lab.client()
    client.send(wire(grant.target("wait")))
    assert eventually((tmp_path / "began").exists, PATIENT)
    still = lab.holds(client)
    ENDS[end](client)
    assert eventually(lambda: not still(), PATIENT)
    time.sleep(1.2)  # until what would be told of it twice a second was told of it
    (tmp_path / "hold").unlink()
    if hook == "server_connected":
        assert hand.accept(PATIENT).read_to_end(PATIENT) == b""
    lab.is_served(lab.next_one())
    lab.told()
    hand.hang_up()


@pytest.mark.parametrize("taken", [True, False])
def test_a_tunnel_that_carries_no_http_ends_with_its_client(
    taken: bool, make_gateway: MakeGateway, hand: ByHand
) -> None:
    """Where the other side took nothing, nothing was read of the client either, nor its end: both stayed."""
    gateway = make_gateway({"gateway": {"hosts": [GATEWAY], "unsigned": "pass"}, "connections": {}})
    client = Wire(connect(gateway.port))
    client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % hand.port)
    assert client.read_head(PATIENT).startswith(b"HTTP/1.1 200 ")
    client.send(b"\x00\x01\x02 no HTTP")
    with hand.accept(PATIENT) as other:
        assert other.read_exactly(11, PATIENT) == b"\x00\x01\x02 no HTTP"
        inode = f"socket:[{_inode(hand.port, other.sock.getpeername()[1])}]"

        def held() -> bool:
            return inode in links_of(gateway.pid)

        assert held()
        if not taken:
            client.sock.settimeout(1)
            with contextlib.suppress(TimeoutError):
                client.send(bytes(64 * 1024 * 1024))
        reset(client)
        assert eventually(lambda: not held(), PATIENT)
