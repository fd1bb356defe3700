"""mitmdump tells of each request of ours in one line, which nobody can write into."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.core.decision import Deny, Facts
from presign_proxy.observe import terminal
from presign_proxy.observe.audit_record import Outcome
from presign_proxy.observe.terminal import Terminal
from presign_proxy.units import duration, instant, printable, size, size_in_words, span
from support.answers import BEHAVIOURS, Answer
from support.asking import Grant, wire
from support.byhand import Wire
from support.h2client import H2Client
from support.lab import REAL_SECRET
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import SCRIPTS, Puppeteer, eventually
from support.raw import ConnectRefused, connect, connect_tls, exchange, parse_response
from support.recorder import Recorder
from support.serving import CONN, Serve

SECRET = "sk_signing_secret_of_the_terminal_0123456789"
OTHER = "sk_somebody_elses_secret_0123456789"
HOST = "presign.local"
LANE = ()
FLOWS = ("--set", "presign_lane=off")
GRANTED = r"127\.0\.0\.1:\d+: GET conn/v1/models 200 12b [0-9.]+m?s \(key k1, query, expires in 59m\)"
MITMPROXY = re.compile(r"\[[0-9:.]+\]")
"""How a line of mitmproxy's own log begins."""


def config(upstream: str, *, unsigned: str = "pass") -> dict[str, Any]:
    keys = [{"id": "k1", "secret": SECRET}]
    auth = {"type": "bearer", "token": REAL_SECRET}
    connection = {"upstream": upstream, "auth": auth, "signing_keys": keys}
    dead = {**connection, "upstream": "http://127.0.0.1:1", "timeouts": {"connect": "2s"}}
    return {
        "gateway": {"hosts": [HOST], "unsigned": unsigned},
        "connections": {"conn": connection, "conn_dead": dead, "conn_once": {**connection, "max_uses": 1}},
        "limits": {"store": "memory://"},
    }


@dataclass
class Watched:
    """A gateway, and what its terminal shows of the requests that a test sends."""

    gateway: Mitm
    signatures: set[str]
    upstream: Recorder
    lane: bool
    since: int = 0

    def grant(self, connection: str = "conn", **signed: Any) -> Grant:
        # An hour that has begun: in any second of the test it ends in 59 minutes.
        signed = {"expires": int(time.time()) + 3590, "secret": SECRET, **signed}
        made = Grant(connection, **signed)
        self.signatures.add(made.headers["X-Presign-Signature"])
        return made

    def ask(self, data: bytes) -> tuple[int, int]:
        """The status of the answer, and the port that it was asked from."""
        with connect(self.gateway.port) as client:
            port = int(client.getsockname()[1])
            return parse_response(exchange(client, data)).status, port

    def lines(self, count: int = 1) -> list[str]:
        """All lines since the last time that are not of mitmproxy's log; one more request makes sure that
        nothing is still to come.
        """
        mark = f"v1/mark-{time.monotonic_ns()}"
        assert self.ask(wire(self.grant().target(mark)))[0] == 200
        assert eventually(lambda: mark in self.gateway.log()), self.gateway.log()[self.since :]
        found = self.gateway.log()[self.since :]
        self.since += len(found)
        told = [line for line in found.splitlines() if line]  # an end of a line may come after its line
        lines = [line for line in told if not MITMPROXY.match(line) and mark not in line]
        assert len(lines) == count, found
        return lines


def until(gateway: Mitm, text: str, since: int) -> str:
    """What is printed from some place on, once `text` is."""
    assert eventually(lambda: text in gateway.log()[since:])
    return gateway.log()[since:]


def watch(make: Any, upstream: Recorder, *options: str, unsigned: str = "pass") -> Iterator[Watched]:
    gateway = make(config(upstream.url, unsigned=unsigned), *options)
    watched = Watched(gateway, set(), upstream, options == LANE)
    watched.since = len(gateway.log())
    yield watched
    log = gateway.log_path.read_bytes()
    assert not Traces([REAL_SECRET, SECRET, *watched.signatures]).found_in(log)
    assert b"Traceback" not in log
    assert all(octet in b"\n" or 0x20 <= octet < 0x7F for octet in log)


@pytest.fixture(scope="module", params=[LANE, FLOWS], ids=["lane", "flows"])
def module_watched(request: pytest.FixtureRequest, module_gateway, upstream: Recorder) -> Iterator[Watched]:
    yield from watch(module_gateway, upstream, *request.param)


@pytest.fixture
def watched(module_watched: Watched) -> Watched:
    module_watched.since = len(module_watched.gateway.log())
    return module_watched


def test_the_lane_is_what_is_watched(watched: Watched) -> None:
    """Else every test here would be of flows: clients share upstream connections on the lane only."""
    watched.upstream.clear()
    with connect(watched.gateway.port) as one, connect(watched.gateway.port) as other:
        for client in (one, other):
            exchange(client, wire(watched.grant().target("v1/models")))
        assert (watched.upstream.connections < 2) == watched.lane
    watched.lines(2)


def test_a_granted_request_leaves_one_line(watched: Watched) -> None:
    status, port = watched.ask(wire(watched.grant().target("v1/models?q=QUERYVALUE")))
    assert status == 200
    (line,) = watched.lines()
    assert line.startswith(f"127.0.0.1:{port}: ")
    assert re.fullmatch(GRANTED, line), line


def test_a_granted_request_over_http2_leaves_one_line(watched: Watched) -> None:
    with H2Client.through(watched.gateway.port, HOST, cafile=watched.gateway.ca) as client:
        target = watched.grant().target("v1/models")
        head = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", target)]
        assert client.request(head).status == 200
    (line,) = watched.lines()
    assert re.fullmatch(GRANTED, line), line


@pytest.mark.parametrize("carrier", ["header", "path", "key"])
def test_the_line_names_the_carrier(carrier: str, watched: Watched) -> None:
    grant = watched.grant(expires=0)
    named = "/api/proxy/conn/v1/models"
    data = {
        "header": wire(named, grant.headers),
        "path": wire(f"/p/{grant.token}/v1/models"),
        "key": wire(named, {"Authorization": f"Bearer {grant.token}"}),
    }[carrier]
    assert watched.ask(data)[0] == 200
    (line,) = watched.lines()
    assert line.endswith(f"(key k1, {carrier}, never expires)")


def test_many_requests_of_one_client_leave_one_line_each(watched: Watched) -> None:
    with connect(watched.gateway.port) as client:
        for number in range(20):
            exchange(client, wire(watched.grant().target(f"v1/{number}")))
    lines = watched.lines(20)
    assert [line.split()[2] for line in lines] == [f"conn/v1/{number}" for number in range(20)]


def test_an_upstream_that_cannot_be_reached_is_told_with_its_code(watched: Watched) -> None:
    assert watched.ask(wire(watched.grant("conn_dead").target("v1/models")))[0] == 502
    (line,) = watched.lines()
    assert " GET conn_dead/v1/models 502 0b " in line
    assert ": upstream: the upstream " in line


def test_a_client_that_goes_away_leaves_one_line(watched: Watched) -> None:
    with Wire(connect(watched.gateway.port)) as client:
        client.send(wire(watched.grant().target("slow")))
        assert watched.upstream.wait_for_heads(1)
    until(watched.gateway, " GET conn/slow ", watched.since)  # it might have had more to say
    (line,) = watched.lines()
    assert " GET conn/slow - 0b " in line
    assert line.endswith(": the client went away")


@pytest.mark.parametrize(
    ("signed", "asked", "code", "told"),
    [
        (
            {"expires": 1700000000},
            "v1/models",
            "expired",
            "GET conn/v1/models 403 refused: expired: expired ",
        ),
        (
            {"methods": "POST"},
            "v1/models",
            "method_not_allowed",
            "GET conn/v1/models 403 refused: method_not_allowed: ",
        ),
        ({"paths": "v2/*"}, "v1/models?q=QUERYVALUE", "path_not_allowed", "GET conn/v1/models 403 refused: "),
        ({}, "v1/../models", "path_not_allowed", "GET conn 403 refused: path_not_allowed: "),
        ({}, "v1/%1b[31mred%0a127.0.0.1:1: GET conn/forged", "path_not_allowed", "GET conn 403 refused: "),
    ],
)
def test_a_refusal_after_a_good_signature_leaves_one_line_with_its_code(
    signed: dict[str, Any], asked: str, code: str, told: str, watched: Watched
) -> None:
    target = watched.grant(**signed).target(asked).replace(" ", "%20")
    assert watched.ask(wire(target))[0] == 403
    (line,) = watched.lines()
    assert told in line
    assert f"refused: {code}: " in line
    assert re.search(r"\(key k1, query, (?:expires in 59m|expired \d+d ago), req_[a-z0-9]+\)$", line), line
    assert "QUERYVALUE" not in line


def test_a_request_over_its_limit_leaves_one_line_with_the_reason(watched: Watched) -> None:
    target = watched.grant("conn_once").target("v1/models")
    assert [watched.ask(wire(target))[0] for _ in range(2)] == [200, 429]
    granted, refused = watched.lines(2)
    assert " GET conn_once/v1/models 200 " in granted
    assert " GET conn_once/v1/models 429 refused: limited: " in refused


def test_refusals_before_a_good_signature_are_few_and_show_no_path(watched: Watched) -> None:
    bad, sent = watched.grant(secret=OTHER).target("v1/PATH?q=QUERYVALUE"), 200
    begun = int(time.time())
    with Wire(connect(watched.gateway.port)) as client:
        client.send(wire(bad) * sent)
        for _ in range(sent):
            assert client.read_response().startswith(b"HTTP/1.1 403 ")
    seconds = int(time.time()) - begun + 1
    time.sleep(1.1)  # into another second, in which there is room to tell of those before it
    assert watched.ask(wire(bad))[0] == 403
    mark = len(watched.gateway.log())
    assert eventually(lambda: "GET conn" in watched.gateway.log()[watched.since : mark])
    lines = [one for one in watched.gateway.log()[watched.since :].splitlines() if not MITMPROXY.match(one)]
    assert 1 < len(lines) <= 50 * seconds + 1
    untold = sum(int(found) for line in lines for found in re.findall(r"\[(\d+) refusals before it", line))
    assert len(lines) + untold == sent + 1
    for line in lines:
        assert re.fullmatch(
            r"127\.0\.0\.1:\d+: GET conn 403 refused: invalid: no signing key of the connection made this "
            r"signature \(query, req_[a-z0-9]+\)(?: \[\d+ refusals before it are not shown\])?",
            line,
        ), line


@pytest.mark.parametrize(
    "target",
    [
        b"v1/\x1b[31m",
        b"v1/%1B[31m",
        b"v1/\xc2\x9b31m",
        b"v1/\x9b31m",
        b"v1/\xe2\x80\xaeabc",
        b"v1/\x07",
        b"v1/a\tb",
    ],
)
def test_no_client_sends_control_characters_to_the_terminal(target: bytes, watched: Watched) -> None:
    """The fixture looks at every byte of the output when all tests are over; here, at what is printable."""
    good = watched.grant().target("@@").encode().replace(b"@@", target)
    bad = watched.grant(secret=OTHER).target("@@").encode().replace(b"@@", target)
    for asked in (good, bad):
        for method in (b"GET", b"G\x1b[31mT", b"\xc2\x9b"):
            head = method + b" " + asked + b" HTTP/1.1\r\nHost: presign.local\r\nX-A: \x1b[31m\r\n\r\n"
            watched.ask(head.replace(b"X-A: \x1b[31m\r\n", b"") if method == b"GET" else head)
    assert watched.ask(wire(watched.grant().target("v1/x")))[0] == 200
    assert eventually(lambda: "conn/v1/x 200" in watched.gateway.log()[watched.since :])
    shown = watched.gateway.log_path.read_bytes()[watched.since :]
    assert shown.replace(b"\n", b"").decode("ascii").isprintable()


def test_an_upstream_sends_no_control_characters_to_the_terminal(watched: Watched) -> None:
    odd = b"HTTP/1.1 200 \x1b[31mOK\r\nContent-Length: 2\r\nX-A: \x1b[31m\r\n\r\nok"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BEHAVIOURS, "odd", lambda request: Answer(verbatim=odd))
        watched.ask(wire(watched.grant().target("odd")))
    (line,) = watched.lines()
    assert line.isprintable()
    assert " GET conn/odd " in line


def test_a_value_of_sixty_kilobytes_makes_a_short_line(watched: Watched) -> None:
    assert watched.ask(wire(watched.grant().target("v1/models?q=" + "x" * 60_000)))[0] == 200
    assert watched.ask(wire(watched.grant().target("v1/" + "y" * 60_000)))[0] == 200
    assert watched.ask(wire(watched.grant(secret=OTHER).target("v1/models?q=" + "x" * 60_000)))[0] == 403
    for line in watched.lines(3):
        assert len(line) < 400


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-q",), ("-q", *FLOWS), ("--set", "flow_detail=0")])
def test_a_quiet_mitmdump_shows_no_line(options: tuple[str, ...], make_gateway, upstream: Recorder) -> None:
    gateway = make_gateway(config(upstream.url), *options)
    watched = Watched(gateway, set(), upstream, lane=True)
    assert watched.ask(wire(watched.grant().target("v1/models")))[0] == 200
    assert watched.ask(wire(watched.grant().target("v1/models")))[0] == 200
    assert upstream.wait_for(2)
    gateway.stop()
    assert "conn/v1/models" not in gateway.log()
    if "-q" in options:
        assert gateway.log() == ""


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--set", "flow_detail=2"), ("-v",), ("~u .",)])
def test_who_asks_for_more_gets_the_flow_and_no_second_line(
    options: tuple[str, ...], make_gateway, upstream: Recorder
) -> None:
    gateway = make_gateway(config(upstream.url), *options)
    watched = Watched(gateway, set(), upstream, lane=False)
    assert watched.ask(wire(watched.grant().target("v1/models")))[0] == 200
    assert eventually(lambda: " << 200 OK" in gateway.log())
    gateway.stop()
    assert f"GET {upstream.url}/v1/models" in gateway.log()
    assert "(key k1, query" not in gateway.log()


@pytest.mark.slow
def test_the_detail_can_be_changed_while_it_runs(make_gateway, upstream: Recorder) -> None:
    gateway = make_gateway(config(upstream.url), "-s", str(SCRIPTS / "puppet.py"))
    puppet, watched = Puppeteer(gateway.port), Watched(gateway, set(), upstream, lane=False)
    for number, detail in enumerate((1, 2, 0, 1)):
        puppet.tell("options", flow_detail=detail)
        since = len(gateway.log())
        assert watched.ask(wire(watched.grant().target(f"v1/{number}")))[0] == 200
        puppet.tell("options", flow_detail=4)  # prints itself, as the last thing there is
        log = until(gateway, "puppet.test", since)
        assert (f"conn/v1/{number} 200 " in log) == (detail == 1), log
        assert (f"GET {upstream.url}/v1/{number}" in log) == (detail == 2), log


@pytest.mark.slow
def test_a_refused_tunnel_leaves_one_line_that_names_it(make_gateway, upstream: Recorder) -> None:
    for watched in watch(make_gateway, upstream, *LANE, unsigned="deny"):
        with pytest.raises(ConnectRefused):
            connect_tls(watched.gateway.port, "evil.test", 443)
        (line,) = watched.lines()
        assert re.fullmatch(
            r"127\.0\.0\.1:\d+: CONNECT 403 refused: unsigned: CONNECT to evil\.test:443 \(req_[a-z0-9]+\)",
            line,
        ), line


@pytest.mark.slow
def test_serve_prints_no_line_for_a_request(tmp_path: Path, upstream: Recorder) -> None:
    auth = {"type": "bearer", "token": REAL_SECRET}
    connection = {"upstream": upstream.url, "auth": auth, "signing_keys": [{"secret": SECRET}]}
    settings = {
        "gateway": {"hosts": [HOST]},
        "connections": {CONN: connection},
        "audit": {"file": "audit.jsonl"},
    }
    with Serve(tmp_path, settings) as served:
        for secret in (SECRET, OTHER):
            with connect(served.port) as client:
                exchange(client, wire(Grant(CONN, secret=secret).target("v1/models")))
        audit = tmp_path / "audit.jsonl"
        assert eventually(lambda: audit.exists() and len(audit.read_text().splitlines()) == 2)
        served.stop()
        assert [json.loads(line)["decision"] for line in audit.read_text().splitlines()] == [
            "forward",
            "deny",
        ]
        assert CONN not in served.log()


# -- without a process ---------------------------------------------------------------------------------


def test_who_does_not_print_makes_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Terminal()
    monkeypatch.setattr(logging.getLogger(terminal.__name__), "level", logging.WARNING)
    calls: list[str] = []
    monkeypatch.setattr(terminal, "line_of_refusal", lambda *given: calls.append("made") or "")
    told.tell(Deny("invalid", "why", "json", Facts("req_x")), Outcome(), None, 0.0)
    assert calls == []
    logging.getLogger(terminal.__name__).setLevel(logging.INFO)
    told.tell(Deny("invalid", "why", "json", Facts("req_x")), Outcome(), None, 0.0)
    assert calls == ["made"]


def test_a_flood_of_refusals_is_told_of_by_its_number() -> None:
    lines: list[str] = []
    told = Terminal()
    told.echo = lines.append
    for _ in range(1000):
        told.tell(Deny("invalid", "why", "json", Facts("req_x", "GET")), Outcome(403), ("10.0.0.1", 7), 5.0)
    assert len(lines) == 50
    told.tell(Deny("invalid", "why", "json", Facts("req_y", "GET")), Outcome(403), ("::1", 7), 6.0)
    assert lines[50] == (
        "[::1]:7: GET 403 refused: invalid: why (req_y) [950 refusals before it are not shown]"
    )


def test_a_terminal_that_is_gone_ends_no_request() -> None:
    told = Terminal()

    def gone(line: str) -> None:
        raise BrokenPipeError(line)

    told.echo = gone
    told.tell(Deny("invalid", "why", "json", Facts("req_x")), Outcome(403), None, 0.0)


@pytest.mark.slow
def test_sizes_and_times_are_short() -> None:
    assert [size(n) for n in (0, 1023, 1229, 1048575, 5 << 20, 3 << 40)] == [
        *("0b", "1023b", "1.2k", "1.0m", "5.0m", "3.0t")
    ]
    counts = (0, 1, 1023, 1024, 10188, 1_048_000, 208_877_388, 3 << 40)
    assert [size_in_words(n) for n in counts] == [
        *("0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "9.9 KiB", "1.0 MiB", "199 MiB", "3.0 TiB")
    ]
    assert [duration(n) for n in (0.0004, 0.085, 1.25, 130.2)] == ["0ms", "85ms", "1.25s", "130s"]
    assert [span(n) for n in (0, 45, 3599, 7199, 570, 600, 86400 * 7 - 1, 86400 * 30)] == [
        *("0s", "45s", "59m", "1h59m", "9m30s", "10m", "6d23h", "30d")
    ]
    assert instant(1764345540) == "2025-11-28T15:59:00Z"
    assert instant(999999999999) == "Unix time 999999999999"
    assert printable("a\x1b[31m\x9b\x7f\nü") == "a\\x1b[31m\\x9b\\x7f\\x0a\\xfc"
    assert printable("x" * 300) == "x" * 200 + "..."
