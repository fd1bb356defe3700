"""A name that does not answer: what it holds up, in real gateways. The C library waits for it in a thread."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.gateway.resolver import SOURCES_OF_CLIENT, SOURCES_OF_CONNECTION
from support.asking import SECRET, Grant, ask, wire
from support.config import write_config
from support.lab import bearer_connection
from support.places import ROOT
from support.process import free_port
from support.proxy import FAKE_DNS, Mitm
from support.puppet import eventually
from support.raw import exchange, parse_response, send_raw
from support.recorder import Recorder
from support.serving import Serve
from support.signing import source_url

pytestmark = pytest.mark.slow

HANG = 60
"""Seconds for which a name keeps its thread. Whatever a test waits for has to come before they are over."""
GATEWAYS = ("mitmdump", "serve", "serve without uvloop")
PATHS: dict[str, dict[str, str]] = {"lane": {}, "flow": {"TE": "trailers"}}

PROJECTS = 40

_numbers = count()
_clients = count(2)


def another_client() -> str:
    """A client of its own: what it has left hanging counts until that ends."""
    number = next(_clients)
    return f"127.0.{number // 200 + 1}.{number % 200 + 1}"


def hanging_name() -> str:
    return f"n{next(_numbers)}.hang.test"


def good_name() -> str:
    return f"n{next(_numbers)}.good.test"


class Lab:
    """A gateway with two projects, and connections whose upstreams are names."""

    def __init__(self, make: Callable[..., Mitm | Serve], upstream: Recorder) -> None:
        self._upstream = upstream
        self.admin = free_port()
        self._projects = iter(range(PROJECTS))
        project = {
            "scheme": "source",
            "mode": "signed",
            "allowed_origins": [f"http://test:{upstream.port}"],
            "allow_networks": ["127.0.0.0/8"],
            "formats": ["png"],
            "signing_keys": [{"secret": SECRET}],
        }
        named = {"insecure_upstream": True}
        self._config: dict[str, Any] = {
            "gateway": {"unsigned": "pass"},
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "connections": {
                **{f"pk_{number}": project for number in range(PROJECTS)},
                "conn_named": bearer_connection(f"http://api.test:{upstream.port}", SECRET, **named),
                "conn_two": bearer_connection(f"http://two.test:{upstream.port}", SECRET, **named),
                "conn_hangs": bearer_connection(f"http://api.hang.test:{upstream.port}", SECRET, **named),
            },
        }
        dns = {
            "*.good.test": ["127.0.0.1"],
            "*.hang.test": [f"hang:{HANG}", "127.0.0.1"],
            "*.late.test": ["hang:7", "127.0.0.1"],
            "*.soon.test": ["hang:2", "127.0.0.1"],
            "*.short.test": ["hang:1"],
            "api.test": ["127.0.0.1"],
            "two.test": ["127.0.0.1#1", f"127.0.0.1#{upstream.port}"],
        }
        self.gateway = make(self._config, dns)

    def project(self) -> str:
        """One of its own: what it has left hanging counts until that ends."""
        return f"pk_{next(self._projects)}"

    def source(self, name: str, project: str, path: str = "lane") -> bytes:
        url = f"http://{name}:{self._upstream.port}/a.png"
        return wire(source_url(SECRET, project, url, int(time.time()) + 600, "png"), PATHS[path])

    def call(self, connection: str, path: str = "lane") -> bytes:
        return wire(Grant(connection).target("v1/models"), PATHS[path])

    def connect(self, client: str) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.gateway.port), HANG, (client, 0))

    def ask(self, request: bytes, client: str = "127.0.0.1") -> int:
        """The status that a client gets. Raises Hang where that is none while the names of a test hang."""
        with self.connect(client) as sock:
            return parse_response(exchange(sock, request, HANG - 5)).status

    def crowd(self, requests: list[bytes], client: str) -> ExitStack:
        """A client with a connection for each request, which waits for none of the answers."""
        with ExitStack() as opened:
            for request in requests:
                opened.enter_context(self.connect(client)).sendall(request)
            return opened.pop_all()

    def reconfigure(self, **connections: Any) -> None:
        changed = self._config["connections"] | connections
        write_config(self._config | {"connections": changed}, self.gateway.directory)

    def revoke(self, connection: str) -> None:
        self.reconfigure(**{connection: self._config["connections"][connection] | {"enabled": False}})

    def figure(self, name: str) -> float:
        with socket.create_connection(("127.0.0.1", self.admin), HANG) as sock:
            body = parse_response(exchange(sock, wire("/metrics", host="127.0.0.1"))).body.decode()
        return float(next(line for line in body.splitlines() if line.startswith(f"{name} ")).split()[1])

    def looks_up(self, name: str) -> bool:
        """Whether it has begun to."""
        log = self.gateway.directory / "dns.log"
        return name in (log.read_text().split() if log.exists() else [])


@pytest.fixture(scope="module")
def start(
    module_gateway: Callable[..., Mitm], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Callable[..., Mitm | Serve]]]:
    with ExitStack() as started:

        def serve(config: dict[str, Any], dns: dict[str, list[str]], **env: str) -> Serve:
            directory = tmp_path_factory.mktemp("served")
            env |= {"FAKE_DNS": json.dumps(dns), "FAKE_DNS_LOG": str(directory / "dns.log")}
            env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "addon"), str(FAKE_DNS)])
            found = Serve(directory, config, "--unsigned", "pass", **env)
            started.callback(found.stop)
            return found.start()

        makers: dict[str, Callable[..., Mitm | Serve]] = {
            "mitmdump": lambda config, dns: module_gateway(config, dns=dns),
            "serve": serve,
            "serve without uvloop": lambda config, dns: serve(config, dns, WITHOUT_UVLOOP="1"),
        }
        yield makers.__getitem__


@pytest.fixture(scope="module", params=GATEWAYS)
def lab(request: pytest.FixtureRequest, start: Any, upstream: Recorder) -> Lab:
    return Lab(start(request.param), upstream)


def all_is_well(lab: Lab, project: str, path: str) -> None:
    """While names hang: other sources, a connection's own upstream, a revocation."""
    assert lab.ask(lab.source(good_name(), project, path)) == 200
    assert lab.ask(lab.source(good_name(), lab.project(), path)) == 200
    assert lab.ask(lab.call("conn_named", path)) == 200
    lab.revoke("conn_two")
    assert eventually(lambda: lab.ask(lab.call("conn_two", path)) == 403, 10)
    lab.reconfigure()
    assert eventually(lambda: lab.ask(lab.call("conn_two", path)) == 200, 10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [12, 50, 200])
@pytest.mark.parametrize("clients", ["one client", "many clients"])
def test_requests_for_a_name_that_hangs_hold_up_nobody_else(
    lab: Lab, path: str, size: int, clients: str
) -> None:
    name, project = hanging_name(), lab.project()
    asked = [another_client() for _ in range(size)] if clients == "many clients" else [another_client()]
    with ExitStack() as crowd:
        for client in asked:
            requests = [lab.source(name, project, path)] * (size // len(asked))
            crowd.enter_context(lab.crowd(requests, client))
        assert eventually(lambda: lab.looks_up(name), 10)
        all_is_well(lab, project, path)
        assert lab.ask(lab.source(good_name(), project, path), asked[0]) == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_asks_for_two_hundred_names_that_hang_shuts_nobody_out(lab: Lab, path: str) -> None:
    client, project = another_client(), lab.project()
    before = lab.figure("presign_source_lookups_refused_total")
    names = [hanging_name() for _ in range(200)]
    with lab.crowd([lab.source(name, project, path) for name in names], client):
        assert eventually(lambda: lab.looks_up(names[0]), 10)
        all_is_well(lab, project, path)
        # At once: after a deadline it would be 504.
        assert lab.ask(lab.source(hanging_name(), project, path), client) == 502
        refused = before + len(names) + 1 - SOURCES_OF_CLIENT
        assert eventually(lambda: lab.figure("presign_source_lookups_refused_total") == refused, 10)
        assert lab.figure("presign_source_lookups") >= SOURCES_OF_CLIENT


def test_clients_that_fill_a_project_with_names_that_hang_shut_no_other_project_out(
    start: Any, upstream: Recorder
) -> None:
    lab = Lab(start("mitmdump"), upstream)
    project = lab.project()
    with ExitStack() as crowd:
        for _ in range(SOURCES_OF_CONNECTION // SOURCES_OF_CLIENT + 2):
            names = [hanging_name() for _ in range(SOURCES_OF_CLIENT)]
            crowd.enter_context(lab.crowd([lab.source(name, project) for name in names], another_client()))
        assert eventually(lambda: lab.figure("presign_source_lookups") == SOURCES_OF_CONNECTION, 10)
        assert lab.ask(lab.source(hanging_name(), project)) == 502
        assert lab.ask(lab.source(good_name(), lab.project())) == 200
        assert lab.ask(lab.call("conn_named")) == 200


def test_a_name_that_hangs_is_answered_at_its_deadline_and_then_at_once(lab: Lab) -> None:
    name, project = hanging_name(), lab.project()
    assert lab.ask(lab.source(name, project)) == 504
    # Its thread hangs on, and one more request does not wait for it, nor take another.
    with lab.connect("127.0.0.1") as sock:
        sock.settimeout(3)  # the deadline is five seconds
        assert parse_response(exchange(sock, lab.source(name, project), 3)).status == 504
    log = (lab.gateway.directory / "dns.log").read_text().split()
    assert log.count(name) == 1


def test_names_that_end_give_their_places_back_also_where_their_clients_have_gone(
    start: Any, upstream: Recorder
) -> None:
    lab, client = Lab(start("mitmdump"), upstream), another_client()
    project = lab.project()
    names = [f"n{next(_numbers)}.soon.test" for _ in range(SOURCES_OF_CLIENT)]
    with lab.crowd([lab.source(name, project) for name in names], client):
        assert eventually(lambda: lab.figure("presign_source_lookups") == SOURCES_OF_CLIENT, 10)
    assert lab.ask(lab.source(good_name(), project), client) in (200, 502)
    assert eventually(lambda: lab.figure("presign_source_lookups") == 0, 10)
    assert eventually(lambda: lab.figure("presign_client_connections") == 0, 10)
    assert lab.ask(lab.source(good_name(), project), client) == 200


def test_unsigned_requests_for_names_that_hang_hold_up_no_presigned_one(lab: Lab) -> None:
    names = [hanging_name() for _ in range(50)]
    with lab.crowd([wire(f"http://{name}/", host=name) for name in names], another_client()):
        assert eventually(lambda: lab.looks_up(names[0]), 10)
        for path in PATHS:
            all_is_well(lab, lab.project(), path)


@pytest.mark.parametrize("path", PATHS)
def test_a_connection_whose_upstream_has_a_name_that_hangs_holds_up_no_other(lab: Lab, path: str) -> None:
    with lab.crowd([lab.call("conn_hangs", path)] * 50, another_client()):
        assert eventually(lambda: lab.looks_up("api.hang.test"), 10)
        all_is_well(lab, lab.project(), path)


def test_a_name_that_is_found_too_late_to_be_judged_leads_nobody_to_the_admin_listener(lab: Lab) -> None:
    """It was left to mitmproxy, which looked it up once more and had more patience."""
    host = f"admin.late.test:{lab.admin}"
    received = send_raw(lab.gateway.port, wire(f"http://{host}/livez", host=host), timeout=HANG)
    assert parse_response(received).status == 502  # of that listener it would be 403


@pytest.mark.parametrize("path", PATHS)
def test_an_upstream_of_two_addresses_is_reached_where_the_first_refuses(lab: Lab, path: str) -> None:
    assert lab.ask(lab.call("conn_two", path)) == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_does_not_exist_is_not_asked_for_again_at_once(lab: Lab, path: str) -> None:
    name, project = f"n{next(_numbers)}.short.test", lab.project()
    with lab.crowd([lab.source(name, project, path)] * 5, another_client()):
        assert lab.ask(lab.source(name, project, path)) == 502
        assert lab.ask(lab.source(name, project, path)) == 502
    log = (lab.gateway.directory / "dns.log").read_text().split()
    assert log.count(name) == 1


@pytest.mark.parametrize("without", ["", "1"], ids=["uvloop", "asyncio"])
def test_the_certificate_of_a_named_upstream_is_still_held_against_its_name(
    tmp_path: Path, tls_upstream: Recorder, ca_pem: Path, without: str
) -> None:
    """Its address is dialled, and an address is what a certificate for another name would not be for."""
    port = tls_upstream.tls_port
    config = {
        "connections": {
            "conn_good": bearer_connection(f"https://api.tls.test:{port}", SECRET),
            "conn_wrong": bearer_connection(f"https://wrong.test:{port}", SECRET),
        }
    }
    env = {
        "FAKE_DNS": json.dumps({"api.tls.test": ["127.0.0.1"], "wrong.test": ["127.0.0.1"]}),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "addon"), str(FAKE_DNS)]),
    } | ({"WITHOUT_UVLOOP": "1"} if without else {})
    served = Serve(tmp_path / "served", config, "--upstream-ca", str(ca_pem), **env).start()
    try:
        for path, (connection, status) in product(PATHS, (("conn_good", 200), ("conn_wrong", 502))):
            answer = ask(served.port, Grant(connection).target("v1/models"), PATHS[path])
            assert answer.status == status, (path, connection)
    finally:
        served.stop()
    assert all(request.sni == "api.tls.test" for request in tls_upstream.requests)
