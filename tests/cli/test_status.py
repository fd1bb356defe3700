"""`presign status`: what an operator reads of a gateway that runs, and of one that does not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.asking import SECRET, Grant, ask
from support.config import write_config
from support.lab import bearer_connection
from support.process import free_port
from support.puppet import eventually
from support.recorder import Recorder
from support.serving import CONN, Serve, config_for
from support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def told(shell: Shell, gateway: Serve) -> dict[str, Any]:
    done = shell.presign("status", "--json", "--config", str(gateway.config))
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_gateway_that_runs_says_what_it_is_and_does(
    make_served: Callable[..., Serve], upstream: Recorder, shell: Shell
) -> None:
    config = config_for(upstream, admin={"listen": f"127.0.0.1:{free_port()}"})
    config |= {"audit": {"file": "audit.jsonl"}, "limits": {"store": "sqlite:///counters.db"}}
    gateway = make_served(config, workers=2)
    assert ask(gateway.port, Grant(CONN).target("v1/models")).status == 200
    for _ in range(2):
        ask(gateway.port, Grant(CONN, expires=1_700_000_000).target("v1/models"))
    # Each worker is asked; what it has just done may come a moment later.
    assert eventually(lambda: counted(told(shell, gateway)) == (1, 2))
    found = told(shell, gateway)
    assert found["ready"] is True
    assert found["requests"] == {"forwarded": 1, "refused": 2, "passed": 0, "codes": {"expired": 2}}
    assert (found["workers"], found["workers_wanted"]) == (2, 2)
    assert abs(found["since"] - time.time()) < 120
    assert found["configuration"]["connections"] == 1
    assert found["configuration"]["versions"] == [found["configuration"]["version_on_disk"]]
    assert found["limits"]["store"] == "sqlite"
    assert found["audit"]["up"] is True
    done = shell.presign("status", "--config", str(gateway.config))
    assert done.code == 0
    for text in ("Ready", "the files are the same", "1 forwarded, 2 refused", "expired 2", "workers"):
        assert text in done.out, text
    # A change that cannot be used: it is in force no longer, and says so.
    write_config(config | {"no_such_key": True}, gateway.directory)
    asked = ("status", "--admin", f"127.0.0.1:{config['admin']['listen'].rpartition(':')[2]}")
    stale = "Ready: stale configuration: version "
    assert eventually(lambda: shell.presign(*asked).out.startswith(stale)), shell.presign(*asked).all
    found = told(shell, gateway)
    assert found["configuration"]["versions"] != [found["configuration"]["version_on_disk"]]


def counted(found: dict[str, Any]) -> tuple[int, int]:
    return found["requests"]["forwarded"], found["requests"]["refused"]


def test_where_nothing_runs_it_says_so(shell: Shell) -> None:
    port = free_port()
    write_config({"admin": {"listen": f"0.0.0.0:{port}"}}, shell.directory)
    done = shell.presign("status")
    assert (done.code, done.out) == (1, "")
    assert f"no gateway answers on 127.0.0.1:{port}" in done.err
    assert "connection refused" in done.err


def test_without_an_admin_listener_it_says_what_to_set(shell: Shell) -> None:
    connections = {"conn": bearer_connection("https://api.example.com", SECRET)}
    write_config({"connections": connections}, shell.directory)
    done = shell.presign("status", "--json")
    assert done.code == 1
    assert "admin: {listen: 127.0.0.1:9464}" in json.loads(done.out)["error"]


@pytest.mark.parametrize("text", ["9464", "localhost:", ":1", "a:b", "a:99999"])
def test_an_address_that_is_none_is_a_usage_error(shell: Shell, text: str) -> None:
    done = shell.presign("status", "--admin", text)
    assert (done.code, done.out) == (2, "")
    assert "HOST:PORT" in done.err


def test_a_stranger_on_that_port_is_no_gateway(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(3):
                client, _ = listening.accept()
                with client:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\x1b[2Jhi\n\n")

        threading.Thread(target=answer, daemon=True).start()
        done = shell.presign("status", "--admin", f"127.0.0.1:{listening.getsockname()[1]}")
    assert (done.code, done.out) == (1, "")
    assert "no admin listener" in done.err
    assert "\x1b" not in done.all


HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
LIES = {
    "an endless count": b"presign_workers +Inf\n",
    "no number": b'presign_requests_total{decision="deny",code="x"} NaN\n',
    "control characters": b'presign_build_info{version="\x1b[2J\xc2\x9b2J",mitmproxy="1"} 1\n',
    "a huge time": b"process_start_time_seconds 1e300\n",
    "no metrics": b"{{{\n",
}


@pytest.mark.parametrize("what", LIES)
def test_what_a_lying_listener_says_is_shown_without_harm(what: str, shell: Shell) -> None:
    def answer(listening: socket.socket) -> None:
        for body in (b"ready: \x1b[31m\xc2\x9b1m\r\nfaked", LIES[what]):
            client, _ = listening.accept()
            with client:
                client.recv(4096)
                client.sendall(HEAD + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=[listening], daemon=True).start()
        done = shell.presign("status", "--admin", f"127.0.0.1:{listening.getsockname()[1]}")
    assert done.code in (0, 1)
    assert "Traceback" not in done.all
    assert "\x1b" not in done.all
    assert "\x9b" not in done.all
    assert "\nfaked" not in done.all


def test_workers_that_still_start_are_not_taken_for_all(shell: Shell) -> None:
    """`workers 1` of a gateway with four was read as a mistake of the configuration."""
    figures = b"presign_workers 1\npresign_workers_wanted 4\n"
    answers = {b"/readyz": b"ready", b"/metrics": figures}

    def answer(listening: socket.socket) -> None:
        for _ in range(3):
            client, _ = listening.accept()
            with client:
                target = client.recv(4096).split()[1]
                client.sendall(HEAD + answers.get(target, b"{}"))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=[listening], daemon=True).start()
        done = shell.presign("status", "--admin", f"127.0.0.1:{listening.getsockname()[1]}")
    assert done.code == 0, done.all
    assert "workers        1 of 4\n" in done.out


def test_a_listener_that_answers_a_byte_now_and_then_is_not_waited_for(shell: Shell) -> None:
    over = threading.Event()

    def drip(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client, suppress(OSError):
            client.sendall(HEAD)
            while not over.wait(1):
                client.sendall(b"r")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=[listening], daemon=True).start()
        begun = time.monotonic()
        done = shell.presign("status", "--admin", f"127.0.0.1:{listening.getsockname()[1]}")
        over.set()
    assert (done.code, done.out) == (1, "")
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
def test_a_host_that_is_no_name_is_said(host: str, shell: Shell) -> None:
    done = shell.presign("status", "--admin", f"{host}:80")
    assert (done.code, done.out) == (1, "")
    assert "no gateway answers" in done.err
    assert "Traceback" not in done.err
