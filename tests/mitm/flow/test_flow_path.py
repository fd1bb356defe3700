"""The flow path of `presign serve`, which is shorter than mitmproxy's own and leads to the same."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions, http
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.test.tflow import tclient_conn, tflow, tserver_conn

from presign_proxy.mitm import patches
from presign_proxy.mitm.flow.coalesce import SMALL, in_one_piece
from presign_proxy.mitm.hook_dispatch import prompt, speed_up
from support.asking import SECRET, Grant, ask, wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import PROMPTLY
from support.puppet import eventually
from support.raw import connect, exchange, parse_response
from support.recorder import Recorder
from support.serving import CONN, Serve, environment

GATEWAY = "presign.local"

# -- shortcuts ------------------------------------------------------------------------------------------


def taking(before: str) -> str:
    """What is said when the shortcuts are taken in a process in which `before` was run."""
    code = "import logging; logging.basicConfig(level=20, format='%(message)s')\n"
    code += f"{before}\nfrom presign_proxy.mitm import patches as shortcuts\nshortcuts.take()\n"
    run = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, check=True)
    return run.stderr.decode()


def test_all_shortcuts_are_taken_with_the_mitmproxy_that_is_locked() -> None:
    assert taking("") == ""


OTHERWISE = {
    "messages": "from mitmproxy import http; del http.MessageData.__post_init__",
    "contexts": """
from mitmproxy.proxy.context import Context
stock = Context.fork
def fork(self):
    made = stock(self)
    made.server = type(self.server)(address=None)
    return made
Context.fork = fork
""",
    "header fields": "from mitmproxy import http; http.Headers._reduce_values = staticmethod(','.join)",
    "options": "from mitmproxy.optmanager import _Option; _Option.current = lambda option: repr(option.name)",
    "authorities": "from mitmproxy.net.http import url; url.parse_authority = lambda authority: ('', 1)",
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_shortcut_is_not_taken_where_mitmproxy_leads_elsewhere(name: str) -> None:
    told = taking(OTHERWISE[name])
    assert f"mitmproxy's own way is taken to its {name} (" in told
    if name != "options":  # whose last word is what the others are made with
        assert told.count("\n") == 1


@pytest.mark.parametrize("name", ["http_version", "headers", "content", "timestamp_start", "port", "path"])
@pytest.mark.parametrize("value", [None, "text", b"bytes", 1, 1.5, True, [], object()])
def test_a_message_is_made_of_what_mitmproxy_lets_pass(name: str, value: object) -> None:
    data = http.Request.make("GET", "http://a.test/").data
    vars(data)[name] = value

    def passes(check: Callable[[Any], None]) -> bool:
        try:
            check(data)
        except TypeError:
            return False
        return True

    stock = http.RequestData.__post_init__
    assert passes(patches._checked(http.RequestData, stock)) == passes(stock)


class Name(enum.StrEnum):
    HOST = "Host"


@pytest.mark.parametrize("name", ["host", b"HOST", Name.HOST, "none"])
def test_header_fields_are_found_by_whatever_names_them(name: str | bytes) -> None:
    headers = http.Headers([(b"host", b"a"), (b"Host", b"b")])
    assert patches._get_all(headers, name) == patches._stock["get_all"](headers, name)


# -- hooks ----------------------------------------------------------------------------------------------


class Listener:
    """An addon that notes when it was called."""

    def __init__(self, name: str, heard: list[str], outcome: BaseException | None = None) -> None:
        self.name, self.heard, self.outcome = name, heard, outcome

    def request(self, flow: http.HTTPFlow) -> Any:
        self.heard.append(self.name)
        if self.outcome is not None:
            raise self.outcome


class Waiting(Listener):
    async def request(self, flow: http.HTTPFlow) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().request(flow)


class Updated(Listener):
    def update(self, flows: list[http.HTTPFlow]) -> None:
        self.heard.append(f"{self.name} {len(flows)}")


class Nested(Listener):
    """An addon with others below it, as a script is. They change with each hook."""

    def __init__(self, name: str, heard: list[str], outcome: BaseException | None = None) -> None:
        super().__init__(name, heard)
        self.addons: list[Listener] = [Listener(f"{name}.0", heard, outcome)]

    def request(self, flow: http.HTTPFlow) -> Any:
        super().request(flow)
        self.addons.append(Listener(f"{self.name}.{len(self.addons)}", self.heard))


class Broken(Listener):
    """An addon whose hook cannot be called."""

    request = "nothing"  # type: ignore[assignment]


class Fleeting(Listener):
    """An addon that listens once."""

    def request(self, flow: http.HTTPFlow) -> Any:
        super().request(flow)
        vars(self)["request"] = None


HALT = exceptions.AddonHalt
CHAINS: dict[str, tuple[tuple[type[Listener], type[BaseException] | None], ...]] = {
    "all at once": ((Listener, None), (Listener, None), (Listener, None)),
    "one waits": ((Listener, None), (Waiting, None), (Listener, None)),
    "all wait": ((Waiting, None), (Waiting, None), (Waiting, None)),
    "one fails": ((Listener, None), (Listener, ValueError), (Listener, None)),
    "one fails later": ((Listener, None), (Waiting, ValueError), (Waiting, None)),
    "one halts": ((Listener, None), (Listener, HALT), (Listener, None)),
    "one halts later": ((Listener, None), (Waiting, HALT), (Listener, None)),
    "one halts behind one that waits": ((Waiting, None), (Listener, HALT), (Listener, None)),
    "one fails behind one that waits": ((Waiting, None), (Listener, ValueError), (Listener, None)),
    "one looks at updates": ((Listener, None), (Updated, None), (Waiting, None)),
}


# A served gateway knows its addons: there are no such ones among them.
ODD: dict[str, tuple[tuple[type[Listener], type[BaseException] | None], ...]] = {
    "one has others below it": ((Listener, None), (Nested, None), (Listener, None)),
    "one below fails": ((Listener, None), (Nested, ValueError), (Listener, None)),
    "one below halts": ((Listener, None), (Nested, HALT), (Listener, None)),
    "one cannot be called": ((Listener, None), (Broken, None), (Listener, None)),
    "one listens once": ((Listener, None), (Fleeting, None), (Listener, None)),
}


@contextlib.contextmanager
def manager() -> Iterator[Any]:
    """The manager of a master that logs to nobody."""
    master: Any = Master(Options())
    try:
        yield master.addons
    finally:
        master._legacy_log_events.uninstall()


async def called(chain: str, manner: str) -> tuple[list[str], bool]:
    """Who was called for two hooks: by stock code, directly, or at once. And whether all was over at once."""
    heard: list[str] = []
    with manager() as addons:
        if manner != "stock":
            speed_up(addons)
        begin = prompt(addons) if manner == "at once" else None
        for number, (kind, outcome) in enumerate((CHAINS | ODD)[chain]):
            addons.add(kind(f"{number}", heard, outcome() if outcome else None))
        over = True
        for _ in range(2):
            hook = HttpRequestHook(tflow())
            if begin is None or not begin(hook):
                over = False
                await addons.handle_lifecycle(hook)
            heard.append("–")
    return heard, over


@pytest.mark.parametrize(
    ("chain", "manner"), [*product(CHAINS, ("direct", "at once")), *product(ODD, ("direct",))]
)
def test_the_same_addons_are_called_in_the_same_order(
    chain: str, manner: str, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [re.sub(" at 0x[0-9a-f]+", "", record.message) for record in caplog.records]

    stock, _ = asyncio.run(called(chain, "stock"))
    told = said()
    caplog.clear()
    heard, over = asyncio.run(called(chain, manner))
    assert heard == stock
    assert over == (manner == "at once" and chain in ("all at once", "one fails", "one halts"))
    assert said() == told


@pytest.mark.parametrize("at_once", [True, False])
def test_an_addon_that_comes_later_is_called_and_one_that_has_gone_is_not(*, at_once: bool) -> None:
    async def run() -> list[str]:
        heard: list[str] = []
        first, second = Listener("first", heard), Listener("second", heard)
        with manager() as addons:
            speed_up(addons)
            begin = prompt(addons) if at_once else None
            for change, one in ((addons.add, first), (addons.add, second), (addons.remove, first)):
                change(one)
                heard.append("–")
                hook = HttpRequestHook(tflow())
                if begin is None:
                    await addons.handle_lifecycle(hook)
                else:
                    assert begin(hook)
        return heard

    assert asyncio.run(run()) == ["–", "first", "–", "first", "second", "–", "second"]


def test_a_manager_that_is_not_mitmproxys_own_is_left_alone() -> None:
    async def run() -> None:
        with manager() as addons:
            assert prompt(addons) is None

    asyncio.run(run())


# -- writes ---------------------------------------------------------------------------------------------


def sent_together(*given: commands.Command | Exception) -> list[Any]:
    """What comes of these commands; an exception ends them."""

    def stock() -> Iterator[commands.Command]:
        for one in given:
            if isinstance(one, Exception):
                raise one
            yield one

    found: list[Any] = []
    try:
        for command in in_one_piece(stock()):  # type: ignore[arg-type]
            found.append(command.data if isinstance(command, commands.SendData) else command)
    except ValueError as error:
        found.append(error)
    return found


def test_what_is_sent_in_a_row_is_sent_together_and_nothing_overtakes_it() -> None:
    client, server = tclient_conn(), tserver_conn()

    def send(data: bytes, peer: Any = client) -> commands.SendData:
        return commands.SendData(peer, data)

    close, failure = commands.CloseConnection(client), ValueError()
    large = b"x" * (SMALL + 1)
    assert sent_together(send(b"a"), send(b"b"), send(b"c")) == [b"abc"]
    assert sent_together(send(b"a"), close, send(b"b")) == [b"a", close, b"b"]
    assert sent_together(send(b"a"), send(b"b", server), send(b"c")) == [b"a", b"b", b"c"]
    assert sent_together(send(b"a"), send(large), send(b"b")) == [b"a", large, b"b"]
    assert sent_together(send(b"a"), send(b"b"), failure) == [b"ab", failure]
    assert sent_together() == []
    many = [send(large[:-1]) for _ in range(9)]
    assert [len(piece) for piece in sent_together(*many)] == [2 * SMALL] * 4 + [SMALL]


# -- streams --------------------------------------------------------------------------------------------

COUNTING = """
import gc
from presign_proxy.mitm.flow.stream import GuardedStream

gc.disable()


def client_disconnected(client):
    left = sum(isinstance(one, GuardedStream) for one in gc.get_objects())
    print(f"streams left by {client.peername[1]}: {left} ", flush=True)
"""


def test_what_a_request_has_taken_is_free_when_it_ends(
    make_gateway: MakeGateway, upstream: Recorder, tmp_path: Path
) -> None:
    """Not at the next garbage collection, for which everybody waits."""
    script = tmp_path / "counting.py"
    script.write_text(COUNTING, "utf-8")
    config = {"connections": {CONN: bearer_connection(upstream.url, SECRET)}}
    gateway = make_gateway(config, "-s", str(script), "-s", str(PROMPTLY))
    good, bad = Grant(CONN), Grant(CONN, expires=1)
    with connect(gateway.port) as sock:
        told = f"streams left by {sock.getsockname()[1]}: "
        for grant in (good, bad) * 20:
            status = parse_response(exchange(sock, wire(grant.target("v1/models")))).status
            assert status == (200 if grant is good else 403)
    assert eventually(lambda: told in gateway.log())
    assert int(gateway.log().partition(told)[2].split()[0]) <= 1


# -- a production gateway -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: Recorder) -> Iterator[Serve]:
    lab = bearer_connection(upstream.url, SECRET)
    config = {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {CONN: lab, "conn_counted": lab | {"limits": [{"rate": "3/hour"}]}},
    }
    found = Serve(tmp_path_factory.mktemp("served"), config)
    yield found.start(40)
    found.stop()


@pytest.fixture
def client(served: Serve) -> Iterator[H2Client]:
    with H2Client.through(served.port, GATEWAY, cafile=served.ca) as found:
        yield found


def head(target: str, method: str = "GET") -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]


def test_http2_requests_and_refusals_follow_one_another(client: H2Client, upstream: Recorder) -> None:
    good, bad = Grant(CONN).target("v1/models"), Grant(CONN, methods="PUT").target("v1/models")
    for _ in range(5):
        assert client.request(head(good)).status == 200
        assert client.request(head(bad)).status == 403
        assert client.request(head(good, "POST"), b"x" * 100_000).status == 200
        assert client.request(head(bad, "POST"), b"x" * 100_000).status == 403
    assert [seen.header("authorization") for seen in upstream.requests] == [f"Bearer {REAL_SECRET}"] * 10
    assert [seen.length for seen in upstream.requests] == [0, 100_000] * 5


def test_http2_requests_that_wait_for_a_limit_are_counted(client: H2Client, upstream: Recorder) -> None:
    target = Grant("conn_counted").target("v1/models")
    statuses = [client.request(head(target, method), body).status for method, body in UPLOADS * 3]
    assert statuses == [200, 200, 200, 429, 429, 429]
    assert len(upstream.requests) == 3


UPLOADS: list[tuple[str, bytes | None]] = [("GET", None), ("POST", b"x" * 100)]


def test_http2_requests_that_are_taken_back_at_once_reach_no_upstream(
    client: H2Client, upstream: Recorder
) -> None:
    """CVE-2023-44487: nothing is dialled for them either, however fast they come."""
    target = Grant(CONN).target("v1/models")
    for _ in range(20):
        client.take_back(head(target))
    assert client.request(head(target)).status == 200
    time.sleep(0.3)
    assert upstream.connections == len(upstream.requests) == 1


def test_what_cannot_take_the_lane_is_served_and_refused_as_ever(served: Serve, upstream: Recorder) -> None:
    """`Expect` leads to the flow path, and so does a refusal, with all that follows on its connection."""
    good = Grant(CONN).target("v1/models")
    with connect(served.port) as sock:
        statuses = [
            parse_response(exchange(sock, one)).status
            for one in (
                wire(good),
                wire(Grant(CONN, paths="v2/*").target("v1/models")),
                wire(good),
                wire(Grant(CONN, paths="v2/*").target("v1/models"), method="POST", body=b"x" * 100),
                wire(good, method="POST", body=b"x" * 100),
                wire(good),
            )
        ]
    assert statuses == [200, 403, 200, 403, 200, 200]
    assert len(upstream.requests) == 4
    assert ask(served.port, good, {"Upgrade": "websocket", "Connection": "Upgrade"}).status == 426
    assert len(upstream.requests) == 4


def test_hundreds_of_requests_sent_ahead_are_answered_one_by_one(served: Serve, upstream: Recorder) -> None:
    """None of them is begun with inside the one before, however soon that is over."""
    good, bad = wire(Grant(CONN).target("v1/models")), wire(Grant(CONN, paths="v2/*").target("v1/models"))
    received = b""
    with connect(served.port) as sock:
        sock.sendall(bad * 150 + good + bad * 150 + good * 100)
        while received.count(b"HTTP/1.1 ") < 401 and (data := sock.recv(65536)):
            received += data
    statuses = [piece[:3] for piece in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"403"] * 150 + [b"200"] + [b"403"] * 150 + [b"200"] * 100
    assert len(upstream.requests) == 101
