"""`presign serve`: what operators, balancers and accidents do to it. Real processes, real signals."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from presign_proxy.cli.main import main
from presign_proxy.observe.admin_server import PORT_PATIENCE
from support.asking import SECRET, Grant, ask, code, wire
from support.config import write_config
from support.lab import REAL_SECRET, bearer_connection
from support.load import Load
from support.places import ROOT
from support.process import StartFailed, free_port, resident
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Tls, connect, connect_tls, exchange, parse_response
from support.recorder import Recorder
from support.serving import (
    CONN,
    PRESIGN,
    Serve,
    config_for,
    environment,
    is_alive,
    is_open,
    is_stopped,
    places_of,
    session_of,
    takes_the_lane,
)
from support.shell import Shell

GATEWAY = "presign.local"
SLOW_IMPORT = ROOT / "tests/support/slowimport"
PATIENT = 15.0
"""Seconds; the machine may have much else to do."""


@pytest.fixture(scope="module")
def pair(make_served: Callable[..., Serve], upstream: Recorder) -> Serve:
    """Two workers, for all tests that leave two of them behind."""
    return make_served(config_for(upstream), workers=2)


def get(gateway: Serve, path: str = "v1/models", **headers: str) -> int:
    return ask(gateway.port, Grant(CONN).target(path), headers).status


def start_of(gateway: Serve, path: str) -> socket.socket:
    """A connection on which the head of an answer has come."""
    sock = connect(gateway.port, timeout=PATIENT)
    sock.sendall(wire(Grant(CONN).target(path)))
    received = b""
    while b"\r\n\r\n" not in received:
        received += (piece := sock.recv(1))
        assert piece, received
    return sock


def rest_of(sock: socket.socket, size: int | None = None) -> bytes:
    """What still comes until the connection is closed, or `size` bytes are there."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while len(received) != size and (piece := sock.recv(1_000_000)):
            received += piece
    sock.close()
    return bytes(received)


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def is_whole(sock: socket.socket) -> bool:
    return len(rest_of(sock, 20_000_000)) == 20_000_000


# -- starting ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_broken_configuration_is_told_and_nothing_ever_listens(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    config = config_for(upstream, gateway={"unsinged": "deny"})
    config["connections"]["conn_other"] = {"upstream": "ftp://x"}
    broken = make_served(config, start=False)
    broken._spawn()
    was_open = False
    while broken.child.poll() is None:
        was_open |= is_open(broken.port)
        time.sleep(0.02)
    log = broken.log()
    assert (broken.child.returncode, was_open) == (1, False)
    assert re.search(rf"^presign: {broken.config}:\d+:3: gateway.unsinged: ", log, re.MULTILINE)
    assert "conn_other" in log
    assert "Traceback" not in log
    checked = subprocess.run(
        [*PRESIGN, "check", "--config", broken.config], capture_output=True, text=True, env=environment()
    )
    for line in checked.stdout.splitlines():
        if line.startswith("error "):
            assert line.removeprefix("error").strip() in log


@pytest.mark.slow
def test_an_admin_port_that_stays_taken_is_told_and_nothing_ever_listens(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = f"127.0.0.1:{port_of(taken)}"
        gateway = make_served(config_for(upstream, admin={"listen": admin}), "--drain", "0s", start=False)
        status, log = gateway.run()
    assert status == 1
    assert f"presign: admin.listen: cannot listen on {admin}: address already in use" in log
    assert "listening on" not in log


def test_an_admin_port_that_the_last_gateway_still_holds_is_waited_for(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = f"127.0.0.1:{port_of(taken)}"
        gateway = make_served(config_for(upstream, admin={"listen": admin}), start=False)
        gateway._spawn()
        assert gateway.wait_for_log("it is tried again", PATIENT)
    assert gateway.wait_for_log("listening on 127.0.0.1", PATIENT)
    assert get(gateway) == 200
    assert exchange(connect(port_at(admin)), b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )


def test_a_gateway_that_does_not_know_the_name_in_its_own_url_says_so_once(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """Only `presign check` said it; the gateway answered not_found to every URL."""
    content = config_for(upstream, gateway={"hosts": ["presign.local"], "url": "https://presign.example.com"})
    gateway = make_served(content, workers=2)
    said = "gateway.url: names presign.example.com, which gateway.hosts does not list"
    assert gateway.wait_for_log(said, PATIENT)
    assert gateway.log().count(said) == 1


@pytest.mark.slow
def test_a_gateway_that_drains_is_waited_for_until_its_drain_could_have_ended(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """Ctrl-C and a start after it: the new gateway gave up after five seconds, and nothing served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        admin = f"127.0.0.1:{port_of(taken)}"
        gateway = make_served(config_for(upstream, admin={"listen": admin}), "--drain", "60s", start=False)
        gateway._spawn()
        assert gateway.wait_for_log("until it ends: waiting up to 65 s", PATIENT)
        time.sleep(PORT_PATIENCE + 2)
    assert gateway.wait_for_log("listening on 127.0.0.1", PATIENT)


def test_an_admin_port_that_is_taken_at_a_reload_leaves_the_listener_where_it_was(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    first = f"127.0.0.1:{free_port()}"
    gateway = make_served(config_for(upstream, admin={"listen": first}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = f"127.0.0.1:{port_of(taken)}"
        write_config(config_for(upstream, admin={"listen": second}), gateway.directory)
        assert gateway.wait_for_log(f"cannot listen on {second}", PATIENT)
        assert is_open(port_at(first))
    assert eventually(lambda: is_open(port_at(second)), PATIENT)
    assert not is_open(port_at(first))


def port_at(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nonsense"],
        ["--listen", "127.0.0.1"],
        ["--listen", "127.0.0.1:99999"],
        ["--workers", "0"],
        ["--workers", "many"],
        ["--drain", "30"],
        ["--drain", "-1s"],
        ["--upstream-ca", "/nowhere"],
        ["--unsigned", "maybe"],
        ["--nonsense"],
        ["argument"],
    ],
)
def test_nonsense_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["serve", *arguments]).exit_code == 2


def test_a_port_that_is_taken_and_a_host_that_is_none_are_told_in_a_sentence(tmp_path: Path) -> None:
    write_config({}, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address, text in (
            (f"127.0.0.1:{port}", f"presign: cannot listen on 127.0.0.1:{port}: something else does; "),
            (f"no.such.host.invalid:{port}", "presign: cannot listen on no.such.host.invalid: no such host"),
        ):
            done = subprocess.run(
                [*PRESIGN, "serve", "--listen", address],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment(),
            )
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith(text), done.stderr
            assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_counters_that_workers_do_not_share_are_refused(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """With two workers, ten uses would be twenty."""
    connection = bearer_connection(upstream.url, SECRET, max_uses=10)
    config = {"limits": {"store": "memory://"}, "connections": {CONN: connection}}
    served = make_served(config, workers=2, start=False)
    with pytest.raises(StartFailed) as failed:
        served.start()
    assert failed.value.returncode == 1
    assert "limits.store: counts in each worker by itself" in failed.value.log


def test_a_start_that_is_interrupted_leaves_nothing_behind(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    served = make_served(config_for(upstream), start=False)
    served._spawn()
    assert eventually(served.children, PATIENT)
    started = served.children()
    served.signal(signal.SIGHUP)
    served.signal(signal.SIGTERM)
    assert served.ends() == 0
    assert not any(map(is_alive, started))
    assert "Traceback" not in served.log()


# -- requests without a presign ---------------------------------------------------------------------------


def unsigned(gateway: Serve, upstream: Recorder) -> tuple[int, str | None]:
    """What becomes of a request without a presign to a service on this machine's loopback."""
    return code(ask(gateway.port, f"{upstream.url}/v1/models", host=f"127.0.0.1:{upstream.port}"))


def tunnel(gateway: Serve, upstream: Recorder) -> int:
    """The status of a CONNECT to the same service."""
    with connect(gateway.port) as sock:
        place = f"127.0.0.1:{upstream.port}"
        sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        return int(sock.recv(65536).split()[1])


@pytest.mark.slow
def test_what_init_made_and_serve_runs_is_no_open_proxy(tmp_path: Path, upstream: Recorder) -> None:
    made = Shell(tmp_path)
    assert made.presign("init").code == 0
    written = (made.directory / "config.yaml").read_text("utf-8")
    with Serve(made.directory, {}, start_from=written) as served:
        assert served.config.read_text("utf-8") == written
        assert unsigned(served, upstream) == (403, "unsigned")
        assert tunnel(served, upstream) == 403
    assert not upstream.requests


@pytest.mark.slow
def test_the_file_that_init_made_lets_a_laptop_browse_through_mitmdump(
    tmp_path: Path, upstream: Recorder
) -> None:
    made = Shell(tmp_path)
    assert made.presign("init").code == 0
    with Mitm(made.directory, made.directory / "config.yaml") as laptop:
        answer = ask(laptop.port, f"{upstream.url}/v1/models", host=f"127.0.0.1:{upstream.port}")
        assert answer.status == 200


@pytest.mark.slow
def test_the_example_configuration_run_by_serve_is_no_open_proxy(tmp_path: Path, upstream: Recorder) -> None:
    example = (ROOT / "config.example.yaml").read_text("utf-8").replace("admin:", "# admin:")
    with Serve(tmp_path, {}, start_from=example) as served:
        assert unsigned(served, upstream) == (403, "unsigned")
        assert tunnel(served, upstream) == 403


@pytest.mark.slow
def test_a_file_that_says_pass_is_not_served_without_the_flag(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    served = make_served(config_for(upstream, gateway={"unsigned": "pass"}), start=False)
    with pytest.raises(StartFailed) as failed:
        served.start()
    assert failed.value.returncode == 1
    (line,) = [line for line in failed.value.log.splitlines() if "unsigned" in line]
    assert re.match(rf"presign: {served.config}:\d+:\d+: gateway.unsigned: is pass: ", line), line
    assert "open proxy, which reaches loopback" in line
    assert "write deny here" in line
    assert "--unsigned pass" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "flag", "answer"),
    [
        ("pass", "pass", (200, None)),
        ("deny", "pass", (403, "unsigned")),
        (None, "pass", (403, "unsigned")),
        ("pass", "deny", (403, "unsigned")),
    ],
)
def test_an_open_proxy_takes_the_file_and_the_flag(
    said: str | None,
    flag: str,
    answer: tuple[int, str | None],
    make_served: Callable[..., Serve],
    upstream: Recorder,
) -> None:
    gateway = {"gateway": {"unsigned": said}} if said else {}
    served = make_served(config_for(upstream, **gateway), "--unsigned", flag)
    assert unsigned(served, upstream) == answer
    assert get(served) == 200
    if (said, flag) == ("pass", "pass"):
        assert "gateway.unsigned: is pass: the gateway is an open proxy for everybody" in served.log()
    elif flag == "pass":
        assert "gateway.unsigned: is not pass: requests without a presign are denied" in served.log()


# -- two workers ------------------------------------------------------------------------------------------


def test_every_worker_serves(pair: Serve) -> None:
    first, second = pair.serving()
    for stopped in (first, second):
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert get(pair) == 200
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_a_file_that_comes_to_say_pass_opens_nothing_and_is_told_of(pair: Serve, upstream: Recorder) -> None:
    assert unsigned(pair, upstream) == (403, "unsigned")
    write_config(config_for(upstream, gateway={"unsigned": "pass"}), pair.directory)
    pair.signal(signal.SIGHUP)
    try:
        refused = rf"{pair.config}:\d+:\d+: gateway.unsigned: is pass: .* loopback .* --unsigned pass"
        assert eventually(lambda: len(re.findall(refused, pair.log())) >= 2, PATIENT)  # in each worker
        assert {unsigned(pair, upstream) for _ in range(6)} == {(403, "unsigned")}
        assert get(pair) == 200  # the last good state stays
    finally:
        write_config(config_for(upstream), pair.directory)
        pair.signal(signal.SIGHUP)
        assert eventually(lambda: pair.log().count(f" from {pair.config}, version") >= 2, PATIENT)


def test_the_process_table_and_the_environment_of_workers_hold_no_secret(pair: Serve) -> None:
    assert len(pair.children()) >= 2
    for pid in (pair.pid, *pair.children()):
        for what in ("cmdline", "environ"):
            held = Path(f"/proc/{pid}/{what}").read_bytes()
            assert SECRET.encode() not in held
            assert REAL_SECRET.encode() not in held
            assert b"NOTIFY_SOCKET" not in held


def test_a_worker_that_is_killed_under_load_takes_nothing_but_its_own_requests_along(
    pair: Serve, upstream: Recorder
) -> None:
    assert eventually(pair.has_reserve, 2 * PATIENT)
    assert takes_the_lane(pair, upstream)
    held = [start_of(pair, "download?bytes=20000000") for _ in range(12)]
    places = [port_of(sock) for sock in held]
    request = wire(Grant(CONN).target("v1/models"))
    with Load(lambda: connect(pair.port), [request] * 10, pause=0.005, most=50) as load:
        assert eventually(
            lambda: all(load.places() & places_of(pid, pair) for pid in pair.serving()), PATIENT
        )
        victim, other = sorted(pair.serving(), key=lambda pid: len(places_of(pid, pair) & set(places)))
        os.kill(victim, signal.SIGSTOP)  # from here on, no connection comes to it or goes
        assert eventually(lambda: is_stopped(victim), PATIENT)
        lost = places_of(victim, pair)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        assert eventually(lambda: not is_alive(victim), PATIENT)
        gone = time.monotonic()
        assert eventually(lambda: len(pair.serving()) == 2, PATIENT)
        back = time.monotonic() - killed
        assert eventually(lambda: sum(asked.begun > gone for asked in load.asked) > 50, PATIENT)
    assert back < 1
    assert other in pair.serving()
    assert "was ended by SIGKILL; another takes its place" in pair.log()
    # What has failed was under way on a connection of the dead worker, one request on each.
    failed = load.failed()
    assert {asked.place for asked in failed} <= lost, failed
    assert len({asked.place for asked in failed}) == len(failed)
    assert all(asked.begun < gone and asked.ended > killed for asked in failed), failed
    # All others have gone on as if nothing had happened.
    served = {asked.place for asked in load.asked if asked.status == 200 and asked.ended > gone}
    assert len(served) > 2
    assert served.isdisjoint(lost)
    whole = {place for sock, place in zip(held, places, strict=True) if is_whole(sock)}
    assert whole == set(places) - lost
    assert whole


def test_a_worker_takes_the_place_of_a_dead_one_though_the_configuration_is_gone(
    pair: Serve, upstream: Recorder
) -> None:
    assert eventually(pair.has_reserve, 2 * PATIENT)
    pair.config.unlink()
    try:
        assert pair.wait_for_log("the last good one stays", PATIENT)
        for victim in pair.serving()[:1]:
            os.kill(victim, signal.SIGKILL)
        assert eventually(lambda: len(pair.serving()) == 2, PATIENT)
        assert {get(pair) for _ in range(6)} == {200}
    finally:
        write_config(config_for(upstream), pair.directory)


def test_a_worker_that_is_told_to_end_drains_and_is_replaced(pair: Serve) -> None:
    assert eventually(pair.has_reserve, 2 * PATIENT)
    before = pair.serving()
    os.kill(before[0], signal.SIGTERM)
    assert eventually(lambda: before[0] not in pair.children(), PATIENT)
    assert eventually(lambda: len(pair.serving()) == 2, 2 * PATIENT)
    assert f"worker {before[0]} has drained and ended" in pair.log()


def test_a_worker_that_has_no_descriptors_left_serves_again_when_it_has(pair: Serve) -> None:
    assert eventually(lambda: len(pair.serving()) == 2, PATIENT)
    first, second = pair.serving()
    limits = resource.prlimit(first, resource.RLIMIT_NOFILE)
    os.kill(second, signal.SIGSTOP)
    try:
        assert get(pair) == 200
        held = len(list(Path(f"/proc/{first}/fd").iterdir()))
        resource.prlimit(first, resource.RLIMIT_NOFILE, (held + 3, limits[1]))
        crowd = [connect(pair.port) for _ in range(20)]
        assert pair.wait_for_log("no client can be accepted at the moment", PATIENT)
        for sock in crowd:
            sock.close()
        resource.prlimit(first, resource.RLIMIT_NOFILE, limits)
        assert get(pair) == 200
    finally:
        os.kill(second, signal.SIGCONT)


def test_a_client_that_stays_is_served_on_the_lane_and_beside_it_in_order(
    pair: Serve, upstream: Recorder
) -> None:
    """`TE` is not for the lane, which leaves the connection to mitmproxy for that request."""
    body = b"".join(b"%07d " % number for number in range(50_000))
    paths = [f"v1/models/{number}" for number in range(6)]
    with connect(pair.port, timeout=PATIENT) as sock:
        for path in paths:
            fields = {"TE": "trailers"} if path == paths[4] else {}
            sent = wire(Grant(CONN).target(path), fields, "POST", body=body)
            assert parse_response(exchange(sock, sent)).status == 200
    whole = hashlib.sha256(body).hexdigest()
    assert [(one.target, one.sha256) for one in upstream.requests] == [(f"/{one}", whole) for one in paths]


def test_clients_that_are_gone_before_they_are_accepted_raise_no_alarm(pair: Serve) -> None:
    """Nobody can tell where they are, and what they sent is still there."""
    workers = pair.serving()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        for _ in range(10):
            with connect(pair.port) as sock:
                sock.sendall(wire(Grant(CONN).target("v1/models")))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    assert all(get(pair) == 200 for _ in range(6))
    assert "failed in the lane" not in pair.log()


def test_nobody_serves_once_the_supervisor_was_killed(pair: Serve) -> None:
    """The last one of those with this gateway."""
    workers = pair.children()
    os.kill(workers[0], signal.SIGSTOP)  # it could not even notice
    os.kill(pair.pid, signal.SIGKILL)
    assert eventually(lambda: not is_open(pair.port), 2)
    assert eventually(lambda: not any(map(is_alive, workers)), 2)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False], ids=["just_started", "importing"])
def test_a_worker_that_was_still_starting_when_the_supervisor_was_killed_holds_nothing(
    make_served: Callable[..., Serve], upstream: Recorder, tmp_path: Path, at_once: bool
) -> None:
    slow = tmp_path / "slow"
    env = {"PYTHONPATH": f"{SLOW_IMPORT}:{ROOT / 'addon'}", "SLOW_IMPORT": str(slow)}
    served = make_served(config_for(upstream), **env)
    assert eventually(served.has_reserve, 2 * PATIENT)
    slow.touch()
    before = served.children()
    os.kill(served.serving()[0], signal.SIGKILL)  # the reserve takes its place, and another one starts
    assert eventually(lambda: set(served.children()) - set(before), PATIENT)
    assert at_once or eventually(slow.read_text, PATIENT)
    os.kill(served.pid, signal.SIGKILL)
    assert eventually(lambda: not is_open(served.port), 2)
    assert eventually(lambda: not any(map(is_alive, session_of(served.pid))), 2)


# -- draining ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_lets_what_is_under_way_end_and_takes_nothing_new(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    served = make_served(config_for(upstream, audit={"file": "audit.jsonl"}))
    kept, fresh, slow, stream = (connect(served.port, timeout=PATIENT) for _ in range(4))
    assert parse_response(exchange(kept, wire(Grant(CONN).target("v1/models")))).status == 200
    stream.close()
    slow.close()
    slow, stream = start_of(served, "download?bytes=30000000"), start_of(served, "sse")
    late = connect(served.port, timeout=PATIENT)
    late.sendall(wire(Grant(CONN).target("slow")))
    upstream.wait_for_heads(4)
    served.signal(signal.SIGTERM)
    assert eventually(lambda: not is_open(served.port), 2)
    # Whoever has connected and not asked yet is told; whoever is idle is let go.
    refused = parse_response(exchange(fresh, wire(Grant(CONN).target("v1/models"))))
    assert code(refused) == (503, "unavailable")
    assert kept.recv(1) == b""
    assert rest_of(stream).count(b"data: event ") == 5
    answer = parse_response(rest_of(late))
    assert (answer.status, answer.header("connection")) == (200, "close")
    time.sleep(0.5)  # everybody else has ended; this one has read next to nothing
    assert len(rest_of(slow)) == 30_000_000
    assert served.ends() == 0
    audited = (served.directory / "audit.jsonl").read_text("utf-8").splitlines()
    assert len(audited) == 5
    assert "Traceback" not in served.log()


@pytest.mark.slow
def test_the_deadline_of_a_drain_cuts_off_what_does_not_end(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    served = make_served(config_for(upstream), "--drain", "1 second", "--json")
    stuck = start_of(served, "download?bytes=900000000")
    begun = time.monotonic()
    served.signal(signal.SIGINT)
    assert served.ends() == 0
    assert 0.9 < time.monotonic() - begun < 6
    assert '"message": "the deadline cut off 1 connection(s)"}' in served.log()
    stuck.close()


@pytest.mark.slow
def test_with_a_notice_it_serves_on_while_readiness_says_no_and_then_drains(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """What a balancer needs that asks twice a second: requests that it still sends here are not refused."""
    admin = free_port()
    config = config_for(upstream, admin={"listen": f"127.0.0.1:{admin}"})

    def readiness() -> tuple[int, bytes]:
        answer = ask(admin, "/readyz", host="localhost")
        return answer.status, answer.body.strip()

    served = make_served(config, "--notice", "2s")
    assert eventually(lambda: readiness() == (200, b"ready"), PATIENT)
    told = time.monotonic()
    served.signal(signal.SIGTERM)
    assert eventually(lambda: readiness() == (503, b"not ready: draining"), 1)
    while time.monotonic() < told + 1.5:
        assert get(served) == 200
    assert served.ends() == 0
    assert 2 < time.monotonic() - told < 6
    patient = make_served(config, "--notice", "1h")
    patient.signal(signal.SIGTERM)
    assert patient.wait_for_log("no longer ready: serving for another 3600 s")
    patient.signal(signal.SIGTERM)
    assert patient.ends() == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_leaves_a_free_port(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """One that was used just now, with connections left in every state."""
    port = free_port()
    before = make_served(config_for(upstream), port=port)
    rival = make_served(config_for(upstream), port=port, start=False)
    with start_of(before, "v1/models"):
        assert rival.run(PATIENT)[0] == 1
        before.signal(signal.SIGTERM)
        assert before.ends() == 0
    served = make_served(config_for(upstream), port=port)
    workers = served.children()
    with start_of(served, "download?bytes=900000000"):
        served.signal(signal.SIGTERM)
        assert eventually(lambda: not is_open(served.port), 2)
        begun = time.monotonic()
        served.signal(signal.SIGINT)
        assert served.ends() == 128 + signal.SIGINT
        assert time.monotonic() - begun < 2
    assert not any(map(is_alive, workers))


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced(make_served: Callable[..., Serve], upstream: Recorder) -> None:
    impatient = (
        "import presign_proxy.serve.supervisor as one; one.SILENCE = 4.0;"
        "from presign_proxy.cli.main import main; main()"
    )
    served = make_served(config_for(upstream), program=(sys.executable, "-c", impatient))
    assert eventually(served.has_reserve, 2 * PATIENT)
    (stuck,) = served.serving()
    os.kill(stuck, signal.SIGSTOP)
    assert eventually(lambda: served.serving() not in ([], [stuck]), 2 * PATIENT)
    assert get(served) == 200
    assert f"worker {stuck} did not report for 4 s and was ended; another takes its place" in served.log()


def test_as_many_clients_are_let_in_as_the_file_says_and_the_reserve_is_not_counted(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    admin = free_port()

    def config(clients: int) -> dict[str, Any]:
        gateway = {"max_clients": clients}
        return config_for(upstream, gateway=gateway, admin={"listen": f"127.0.0.1:{admin}"})

    def served() -> int:
        """How many of ten clients get an answer, all at the same time."""
        with ExitStack() as crowd:
            clients = [crowd.enter_context(connect(gateway.port)) for _ in range(10)]
            answers = [exchange(one, wire(Grant(CONN).target("v1/models"))) for one in clients]
        return sum(one.startswith(b"HTTP/1.1 200 ") for one in answers)

    def told(clients: int) -> bool:
        metrics = ask(admin, "/metrics", host="localhost").body
        return b"\npresign_client_connections_max %d.0\n" % clients in metrics

    gateway = make_served(config(3))
    assert eventually(gateway.has_reserve, 2 * PATIENT)
    assert eventually(lambda: served() == 3, PATIENT)
    assert eventually(lambda: told(3), PATIENT)
    write_config(config(5), gateway.directory)
    assert eventually(lambda: served() == 5, PATIENT)
    assert eventually(lambda: told(5), PATIENT)


@pytest.mark.slow
@pytest.mark.slow
def test_clients_that_come_and_go_leave_nothing_in_memory(
    make_served: Callable[..., Serve], upstream: Recorder
) -> None:
    """A hundred at a time, so that each is there while others come: what is left of it waits to be freed."""
    served = make_served(config_for(upstream))
    request = wire(Grant(CONN).target("v1/models"))

    def crowds(count: int) -> int:
        """Memory of the worker after so many crowds, in bytes."""
        for _ in range(count):
            with ExitStack() as crowd:
                for one in [crowd.enter_context(connect(served.port)) for _ in range(100)]:
                    assert exchange(one, request).startswith(b"HTTP/1.1 200 ")
            upstream.clear()
        return resident(served.serving()[0])

    before = crowds(12)
    grown = [crowds(6) - before for _ in range(5)]
    assert max(grown) < 6_000_000, grown


# -- the front --------------------------------------------------------------------------------------------


def put_certificate(directory: Path, ca: trustme.CA, *names: str) -> None:
    issued = ca.issue_cert(*names)
    key, chain = directory / "front.key", directory / "front.pem"
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    chain.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))


def issuer_seen(port: int, name: str, cafile: Path) -> str:
    with connect(port, Tls(name, cafile)) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        found: Any = sock.getpeercert()
        return str(found["serialNumber"])


@pytest.mark.slow
def test_systemd_hands_over_the_socket_and_gateway_names_answer_with_their_own_certificate(
    make_served: Callable[..., Serve], upstream: Recorder, ca: trustme.CA, ca_pem: Path
) -> None:
    front = {"hosts": [GATEWAY], "tls": {"cert": "front.pem", "key": "front.key"}}
    config = config_for(upstream, gateway=front)
    config["connections"]["conn_api"] = bearer_connection("https://api.tls.test", SECRET)
    served = make_served(config, systemd=True, start=False)
    put_certificate(served.directory, ca, GATEWAY)
    served.start()
    assert "READY=1" in served.told()
    first = issuer_seen(served.port, GATEWAY, ca_pem)
    answer = ask(served.port, Grant(CONN).target("v1/models"), tls=Tls(GATEWAY, ca_pem))
    assert answer.status == 200
    # A name that is intercepted has a certificate of the gateway's own authority, as ever.
    connect_tls(served.port, "api.tls.test", cafile=served.ca).close()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect_tls(served.port, "api.tls.test", cafile=ca_pem)
    connect_tls(served.port, GATEWAY, cafile=ca_pem, alpn=("h2",)).close()

    put_certificate(served.directory, ca, GATEWAY)
    served.signal(signal.SIGHUP)
    assert "RELOADING=1" in served.told()
    assert "READY=1" in served.told()
    second = issuer_seen(served.port, GATEWAY, ca_pem)
    assert first != second

    (served.directory / "front.pem").write_bytes(b"nonsense")
    assert served.wait_for_log("gateway.tls.cert: holds no certificate in PEM form", PATIENT)
    assert issuer_seen(served.port, GATEWAY, ca_pem) == second

    served.signal(signal.SIGTERM)
    assert "STOPPING=1" in served.told()
    assert served.ends() == 0


def test_a_key_of_another_certificate_or_that_everybody_reads_is_refused(
    tmp_path: Path, ca: trustme.CA, upstream: Recorder
) -> None:
    put_certificate(tmp_path, ca, "other.example")
    config = config_for(upstream, gateway={"tls": {"cert": "front.pem", "key": "front.key"}})
    path = write_config(config, tmp_path)

    def said() -> str:
        return CliRunner().invoke(main, ["check", "--config", str(path)]).stdout

    assert "gateway.tls.cert: does not name presign.local" in said()
    (tmp_path / "front.key").chmod(0o604)
    assert "gateway.tls.key: is readable by everybody" in said()
    (tmp_path / "front.key").chmod(0o600)
    (tmp_path / "front.key").write_bytes(ca.issue_cert("x.example").private_key_pem.bytes())
    assert "gateway.tls.key: does not belong to the certificate" in said()
    (tmp_path / "front.key").unlink()
    assert "front.key: no such file" in said()
