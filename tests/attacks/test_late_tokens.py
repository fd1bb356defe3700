"""The client secret of an OAuth client leaves only for a request that is still granted when it is sent."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.asking import SECRET, Grant, code, in_an_hour, wire
from support.byhand import ByHand, Wire
from support.config import write_config
from support.gateways import MakeGateway
from support.process import LOADED
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, parse_response

CLIENT_SECRET = "client-secret-0123456789"
TOKEN = "access-token-0123456789"
ISSUED = b'{"access_token": "%b", "token_type": "Bearer", "expires_in": 600}' % TOKEN.encode()
FORM = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ISSUED), ISSUED)
LEAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""


@dataclass
class Lab:
    """A gateway that reaches its token endpoints through a proxy in the hands of the test."""

    gateway: Mitm
    config: dict[str, Any]
    proxy: ByHand
    upstream: ByHand
    cid: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def entry(self) -> dict[str, Any]:
        auth = {
            "type": "oauth2",
            "client_id": "me",
            "client_secret": CLIENT_SECRET,
            "client_auth": "post",
            "token_url": f"http://{self.cid.replace('_', '-')}.token.test/token",
        }
        keys = [{"id": "k1", "secret": SECRET}]
        insecure = {"insecure_upstream": True, "timeouts": {"connect": "30s"}}
        return {"upstream": self.upstream.url, "auth": auth, "signing_keys": keys} | insecure

    def publish(self) -> None:
        """Write the configuration, and wait until it is in force."""
        before = self.gateway.log().count(LOADED)
        write_config(self.config, self.gateway.directory)
        assert eventually(lambda: self.gateway.log().count(LOADED) > before, PATIENT)

    def fresh(self) -> str:
        self.cid = f"conn_{next(self.numbers)}"
        self.config["connections"][self.cid] = self.entry()
        self.publish()
        return self.cid

    def asked(self, expires: int) -> Wire:
        client = Wire(connect(self.gateway.port))
        client.send(wire(Grant(self.cid, expires=expires).target("v1/x")))
        return client

    def tunnel(self) -> Wire:
        """The proxy's end of the tunnel to the token endpoint that the gateway has asked for."""
        found = self.proxy.accept(PATIENT)
        assert b".token.test:80" in found.read_head(PATIENT)
        return found


@pytest.fixture(scope="module", params=("on", "off"), ids=("lane", "flows"))
def module_lab(request: pytest.FixtureRequest, module_gateway: MakeGateway) -> Iterator[Lab]:
    proxy, upstream = ByHand(), ByHand()
    gateway = {"hosts": ["presign.local"], "upstream_proxy": {"url": proxy.url}}
    config: dict[str, Any] = {"gateway": gateway, "connections": {}}
    started = module_gateway(config, "--set", f"presign_lane={request.param}")
    yield Lab(started, config, proxy, upstream)
    proxy.stop()
    upstream.stop()


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    module_lab.fresh()
    yield module_lab
    module_lab.proxy.hang_up()
    module_lab.upstream.hang_up()


def disable(lab: Lab) -> None:
    lab.config["connections"][lab.cid]["enabled"] = False


def remove(lab: Lab) -> None:
    del lab.config["connections"][lab.cid]


def take_the_key_away(lab: Lab) -> None:
    lab.config["connections"][lab.cid]["signing_keys"] = [{"id": "k2", "secret": "y" * 40}]


CHANGES: dict[str, tuple[Callable[[Lab], None], str]] = {
    "its connection is disabled": (disable, "revoked"),
    "its connection is removed": (remove, "invalid"),
    "its signing key is removed": (take_the_key_away, "invalid"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_client_secret_that_waits_for_a_proxy_stays_here_once_nothing_is_granted(
    lab: Lab, change: str
) -> None:
    work, refused = CHANGES[change]
    with lab.asked(in_an_hour()) as client, lab.tunnel() as tunnel:
        work(lab)
        lab.publish()
        tunnel.send(b"HTTP/1.1 200 ok\r\n\r\n")
        assert tunnel.read_to_end(PATIENT) == b""
        answer = parse_response(client.read_response(PATIENT))
        assert code(answer) == (403, refused)
        assert not lab.upstream.waits()


def test_a_client_secret_that_waits_for_a_proxy_stays_here_once_the_url_has_expired(lab: Lab) -> None:
    end = int(time.time()) + 2
    with lab.asked(end) as client, lab.tunnel() as tunnel:
        assert eventually(lambda: time.time() > end + 1, PATIENT)
        tunnel.send(b"HTTP/1.1 200 ok\r\n\r\n")
        assert tunnel.read_to_end(PATIENT) == b""
        assert code(parse_response(client.read_response(PATIENT))) == (403, "expired")


def test_a_client_secret_is_not_sent_to_an_endpoint_that_was_replaced(lab: Lab) -> None:
    entry = lab.config["connections"][lab.cid]
    with lab.asked(in_an_hour()) as client, lab.tunnel() as old:
        entry["auth"] = {**entry["auth"], "token_url": "http://new.token.test/token"}
        lab.publish()
        old.send(b"HTTP/1.1 200 ok\r\n\r\n")
        assert old.read_to_end(PATIENT) == b""
        with lab.tunnel() as new:
            answered(lab, client, new)


def test_what_expires_does_not_take_the_token_from_another_that_waits(lab: Lab) -> None:
    end = int(time.time()) + 2
    with lab.asked(end) as late, lab.tunnel() as tunnel, lab.asked(in_an_hour()) as client:
        assert eventually(lambda: time.time() > end + 1, PATIENT)
        answered(lab, client, tunnel)
        assert code(parse_response(late.read_response(PATIENT))) == (403, "expired")


def test_a_change_of_another_connection_does_not_take_the_token(lab: Lab) -> None:
    with lab.asked(in_an_hour()) as client, lab.tunnel() as tunnel:
        lab.config["connections"]["conn_other"] = deepcopy(lab.entry())
        lab.publish()
        answered(lab, client, tunnel)


def test_an_endpoint_that_was_not_asked_after_all_is_asked_again_at_once(lab: Lab) -> None:
    """It has not failed: nothing was sent to it."""
    end = int(time.time()) + 2
    with lab.asked(end) as late, lab.tunnel() as tunnel:
        assert eventually(lambda: time.time() > end + 1, PATIENT)
        tunnel.send(b"HTTP/1.1 200 ok\r\n\r\n")
        assert code(parse_response(late.read_response(PATIENT))) == (403, "expired")
    with lab.asked(in_an_hour()) as client, lab.tunnel() as next_tunnel:
        answered(lab, client, next_tunnel)
    assert "answered 502" not in lab.gateway.log()


def answered(lab: Lab, client: Wire, tunnel: Wire) -> None:
    """The token is issued, and the request is answered with it."""
    tunnel.send(b"HTTP/1.1 200 ok\r\n\r\n")
    assert CLIENT_SECRET.encode() in tunnel.read_until(CLIENT_SECRET.encode(), PATIENT)
    tunnel.send(b"HTTP/1.1 200 OK\r\n" + FORM)
    # A change of the configuration drops what was fetched under the one before.
    api = lab.upstream.accept(PATIENT) if not lab.proxy.waits(1.0) else reissued(lab)
    assert f"Bearer {TOKEN}".encode() in api.read_head(PATIENT)
    api.send(LEAST)
    assert parse_response(client.read_response(PATIENT)).status == 200
    api.close()


def reissued(lab: Lab) -> Wire:
    with lab.tunnel() as tunnel:
        tunnel.send(b"HTTP/1.1 200 ok\r\n\r\n")
        tunnel.read_until(CLIENT_SECRET.encode(), PATIENT)
        tunnel.send(b"HTTP/1.1 200 OK\r\n" + FORM)
        return lab.upstream.accept(PATIENT)
