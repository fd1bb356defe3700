"""What the owner of a key does while the gateway serves: programs that print keys, reloads, revocations."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file.edit import Draft
from presign_proxy.config.registry_file.encryption import new_key, parse_key
from presign_proxy.signing.keys import signature_id
from support.asking import SECRET, Grant, wire
from support.audit_log import audit_lines
from support.config import write_config
from support.proxy import Mitm
from support.raw import Response, parse_response, send_raw
from support.recorder import Recorder
from support.serving import children_of

# Most start a gateway, change something under it, and start it again.
pytestmark = pytest.mark.slow

KEY = "sk-PRINTED-by-a-program-0123456789"
REGISTRY_KEY = new_key()
# Counts how often it runs, and prints the key with the number of the run.
COUNTING = f"echo x >> runs; sleep 0.3; echo {KEY}-$(wc -l < runs)"


def connection(upstream: Recorder, **changes: Any) -> dict[str, Any]:
    auth = {"type": "bearer", "token": "sk-REALSECRET-0123456789"}
    plain = {"upstream": upstream.url, "auth": auth, "signing_keys": [{"id": "k1", "secret": SECRET}]}
    return {**plain, **changes}


def printing(upstream: Recorder, script: str, ttl: str = "5m") -> dict[str, Any]:
    exec_ = {"exec": ["sh", "-c", script], "ttl": ttl}
    return connection(upstream, auth={"type": "bearer", "token": exec_})


def ask(gateway: Mitm, grant: Grant | None = None, timeout: float = 10.0) -> Response:
    target = (grant or Grant("conn")).target("v1/models")
    return parse_response(send_raw(gateway.port, wire(target, {"Connection": "close"}), timeout=timeout))


def sent(upstream: Recorder) -> list[str | None]:
    """The credential of each request that arrived."""
    return [dict(request.headers).get("Authorization") for request in upstream.requests]


def within(seconds: float, question: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if question():
            return True
        time.sleep(0.05)
    return False


# -- programs that print a key ------------------------------------------------------------------------


def test_a_program_runs_once_for_all_who_wait_and_its_key_reaches_the_upstream_only(
    upstream: Recorder, make_gateway
) -> None:
    gateway = make_gateway(
        {"connections": {"conn": printing(upstream, COUNTING)}, "audit": {"file": "audit.jsonl"}},
        *("-w", "flows.mitm", "--set", "flow_detail=4"),
    )
    runs = gateway.directory / "runs"
    assert not runs.exists()
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: ask(gateway), range(12)))
    assert [answer.status for answer in answers] == [200] * 12
    assert set(sent(upstream)) == {f"Bearer {KEY}-1"}
    assert runs.read_text() == "x\n"
    gateway.stop()
    for path in gateway.directory.rglob("*"):
        if path.is_file() and path.name != "config.yaml":
            assert KEY.encode() not in path.read_bytes(), path


def test_a_key_that_a_program_printed_is_masked_in_what_comes_back(upstream: Recorder, make_gateway) -> None:
    gateway = make_gateway({"connections": {"conn": printing(upstream, f"echo {KEY}")}})
    answer = parse_response(
        send_raw(gateway.port, wire(Grant("conn").target("bodyreflect"), {"Connection": "close"}))
    )
    assert answer.status == 200
    assert answer.body.startswith(b"you sent ")
    assert KEY.encode() not in answer.body
    assert sent(upstream) == [f"Bearer {KEY}"]


def test_a_program_is_asked_again_after_its_time(upstream: Recorder, make_gateway) -> None:
    gateway = make_gateway({"connections": {"conn": printing(upstream, COUNTING, ttl="1s")}})
    ask(gateway), ask(gateway)
    time.sleep(1.1)
    ask(gateway)
    assert sent(upstream) == [f"Bearer {KEY}-1", f"Bearer {KEY}-1", f"Bearer {KEY}-2"]


def test_a_program_that_fails_is_502_told_once_and_asked_less_and_less(
    upstream: Recorder, make_gateway
) -> None:
    script = f"echo x >> runs; test -e good && echo {KEY} || {{ echo {KEY} >&2; exit 7; }}"
    gateway = make_gateway(
        {"connections": {"conn": printing(upstream, script)}, "audit": {"file": "audit.jsonl"}}
    )
    answers = [ask(gateway) for _ in range(20)]
    assert {(answer.status, answer.header("x-presign-error")) for answer in answers} == {(502, "upstream")}
    runs = gateway.directory / "runs"
    assert 1 <= runs.read_text().count("x") <= 3
    assert upstream.requests == []
    (gateway.directory / "good").touch()
    assert within(8, lambda: ask(gateway).status == 200)
    assert gateway.wait_for_log("the program sh works again")
    log = gateway.log()
    assert log.count("are answered 502: the program sh ended with exit code 7; run it by hand") == 1
    assert KEY not in log
    audit = audit_lines(gateway.directory / "audit.jsonl")
    assert audit[0]["code"] == "upstream"
    assert "the program sh ended with exit code 7" in audit[0]["detail"]


def test_a_program_that_hangs_holds_up_nobody_else(upstream: Recorder, make_gateway) -> None:
    connections = {"conn": connection(upstream)}
    connections |= {f"conn_{n}": printing(upstream, f"sleep {60 + n}") for n in range(6)}
    gateway = make_gateway({"connections": connections})
    with ThreadPoolExecutor(30) as threads:
        hanging = [threads.submit(ask, gateway, Grant(f"conn_{n % 6}"), 30) for n in range(30)]
        time.sleep(0.5)
        began = time.monotonic()
        assert [ask(gateway).status for _ in range(10)] == [200] * 10
        # Far less than the time after which the programs are given up; so it is for the end of the gateway.
        assert time.monotonic() - began < 5
        gateway.stop(timeout=5)
        assert gateway.child.returncode != -signal.SIGKILL
        for one in hanging:
            assert one.exception() is not None or one.result().status != 200
    assert set(sent(upstream)) == {"Bearer sk-REALSECRET-0123456789"}


def test_programs_that_hang_delay_no_program_of_another_connection(upstream: Recorder, make_gateway) -> None:
    """Four at a time were run, each for ten seconds, and a fifth connection was answered 504."""
    hanging = {f"conn_{number}": printing(upstream, f"sleep 60 # {number}") for number in range(12)}
    gateway = make_gateway({"connections": {"conn": printing(upstream, f"echo {KEY}"), **hanging}})
    with ThreadPoolExecutor(len(hanging)) as threads:
        asked = [threads.submit(ask, gateway, Grant(name), 30) for name in hanging]
        assert within(5, lambda: len(children_of(gateway.pid)) >= 8)
        assert ask(gateway).status == 200
        assert not any(one.done() for one in asked)
        assert {one.result().status for one in asked} <= {502, 504}


# -- the registry while it serves ---------------------------------------------------------------------


class Operated:
    """A gateway over an encrypted registry, and the registry in the hands of its owner."""

    def __init__(self, directory: Path, make_gateway: Any, upstream: Recorder) -> None:
        self.draft = Draft(directory / "connections.enc", [parse_key(REGISTRY_KEY)], {})
        self.draft.connections["conn"] = connection(upstream)
        self.config = write_config(
            {"registry": {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}}, directory
        )
        self.draft.write()
        self._make = make_gateway
        self.gateway: Mitm = self.start()

    def start(self) -> Mitm:
        self.gateway = self._make(self.config, env={"PRESIGN_KEY": REGISTRY_KEY.reveal()})
        return self.gateway

    def answers(self, code: int | str, grant: Grant) -> bool:
        """Whether a status, or a refusal's code, is soon the answer."""
        return within(
            3, lambda: code in ((answer := ask(self.gateway, grant)).status, answer.header("x-presign-error"))
        )


@pytest.fixture
def operated(tmp_path: Path, make_gateway, upstream: Recorder) -> Operated:
    return Operated(tmp_path / "operated", make_gateway, upstream)


def test_what_changes_in_an_encrypted_registry_holds_at_once(operated: Operated, upstream: Recorder) -> None:
    other = Grant("conn_b")
    assert ask(operated.gateway, other).status == 403
    operated.draft.connections["conn_b"] = connection(upstream)
    operated.draft.write()
    assert operated.answers(200, other)
    operated.draft.connections["conn"]["enabled"] = False
    operated.draft.write()
    assert operated.answers("revoked", Grant("conn"))
    assert ask(operated.gateway, other).status == 200
    del operated.draft.connections["conn_b"]
    operated.draft.write()
    assert operated.answers("invalid", other)


def test_a_revoked_url_stays_revoked_after_a_restart(operated: Operated) -> None:
    bad, good = Grant("conn", paths="v1/*"), Grant("conn")
    assert (ask(operated.gateway, bad).status, ask(operated.gateway, good).status) == (200, 200)
    signature = bad.headers["X-Presign-Signature"]
    operated.draft.revoked("urls")[signature_id(signature)] = {"at": "2026-11-01T00:00:00Z"}
    operated.draft.write()
    assert operated.answers("revoked", bad)
    operated.gateway.stop()
    operated.start()
    assert ask(operated.gateway, bad).header("x-presign-error") == "revoked"
    assert ask(operated.gateway, good).status == 200


@pytest.mark.parametrize("damage", ["cut off", "changed", "empty", "gone", "other key", "readable"])
def test_a_damaged_registry_leaves_the_last_good_one(operated: Operated, damage: str) -> None:
    path, grant = operated.draft.path, Grant("conn")
    assert ask(operated.gateway, grant).status == 200
    content = path.read_bytes()
    if damage == "other key":
        Draft(path, [parse_key(new_key())], {}).write()
    elif damage == "readable":
        path.chmod(0o644)
        path.touch()
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"cut off": content[:-9], "changed": content[:-9] + b"AAAAAAAAA", "empty": b""}[damage]
        )
    assert operated.gateway.wait_for_log("the last good one stays")
    assert ask(operated.gateway, grant).status == 200
    path.unlink(missing_ok=True)
    operated.draft.connections["conn"]["enabled"] = False
    operated.draft.write()
    assert operated.answers("revoked", grant)


def test_sighup_reads_a_secret_again_that_is_in_a_file(
    tmp_path: Path, make_gateway, upstream: Recorder
) -> None:
    directory = tmp_path / "config"
    auth = {"type": "bearer", "token": {"file": "token"}}
    config = write_config({"connections": {"conn": connection(upstream, auth=auth)}}, directory)
    (directory / "token").write_text("sk-FIRST-0123456789\n")
    gateway = make_gateway(config)
    ask(gateway)
    (directory / "token").write_text("sk-SECOND-0123456789\n")
    os.kill(gateway.pid, signal.SIGHUP)

    def is_second() -> bool:
        ask(gateway)
        return sent(upstream)[-1] == "Bearer sk-SECOND-0123456789"

    assert within(3, is_second)
    assert sent(upstream)[0] == "Bearer sk-FIRST-0123456789"


def test_a_request_in_flight_keeps_its_grant_when_its_connection_is_disabled(
    operated: Operated, upstream: Recorder
) -> None:
    grant = Grant("conn")
    with ThreadPoolExecutor(1) as threads:
        target = grant.target("slow")
        streaming = threads.submit(
            send_raw, operated.gateway.port, wire(target, {"Connection": "close"}), timeout=20
        )
        assert within(3, lambda: bool(upstream.requests))
        operated.draft.connections["conn"]["enabled"] = False
        operated.draft.write()
        assert operated.answers("revoked", grant)
        answer = parse_response(streaming.result())
    assert answer.status == 200
