"""The admin listener and the audit log of real gateways: for those who watch them, and others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from presign_proxy.config.live import Newer
from presign_proxy.core.registry import Registry
from presign_proxy.gateway.lifecycle import Lifecycle
from presign_proxy.gateway.status import Status
from presign_proxy.observe import admin_server as admin
from presign_proxy.observe.metrics import FAMILIES
from support import audit_log
from support.asking import SECRET, Grant, ask, code, wire
from support.config import write_config
from support.documents import DOCS
from support.lab import REAL_SECRET, bearer_connection
from support.places import ROOT
from support.process import free_port
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, exchange, send_raw
from support.recorder import Recorder
from support.signing import source_url

PATHS = ("/livez", "/readyz", "/metrics")
API = Grant("conn")


def config(upstream: Recorder, port: int, **more: Any) -> dict[str, Any]:
    """A gateway with an admin listener, and connections that lead to it."""
    source = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [upstream.url, f"http://127.0.0.1:{port}"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["png"],
        "signing_keys": [{"secret": SECRET}],
    }
    connections = {
        "conn": bearer_connection(upstream.url, SECRET),
        "conn_limited": bearer_connection(upstream.url, SECRET, limits=[{"rate": "1/day"}]),
        "conn_dead": bearer_connection("http://127.0.0.1:1", SECRET),
        "conn_admin": bearer_connection(f"http://127.0.0.1:{port}", SECRET),
        "conn_named": bearer_connection(f"http://admin.test:{port}", SECRET, insecure_upstream=True),
        "pk": source,
    }
    return {
        "gateway": {"hosts": ["presign.local"]},
        "connections": connections,
        "limits": {"store": "memory://"},
        "audit": {"file": "audit.jsonl"},
        "admin": {"listen": f"127.0.0.1:{port}"},
    } | more


class Watched(Mitm):
    """A gateway, and where it is watched."""

    admin: int


@pytest.fixture(scope="module")
def gateway(module_gateway: Any, upstream: Recorder) -> Watched:
    port = free_port()
    gateway = module_gateway(config(upstream, port), dns={"admin.test": ["127.0.0.1"]})
    return watched(gateway, port)


def watched(gateway: Watched, port: int) -> Watched:
    """Once it answers: the proxy's own port is open before the configuration is read."""
    gateway.admin = port
    assert eventually(lambda: answers(port), 15), gateway.log()
    return gateway


def answers(port: int) -> bool:
    try:
        return get(port, "/livez").status == 200
    except (OSError, ValueError):  # or it is closed just now
        return False


def get(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(port, path, named, method=method, host=host)


def ready(port: int) -> tuple[int, str]:
    response = get(port, "/readyz")
    return response.status, response.body.decode().strip()


def metrics(port: int) -> dict[tuple[str, ...], float]:
    """Every sample: its name, and its labels' values in the order of their names."""
    response = get(port, "/metrics")
    assert response.status == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }


def shows(port: int, *sample: str, value: float, timeout: float = 5.0) -> bool:
    return eventually(lambda: metrics(port).get(sample) == value, timeout)


def audit_lines(gateway: Mitm, name: str = "audit.jsonl") -> list[dict[str, Any]]:
    return audit_log.audit_lines(gateway.directory / name)


def src(url: str) -> str:
    return source_url(SECRET, "pk", url, int(time.time()) + 60, "png")


# -- what is served ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_three_paths_are_served_without_a_word_on_who_serves_them(path: str, gateway: Watched) -> None:
    response = get(gateway.admin, path)
    assert response.status == 200
    assert response.body.endswith(b"\n")
    head = get(gateway.admin, path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    for one in (response, head):
        said = " ".join(f"{name}: {value}" for name, value in one.headers).lower()
        assert "tornado" not in said
        assert "server:" not in said
        assert one.header("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "X" * 99])
def test_nothing_can_be_done_there(method: str, gateway: Watched) -> None:
    response = get(gateway.admin, "/metrics", method)
    assert response.status in (400, 405)
    assert b"presign_" not in response.body


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "//metrics",
            "/metrics/",
            "/Metrics",
            "/metrics%20",
            "/%6detrics",
            "/a/../metrics",
            "/metrics;a",
        ),
        *("*", "/debug/pprof", "/admin", "http://127.0.0.1/metrics", "http://evil.test/metrics"),
    ],
)
def test_nothing_else_is_there(path: str, gateway: Watched) -> None:
    response = get(gateway.admin, path)
    assert response.status in (400, 404)
    assert b"presign_" not in response.body


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("evil.test", {}),
        ("localhost.evil.test", {}),
        ("127.0.0.1.evil.test", {}),
        ("2130706433", {}),
        ("presign.local", {}),
        ("127.0.0.1, evil.test", {}),
        ("user@127.0.0.1", {}),
        ("", {}),
        ("127.0.0.1", {"Sec_Fetch_Site": "cross-site"}),
        ("127.0.0.1", {"Sec_Fetch_Site": "same-site"}),
    ],
)
def test_a_page_in_a_browser_reads_no_figures(host: str, headers: dict[str, str], gateway: Watched) -> None:
    """DNS rebinding: the page's own name leads here, and what comes back would be its own to read."""
    for path in PATHS:
        response = get(gateway.admin, path, host=host, **headers)
        assert response.status in (400, 403)
        assert b"presign_" not in response.body
        assert response.header("access-control-allow-origin") is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9464", "127.0.0.1:1", "[::1]:9464", "10.1.2.3"])
def test_a_scraper_that_asks_by_address_is_answered(host: str, gateway: Watched) -> None:
    assert get(gateway.admin, "/metrics", host=host).status == 200


def test_every_metric_that_is_shown_is_documented(gateway: Watched) -> None:
    text = get(gateway.admin, "/metrics").body.decode()
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == set(FAMILIES)


# -- what is counted --------------------------------------------------------------------------------------


def test_requests_are_counted_and_written_down_as_the_schema_says(
    gateway: Watched, upstream: Recorder
) -> None:
    before = metrics(gateway.admin)
    expected = [
        (ask(gateway.port, API.target("v1/models")), 200),
        (ask(gateway.port, API.target("v1/models"), method="POST", body=b"12345"), 200),
        (ask(gateway.port, f"/p/{API.token}/v1/models"), 200),
        (ask(gateway.port, Grant("conn", expires=1).target("v1/models")), 403),
        (ask(gateway.port, Grant("conn", secret="sk_" + "x" * 40).target("v1/models")), 403),
        (ask(gateway.port, Grant("conn_nobody").target("v1/models")), 403),
        (ask(gateway.port, Grant("conn_dead").target("v1/models")), 502),
        (ask(gateway.port, "/api/proxy/conn/v1/redirect", API.headers), 403),
        (ask(gateway.port, Grant("conn_limited").target("v1/models")), 200),
        (ask(gateway.port, Grant("conn_limited").target("v1/models")), 429),
        (ask(gateway.port, src(f"{upstream.url}/a.png"), host="presign.local"), 200),
        (ask(gateway.port, "/api/proxy/conn/v1/models"), 400),
        (ask(gateway.port, f"{upstream.url}/plain", host=upstream.url.removeprefix("http://")), 200),
    ]
    assert [response.status for response, _ in expected] == [status for _, status in expected]

    def more(*sample: str) -> float:
        return metrics(gateway.admin).get(sample, 0) - before.get(sample, 0)

    def requests(carrier: str, code: str, decision: str, scheme: str, status: str) -> float:
        return more("presign_requests_total", carrier, code, decision, scheme, status)

    assert eventually(lambda: requests("query", "", "forward", "presign", "2xx") == 3)
    assert requests("path", "", "forward", "presign", "2xx") == 1
    assert requests("query", "", "forward", "source", "2xx") == 1
    assert requests("query", "expired", "deny", "presign", "4xx") == 1
    assert requests("query", "invalid", "deny", "presign", "4xx") == 2
    assert requests("query", "upstream", "forward", "presign", "5xx") == 1
    assert requests("header", "redirect_not_allowed", "forward", "presign", "4xx") == 1
    assert requests("query", "limited", "deny", "presign", "4xx") == 1
    assert requests("", "malformed", "deny", "", "4xx") == 1
    assert more("presign_connection_requests_total", "", "conn", "forward") == 3
    assert more("presign_connection_requests_total", "expired", "conn", "deny") == 1
    assert more("presign_connection_requests_total", "invalid", "conn", "deny") == 0
    assert more("presign_passed_total") == 1
    assert more("presign_limits_total", "admitted") == 1
    assert more("presign_limits_total", "limited") == 1
    assert more("presign_limited_total", "rate") == 1
    assert more("presign_bytes_total", "in") == 5
    assert more("presign_request_duration_seconds_count") == 7
    assert more("presign_upstream_response_seconds_count") == 6
    assert metrics(gateway.admin)["presign_in_flight",] == 0
    assert eventually(lambda: len(audit_lines(gateway)) >= 12)
    (refused,) = [line for line in audit_lines(gateway) if line["upstream_status"] == 302]
    assert (refused["code"], refused["status"]) == ("redirect_not_allowed", 403)
    assert "redirect" in refused["detail"]
    for line in audit_lines(gateway):
        assert violations(line) == [], line
    kinds = {(line["decision"], line["code"]) for line in audit_lines(gateway)}
    assert {("forward", None), ("forward", "upstream"), ("deny", "limited"), ("deny", "invalid")} <= kinds
    granted = [line for line in audit_lines(gateway) if line["upstream_status"] == 200]
    assert all(0 < line["upstream_duration"] <= line["duration"] < 10 for line in granted)


SCHEMA = json.loads((ROOT / "docs/audit.schema.json").read_text("utf-8"))
TYPES = {"string": str, "integer": int, "number": (int, float), "null": type(None)}


def violations(line: dict[str, Any]) -> list[str]:
    """What of a line is not as the schema says; knows just the words that this schema uses."""
    found = [f"{name} is missing" for name in SCHEMA["required"] if name not in line]
    found += [f"{name} is not known" for name in line.keys() - SCHEMA["properties"].keys()]
    for name, value in line.items():
        rule = SCHEMA["properties"].get(name, {})
        assert rule.keys() <= {"type", "enum", "pattern", "minimum", "maximum", "maxLength"}
        kinds = rule.get("type", [])
        allowed = [TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)]
        wrong = bool(allowed) and (isinstance(value, bool) or not any(isinstance(value, t) for t in allowed))
        wrong |= "enum" in rule and value not in rule["enum"]
        if isinstance(value, str):
            wrong |= "pattern" in rule and not re.search(rule["pattern"], value)
            wrong |= len(value) > rule.get("maxLength", 10**9)
        elif isinstance(value, (int, float)):
            wrong |= not rule.get("minimum", value) <= value <= rule.get("maximum", value)
        found += [f"{name}: {value!r}"] if wrong else []
    return found


def test_a_client_that_goes_away_and_a_refused_tunnel_have_lines_as_the_schema_says(
    gateway: Watched,
) -> None:
    before = len(audit_lines(gateway))
    with connect(gateway.port) as sock:
        sock.sendall(wire(API.target("v1/slow")))
        assert shows(gateway.admin, "presign_in_flight", value=1)
    assert shows(gateway.admin, "presign_in_flight", value=0)
    head = b"CONNECT presign.local:443 HTTP/1.1\r\nHost: presign.local:443\r\nX-Presign-Expires: 1\r\n\r\n"
    assert send_raw(gateway.port, head).startswith(b"HTTP/1.1 400")
    assert eventually(lambda: len(audit_lines(gateway)) == before + 2)
    gone, tunnel = audit_lines(gateway)[before:]
    assert (gone["detail"], gone["status"]) == ("the client went away", None)
    assert (tunnel["decision"], tunnel["method"]) == ("deny", "CONNECT")
    assert violations(gone) == violations(tunnel) == []


@pytest.mark.slow
def test_a_gateway_that_is_stopped_writes_down_what_was_in_flight(
    upstream: Recorder, make_gateway: Any
) -> None:
    port = free_port()
    gateway = watched(make_gateway(config(upstream, port)), port)
    with connect(gateway.port) as sock:
        sock.sendall(wire(API.target("v1/slow")))
        assert shows(port, "presign_in_flight", value=1)
        gateway.stop()
    (line,) = audit_lines(gateway)
    assert (line["decision"], line["connection"]) == ("forward", "conn")
    assert line["detail"] in ("the gateway was stopped", "the client went away")
    assert violations(line) == []


def test_no_figure_holds_a_secret_or_a_path(gateway: Watched) -> None:
    ask(gateway.port, API.target("v1/hiddenpath?hiddenquery=1"))
    text = get(gateway.admin, "/metrics").body.decode()
    for never in (REAL_SECRET, SECRET, "hidden", "ps1_", "127.0.0.1"):
        assert never not in text
    assert not re.search(r"[0-9a-f]{32}", text)


# -- who must not get there -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conn_admin", "conn_named"])
def test_a_connection_that_leads_to_the_admin_listener_gets_nothing(name: str, gateway: Watched) -> None:
    response = ask(gateway.port, Grant(name).target("metrics"))
    assert code(response) == (502, "upstream")
    assert b"presign_requests" not in response.body


def test_a_source_that_is_the_admin_listener_is_refused(gateway: Watched) -> None:
    response = ask(gateway.port, src(f"http://127.0.0.1:{gateway.admin}/metrics"))
    assert response.status == 403
    assert b"presign_requests" not in response.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "admin.test", "0.0.0.0", "127.0.0.2", "[::1]"])
def test_the_proxy_leads_nobody_to_the_admin_listener(host: str, gateway: Watched) -> None:
    place = f"{host}:{gateway.admin}"
    response = ask(gateway.port, f"http://{place}/metrics", host=place)
    assert response.status == 502
    with connect(gateway.port) as sock:
        sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        received = sock.recv(1000)
        if received.startswith(b"HTTP/1.1 200"):
            received = exchange(sock, wire("/metrics", host=place))
    assert b"presign_requests" not in received + response.body


# -- who would hold it up ---------------------------------------------------------------------------------


def test_a_huge_head_is_not_kept(gateway: Watched) -> None:
    before = gateway.rss()
    for head in (b"GET /" + b"a" * 5_000_000, b"GET /livez HTTP/1.1\r\nX: " + b"a" * 5_000_000):
        with connect(gateway.admin) as sock, contextlib.suppress(OSError):
            sock.sendall(head)
            assert sock.recv(100) in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert gateway.rss() - before < 4_000_000
    assert get(gateway.admin, "/livez").status == 200


@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_a_body_is_not_waited_for(framing: str, gateway: Watched) -> None:
    head = f"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n"
    begun = time.monotonic()
    with connect(gateway.admin) as sock:
        sock.sendall(head.encode())
        assert sock.recv(100).startswith((b"HTTP/1.1 405", b"HTTP/1.1 400"))
    assert time.monotonic() - begun < 2


def test_a_thousand_connections_that_say_nothing_shut_no_probe_out(gateway: Watched) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(1000):
            held.enter_context(socket.create_connection(("127.0.0.1", gateway.admin)))
        begun = time.monotonic()
        assert get(gateway.admin, "/readyz").status == 200
        assert ask(gateway.port, API.target("v1/models")).status == 200
        assert time.monotonic() - begun < 2
        assert metrics(gateway.admin)["process_open_fds",] < 200
    assert "Traceback" not in gateway.log()


def test_a_scraper_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """As is one that never ends its head; in their process others are answered meanwhile."""
    monkeypatch.setattr(admin, "DEADLINE", 0.3)
    names = [[f"connection{'x' * 50}{number}", "deny", "expired"] for number in range(100_000)]

    async def figures() -> Any:
        return {"presign_connection_requests_total": [[name, 1] for name in names]}

    async def story() -> None:
        sockets = admin.bound("127.0.0.1", 0)
        port = sockets[0].getsockname()[1]
        server = admin.AdminServer(sockets, "127.0.0.1", lambda: (True, "ready"), figures, figures)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(wire("/metrics", host="127.0.0.1"))
        idle, other = await asyncio.open_connection("127.0.0.1", port)
        assert (await asyncio.to_thread(get, port, "/livez")).status == 200
        assert await asyncio.wait_for(idle.read(), 2) == b""
        await asyncio.sleep(1)
        got = await asyncio.wait_for(reader.read(), 5)
        assert len(got) < 10_000_000  # of 13 MB
        writer.close()
        other.close()
        server.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(story())


# -- what changes while it runs ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_broken_change_is_told_and_keeps_the_gateway_in_rotation(
    upstream: Recorder, make_gateway: Any
) -> None:
    port, other, taken = free_port(), free_port(), free_port()
    content = config(upstream, port)
    gateway = watched(make_gateway(content), port)
    assert ready(port) == (200, "ready")
    write_config({"nonsense": True}, gateway.directory)
    assert eventually(lambda: ready(port)[1].startswith("ready: stale configuration: version "))
    assert ready(port)[0] == 200
    found = metrics(port)
    assert found["presign_config_stale",] == 1
    assert found["presign_ready",] == 1
    assert found["presign_config_reloads_total", "failed"] == 1
    assert ask(gateway.port, API.target("v1/models")).status == 200

    with socket.create_server(("127.0.0.1", taken)):  # where it cannot listen, it stays where it was
        write_config(config(upstream, taken), gateway.directory)
        assert gateway.wait_for_log(
            f"admin.listen: cannot listen on 127.0.0.1:{taken}: address already in use"
        )
        assert ready(port)[1].startswith("ready: stale configuration")

    write_config(config(upstream, other), gateway.directory)
    assert eventually(lambda: answers(other))
    assert ready(other) == (200, "ready")
    assert not answers(port)
    found = metrics(other)
    assert found["presign_config_stale",] == 0
    assert found["presign_config_reloads_total", "failed"] == 2
    assert found["presign_config_reloads_total", "ok"] == 1
    assert abs(found["presign_config_last_success_timestamp_seconds",] - time.time()) < 20
    place = f"127.0.0.1:{other}"
    assert ask(gateway.port, f"http://{place}/metrics", host=place).status == 502

    content.pop("admin")
    write_config(content, gateway.directory)
    assert eventually(lambda: not answers(other))


def parts(**changed: Any) -> Status:
    """An observer of a gateway that is well, but for what is changed."""
    known = {
        "obstacle": "",
        "audit_log": "",
        "registry": Registry({}),
        "stale": False,
        "is_down": False,
        "hangs": "",
    } | changed
    admission = SimpleNamespace(obstacle=known["obstacle"])
    newer = Newer(0.0, "x") if known["stale"] else None
    live_config = SimpleNamespace(
        registry=known["registry"],
        loaded=None,
        newer=newer,
        trouble=lambda _: "stale configuration" if newer else "",
    )
    reloader = SimpleNamespace(trouble=lambda _: known["hangs"])
    limiter = SimpleNamespace(is_down=known["is_down"])
    audit_log = SimpleNamespace(obstacle=known["audit_log"])
    lifecycle = Lifecycle()
    lifecycle.serve()
    if known.get("draining"):
        lifecycle.drain()
    others: list[Any] = [live_config, reloader, limiter, audit_log, admission]
    return Status(lifecycle, *others, lookups=dict, clients=lambda: (0, 1000))


@pytest.mark.parametrize(
    ("changed", "is_ready", "said"),
    [
        ({}, True, "ready"),
        ({"stale": True}, True, "ready: stale configuration"),
        ({"is_down": True}, True, "ready: limit store down"),
        ({"hangs": "the disk is silent"}, True, "ready: the disk is silent"),
        ({"stale": True, "is_down": True}, True, "ready: stale configuration, limit store down"),
        ({"registry": None}, False, "not ready: no usable configuration"),
        ({"draining": True, "stale": True}, False, "not ready: draining"),
        ({"obstacle": "an option is unsafe"}, False, "not ready: an option is unsafe"),
        (
            {"audit_log": "the audit log cannot be written: x"},
            False,
            "not ready: the audit log cannot be written: x",
        ),
    ],
)
def test_a_balancer_is_told_whether_to_send_requests_and_why_not(
    changed: dict[str, Any], is_ready: bool, said: str
) -> None:
    assert parts(**changed).ready() == (is_ready, said)
    assert said.partition(": ")[0] in DOCS["observing.md"]


@pytest.mark.slow
def test_an_admin_port_that_is_taken_is_said_at_the_start(upstream: Recorder, make_gateway: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, log = make_gateway(config(upstream, port), start=False).run()
    assert status == 1
    assert f"admin.listen: cannot listen on 127.0.0.1:{port}: address already in use" in log


def test_an_admin_port_that_the_last_gateway_still_holds_is_waited_for(
    upstream: Recorder, make_gateway: Any
) -> None:
    """A restart failed where the one before had not quite ended."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = make_gateway(config(upstream, port), start=False)
        gateway._spawn()
        assert gateway.wait_for_log("it is tried again", 30)
    assert eventually(lambda: answers(port), 30), gateway.log()


# -- an audit log that is required ------------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Of every file that a process started meanwhile writes: a disk that is full, as far as it can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = 200_000


@pytest.fixture
def full(upstream: Recorder, make_gateway: Any) -> Any:
    """Starts a gateway whose audit log has room for some bytes only."""

    def make(room: int, **audit: Any) -> Watched:
        port = free_port()
        content = config(upstream, port, audit={"file": "audit.jsonl", **audit})
        gateway = make_gateway(content, start=False)
        (gateway.directory / "audit.jsonl").write_bytes(b"x" * (FULL - room - 1) + b"\n")
        with file_size_limit(FULL):
            gateway.start()
        return watched(gateway, port)

    return make


@pytest.mark.slow
def test_with_a_full_disk_nothing_is_granted_that_cannot_be_written_down(full: Any) -> None:
    gateway = full(150, required=True)
    ids = [ask(gateway.port, API.target("v1/models")).header("x-presign-request-id")]
    assert shows(gateway.admin, "presign_audit_up", value=0)
    assert ready(gateway.admin) == (503, "not ready: the audit log cannot be written: file too large")
    refused = ask(gateway.port, API.target("v1/models"))
    assert code(refused) == (503, "unavailable")
    assert code(ask(gateway.port, Grant("conn", expires=1).target("v1/models"))) == (403, "expired")
    ids.append(refused.header("x-presign-request-id"))
    torn = gateway.directory / "audit.jsonl"
    assert torn.stat().st_size == FULL  # a line, cut off
    torn.rename(gateway.directory / "audit.1")
    assert eventually(lambda: ready(gateway.admin) == (200, "ready"))
    ids.append(ask(gateway.port, API.target("v1/models")).header("x-presign-request-id"))
    assert eventually(lambda: (gateway.directory / "audit.jsonl").exists())
    assert eventually(lambda: len(audit_lines(gateway)) == 4)
    written = [line["request_id"] for line in audit_lines(gateway)]
    assert [one for one in ids if one in written] == ids
    assert "cannot be written (file too large)" in gateway.log()
    assert "can be written again" in gateway.log()
    assert "Traceback" not in gateway.log()
    found = metrics(gateway.admin)
    assert found["presign_audit_dropped_total",] == 0
    assert found["presign_audit_lines_total",] == 4


@pytest.mark.slow
def test_with_a_full_disk_requests_go_on_where_the_log_is_not_required(full: Any) -> None:
    gateway = full(0)
    for _ in range(3):
        assert ask(gateway.port, API.target("v1/models")).status == 200
        assert shows(gateway.admin, "presign_audit_up", value=0)
    assert ready(gateway.admin) == (200, "ready")
    assert metrics(gateway.admin)["presign_audit_queued",] == 3
    (gateway.directory / "audit.jsonl").write_bytes(b"")  # as copytruncate does
    assert eventually(lambda: len(audit_lines(gateway)) == 3)
    assert shows(gateway.admin, "presign_audit_up", value=1)


@pytest.mark.slow
def test_an_audit_log_that_is_a_pipe_is_said_at_the_start(upstream: Recorder, make_gateway: Any) -> None:
    gateway = make_gateway(config(upstream, free_port()), start=False)
    os.mkfifo(gateway.directory / "audit.jsonl")
    status, log = gateway.run()
    assert status == 1
    assert "audit.file: is a directory, a device or a pipe, not a file" in log
