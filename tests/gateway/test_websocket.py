"""WebSockets that an operator ends: by revocation in each of their waits, or at the end of a drain."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.registry_file.storage import write_private
from support.asking import SECRET, ask
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.cutting import CUT, FLOWS, GATEWAY, KEYS, SOON, Client, Cutting
from support.flowing import Flowing
from support.lab import bearer_connection
from support.process import free_port
from support.puppet import eventually
from support.serving import Serve
from support.websocket import HANDSHAKE, frame, switching

pytestmark = pytest.mark.slow
WAYS = {"lane": (b"", False), "lane, TLS": (b"", True), "flows": (FLOWS, False), "flows, TLS": (FLOWS, True)}
HELLO, WORLD = frame(b"hello", masked=True), frame(b"world")


class Sockets(Cutting):
    """`presign serve` before an upstream that the test plays."""

    hand: ByHand

    def asked(self, way: str) -> Wire:
        """A client that has asked for a WebSocket."""
        first, tls = WAYS[way]
        client = self.client(tls=tls).sock
        lines = [f"GET {self.target('ws')} HTTP/1.1", f"Host: {GATEWAY}", *HANDSHAKE, "", ""]
        client.send(first + "\r\n".join(lines).encode())
        return client

    def opened(self, way: str) -> tuple[Wire, Wire]:
        client = self.asked(way)
        api = self.hand.accept()
        api.read_head()
        api.send(switching())
        assert client.read_head().startswith(b"HTTP/1.1 101 ")
        client.send(HELLO)
        assert api.read_exactly(len(HELLO)) == HELLO
        return client, api


def config(hand: ByHand, directory: Path, admin: int) -> dict[str, Any]:
    one = bearer_connection(hand.url, SECRET) | {
        "signing_keys": KEYS,
        "limits": [{"concurrency": 1}],
        "websocket": True,
    }
    content = {"connections": {f"conn_{number}": one for number in range(60)}}
    write_private(directory / "registry.json", json.dumps(content).encode())
    return {
        "gateway": {"hosts": [GATEWAY]},
        "registry": {"file": "registry.json"},
        "limits": {"store": "sqlite:///limits.db"},
        "audit": {"file": "audit.jsonl"},
        "admin": {"listen": f"127.0.0.1:{admin}"},
    }


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sockets]:
    directory, admin, hand = tmp_path_factory.mktemp("sockets"), free_port(), ByHand()
    directory.chmod(0o700)
    with Serve(directory, config(hand, directory, admin)) as served:
        upstream: Flowing = hand  # type: ignore[assignment]  # nothing here asks for its gauge
        found = Sockets(served, upstream, admin)
        found.hand = hand
        yield found
    hand.stop()


@pytest.fixture
def lab(module_lab: Sockets) -> Iterator[Sockets]:
    logged = len(module_lab.gateway.log())
    module_lab.fresh()
    yield module_lab
    module_lab.hang_up()
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    assert "failed" not in log
    assert "Traceback" not in log


ENDS: dict[str, Callable[[Sockets], list[str]]] = {
    "revoke": lambda lab: ["revoke", "--connection", lab.cid, "--now"],
    "disable": lambda lab: ["connections", "disable", lab.cid, "--now"],
    "remove": lambda lab: ["connections", "remove", lab.cid, "--now", "--yes"],
    "rotate": lambda lab: ["connections", "rotate", lab.cid, "--leaked"],
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("way", WAYS)
def test_an_operator_ends_a_websocket(lab: Sockets, way: str, how: str) -> None:
    client, api = lab.opened(way)
    lab.presign(*ENDS[how](lab))
    assert Client(client).ending() in CUT
    assert Client(api).ending() in CUT
    (line,) = lab.ended()
    assert (line["status"], line["upstream_status"], line["bytes_in"]) == (101, 101, len(HELLO))


@pytest.mark.parametrize("way", WAYS)
def test_what_waits_for_the_101_is_ended_too(lab: Sockets, way: str) -> None:
    client = lab.asked(way)
    api = lab.hand.accept()
    api.read_head()
    lab.presign(*ENDS["revoke"](lab))
    answer = client.read_response(SOON)
    assert b"HTTP/1.1 403 " in answer
    assert b"X-Presign-Error: ended" in answer
    assert Client(api).ending() in CUT
    client.read_to_end()
    lab.ended()


@pytest.mark.parametrize("way", WAYS)
def test_one_whose_client_takes_nothing_is_ended_too(lab: Sockets, way: str) -> None:
    client, api = lab.opened(way)
    api.sock.settimeout(1.0)
    with pytest.raises(TimeoutError):
        while True:
            api.sock.send(bytes(1 << 16))
    lab.presign(*ENDS["revoke"](lab))
    lab.ended()
    assert Client(api).ending() in CUT
    client.close()


@pytest.mark.parametrize("way", WAYS)
def test_one_whose_upstream_takes_nothing_is_ended_too(lab: Sockets, way: str) -> None:
    client, api = lab.opened(way)
    client.sock.settimeout(1.0)
    with pytest.raises(TimeoutError):
        while True:
            client.sock.send(bytes(1 << 16))
    lab.presign(*ENDS["revoke"](lab))
    lab.ended()
    assert Client(client).ending() in CUT
    api.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_websocket_is_listed_while_it_lasts(lab: Sockets, way: str) -> None:
    client, api = lab.opened(way)
    found = json.loads(ask(lab.admin, "/under-way", host="127.0.0.1").body)
    (one,) = [one for one in found["oldest"] if one["connection"] == lab.cid]
    assert (one["method"], one["path"]) == ("GET", "/ws")
    assert lab.cid in lab.presign("status")
    client.close()
    api.close()
    assert eventually(lambda: lab.cid not in lab.presign("status"))
    (line,) = lab.lines()
    assert line["status"] == 101
    assert line["duration"] > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_drain_waits_for_a_websocket_and_ends_it_at_last(tmp_path: Path, way: str, hand: ByHand) -> None:
    tmp_path.chmod(0o700)
    admin = free_port()
    with Serve(tmp_path, config(hand, tmp_path, admin), "--drain", "3s") as served:
        upstream: Flowing = hand  # type: ignore[assignment]
        found = Sockets(served, upstream, admin).fresh()
        found.hand = hand
        client, api = found.opened(way)
        began = time.monotonic()
        served.signal(signal.SIGTERM)
        time.sleep(1.5)
        client.send(HELLO)
        assert api.read_exactly(len(HELLO)) == HELLO
        api.send(WORLD)
        assert client.read_exactly(len(WORLD)) == WORLD
        assert Client(client).ending(8) in CUT
        served.ends()
        assert 2.5 < time.monotonic() - began < 10
        (line,) = [one for one in audit_lines(tmp_path / "audit.jsonl") if one["connection"] == found.cid]
        assert (line["upstream_status"], line["bytes_in"]) == (101, 2 * len(HELLO))
        found.hang_up()
