"""`presign usage`: what is left of each limit, as gateways have counted it, without touching the store."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.signing.keys import signature_id
from support.asking import SECRET, Grant, ask, in_an_hour, wire
from support.config import write_config
from support.lab import bearer_connection
from support.policy import Policy
from support.puppet import eventually
from support.raw import connect
from support.recorder import Recorder
from support.redis import RedisServer
from support.serving import Serve
from support.shell import Shell

LIMITS = [
    {"rate": "60/hour", "burst": 10},
    {"quota": "1000/month", "per": "client"},
    {"quota": "5/day", "per": "url"},
    {"concurrency": 4},
]
BASE = "http://presign.local"


def config(upstream: Recorder, store: str) -> dict[str, Any]:
    return {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {
            "conn": bearer_connection(upstream.url, SECRET, limits=LIMITS),
            "conn_two": bearer_connection(upstream.url, SECRET, max_uses=7),
            "conn_none": bearer_connection(upstream.url, SECRET),
        },
        "limits": {"store": store},
    }


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


def told(shell: Shell, path: Path, *arguments: str) -> list[dict[str, Any]]:
    done = shell.presign("usage", *arguments, "--json", "--config", str(path))
    assert done.code == 0, done.all
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def by_limit(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["limit"]: one for one in found}


def check_counts(gateway: Serve, upstream: Recorder, shell: Shell) -> None:
    grant = Grant("conn")
    for _ in range(3):
        assert ask(gateway.port, grant.target("v1/models")).status == 200
    limited = Policy(SECRET, {"Max-Uses": "4"}, connection="conn_two", expires=in_an_hour())
    for _ in range(2):
        assert ask(gateway.port, limited.target("v1/models")).status == 200
    with connect(gateway.port) as slow:
        slow.sendall(wire(Grant("conn", paths="v1/*").target("v1/slow")))
        states: list[dict[str, Any]] = []

        def holds_a_slot() -> bool:
            states.append(by_limit(told(shell, gateway.config, "conn")))
            return states[-1]["concurrency-connection"]["used"] == 1

        assert eventually(holds_a_slot)
        found = states[-1]
    assert found.keys() == {
        "rate-3600s-connection",
        "quota-month-client",
        "quota-day-url",
        "concurrency-connection",
    }
    rate, slots = found["rate-3600s-connection"], found["concurrency-connection"]
    assert (rate["used"], rate["left"]) == (4, 6)
    assert 180 < rate["back"] <= 240
    assert (slots["most"], slots["left"], slots["back"]) == (4, 3, None)
    month = found["quota-month-client"]
    assert (month["party"], month["most"], month["used"], month["left"]) == ("127.0.0.1", 1000, 4, 996)
    assert 0 < month["back"] <= 31 * 86_400
    one = signature_id(grant.headers["X-Presign-Signature"])
    days = {
        usage["party"]: usage for usage in told(shell, gateway.config) if usage["limit"] == "quota-day-url"
    }
    assert (days[one]["used"], days[one]["left"]) == (3, 2)
    # The uses of a URL: of the connection by themselves, of the URL where it is given.
    uses = by_limit(told(shell, gateway.config, "conn_two"))["uses"]
    assert (uses["party"], uses["used"], uses["left"]) == (signature_id(limited.signature), 2, 5)
    uses = by_limit(told(shell, gateway.config, "--url", BASE + limited.target("v1/models")))["uses"]
    assert (uses["most"], uses["left"], uses["back"]) == (4, 2, None)


def test_what_is_left_is_read_while_a_gateway_counts_and_after_it(
    make_served: Callable[..., Serve], upstream: Recorder, shell: Shell
) -> None:
    gateway = make_served(config(upstream, "sqlite:///counters.db"))
    check_counts(gateway, upstream, shell)
    gateway.signal(signal.SIGTERM)
    gateway.ends()
    before = seen(gateway.directory)
    assert before["counters.db"] > 0
    found = by_limit(told(shell, gateway.config, "conn_two"))
    assert found["uses"]["used"] == 2
    assert seen(gateway.directory) == before
    done = shell.presign("usage", "--config", str(gateway.config))
    assert "2 of 7" in done.out
    assert "never" in done.out


def test_a_row_of_a_url_leads_to_the_name_under_which_it_was_signed(
    make_served: Callable[..., Serve], upstream: Recorder, shell: Shell
) -> None:
    logged = {**config(upstream, "sqlite:///counters.db"), "audit": {"file": "audit.jsonl"}}
    gateway = make_served(logged)
    named = Policy(
        SECRET, {"Id": "build-1234", "Max-Uses": "4"}, connection="conn_none", expires=in_an_hour()
    )
    assert ask(gateway.port, named.target("v1/models")).status == 200
    gateway.signal(signal.SIGTERM)
    gateway.ends()
    done = shell.presign("usage", "conn_none", "--config", str(gateway.config))
    one = signature_id(named.signature)
    assert one in done.out
    assert "as signed in the URL" in done.out
    assert f"audit --signature {one} --config {gateway.config}" in done.err
    shown = shell.presign("audit", "--signature", one, "--config", str(gateway.config))
    assert "build-1234" in shown.out


def seen(directory: Path) -> dict[str, int]:
    """When each file was changed last. In the index of the log, readers too leave their marks."""
    files = [one for one in directory.iterdir() if one.is_file() and not one.name.endswith("-shm")]
    return {one.name: one.stat().st_mtime_ns for one in files}


def test_a_log_that_a_killed_gateway_left_is_read_and_left_alone(
    make_served: Callable[..., Serve], upstream: Recorder, shell: Shell
) -> None:
    gateway = make_served(config(upstream, "sqlite:///counters.db"))
    assert ask(gateway.port, Grant("conn_two").target("v1/models")).status == 200
    for pid in [*gateway.children(), gateway.pid]:
        os.kill(pid, signal.SIGKILL)
    gateway.ends()
    (gateway.directory / "counters.db-shm").unlink()
    before = seen(gateway.directory)
    assert "counters.db-wal" in before
    assert by_limit(told(shell, gateway.config, "conn_two"))["uses"]["used"] == 1
    assert seen(gateway.directory) == before


def test_a_fleet_is_asked_through_its_redis(
    make_served: Callable[..., Serve], upstream: Recorder, shell: Shell, redis: RedisServer
) -> None:
    gateway = make_served(config(upstream, redis.url))
    check_counts(gateway, upstream, shell)
    client = redis.client()
    keys = sorted(client.keys("*"))
    told(shell, gateway.config)
    assert sorted(client.keys("*")) == keys
    redis.stop()
    done = shell.presign("usage", "--config", str(gateway.config))
    assert (done.code, done.out) == (1, "")
    assert "limits.store: the store failed" in done.err


def test_where_nothing_was_counted_all_is_left_and_no_file_is_made(shell: Shell, upstream: Recorder) -> None:
    path = write_config(config(upstream, "sqlite:///counters.db"), shell.directory)
    found = by_limit(told(shell, path))
    assert (found["rate-3600s-connection"]["left"], found["rate-3600s-connection"]["back"]) == (10, 0)
    assert "quota-day-url" not in found
    assert not (shell.directory / "counters.db").exists()
    assert "No limit counts anything here." in shell.presign("usage", "conn_none").out


def test_counts_in_memory_are_known_to_the_process_alone(shell: Shell, upstream: Recorder) -> None:
    write_config(config(upstream, "memory://"), shell.directory)
    done = shell.presign("usage")
    assert (done.code, done.out) == (1, "")
    assert "only the running process knows" in done.err


def test_a_file_of_something_else_is_named_and_not_changed(shell: Shell, upstream: Recorder) -> None:
    write_config(config(upstream, "sqlite:///counters.db"), shell.directory)
    (shell.directory / "counters.db").write_bytes(b"not a database at all" * 99)
    done = shell.presign("usage")
    assert (done.code, done.out) == (1, "")
    assert "limits.store: counters.db: file is not a database" in done.err


def test_a_misspelt_connection_is_corrected(shell: Shell, upstream: Recorder) -> None:
    write_config(config(upstream, "sqlite:///counters.db"), shell.directory)
    done = shell.presign("usage", "conn_tow")
    assert done.code == 1
    assert "conn_two" in done.err
