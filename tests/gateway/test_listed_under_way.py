"""An operator looks at what is under way: on both paths, in all workers, without a secret, and ends one."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Callable
from os import kill
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.observe.under_way import MOST, joined
from presign_proxy.signing.keys import signature_id
from support.asking import SECRET, ask
from support.cutting import CUT, FLOWS, OTHER, Cutting, config
from support.flowing import Flowing
from support.gateways import MakeGateway
from support.lab import REAL_SECRET
from support.process import free_port
from support.puppet import eventually
from support.serving import places_of


def listed(lab: Cutting) -> dict[str, Any]:
    answer = ask(lab.admin, "/under-way", host="127.0.0.1")
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


def signature_of(target: str) -> str:
    return signature_id(target.rpartition("=")[2])


def test_streams_are_listed_on_both_paths_with_what_the_audit_log_will_say(lab: Cutting) -> None:
    assert listed(lab) == {"requests": 0, "oldest": []}
    begun = time.time()
    target = lab.target("events", id="nightly")
    for first in (b"", FLOWS):
        lab.begun(target, first)
    found = listed(lab)
    assert found["requests"] == 2
    for one in found["oldest"]:
        assert begun - 1 < one.pop("since") <= time.time()
        assert one.pop("request_id").startswith("req_")
        assert one == {
            "connection": lab.cid,
            "key": "k1",
            "signature": signature_of(target),
            "id": "nightly",
            "method": "GET",
            "path": "/events",
            "client": "127.0.0.1",
        }


def test_no_secret_and_no_signature_is_in_the_list(lab: Cutting) -> None:
    target = lab.target("events")
    lab.begun(f"{target}&key=query-value")
    body = ask(lab.admin, "/under-way", host="127.0.0.1").body.decode()
    assert lab.cid in body
    for never in (SECRET, OTHER, REAL_SECRET, target.rpartition("=")[2], "query-value", "X-Presign"):
        assert never not in body


def test_each_worker_is_asked_and_one_that_hangs_is_left_out(lab: Cutting) -> None:
    clients: list[Any] = []
    pids = lab.gateway.serving()

    def ports() -> set[int]:
        return {client.sock.sock.getsockname()[1] for client in clients}

    while not all(places_of(pid, lab.gateway) & ports() for pid in pids):
        clients += [lab.begun(lab.target("events", cid=f"conn_{cid}")) for cid in range(40, 58)]
    assert listed(lab)["requests"] == len(clients)
    kill(pids[0], signal.SIGSTOP)
    try:
        assert 0 < listed(lab)["requests"] < len(clients)
    finally:
        kill(pids[0], signal.SIGCONT)
    assert eventually(lambda: listed(lab)["requests"] == len(clients), 10)


def test_status_shows_it_with_the_command_that_ends_it(lab: Cutting) -> None:
    target = lab.target("events", id="nightly")
    client, other = lab.begun(target), lab.begun(lab.target("events"))
    lines = lab.presign("status").splitlines()
    at = next(at for at, line in enumerate(lines) if f"GET {lab.cid}/events (key k1, id nightly)" in line)
    assert lines[at].endswith(", from 127.0.0.1")
    pasted = "\n".join(lines[at + 1 :])
    words = shlex.split(pasted[: pasted.index("--now")].replace("\\\n", "") + "--now")
    words = words[words.index("revoke") :]
    assert words[:3] == ["revoke", signature_of(target), "--now"]
    lab.presign(*words[:3])
    assert client.ending() in CUT
    assert other.goes_on(10)
    found = json.loads(lab.presign("status", "--json"))["under_way"]
    assert found["requests"] == len(found["oldest"]) == 1


@pytest.mark.parametrize("lane", ["on", "off"])
def test_mitmdump_lists_it_too(
    lane: str, make_gateway: MakeGateway, flowing: Flowing, tmp_path: Path
) -> None:
    admin = free_port()
    gateway = gateway_of(make_gateway, flowing, tmp_path, admin, "--set", f"presign_lane={lane}")
    lab = Cutting(gateway, flowing, admin, cid="conn_1")
    client = lab.begun(lab.target("events"))
    assert [one["path"] for one in listed(lab)["oldest"]] == ["/events"]
    client.sock.close()
    assert eventually(lambda: listed(lab)["requests"] == 0, 10)


def gateway_of(
    make_gateway: Callable[..., Any], flowing: Flowing, directory: Path, admin: int, *options: str
) -> Any:
    registry = directory / "registry"
    registry.mkdir(mode=0o700)
    found = config(flowing, registry, admin)
    found["registry"] = {"file": str(registry / "registry.json")}
    return make_gateway(found, *options)


def test_the_list_is_bounded_and_keeps_what_has_lasted_longest() -> None:
    parts = [{"requests": 500, "oldest": [{"since": at * 2.0 + n} for at in range(MOST)]} for n in (0, 1)]
    found = joined(parts)
    assert found["requests"] == 1000
    assert [one["since"] for one in found["oldest"]] == [float(at) for at in range(MOST)]
