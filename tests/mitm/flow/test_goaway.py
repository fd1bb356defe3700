"""Upstreams over HTTP/2 that say goodbye, as at each deployment, and end what they have begun."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from presign_proxy.mitm.flow.goaway import NOT_TAKEN
from support.asking import SECRET, Grant
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.descriptors import links_of
from support.gateways import TLS_NAMES, MakeGateway
from support.h2frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    WINDOW_UPDATE,
    accept_h2,
    frame,
    h2_context,
    next_of,
)
from support.h2streams import Streams
from support.lab import bearer_connection
from support.process import Process, free_port
from support.programs import find
from support.proxy import Mitm
from support.puppet import eventually

pytestmark = pytest.mark.needs("/proc")
CID, HASTY, NGINX = "conn_h2", "conn_hasty", "conn_nginx"
OK = b"\x88"
ALL = 2**31 - 1
"""The last stream of a goodbye that does not know of the last one yet."""
GATEWAY = "presign.local"


def goaway(last: int, code: int = 0) -> bytes:
    return frame(GOAWAY, last.to_bytes(4, "big") + code.to_bytes(4, "big") + b"bye")


def head(stream: int, flags: int = 0) -> bytes:
    return frame(HEADERS, OK, END_HEADERS | flags, stream)


def end(stream: int, data: bytes = b"") -> bytes:
    return frame(DATA, data, END_STREAM, stream)


def fields(cid: str, path: str, method: str = "GET") -> list[tuple[str, str]]:
    target = Grant(cid, methods=method).target(path)
    return [(":method", method), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    context: ssl.SSLContext
    nginx: int
    """The port that is left for one."""
    ports: dict[Wire, int] = field(default_factory=dict)
    """The gateway's own, of each connection to an upstream."""

    def client(self) -> Streams:
        return Streams.direct(self.gateway.port, GATEWAY, self.gateway.ca)

    def accept(self, settings: bytes = b"") -> Wire:
        upstream = accept_h2(self.hand, self.context, settings, timeout=10)
        self.ports[upstream] = upstream.sock.getpeername()[1]  # one that was reset has none any more
        return upstream

    def is_free(self, upstream: Wire) -> bool:
        """Whether the gateway has closed its end, and the system knows of it no more."""
        port = self.ports[upstream]
        upstream.read_to_end(10)
        return eventually(lambda: port not in ports_of(self.gateway.pid))

    def audited(self, name: str) -> dict[str, Any]:
        path = self.gateway.directory / "audit.jsonl"

        def found() -> list[dict[str, Any]]:
            return [one for one in audit_lines(path) if f"/{name}" in one["path"]]

        assert eventually(found)
        return found()[0]


def ports_of(pid: int) -> set[int]:
    """The own ports of a process's connections."""
    links = links_of(pid)
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in links}


@pytest.fixture(scope="module")
def lab(module_gateway: MakeGateway, ca: trustme.CA) -> Iterator[Lab]:
    hand, context = ByHand(), h2_context(ca.issue_cert(*TLS_NAMES))
    url, nginx = f"https://localhost:{hand.port}", free_port()
    connections = {
        CID: bearer_connection(url, SECRET),
        HASTY: bearer_connection(url, SECRET, timeouts={"response": "1s"}, limits=[{"concurrency": 1}]),
        NGINX: bearer_connection(f"https://localhost:{nginx}", SECRET),
    }
    config = {"connections": connections, "audit": {"file": "audit.jsonl"}}
    yield Lab(module_gateway(config), hand, context, nginx)
    hand.stop()


def begin(client: Streams, upstream: Wire, *names: str) -> list[int]:
    """Begin requests one after the other: the upstream sees them in their order."""
    found = []
    for name in names:
        found.append(client.begin(fields(CID, name)))
        wait_for(upstream, HEADERS)
    return found


def wait_for(upstream: Wire, kind: int) -> bytes:
    return next_of(upstream, kind, 10).payload


def settle(upstream: Wire, said: bytes = b"") -> None:
    """Say something, and wait until the gateway has heard it."""
    upstream.send(said + frame(PING, bytes(8)))
    wait_for(upstream, PING)


def first(lab: Lab, client: Streams, name: str) -> tuple[int, Wire]:
    stream = client.begin(fields(CID, name))
    upstream = lab.accept()
    wait_for(upstream, HEADERS)
    return stream, upstream


def test_what_an_upstream_has_begun_comes_whole_behind_its_goodbye_and_what_not_is_502(lab: Lab) -> None:
    """All of them were cut off, or 502."""
    with lab.client() as client:
        one, upstream = first(lab, client, "one")
        two, three = begin(client, upstream, "two", "three-behind")
        upstream.send(head(1) + frame(DATA, b"begun, ", 0, 1) + goaway(3))
        assert client.wait([three])[0].status == 502
        upstream.send(frame(DATA, b"ended", END_STREAM, 1) + head(3) + end(3, b"whole"))
        replies = client.wait([one, two])
        assert [(one.status, one.body) for one in replies] == [(200, b"begun, ended"), (200, b"whole")]
        assert lab.is_free(upstream)
    line = lab.audited("three-behind")
    assert (line["status"], line["detail"]) == (502, NOT_TAKEN)


def test_an_answer_before_a_goodbye_is_delivered_whatever_stands_behind_it(lab: Lab) -> None:
    """The frame behind it was an error to h2, and took the answer with it."""
    for code in (0, 2):
        with lab.client() as client:
            one, upstream = first(lab, client, "one")
            upstream.send(head(1) + end(1, b"whole") + goaway(1, code) + frame(PING, bytes(8)))
            reply = client.wait([one])[0]
            assert (reply.status, reply.body) == (200, b"whole")
            assert lab.is_free(upstream)


def test_the_next_request_is_sent_on_another_connection_while_the_first_one_goes_on(lab: Lab) -> None:
    with lab.client() as client:
        one, old = first(lab, client, "one")
        settle(old, head(1) + goaway(1))
        two, new = first(lab, client, "two")
        new.send(head(1) + end(1, b"new"))
        assert client.wait([two])[0].body == b"new"
        old.send(end(1, b"old"))
        assert client.wait([one])[0].body == b"old"
        assert lab.is_free(old)
        three = begin(client, new, "three")
        new.send(head(3) + end(3, b"still there"))
        assert client.wait(three)[0].body == b"still there"


def test_a_goodbye_in_two_steps_ends_what_the_second_one_does_not_name(lab: Lab) -> None:
    with lab.client() as client:
        one, upstream = first(lab, client, "one")
        two, three = begin(client, upstream, "two", "three")
        settle(upstream, goaway(ALL))
        assert not any(reply.ended for reply in client.replies.values())
        upstream.send(goaway(3))
        assert client.wait([three])[0].status == 502
        # One that names more brings nothing back.
        upstream.send(goaway(ALL) + head(1) + end(1, b"1") + head(3) + end(3, b"3") + head(5) + end(5, b"5"))
        assert [reply.body for reply in client.wait([one, two])] == [b"1", b"3"]
        assert lab.is_free(upstream)


def test_an_upload_goes_on_behind_the_goodbye(lab: Lab) -> None:
    body = b"x" * 200_000
    with lab.client() as client:
        stream = client.begin([*fields(CID, "upload", "POST"), ("content-length", str(len(body)))], end=False)
        upstream = lab.accept()
        wait_for(upstream, HEADERS)
        settle(upstream, goaway(1))
        for at in range(0, len(body), 10_000):
            client.send(stream, body[at : at + 10_000], end=at + 10_000 == len(body))
            client._pump(0)
        got = b""
        while len(got) < len(body):
            got += wait_for(upstream, DATA)
            grown = (16384).to_bytes(4, "big")
            upstream.send(frame(WINDOW_UPDATE, grown) + frame(WINDOW_UPDATE, grown, 0, 1))
        assert got == body
        upstream.send(head(1) + end(1, b"taken"))
        assert client.wait([stream])[0].body == b"taken"
        assert lab.is_free(upstream)


def test_a_goodbye_to_nobody_ends_the_connection_at_once(lab: Lab) -> None:
    with lab.client() as client:
        one, upstream = first(lab, client, "one")
        upstream.send(head(1) + end(1))
        client.wait([one])
        upstream.send(goaway(ALL))
        assert lab.is_free(upstream)


def test_a_goodbye_with_an_error_ends_all_of_its_connection(lab: Lab) -> None:
    with lab.client() as client:
        one, upstream = first(lab, client, "one")
        two = begin(client, upstream, "two")
        upstream.send(goaway(3, 2))
        assert [reply.status for reply in client.wait([one, *two])] == [502, 502]
        assert lab.is_free(upstream)


def test_a_connection_that_has_ended_does_not_lead_to_one_that_is_leaving(lab: Lab) -> None:
    """mitmproxy knows both. It was told to share, and shared the one that takes nothing more."""
    only_one = b"\x00\x03" + (1).to_bytes(4, "big")
    with lab.client() as client:
        one = client.begin(fields(CID, "one"))
        ended = lab.accept(only_one)
        wait_for(ended, HEADERS)
        settle(ended)
        two, leaving = first(lab, client, "two")
        ended.send(head(1) + end(1))
        client.wait([one])
        ended.close()
        settle(leaving, head(1) + goaway(1))
        three, new = first(lab, client, "three")
        new.send(head(1) + end(1, b"new"))
        leaving.send(end(1, b"old"))
        assert [reply.body for reply in client.wait([two, three])] == [b"old", b"new"]


def test_an_upstream_that_says_goodbye_and_then_nothing_has_its_deadline_and_keeps_no_slot(lab: Lab) -> None:
    for _ in range(3):
        with lab.client() as client:
            stream = client.begin(fields(HASTY, "silent"))
            with lab.accept() as upstream:
                wait_for(upstream, HEADERS)
                upstream.send(goaway(1))
                assert client.wait([stream])[0].status == 504
                assert lab.is_free(upstream)


def test_a_client_that_goes_takes_the_connection_that_was_leaving_with_it(lab: Lab) -> None:
    with lab.client() as client:
        _, upstream = first(lab, client, "one")
        settle(upstream, head(1) + goaway(1))
    assert lab.is_free(upstream)


@pytest.mark.parametrize("last", [1, ALL])
def test_an_upstream_that_says_goodbye_again_and_again_is_left(last: int, lab: Lab) -> None:
    with lab.client() as client:
        stream, upstream = first(lab, client, "one")
        with contextlib.suppress(OSError):
            upstream.send(head(1) + goaway(last) * 20_000)
        assert client.wait([stream])[0].outcome == "200"
        assert client.replies[stream].detail
        assert lab.is_free(upstream)


_NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/err;
events {{ worker_connections 100; }}
http {{
  log_format at $connection; access_log {directory}/connections.log at;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
  uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    keepalive_requests 3;
    ssl_certificate {directory}/server.pem; ssl_certificate_key {directory}/server.pem;
    location / {{ return 200 "of nginx"; }}
  }}
}}
"""


@pytest.mark.needs("nginx")
def test_an_nginx_that_says_goodbye_at_each_third_request_answers_all_of_them(
    lab: Lab, ca: trustme.CA, tmp_path: Path
) -> None:
    cert = ca.issue_cert(*TLS_NAMES)
    cert.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "nginx.conf").write_text(_NGINX.format(directory=tmp_path, port=lab.nginx))
    argv = [str(find("nginx")), "-c", tmp_path / "nginx.conf", "-e", tmp_path / "err"]
    with Process(argv, lab.nginx, tmp_path / "nginx.log", dict(os.environ)), lab.client() as client:
        replies = [client.request(fields(NGINX, f"n/{number}")) for number in range(50)]
        assert [(one.status, one.body) for one in replies] == [(200, b"of nginx")] * 50
        used = (tmp_path / "connections.log").read_text("ascii").split()
    assert len(set(used)) >= 50 // 3
