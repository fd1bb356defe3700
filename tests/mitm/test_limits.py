"""Limits end to end: real gateways, real stores, counted at the upstream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, code, wire
from support.config import write_config
from support.crowd import Gauge, storm
from support.h2client import H2Client
from support.lab import bearer_connection
from support.mitmweb import MitmWeb
from support.process import LOADED
from support.proxy import Mitm
from support.puppet import SCRIPTS, eventually
from support.raw import connect, parse_response, send_raw
from support.recorder import Recorder
from support.redis import RedisServer
from support.seen import Seen
from support.signing import source_url
from support.structured_fields import parsed

PATIENT = 20.0
"""Seconds, a third of the lease of a slot; the machine may have much else to do."""
needs_redis = pytest.mark.needs("redis-server")
LIMITS: dict[str, dict[str, Any]] = {
    "uses": {"max_uses": 10},
    "burst": {"limits": [{"rate": "10/day"}]},
    "few": {"limits": [{"concurrency": 5}]},
    "one": {"limits": [{"concurrency": 1}]},
    "client": {"limits": [{"quota": "5/day", "per": "client"}]},
    "url": {"limits": [{"quota": "5/month", "per": "url"}]},
    "all": {"limits": [{"rate": "60/minute", "burst": 2}, {"concurrency": 9, "per": "url"}], "max_uses": 5},
    "narrow": {"limits": [{"rate": "5/day"}], "max_uses": 2},
    "none": {},
}
_expiries = itertools.count(int(time.time()) + 3600)


def grant(connection: str) -> Grant:
    """One that no test had before: its URL has all its uses."""
    return Grant(connection, expires=next(_expiries))


def connections(upstream: Recorder, **more: Any) -> dict[str, Any]:
    return {name: bearer_connection(upstream.url, SECRET, **given) for name, given in (LIMITS | more).items()}


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    # Nobody cuts the power here, and the disk is everybody's.
    server = RedisServer(tmp_path_factory.mktemp("redis"), appendfsync="everysec").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "presign.db"


@pytest.fixture(
    scope="module",
    params=["memory, one gateway", "sqlite, three", pytest.param("redis, three", marks=needs_redis)],
)
def fleet(
    request: pytest.FixtureRequest, upstream: Recorder, module_gateway: Any, database: Path
) -> list[Mitm]:
    """Gateways that share a store."""
    kind = request.param.partition(",")[0]
    stores = {"memory": lambda: "memory://", "sqlite": lambda: f"sqlite:///{database}"}
    stores["redis"] = lambda: request.getfixturevalue("redis_server").url
    config = {"connections": connections(upstream), "limits": {"store": stores[kind]()}}
    return together(module_gateway, config, 1 if kind == "memory" else 3)


def together(make: Any, config: dict[str, Any], count: int) -> list[Mitm]:
    """Gateways that start at the same time."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda one: one.start(), [make(config, start=False) for _ in range(count)]))


def share(fleet: list[Mitm], request: bytes, count: int) -> list[tuple[int, bytes]]:
    return [(fleet[number % len(fleet)].port, request) for number in range(count)]


def refused_as_it_should(statuses: Counter[int], count: int) -> None:
    """Where somebody else has the disk for a quarter of a second, some are answered 503."""
    assert statuses[429] + statuses[503] == count
    assert statuses[429] > 2 * statuses[503]


@pytest.mark.slow
def test_a_thousand_simultaneous_requests_on_ten_uses_are_exactly_ten(
    fleet: list[Mitm], upstream: Recorder
) -> None:
    statuses = storm(share(fleet, wire(grant("uses").target("v1/models")), 1000), 300)
    assert len(upstream.requests) == statuses[200] == 10
    refused_as_it_should(statuses, 990)


def test_a_burst_is_exactly_the_burst(fleet: list[Mitm], upstream: Recorder) -> None:
    statuses = storm(share(fleet, wire(grant("burst").target("v1/models")), 200), 200)
    assert len(upstream.requests) == statuses[200] == 10
    refused_as_it_should(statuses, 190)


def test_never_more_than_five_at_a_time_are_at_the_upstream(
    fleet: list[Mitm], upstream: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauge = Gauge()

    def held(_: Seen) -> Answer:
        gauge.enter()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"begun "
                await asyncio.sleep(0.05)
                yield b"ended"
            finally:
                gauge.leave()

        return Answer(stream=pieces, length=11)

    monkeypatch.setitem(BEHAVIOURS, "held", held)
    statuses = storm(share(fleet, wire(grant("few").target("v1/held")), 240), 60)
    assert gauge.most == 5
    assert gauge.total == statuses[200] >= 10
    refused_as_it_should(statuses, 240 - statuses[200])


# -- one gateway, one store ---------------------------------------------------------------------------


def _endless(_: Seen) -> Answer:
    """A stream of events that goes on for as long as a test."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield b"data: %d\n\n" % number
            await asyncio.sleep(0.1)

    return Answer(headers=(("Content-Type", "text/event-stream"),), stream=pieces)


@pytest.fixture(autouse=True)
def _behaviours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BEHAVIOURS, "endless", _endless)


@pytest.fixture(scope="module")
def gateway(upstream: Recorder, module_gateway: Any, database: Path) -> Mitm:
    given = connections(upstream)
    given["down"] = bearer_connection("http://127.0.0.1:1", SECRET, limits=[{"concurrency": 1}])
    given["program"] = bearer_connection(upstream.url, SECRET, limits=[{"concurrency": 1}]) | {
        "auth": {"type": "bearer", "token": {"exec": ["false"]}}
    }
    rules = {"scheme": "source", "allow_networks": ["127.0.0.0/8"], "formats": ["png"]}
    rules |= {"allowed_origins": [f"http://img.lab.test:{upstream.port}"], "limits": LIMITS["url"]["limits"]}
    given["pk_signed"] = rules | {"mode": "signed", "signing_keys": [{"secret": SECRET}]}
    given["pk_open"] = rules | {"mode": "allowlist"}
    config = {"connections": given, "limits": {"store": f"sqlite:///{database}"}}
    return module_gateway(config, dns={"img.lab.test": ["127.0.0.1"]})


def good(gateway: Mitm, asked: Grant, path: str = "v1/models") -> int:
    return ask(gateway.port, asked.target(path), {"Connection": "close"}).status


@contextlib.contextmanager
def streaming(gateway: Mitm, asked: Grant) -> Iterator[socket.socket]:
    with connect(gateway.port, timeout=PATIENT) as sock:
        sock.sendall(wire(asked.target("v1/endless")))
        received = b""
        while b"data: 0" not in received:
            piece = sock.recv(4096)
            assert piece, received
            received += piece
        yield sock


def test_a_stream_counts_until_it_ends_also_where_its_client_vanishes(gateway: Mitm) -> None:
    asked = grant("one")
    for _ in range(2):
        with streaming(gateway, asked):
            for _ in range(3):
                assert good(gateway, asked) == 429
        assert eventually(lambda: good(gateway, asked) == 200, 2)


@pytest.mark.parametrize("path", ["v1/close", "v1/garbage", "v1/rawecho", "v1/status?code=500"])
def test_what_fails_at_the_upstream_gives_its_slot_back(path: str, gateway: Mitm) -> None:
    asked = grant("one")
    for _ in range(3):
        assert good(gateway, asked, path) in (500, 502, 200)
        assert eventually(lambda: good(gateway, asked) == 200, 1)


@pytest.mark.parametrize("connection", ["down", "program"])
def test_what_never_reaches_an_upstream_gives_its_slot_back(connection: str, gateway: Mitm) -> None:
    for _ in range(4):
        assert good(gateway, grant(connection)) == 502


def test_streams_of_http2_count_one_by_one(gateway: Mitm, upstream: Recorder) -> None:
    asked = grant("uses")
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    with H2Client.direct(gateway.port, "presign.local") as client:
        statuses = Counter(
            client.request([*fields, (":path", asked.target("v1/models"))]).status for _ in range(15)
        )
    assert statuses == {200: 10, 429: 5}
    assert len(upstream.requests) == 10


def test_streams_of_http2_that_are_reset_at_once_keep_no_slot(gateway: Mitm) -> None:
    """Whatever the moment: while it is decided on, connected, sent."""
    asked = grant("one")
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    fields.append((":path", asked.target("v1/endless")))
    with H2Client.direct(gateway.port, "presign.local") as client:
        for pause in (0.0, 0.0, 0.002, 0.004, 0.008, 0.016, 0.03, 0.1):
            stream = client._h2.get_next_available_stream_id()
            client._h2.send_headers(stream, fields, end_stream=True)
            client._flush()
            time.sleep(pause)
            client._h2.reset_stream(stream)
            client._flush()
        assert eventually(lambda: good(gateway, asked) == 200, 3)


def test_one_presign_has_one_count_in_all_carriers(gateway: Mitm, upstream: Recorder) -> None:
    asked = grant("narrow")
    target = asked.target("v1/models")
    ways = [
        lambda: ask(gateway.port, target),
        lambda: ask(gateway.port, "/api/proxy/narrow/v1/models", asked.headers),
        lambda: ask(gateway.port, f"/p/{asked.token}/v1/models"),
        lambda: ask(gateway.port, "/api/proxy/narrow/v1/x", {"Authorization": f"Bearer {asked.token}"}),
        lambda: ask(gateway.port, target.replace("%2A", "*")),
    ]
    assert [way().status for way in ways] == [200, 200, 429, 429, 429]
    # Two uses of five were counted: the refused ones used up nothing of the rate.
    assert [good(gateway, other) for other in (grant("narrow"),) * 2] == [200, 200]
    assert [good(gateway, grant("narrow")), good(gateway, grant("narrow"))] == [200, 429]
    assert len(upstream.requests) == 5


def test_a_refusal_says_which_limit_and_when_to_come_back(gateway: Mitm) -> None:
    asked = grant("all")
    assert [good(gateway, asked) for _ in range(2)] == [200, 200]
    response = ask(gateway.port, asked.target("v1/models"))
    assert code(response) == (429, "limited")
    error = json.loads(response.body)["error"]
    assert error["limit"] == "rate-60s-connection"
    assert error["request_id"] == response.header("x-presign-request-id")
    policy, state = (parsed(response.header(name) or "") for name in ("RateLimit-Policy", "RateLimit"))
    assert list(policy) == list(state) == ["rate-60s-connection", "concurrency-url", "uses"]
    assert policy["rate-60s-connection"] == {"q": 60, "w": 60}
    assert [one["r"] for one in state.values()] == [0, 9, 3]
    assert int(response.header("Retry-After") or 0) == state["rate-60s-connection"]["t"] == 1
    time.sleep(1)
    assert good(gateway, asked) == 200


@pytest.mark.parametrize("lane", ["on", "off"])
def test_a_granted_answer_says_what_is_left_and_not_what_is_left_of_the_owners_account(
    upstream: Recorder, module_gateway: Any, monkeypatch: pytest.MonkeyPatch, lane: str
) -> None:
    owners = (("RateLimit", '"tier-4";r=9999'), ("ratelimit-policy", '"tier-4";q=10000'))
    monkeypatch.setitem(BEHAVIOURS, "told", lambda _: Answer(headers=owners))
    config = {"connections": connections(upstream), "limits": {"store": "memory://"}}
    made = module_gateway(config, "--set", f"presign_lane={lane}")
    asked, seen = grant("all"), []
    for path in ("v1/told", "v1/models"):
        response = ask(made.port, asked.target(path))
        assert response.status == 200
        names = [name.lower() for name, _ in response.headers]
        assert names.count("ratelimit") == names.count("ratelimit-policy") == 1
        policy, state = (parsed(response.header(name) or "") for name in ("RateLimit-Policy", "RateLimit"))
        assert list(policy) == list(state) == ["rate-60s-connection", "concurrency-url", "uses"]
        seen.append([one["r"] for one in state.values()])
    assert seen == [[1, 8, 4], [0, 8, 3]]
    # Without limits, the upstream's own pass: nothing of ours is in their place.
    free = ask(made.port, grant("none").target("v1/told"))
    assert (free.header("RateLimit"), free.header("RateLimit-Policy")) == (owners[0][1], owners[1][1])


def test_source_urls_are_limited_one_by_one_and_told_nothing_but_when(
    gateway: Mitm, upstream: Recorder
) -> None:
    origin = f"http://img.lab.test:{upstream.port}"
    for target in (
        source_url(SECRET, "pk_signed", f"{origin}/a.png", next(_expiries), "png"),
        source_url(SECRET, "pk_signed", f"{origin}/b.png", next(_expiries), "png"),
        f"/v1/pk_open/img.lab.test:{upstream.port}/c.png",
        f"/v1/pk_open/img.lab.test:{upstream.port}/d.png",
    ):
        answers = [ask(gateway.port, target) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 5 + [429], target
        refused = ask(gateway.port, target)
        assert refused.body == b"Too Many Requests"
        assert int(refused.header("Retry-After") or 0) > 0
        assert not {name for name, _ in refused.headers if name.lower().startswith("x-presign")}
        for answer in (*answers, refused):
            assert not {name for name, _ in answer.headers if name.lower().startswith("ratelimit")}


def test_a_request_that_is_refused_for_another_reason_uses_up_nothing(gateway: Mitm) -> None:
    asked = Grant("narrow", methods="GET", paths="v1/*", expires=next(_expiries))
    for _ in range(10):
        assert ask(gateway.port, asked.target("v1/models"), method="POST").status == 403
        assert ask(gateway.port, asked.target("v2/models")).status == 403
        assert ask(gateway.port, asked.target("v1/models"), host="evil.test").status in (400, 403, 404)
    with contextlib.closing(sqlite3.connect(_database(gateway))) as store:
        keys = [key for (key,) in store.execute("SELECT key FROM counters")]
    from presign_proxy.signing.keys import signature_id

    assert not any(signature_id(asked.query.rpartition("=")[2]) in key for key in keys)


def _database(gateway: Mitm) -> Path:
    assert gateway.config is not None
    url = next(line for line in gateway.config.read_text("utf-8").splitlines() if "sqlite:///" in line)
    return Path(url.partition("sqlite:///")[2].strip("'\""))


@pytest.mark.slow
@needs_redis
def test_no_store_holds_a_url_a_path_a_signature_or_a_secret(
    gateway: Mitm, redis_server: RedisServer, make_gateway: Any, upstream: Recorder
) -> None:
    asked = [grant(name) for name in LIMITS]
    told = [SECRET, "private-name", "REALSECRET", "img.lab.test", "v1/", "http"]
    told += [one.query.rpartition("=")[2][:16] for one in asked] + [one.token[4:30] for one in asked]
    given = {"connections": connections(upstream), "limits": {"store": redis_server.url}}
    for port in (gateway.port, make_gateway(given).port):
        for one in asked:
            ask(port, one.target("v1/private-name?secret=private-name"))
    held = b"".join(one.read_bytes() for one in _database(gateway).parent.iterdir()).decode("latin-1")
    client = redis_server.client()
    found = client.keys("*")
    held += "\n".join([*found, *[str(client.dump(key)) for key in found if client.type(key) == "zset"]])
    held += "".join(one.read_bytes().decode("latin-1") for one in redis_server.directory.rglob("*.aof"))
    assert "presign:{narrow}" in held
    assert [one for one in told if one in held.replace(str(_database(gateway)), "")] == []


# -- the registry changes, the store changes ----------------------------------------------------------


def rewrite(gateway: Mitm, config: dict[str, Any]) -> None:
    """Change what a gateway reads, and wait until it has."""
    seen = gateway.log().count(LOADED)
    assert gateway.config is not None
    write_config(config, gateway.config.parent, gateway.config.name)
    assert eventually(lambda: gateway.log().count(LOADED) > seen)


@pytest.mark.slow
def test_a_reload_while_a_request_waits_does_not_count_it_twice(
    upstream: Recorder, make_gateway: Any, tmp_path: Path
) -> None:
    slow = {"type": "bearer", "token": {"exec": ["sh", "-c", "sleep 1.2; echo a-real-key-0123456789"]}}
    config = {"connections": {"slow": bearer_connection(upstream.url, SECRET, max_uses=1) | {"auth": slow}}}
    gateway = make_gateway(config)
    asked = grant("slow")
    with connect(gateway.port) as sock:
        sock.sendall(wire(asked.target("v1/models"), {"Connection": "close"}))
        time.sleep(0.2)
        config["connections"]["other"] = bearer_connection(upstream.url, SECRET)
        rewrite(gateway, config)
        received = b""
        while piece := sock.recv(4096):
            received += piece
    assert parse_response(received).status == 200
    assert good(gateway, asked) == 429


@pytest.mark.slow
@needs_redis
def test_a_change_of_the_store_leaves_no_slot_behind(
    upstream: Recorder, make_gateway: Any, redis_server: RedisServer, tmp_path: Path
) -> None:
    config = {"connections": connections(upstream), "limits": {"store": redis_server.url + "/7"}}
    gateway = make_gateway(config)
    asked, client = grant("one"), redis_server.client(db=7)
    with streaming(gateway, asked):
        assert client.zcard("presign:{one}:slots:connection") == 1
        rewrite(gateway, config | {"limits": {"store": f"sqlite:///{tmp_path}/other.db"}})
        assert good(gateway, asked) == 200
        assert client.zcard("presign:{one}:slots:connection") == 1
    assert eventually(lambda: not client.zcard("presign:{one}:slots:connection"))


# -- gateways and stores that go away -----------------------------------------------------------------


@pytest.mark.slow
@needs_redis
def test_a_killed_gateway_keeps_its_slots_for_a_lease_and_a_stopped_one_gives_them_back(
    upstream: Recorder, make_gateway: Any, redis_server: RedisServer
) -> None:
    config = {"connections": connections(upstream), "limits": {"store": redis_server.url + "/8"}}
    first, second, third = together(make_gateway, config, 3)
    asked, client = grant("one"), redis_server.client(db=8)
    slots = "presign:{one}:slots:connection"
    with streaming(first, asked):
        assert good(third, asked) == 429
        assert first.stop(PATIENT) == 0  # in good order, and not killed
        assert eventually(lambda: good(third, asked) == 200, PATIENT)
    assert eventually(
        lambda: not client.zcard(slots), PATIENT
    )  # the third one's is given back behind its answer
    begun = time.time()
    with streaming(second, asked):
        second.child.kill()
        second.child.wait()
        time.sleep(0.3)
        assert good(third, asked) == 429
        ((holder, ends),) = client.zrange(slots, 0, -1, withscores=True)
        assert begun < ends / 1e6 - 60 <= time.time()
        client.zadd(slots, {holder: ends - 60e6})  # a minute later
        assert good(third, asked) == 200


@pytest.mark.slow
@needs_redis
def test_a_stream_whose_slot_cannot_be_renewed_is_broken_off_unless_it_may_go_on(
    upstream: Recorder, make_gateway: Any, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path / "redis").start()
    strict = {"limits": [{"concurrency": 1}]}
    lenient = {"limits": [{"concurrency": 1, "on_store_failure": "allow"}]}
    given = connections(upstream, strict=strict, lenient=lenient)
    config = {"connections": given, "limits": {"store": server.url}}
    gateway = make_gateway(config, "-s", str(SCRIPTS / "short_lease.py"))
    try:
        with streaming(gateway, grant("strict")) as cut, streaming(gateway, grant("lenient")) as kept:
            time.sleep(2.5)  # longer than the lease
            assert good(gateway, grant("strict")) == 429
            server.freeze()
            cut.settimeout(4)
            begun = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                while cut.recv(4096):
                    assert time.monotonic() - begun < 4
            assert 0.5 < time.monotonic() - begun < 3.5
            time.sleep(0.5)
            kept.settimeout(1)
            assert kept.recv(65536)
            server.thaw()
        assert eventually(lambda: good(gateway, grant("strict")) == 200)
    finally:
        server.stop()


@pytest.mark.slow
@needs_redis
def test_a_gateway_starts_without_its_redis_and_serves_as_soon_as_it_is_there(
    upstream: Recorder, make_gateway: Any, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path / "redis", appendonly="no")
    config = {"connections": connections(upstream), "limits": {"store": server.url}}
    gateway = make_gateway(config)
    asked = grant("uses")
    for _ in range(8):
        begun = time.monotonic()
        assert code(ask(gateway.port, asked.target("v1/models"))) == (503, "unavailable")
        assert time.monotonic() - begun < 0.6
    assert gateway.log().count("limits cannot be counted, their requests are answered 503") == 1
    try:
        server.start()
        assert eventually(lambda: good(gateway, asked) == 200)
        assert gateway.log().count("the limit store works again") == 1
        # Its set-up can only be looked at now.
        assert eventually(lambda: "appendonly no" in gateway.log())
    finally:
        server.stop()


@pytest.mark.slow
@needs_redis
def test_clients_that_hang_up_at_once_do_not_make_the_gateway_leave_its_store_alone(
    upstream: Recorder, make_gateway: Any, redis_server: RedisServer
) -> None:
    config = {"connections": connections(upstream), "limits": {"store": redis_server.url + "/9"}}
    gateway = make_gateway(config)
    request = wire(grant("few").target("v1/models"))
    for _ in range(150):
        with connect(gateway.port) as sock:
            sock.sendall(request)
    assert eventually(lambda: good(gateway, grant("few")) == 200)
    assert good(gateway, grant("uses")) == 200
    assert "limits cannot be counted" not in gateway.log()
    assert eventually(lambda: not redis_server.client(db=9).zcard("presign:{few}:slots:connection"))


# -- the store is no destination ----------------------------------------------------------------------


@pytest.mark.slow
@needs_redis
@pytest.mark.parametrize("unsigned", ["pass", "deny"])
def test_nothing_leads_to_the_store(
    unsigned: str, upstream: Recorder, make_gateway: Any, redis_server: RedisServer
) -> None:
    port = redis_server.port
    given = {
        name: bearer_connection(f"http://{host}:{port}", SECRET)
        for name, host in {"plain": "127.0.0.1", "named": "localhost", "dns": "db.test"}.items()
    }
    given["dns"]["insecure_upstream"] = True
    given["pk"] = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [f"http://{name}:{port}" for name in ("db.test", "127.0.0.1")],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["png"],
        "signing_keys": [{"secret": SECRET}],
    }
    config = {"connections": given, "gateway": {"unsigned": unsigned}, "limits": {"store": redis_server.url}}
    dns = {"db.test": ["127.0.0.1"]}
    gateway = make_gateway(config, dns=dns)
    before = redis_server.client().info("stats")["total_connections_received"]
    for name in ("plain", "named", "dns"):
        assert ask(gateway.port, grant(name).target("x")).status == 502
    for host in ("db.test", "127.0.0.1"):
        target = source_url(SECRET, "pk", f"http://{host}:{port}/a.png", next(_expiries), "png")
        assert ask(gateway.port, target).status == 403
    for host in ("127.0.0.1", "localhost", "db.test", "127.0.0.2", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"):
        absolute = f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        assert b"200" not in send_raw(gateway.port, absolute.encode())[:15]
        tunnel = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
        with connect(gateway.port) as sock:
            sock.settimeout(3)
            with contextlib.suppress(OSError):
                sock.sendall(tunnel.encode())
                sock.recv(1000)
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                sock.recv(1000)
    # Each look at it is a connection too.
    assert redis_server.client().info("stats")["total_connections_received"] == before + 1


# -- a flow that is kept ------------------------------------------------------------------------------


def test_flows_that_mitmweb_keeps_keep_no_slots(
    upstream: Recorder, make_gateway: Any, tmp_path: Path
) -> None:
    config = {"connections": connections(upstream), "limits": {"store": "memory://"}}
    gateway = make_gateway(config, binary="mitmweb")
    web = MitmWeb(gateway.web_port)
    assert eventually(web.answers)
    asked = grant("one")
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    fields.append((":path", asked.target("v1/endless")))
    with H2Client.direct(gateway.port, "presign.local") as client:
        for pause in (0.0, 0.004, 0.02, 0.2):
            stream = client._h2.get_next_available_stream_id()
            client._h2.send_headers(stream, fields, end_stream=True)
            client._flush()
            time.sleep(pause)
            client._h2.reset_stream(stream)
            client._flush()
            assert eventually(lambda: good(gateway, asked) == 200, 3)
    for path in ("v1/models", "v1/close", "v1/garbage", "v1/echo"):
        good(gateway, asked, path)
        assert eventually(lambda: good(gateway, asked) == 200, 2), path
    with streaming(gateway, asked):
        assert good(gateway, asked) == 429
    assert eventually(lambda: good(gateway, asked) == 200, 2)
    assert len(web.flows()) > 8
