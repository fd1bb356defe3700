"""No credential leaves after its grant has ended, however long what was granted has waited, and for what."""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from presign_proxy.config.registry_file.edit import Draft
from presign_proxy.config.registry_file.encryption import new_key, parse_key
from presign_proxy.signing.keys import signature_id
from support.asking import SECRET, Grant, in_an_hour, wire
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.config import write_config
from support.gateways import TLS_NAMES, MakeGateway
from support.h2streams import Streams
from support.process import LOADED
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, parse_response

KEY = new_key()
GATEWAY = "presign.local"
OLD, NEW = "sk-OLD-real-0123456789", "sk-NEW-real-0123456789"
LEAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""
PATHS = ("lane", "flow")
WAITS = ("TLS with the upstream", "a program")
_expiries = itertools.count(in_an_hour())


class Asked:
    """One request that is under way on one of the two paths, and what is answered to it."""

    def __init__(self, lab: Lab, path: str, target: str) -> None:
        self._h2 = (
            Streams.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) if path == "flow" else None
        )
        self._h1 = None if self._h2 else Wire(connect(lab.gateway.port))
        if self._h2:
            pseudo = ((":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", target))
            self._stream = self._h2.begin(pseudo)
        elif self._h1:
            self._h1.send(wire(target))

    def answer(self) -> tuple[int | None, str | None]:
        """Its status, and the code of a refusal."""
        if self._h2:
            reply = self._h2.wait([self._stream], PATIENT)[0]
            return reply.status, reply.header("x-presign-error")
        assert self._h1
        response = parse_response(self._h1.read_response(PATIENT))
        return response.status, response.header("x-presign-error")

    def close(self) -> None:
        for one in (self._h1, self._h2):
            if one:
                one.close()


@dataclass
class Lab:
    """A gateway over a registry in the hands of its owner, and an upstream by hand, behind TLS or not."""

    gateway: Mitm
    draft: Draft
    hand: ByHand
    directory: Path
    context: ssl.SSLContext
    cid: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def connection(self, wait: str, key: str = OLD) -> dict[str, Any]:
        secure = wait != "a program"
        token: Any = key
        if wait == "a program":
            script = f"touch {self.cid}.began; until [ -e {self.cid}.go ]; do sleep 0.05; done; echo {key}"
            token = {"exec": ["sh", "-c", script], "ttl": "5m"}
        upstream = f"https://api.tls.test:{self.hand.port}" if secure else self.hand.url
        return {
            "upstream": upstream,
            "auth": {"type": "bearer", "token": token},
            "signing_keys": [{"id": "k1", "secret": SECRET}],
        }

    def publish(self) -> None:
        """Write the registry, and wait until it is in force."""
        before = self.gateway.log().count(LOADED)
        self.draft.write()
        assert eventually(lambda: self.gateway.log().count(LOADED) > before, PATIENT)

    def fresh(self, wait: str) -> str:
        self.cid = f"conn_{next(self.numbers)}"
        self.draft.connections[self.cid] = self.connection(wait)
        self.publish()
        return self.cid

    def has_begun(self, wait: str) -> Wire | None:
        """Wait until it waits; the upstream's end of a connection whose TLS waits for the test."""
        if wait == "a program":
            assert eventually((self.directory / f"{self.cid}.began").exists, PATIENT)
            return None
        return self.hand.accept(PATIENT)

    def let_go(self, wait: str, api: Wire | None) -> Wire | None:
        """Let it go on; the upstream's end of its connection, None where none was made."""
        if api is None:
            (self.directory / f"{self.cid}.go").touch()
            try:
                return self.hand.accept(3)
            except TimeoutError:
                return None
        api.sock.settimeout(PATIENT)
        try:
            api.sock = self.context.wrap_socket(api.sock, server_side=True)
        except OSError:
            return None
        return api

    def receive(self, wait: str, api: Wire | None) -> tuple[Wire, bytes]:
        """Let it go on, and read what is sent. The lane gives up a connection that a reload has overtaken."""
        api = self.let_go(wait, api)
        assert api
        try:
            return api, api.read_head(PATIENT)
        except ConnectionError:
            api = self.let_go(wait, self.hand.accept(PATIENT))
        assert api
        return api, api.read_head(PATIENT)

    def audited(self) -> list[dict[str, Any]]:
        path = self.gateway.directory / "audit.jsonl"
        return [line for line in audit_lines(path) if line["connection"] == self.cid]


@pytest.fixture(scope="module")
def module_lab(
    module_gateway: MakeGateway, ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("late")
    draft = Draft(directory / "connections.enc", [parse_key(KEY)], {})
    hand = ByHand()
    draft.connections["conn_first"] = {
        "upstream": hand.url,
        "auth": {"type": "bearer", "token": OLD},
        "signing_keys": [{"id": "k1", "secret": SECRET}],
    }
    registry = {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}
    config = {"gateway": {"hosts": [GATEWAY]}, "registry": registry, "audit": {"file": "audit.jsonl"}}
    path = write_config(config, directory)
    draft.write()
    env, dns = {"PRESIGN_KEY": KEY.reveal()}, {"api.tls.test": ["127.0.0.1"]}
    gateway = module_gateway(path, "--set", "presign_lane=on", env=env, dns=dns)
    gateway.directory = directory
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*TLS_NAMES).configure_cert(context)
    yield Lab(gateway, draft, hand, directory, context)
    hand.stop()


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    yield module_lab
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()
    assert "Traceback" not in log
    assert "failed at the protocol" not in log


def expire(lab: Lab, grant: Grant) -> None:
    time.sleep(max(0.0, int(grant.expires) + 1.05 - time.time()))


def revoke(lab: Lab, grant: Grant) -> None:
    found = signature_id(grant.headers["X-Presign-Signature"])
    lab.draft.revoked("urls")[found] = {"at": "2026-11-01T00:00:00Z"}
    lab.publish()


def disable(lab: Lab, grant: Grant) -> None:
    lab.draft.connections[grant.connection]["enabled"] = False
    lab.publish()


def remove(lab: Lab, grant: Grant) -> None:
    del lab.draft.connections[grant.connection]
    lab.publish()


ENDS: dict[str, tuple[Callable[[Lab, Grant], None], str]] = {
    "it expires": (expire, "expired"),
    "its URL is revoked": (revoke, "revoked"),
    "its connection is disabled": (disable, "revoked"),
    "its connection is removed": (remove, "invalid"),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("end", ENDS)
def test_what_ends_while_it_waits_is_refused_and_its_credential_stays_here(
    lab: Lab, path: str, wait: str, end: str
) -> None:
    lab.fresh(wait)
    expires = int(time.time()) + 2 if end == "it expires" else next(_expiries)
    grant = Grant(lab.cid, expires=expires)
    asked = Asked(lab, path, grant.target("v1/models"))
    api = lab.has_begun(wait)
    happens, code = ENDS[end]
    happens(lab, grant)
    api = lab.let_go(wait, api)
    assert asked.answer() == (403, code)
    asked.close()
    if api is not None:
        assert api.read_to_end(PATIENT) == b""
    assert eventually(lambda: len(lab.audited()) == 1, PATIENT)
    assert [(line["decision"], line["code"], line["status"]) for line in lab.audited()] == [
        ("deny", code, 403)
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wait", WAITS)
def test_a_credential_that_is_changed_while_its_request_waits_is_sent_as_it_is_now(
    lab: Lab, path: str, wait: str
) -> None:
    lab.fresh(wait)
    asked = Asked(lab, path, Grant(lab.cid).target("v1/models"))
    api = lab.has_begun(wait)
    (lab.directory / f"{lab.cid}.began").unlink(missing_ok=True)
    lab.draft.connections[lab.cid] = lab.connection(wait, NEW)
    lab.publish()
    api, head = lab.receive(wait, api)
    assert f"Bearer {NEW}".encode() in head
    assert OLD.encode() not in head
    api.send(LEAST)
    assert asked.answer() == (200, None)
    asked.close()
    assert eventually(lambda: [line["decision"] for line in lab.audited()] == ["forward"], PATIENT)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wait", WAITS)
def test_a_change_elsewhere_takes_nothing_from_a_request_that_waits(lab: Lab, path: str, wait: str) -> None:
    lab.fresh(wait)
    asked = Asked(lab, path, Grant(lab.cid).target("v1/models"))
    api = lab.has_begun(wait)
    mine = lab.cid
    lab.fresh("TLS with the upstream")
    lab.cid = mine
    api, head = lab.receive(wait, api)
    assert f"Bearer {OLD}".encode() in head
    api.send(LEAST)
    assert asked.answer() == (200, None)
    asked.close()


@pytest.mark.parametrize("path", PATHS)
def test_an_upstream_that_moves_while_its_request_waits_is_not_sent_the_credential_of_the_old_one(
    lab: Lab, path: str
) -> None:
    wait = "TLS with the upstream"
    lab.fresh(wait)
    asked = Asked(lab, path, Grant(lab.cid).target("v1/models"))
    old = lab.has_begun(wait)
    lab.draft.connections[lab.cid]["upstream"] = lab.hand.url
    lab.publish()
    old = lab.let_go(wait, old)
    if path == "lane":
        api = lab.hand.accept(PATIENT)
        assert f"Bearer {OLD}".encode() in api.read_head(PATIENT)
        api.send(LEAST)
        assert asked.answer() == (200, None)
        assert old
        assert old.read_to_end(PATIENT) == b""
    else:
        assert asked.answer() == (503, "unavailable")
        assert old
        assert old.read_to_end(PATIENT) == b""
    asked.close()


# -- deadlines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wait", WAITS)
def test_what_is_waited_for_in_vain_is_answered_504(lab: Lab, path: str, wait: str) -> None:
    lab.fresh(wait)
    lab.draft.connections[lab.cid]["timeouts"] = {"connect": "1s"}
    lab.publish()
    asked = Asked(lab, path, Grant(lab.cid).target("v1/models"))
    api = lab.has_begun(wait)
    assert asked.answer() == (504, "upstream")
    if api is not None:  # its half of a handshake, and then the end
        assert NEW.encode() not in api.read_to_end(PATIENT)
    else:
        (lab.directory / f"{lab.cid}.go").touch()
    asked.close()
    assert eventually(lambda: [line["status"] for line in lab.audited()] == [504], PATIENT)


def test_a_client_whose_upstream_was_away_is_served_when_it_is_back(lab: Lab) -> None:
    lab.fresh("TLS with the upstream")
    lab.draft.connections[lab.cid]["timeouts"] = {"connect": "1s"}
    lab.publish()
    target = Grant(lab.cid).target("v1/models")
    pseudo = ((":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", target))
    with Streams.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client:
        assert client.wait([client.begin(pseudo)], PATIENT)[0].status == 504
        lab.hand.hang_up()
        stream = client.begin(pseudo)
        api = lab.let_go("TLS", lab.hand.accept(PATIENT))
        assert api
        api.read_head(PATIENT)
        api.send(LEAST)
        assert client.wait([stream], PATIENT)[0].status == 200


# -- streams beside one another ---------------------------------------------------------------------------


def test_a_twentieth_stream_does_not_wait_until_another_one_has_ended(lab: Lab) -> None:
    lab.cid = "conn_first"
    target = Grant(lab.cid, expires=next(_expiries)).target("v1/models")
    pseudo = ((":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", target))
    with Streams.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client:
        streams = [client.begin(pseudo) for _ in range(20)]
        apis = [lab.hand.accept(PATIENT) for _ in streams]
        for api in apis:
            assert f"Bearer {OLD}".encode() in api.read_head(PATIENT)
        for api in apis:
            api.send(LEAST)
        assert [reply.status for reply in client.wait(streams, PATIENT)] == [200] * 20


def test_a_stream_that_is_reset_while_it_waits_sends_nothing_and_takes_its_connection_along(lab: Lab) -> None:
    wait = "TLS with the upstream"
    lab.fresh(wait)
    target = Grant(lab.cid).target("v1/models")
    pseudo = ((":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", target))
    with Streams.through(lab.gateway.port, GATEWAY, cafile=lab.gateway.ca) as client:
        stream = client.begin(pseudo)
        api = lab.has_begun(wait)
        client.reset(stream)
        assert eventually(lambda: len(lab.audited()) == 1, PATIENT)
        assert api
        hello = api.read_to_end(PATIENT)
        assert hello[:1] in (b"", b"\x16")  # no more than the beginning of a handshake
        assert client.wait([client.begin((*pseudo[:3], (":path", "/nothing")))], PATIENT)[0].status == 404
