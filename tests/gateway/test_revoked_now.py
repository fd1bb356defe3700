"""`--now` ends what is under way: on both paths, in all workers, for each kind of target, nothing else."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.signing.keys import signature_id
from support.asking import SECRET, wire
from support.byhand import Wire
from support.cutting import BETWEEN, CUT, FLOWS, GATEWAY, SOON, Client, Cutting, config
from support.flowing import DOWNLOAD, Flowing
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.process import free_port
from support.proxy import Mitm
from support.puppet import eventually
from support.serving import places_of

# Each waits for a second or two: whether something ends, or goes on.
pytestmark = pytest.mark.slow


WAYS = {"lane": (b"", False), "lane, TLS": (b"", True), "flows": (FLOWS, False), "flows, TLS": (FLOWS, True)}


# -- what is ended ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_an_event_stream_is_cut_off_and_the_client_can_tell(lab: Cutting, way: str) -> None:
    first, tls = WAYS[way]
    target, counted = lab.target("events"), lab.counted()
    client = lab.begun(target, first, tls=tls)
    with client.sock:
        assert "end what is under way" in lab.presign("revoke", lab.url(target), "--now")
        assert client.ending() in CUT
    assert lab.holds(0)
    (line,) = lab.ended()
    assert (line["decision"], line["status"], line["upstream_status"]) == ("forward", 200, 200)
    assert line["detail"] == "it was revoked, with --now, while it was under way"
    assert line["signature"] == signature_id(target.rpartition("=")[2])
    assert line["bytes_out"] > 0
    assert eventually(lambda: lab.counted() == counted + 1)
    assert lab.status(target) == (403, "revoked")


@pytest.mark.parametrize("way", WAYS)
def test_without_now_what_is_under_way_goes_on(lab: Cutting, way: str) -> None:
    first, tls = WAYS[way]
    target = lab.target("events")
    client = lab.begun(target, first, tls=tls)
    with client.sock:
        lab.presign("revoke", lab.url(target))
        assert lab.becomes(target, 403, "revoked")
        assert client.goes_on(30)  # three seconds
    assert lab.holds(0)
    assert eventually(
        lambda: [line["code"] for line in lab.lines() if "events" in str(line["path"])] == [None]
    )


TARGETS: dict[str, Callable[[Cutting, str], list[str]]] = {
    "a URL": lambda lab, target: [lab.url(target)],
    "a signature id": lambda _, target: [signature_id(target.rpartition("=")[2])],
    "an id": lambda lab, _: ["--id", f"{lab.cid}/mine"],
    "a key": lambda lab, _: ["--key", f"{lab.cid}/k1"],
    "keys before": lambda lab, _: ["--connection", lab.cid, "--added-before", BETWEEN],
}


@pytest.mark.parametrize("what", TARGETS)
def test_each_kind_of_target_ends_its_own_and_leaves_its_neighbours(lab: Cutting, what: str) -> None:
    mine = lab.target("events", id="mine")
    others = [lab.target("events", "k2", id="other"), lab.target("events", "k2", cid="conn_59")]
    with lab.streams() as h2:
        ended = [lab.begun(mine, first) for first in (b"", FLOWS)]
        going = [lab.begun(target, first) for target in others for first in (b"", FLOWS)]
        stream, neighbour = (h2.begin(lab.fields(target)) for target in (mine, others[0]))
        assert eventually(lambda: h2.wait([stream], 0.1)[0].body != b"")
        lab.presign("revoke", *TARGETS[what](lab, mine), "--now")
        assert [client.ending() in CUT for client in ended] == [True, True]
        (reply,) = h2.wait([stream], SOON)
        assert (reply.status, reply.detail) == (200, "RST_STREAM 2")
        assert all(client.goes_on(15) for client in going)
        before = len(h2.replies[neighbour].body)
        h2.wait([neighbour], 1.0)
        assert len(h2.replies[neighbour].body) > before
        assert not h2.replies[neighbour].ended
        lab.ended(3)


def test_a_connection_ends_all_that_is_under_way_on_it(lab: Cutting) -> None:
    clients = [lab.begun(lab.target("events", key), first) for key in ("k1", "k2") for first in (b"", FLOWS)]
    other = lab.begun(lab.target("events", cid="conn_59"))
    lab.presign("revoke", "--connection", lab.cid, "--now")
    assert {client.ending() for client in clients} <= set(CUT)
    assert other.goes_on(10)
    lab.ended(4)


def test_what_runs_in_each_worker_ends(lab: Cutting) -> None:
    pids = lab.gateway.serving()
    clients: list[Client] = []
    while not all(places_of(pid, lab.gateway) & ports(clients) for pid in pids):
        for cid in range(40, 58):
            clients.append(lab.begun(lab.target("events", cid=f"conn_{cid}")))
    lab.presign("revoke", "--added-before", "2026-03-01T00:00:00Z", "--now")
    try:
        assert {client.ending() for client in clients} <= set(CUT)
    finally:
        lab.presign("revoke", "--added-before", "2026-03-01T00:00:00Z", "--undo")
    assert lab.becomes(lab.target("answer"), 200)


def ports(clients: list[Client]) -> set[int]:
    return {client.sock.sock.getsockname()[1] for client in clients}


# -- bodies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_upload_is_answered_and_its_upstream_never_gets_the_end(lab: Cutting, way: str) -> None:
    first, tls = WAYS[way]
    target, uploaded = lab.target("upload"), lab.upstream.uploaded
    with lab.client(tls=tls).sock as client:
        client.send(first + wire(target, {"Content-Length": "1000"}, method="POST") + b"x" * 10)
        assert lab.holds(1)
        lab.presign("revoke", lab.url(target), "--now")
        answer = client.read_response(SOON)
        assert b"HTTP/1.1 403 " in answer
        assert b"X-Presign-Error: ended" in answer
        assert lab.holds(0)
        client.read_to_end(5)
    assert lab.upstream.uploaded == uploaded
    (line,) = lab.ended()
    assert (line["status"], line["bytes_in"]) == (403, 10)


def test_a_slow_upload_over_http2_is_answered_and_its_stream_is_reset(lab: Cutting) -> None:
    target = lab.target("upload")
    with lab.streams() as h2:
        stream = h2.begin(lab.fields(target, "POST"), end=False)
        h2.send(stream, b"x" * 10)
        neighbour = h2.begin(lab.fields(lab.target("events", "k2")))
        assert lab.holds(2)
        lab.presign("revoke", lab.url(target), "--now")
        (reply,) = h2.wait([stream], SOON)
        assert (reply.status, reply.header("x-presign-error")) == (403, "ended")
        h2.wait([neighbour], 1.0)
        assert not h2.replies[neighbour].ended
        assert lab.holds(1)
    lab.ended()


@pytest.mark.parametrize("first", [b"", FLOWS], ids=["lane", "flows"])
def test_an_upload_whose_answer_has_begun_is_cut_off(lab: Cutting, first: bytes) -> None:
    target = lab.target("both")
    with lab.client().sock as sock:
        client = Client(sock)
        client.sock.send(
            first + wire(target, {"Transfer-Encoding": "chunked"}, method="POST") + b"1\r\nx\r\n"
        )
        assert client.goes_on(3)
        lab.presign("revoke", lab.url(target), "--now")
        assert client.ending() in CUT
    lab.ended()


@pytest.mark.parametrize("first", [b"", FLOWS], ids=["lane", "flows"])
def test_a_download_that_its_client_does_not_take_ends_all_the_same(lab: Cutting, first: bytes) -> None:
    """What waits here for a slow client must not be handed out afterwards."""
    target = lab.target("download")
    with Wire(socket.socket()) as sock:
        sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sock.connect(("127.0.0.1", lab.gateway.port))
        sock.send(first + wire(target))
        sock.read_until(b"....", 10)
        lab.presign("revoke", lab.url(target), "--now")
        assert lab.holds(0)
        client = Client(sock)
        assert client.ending() == "reset"
        assert len(client.received) < DOWNLOAD // 100
    lab.ended()


def test_a_fast_download_ends_in_the_middle(lab: Cutting) -> None:
    target = lab.target("download")
    with lab.streams() as h2, lab.client().sock as sock:
        sock.send(wire(target))
        sock.read_until(b"....", 10)
        stream = h2.begin(lab.fields(target))
        lab.presign("revoke", "--key", f"{lab.cid}/k1", "--now")
        client = Client(sock)
        assert client.ending() in CUT
        assert len(client.received) < DOWNLOAD
        (reply,) = h2.wait([stream], SOON)
        assert (reply.status, reply.detail) == (200, "RST_STREAM 2")
    lab.ended(2)


def test_a_client_of_http_1_0_does_not_take_it_for_the_end(lab: Cutting) -> None:
    """Its answer ends with its connection: only a reset says that it is not whole."""
    target = lab.target("events")
    with lab.begun(target, version="1.0").sock as sock:
        lab.presign("revoke", lab.url(target), "--now")
        assert Client(sock).ending() == "reset"
    lab.ended()


# -- what is free afterwards, and what can be undone ------------------------------------------------------


@pytest.mark.parametrize("first", [b"", FLOWS], ids=["lane", "flows"])
def test_its_slots_are_free_for_others(lab: Cutting, first: bytes) -> None:
    leaked, good = lab.target("events"), lab.target("answer", "k2")
    clients = [lab.begun(leaked, first) for _ in range(6)]
    assert lab.status(good) == (429, "limited")
    lab.presign("revoke", lab.url(leaked), "--now")
    assert {client.ending() for client in clients} <= set(CUT)
    assert lab.becomes(good, 200)


def test_a_kept_connection_goes_on_with_other_requests_while_another_one_is_cut_off(lab: Cutting) -> None:
    leaked, good = lab.target("events"), lab.target("answer", "k2")
    client = lab.begun(leaked)
    with client.sock, lab.client().sock as kept:
        for _ in range(2):
            kept.send(wire(good))
            assert kept.read_response().endswith(b"ok")
        lab.presign("revoke", lab.url(leaked), "--now")
        assert client.ending() in CUT
        kept.send(wire(good))
        assert kept.read_response().endswith(b"ok")


def test_what_was_revoked_before_is_ended_once_now_is_said(lab: Cutting) -> None:
    target = lab.target("events")
    client = lab.begun(target)
    with client.sock:
        lab.presign("revoke", lab.url(target))
        assert lab.becomes(target, 403, "revoked")
        assert client.goes_on(10)
        lab.presign("revoke", lab.url(target), "--now")
        assert client.ending() in CUT


def test_a_revocation_that_is_undone_ends_nothing_any_more(lab: Cutting) -> None:
    target, key = lab.target("events"), f"{lab.cid}/k1"
    with lab.begun(target).sock:
        lab.presign("revoke", "--key", key, "--now")
        lab.ended()
    (entry,) = [one for one in json.loads(lab.presign("revoke", "--list", "--json")) if one["id"] == key]
    assert entry["now"] is True
    lab.presign("revoke", "--key", key, "--undo")
    assert lab.becomes(lab.target("answer"), 200)
    client = lab.begun(target)
    with client.sock:
        lab.presign("revoke", "--connection", "conn_58", "--now")  # another change of the registry
        assert client.goes_on(20)


def test_a_disabled_connection_ends_what_is_under_way_and_serves_again_once_it_is_enabled(
    lab: Cutting,
) -> None:
    target = lab.target("events")
    clients = [lab.begun(target, first) for first in (b"", FLOWS)]
    lab.presign("connections", "disable", lab.cid, "--now")
    assert {client.ending() for client in clients} <= set(CUT)
    lab.presign("connections", "enable", lab.cid)
    assert lab.becomes(lab.target("answer"), 200)
    clients.append(lab.begun(target))
    lab.presign("revoke", "--connection", "conn_58", "--now")
    assert clients[-1].goes_on(20)
    lab.presign("connections", "disable", lab.cid)
    assert clients[-1].goes_on(20)


def test_a_removed_connection_ends_what_is_under_way_and_one_of_its_name_serves(lab: Cutting) -> None:
    clients = [lab.begun(lab.target("events"), first) for first in (b"", FLOWS)]
    said = json.loads(lab.presign("connections", "remove", lab.cid, "--yes", "--now", "--json"))
    assert said == {"id": lab.cid, "state": "removed", "now": True}
    assert {client.ending() for client in clients} <= set(CUT)
    # What was removed is revoked at once; the rest of the change follows.
    assert eventually(lambda: lab.status(lab.target("answer")) == (403, "invalid"))


def test_a_leaked_secret_is_replaced_and_all_that_it_signed_ends_at_once(lab: Cutting) -> None:
    targets = [lab.target("events", key) for key in ("k1", "k2")]
    clients = [lab.begun(target, first) for target in targets for first in (b"", FLOWS)]
    said = json.loads(lab.presign("connections", "rotate", lab.cid, "--leaked", "--json"))
    ended = time.monotonic()
    assert {client.ending() for client in clients} <= set(CUT)
    assert time.monotonic() - ended < SOON
    assert (said["revoked"], said["dropped"], said["older"]) == (["k2", "k1"], [], [])
    assert [lab.status(target) for target in targets] == [(403, "revoked")] * 2
    fresh = lab.presign("sign", lab.cid, "answer", "--base", f"http://{GATEWAY}").strip()
    assert lab.becomes(fresh.removeprefix(f"http://{GATEWAY}"), 200)
    refused = [line["key"] for line in lab.lines() if line["code"] == "revoked"]
    assert sorted(refused) == ["k1", "k2"]  # the audit log names who still tries


# -- mitmdump, with its hooks as ever ---------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["on", "off"])
def test_mitmdump_ends_it_too(lane: str, make_gateway: MakeGateway, flowing: Flowing, tmp_path: Path) -> None:
    admin = free_port()
    gateway = gateway_of(make_gateway, flowing, tmp_path, admin, "--set", f"presign_lane={lane}")
    lab = Cutting(gateway, flowing, admin, cid="conn_1")
    target = lab.target("events")
    with lab.streams() as h2:
        client = lab.begun(target)
        stream = h2.begin(lab.fields(target))
        assert lab.holds(2)
        lab.presign("revoke", lab.url(target), "--now")
        assert client.ending() in CUT
        (reply,) = h2.wait([stream], SOON)
        assert (reply.status, reply.detail) == (200, "RST_STREAM 2")
    lab.ended(2)


HANGING = """
import asyncio
async def responseheaders(flow):
    await asyncio.sleep(8)
"""


def test_what_waits_for_the_hook_of_another_addon_ends_all_the_same(
    make_gateway: MakeGateway, flowing: Flowing, tmp_path: Path
) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING, "utf-8")
    admin = free_port()
    gateway = gateway_of(make_gateway, flowing, tmp_path, admin, "-s", str(script))
    lab = Cutting(gateway, flowing, admin, cid="conn_1")
    target = lab.target("events")
    with lab.client().sock as sock:
        sock.send(wire(target))
        assert lab.holds(1)
        lab.presign("revoke", lab.url(target), "--now")
        assert lab.holds(0)
        assert Client(sock).ending() in CUT
    (line,) = lab.ended()
    assert line["status"] is None


@pytest.mark.parametrize("lane", ["on", "off"])
def test_what_waits_for_its_upstream_is_answered(
    lane: str, make_gateway: MakeGateway, flowing: Flowing, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as crowd:
        place = full.getsockname()
        for _ in range(4):  # whoever comes later is not let in
            one = crowd.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(place)
        entry = bearer_connection(f"http://127.0.0.1:{place[1]}", SECRET) | {"timeouts": {"connect": "20s"}}
        admin, option = free_port(), ("--set", f"presign_lane={lane}")
        gateway = gateway_of(make_gateway, flowing, tmp_path, admin, *option, conn_full=entry)
        lab = Cutting(gateway, flowing, admin, cid="conn_full")
        target = lab.target("events")
        with lab.client().sock as client:
            client.send(wire(target))
            assert client.is_silent(1.0)
            lab.presign("revoke", lab.url(target), "--now")
            answer = client.read_response(SOON)
        assert b"HTTP/1.1 403 " in answer
        assert b"X-Presign-Error: ended" in answer
        (line,) = lab.ended()
        assert (line["status"], line["upstream_status"]) == (403, None)


def gateway_of(
    make_gateway: MakeGateway, flowing: Flowing, tmp_path: Path, admin: int, *options: str, **more: Any
) -> Mitm:
    directory = tmp_path / "gateway"
    directory.mkdir(mode=0o700)
    gateway = make_gateway(config(flowing, directory, admin, **more), *options, start=False)
    (directory / "registry.json").rename(gateway.directory / "registry.json")
    gateway.start()
    return gateway
