"""The signed policy through a real mitmdump: bodies that are cut off, clients that claim to be others."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from presign_proxy.config.registry_file.edit import Draft
from support.asking import SECRET, Grant, ask, code, wire
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.config import write_config
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.policy import Policy
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Tls, connect, connect_tls, exchange, parse_response, send_raw
from support.recorder import Recorder
from support.seen import Seen

GATEWAY = "presign.local"
NAMES = ("conn", "conn_hand", "conn_h2")
CHUNKED = "Transfer-Encoding: chunked"
END = b"0\r\n\r\n"


def policy(connection: str = "conn", **terms: str) -> Policy:
    named = {name.replace("_", "-").title(): value for name, value in terms.items()}
    return Policy(SECRET, named, connection, methods="*", paths="*")


def audit_of(gateway: Mitm) -> list[dict[str, Any]]:
    return audit_lines(gateway.directory / "audit.jsonl")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Lab:
    """A gateway with an upstream that records, one that is played by hand, and one that speaks HTTP/2."""

    gateway: Mitm
    upstream: Recorder
    hand: ByHand
    h2: Recorder

    def client(self) -> Wire:
        return Wire(connect(self.gateway.port))

    def head(self, presign: Policy, *fields: str, method: str = "POST") -> bytes:
        start = f"{method} {presign.target('up')} HTTP/1.1"
        return "\r\n".join([start, f"Host: {GATEWAY}", *fields, "", ""]).encode()

    def h2_head(self, presign: Policy, *fields: tuple[str, str], method: str = "POST") -> list[Any]:
        pseudo = [(":method", method), (":scheme", "https"), (":authority", GATEWAY)]
        return [*pseudo, (":path", presign.target("up")), *fields]

    def h2_client(self) -> H2Client:
        return H2Client.through(self.gateway.port, GATEWAY, cafile=self.gateway.ca)

    @property
    def audit(self) -> list[dict[str, Any]]:
        return audit_of(self.gateway)

    @property
    def whole(self) -> list[Seen]:
        """What the upstream got to its end; the head of an upload that was cut may come in late."""
        return [one for one in self.upstream.requests if one.complete]

    @property
    def last(self) -> dict[str, Any]:
        return {"code": None, **(self.audit[-1] if self.audit else {})}


@pytest.fixture(scope="module")
def module_lab(module_gateway: MakeGateway, upstream: Recorder, h2_upstream: Recorder) -> Iterator[Lab]:
    hand = ByHand()
    urls = (upstream.url, hand.url, f"https://api.tls.test:{h2_upstream.tls_port}")
    connections = {
        name: {
            "upstream": url,
            "auth": {"type": "bearer", "token": "REALSECRET-policy-0123456789"},
            "signing_keys": [{"id": "k1", "secret": SECRET}],
        }
        for name, url in zip(NAMES, urls, strict=True)
    }
    config = {"connections": connections, "audit": {"file": "audit.jsonl"}}
    gateway = module_gateway(config, dns={"api.tls.test": ["127.0.0.1"]})
    yield Lab(gateway, upstream, hand, h2_upstream)
    hand.stop()


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """The lab, which every test leaves without a crash."""
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.hand.hang_up()
    log = module_lab.gateway.log()[logged:]
    assert "has crashed" not in log
    assert "Traceback" not in log


# -- bodies that are longer than was signed --------------------------------------------------------------


def test_an_announced_body_that_is_too_large_is_refused_before_it_is_read(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head(policy(max_body="10"), "Content-Length: 11", "Expect: 100-continue"))
        answer = client.read_head()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"X-Presign-Error: too_large" in answer
    assert lab.whole == []
    assert eventually(lambda: lab.last["code"] == "too_large")
    assert lab.last["status"] == 413


@pytest.mark.parametrize("sizes", [[11], [5, 5, 1], [1] * 12, [10, 100_000], [100_000]], ids=str)
def test_a_chunked_body_that_turns_out_too_large_never_reaches_the_upstream_whole(
    sizes: list[int], lab: Lab
) -> None:
    """All of it in one segment, its end included: what is cut is not completed by what follows."""
    with lab.client() as client:
        body = b"".join(chunk(b"x" * size) for size in sizes) + END
        client.send(lab.head(policy(max_body="10", id="upload"), CHUNKED) + body)
        answer = parse_response(client.read_response())
        assert code(answer) == (413, "too_large")
    time.sleep(0.1)
    assert all(not one.complete and one.length <= 10 for one in lab.upstream.requests)
    assert eventually(lambda: lab.last.get("id") == "upload")
    assert (lab.last["decision"], lab.last["status"], lab.last["code"]) == ("deny", 413, "too_large")


def test_the_upstream_is_cut_off_the_moment_it_is_exceeded(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head(policy("conn_hand", max_body="10"), CHUNKED) + chunk(b"x" * 10))
        api = lab.hand.accept()
        api.read_head()
        assert api.read_until(chunk(b"x" * 10))
        client.send(chunk(b"y"))
        assert api.read_to_end() == b""  # neither the next byte nor the chunk that ends a body
        assert code(parse_response(client.read_response())) == (413, "too_large")


def test_a_client_that_goes_on_uploading_cannot_have_its_answer_undone(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head(policy(max_body="10"), CHUNKED) + chunk(b"x" * 11))
        client.send(chunk(b"x" * 1000) + END + b"GET /smuggled HTTP/1.1\r\nHost: presign.local\r\n\r\n")
        assert client.read_response().startswith(b"HTTP/1.1 413 ")
        # If at all, what follows is read as what it is: another request, without a presign.
        with contextlib.suppress(ConnectionError):
            assert client.read_response().startswith(b"HTTP/1.1 404 ")
    assert all(not one.complete for one in lab.upstream.requests)
    assert not any("smuggled" in one.target for one in lab.upstream.requests)


def test_an_answer_that_has_begun_is_broken_off_with_the_upload(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head(policy("conn_hand", max_body="10"), CHUNKED) + chunk(b"x" * 10))
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"begun"))
        assert b" 200 " in client.read_head()
        assert client.read_until(b"begun")
        client.send(chunk(b"y") + END)
        assert END not in api.read_to_end()
        assert END not in client.read_to_end()  # it is seen not to be whole
    assert eventually(lambda: lab.last["code"] == "too_large")


def test_an_upload_that_outlives_its_answer_is_cut_off_too(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head(policy("conn_hand", max_body="10"), CHUNKED) + chunk(b"x" * 10))
        api = lab.hand.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.read_response().endswith(b"ok")
        api.read_until(chunk(b"x" * 10))
        client.send(chunk(b"y" * 1000) + END)
        rest = api.read_to_end()
        assert b"y" not in rest
        assert END not in rest
        client.read_to_end()


@pytest.mark.parametrize("connection", ["conn", "conn_h2"])
@pytest.mark.parametrize("pieces", [[11], [10, 1], [6, 6], [60_000]], ids=str)
def test_an_h2_body_without_a_length_is_counted_as_it_comes(
    connection: str, pieces: list[int], lab: Lab
) -> None:
    with lab.h2_client() as client:
        presign = policy(connection, max_body="10")
        reply = client.request(lab.h2_head(presign), (b"x" * size for size in pieces))
        assert (reply.status, reply.header("x-presign-error")) == (413, "too_large")
        # The connection goes on, and the next request on it.
        assert client.request(lab.h2_head(presign), b"x" * 10).status == 200
    seen = lab.upstream.requests + lab.h2.requests
    assert [one.length for one in seen if one.complete] == [10]
    assert all(one.length <= 10 for one in seen)


def test_an_h2_body_that_announces_too_much_is_refused_at_once(lab: Lab) -> None:
    with lab.h2_client() as client:
        reply = client.request(lab.h2_head(policy(max_body="10"), ("content-length", "11")), b"x" * 11)
        assert (reply.status, reply.header("x-presign-error")) == (413, "too_large")
        lying = client.request(lab.h2_head(policy(max_body="10"), ("content-length", "9")), b"x" * 11)
        assert lying.status != 200
    assert not any(one.complete for one in lab.upstream.requests)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_no_method_hides_a_body(method: str, lab: Lab) -> None:
    nothing = policy(max_body="0")
    with lab.client() as client:
        client.send(lab.head(nothing, CHUNKED, method=method) + chunk(b"x") + END)
        assert b" 413 " in client.read_head()
    with lab.client() as client:
        client.send(lab.head(nothing, "Content-Length: 1", method=method) + b"x")
        assert b" 413 " in client.read_head()
    assert not any(one.complete for one in lab.upstream.requests)


def test_a_body_of_exactly_the_size_goes_through(lab: Lab) -> None:
    presign, nothing = policy(max_body="10"), policy(max_body="0")
    with lab.client() as client:
        client.send(lab.head(presign, CHUNKED) + chunk(b"x" * 4) + chunk(b"y" * 6) + END)
        assert b" 200 " in client.read_response()
        client.send(lab.head(presign, "Content-Length: 10") + b"z" * 10)
        assert b" 200 " in client.read_response()
        client.send(lab.head(nothing, "Content-Length: 0"))
        assert b" 200 " in client.read_response()
        client.send(lab.head(nothing, CHUNKED) + END)
        assert b" 200 " in client.read_response()
        client.send(lab.head(nothing, method="GET"))
        assert b" 200 " in client.read_response()
    with lab.h2_client() as client:
        assert client.request(lab.h2_head(presign), b"x" * 10).status == 200
        assert client.request(lab.h2_head(nothing)).status == 200
        assert client.request(lab.h2_head(nothing), b"").status == 200
    lab.upstream.wait_for(8)
    assert [one.length for one in lab.whole] == [10, 10, 0, 0, 0, 10, 0, 0]


# -- carriers and versions -------------------------------------------------------------------------------


def test_each_carrier_is_granted_and_nothing_of_it_is_forwarded(lab: Lab) -> None:
    good = policy(client="127.0.0.0/8", key="k1", id="nightly", max_body="5", not_before="1")
    port = lab.gateway.port
    answers = [
        ask(port, good.target("v1/a?x=1")),
        ask(port, "/api/proxy/conn/v1/a?x=1", good.headers),
        ask(port, f"/p/{good.token}/v1/a?x=1"),
        ask(port, "/api/proxy/conn/v1/a?x=1", {"Authorization": f"Bearer {good.token}"}),
    ]
    assert [answer.status for answer in answers] == [200] * 4
    for seen in lab.upstream.wait_for(4):
        assert seen.target == "/v1/a?x=1"
        everything = seen.everything.lower()
        assert b"presign" not in everything.replace(b"presign.local", b"")
        assert b"ps2_" not in everything
        assert good.signature.encode() not in everything
    assert eventually(lambda: [line["id"] for line in lab.audit[-4:]] == ["nightly"] * 4)
    assert [line["carrier"] for line in lab.audit[-4:]] == ["query", "header", "path", "key"]
    assert good.signature not in json.dumps(lab.audit)
    assert good.signature not in lab.gateway.log()


def test_versions_that_are_mixed_over_carriers_are_malformed(lab: Lab) -> None:
    one, two = Grant("conn"), policy(id="a")
    port = lab.gateway.port
    older = two.token.replace("ps2_", "ps1_")
    payload = base64.urlsafe_b64encode(f"conn\n{one.expires}\n*\n*".encode()).decode().rstrip("=")
    four = f"ps2_{payload}.{'0' * 64}"
    mixed = [
        ask(port, one.target("v1/a"), two.headers),
        ask(port, two.target("v1/a"), one.headers),
        ask(port, one.target("v1/a") + "&X-Presign-Id=a", {"X-Presign-Id": "a"}),
        ask(port, f"/p/{one.token}/v1/a", {"Authorization": f"Bearer {two.token}"}),
        ask(port, f"/p/{two.token}/v1/a", {"X-Presign-Id": "a"}),
        ask(port, f"/p/{older}/v1/a"),
        ask(port, f"/p/{four}/v1/a"),
        ask(port, two.target("v1/a") + "&X-Presign-Id=a"),
        ask(port, two.target("v1/a"), [("X-Presign-Id", "a"), ("X-Presign-Id", "a")]),
        ask(port, two.target("v1/a").replace("X-Presign-Id=a", "X-Presign-Id=")),
        ask(port, two.target("v1/a").replace("X-Presign-Id", "x-presign-id")),
        ask(port, policy(client="127.0.0.1/8").target("v1/a")),
        ask(port, policy(client="127.0.0.1").target("v1/a")),
        ask(port, policy(client="::ffff:127.0.0.1/128").target("v1/a")),
    ]
    assert [code(answer) for answer in mixed] == [(400, "malformed")] * len(mixed)
    forged = ask(port, one.target("v1/a") + "&X-Presign-Id=a")
    assert code(forged) == (403, "invalid")
    assert lab.whole == []


def test_each_refusal_says_its_own_code(lab: Lab) -> None:
    port = lab.gateway.port
    told = {
        "not_yet_valid": policy(not_before=str(int(time.time()) + 60)),
        "client_not_allowed": policy(client="198.51.100.0/24"),
        "invalid": policy(key="k2"),
    }
    for name, presign in told.items():
        assert code(ask(port, presign.target("v1/a"))) == (403, name)
    assert lab.whole == []


# -- who asks --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_x_forwarded_for_is_believed_of_a_trusted_proxy_only(
    lab: Lab, upstream: Recorder, make_gateway: MakeGateway
) -> None:
    """The same requests to a gateway that trusts its peer and to one that does not."""
    connections = {
        "conn": {
            "upstream": upstream.url,
            "auth": {"type": "bearer", "token": "REALSECRET-policy-0123456789"},
            "signing_keys": [{"id": "k1", "secret": SECRET}],
        }
    }
    trusting = make_gateway(
        {
            "gateway": {"trusted_proxies": ["127.0.0.0/8"]},
            "connections": connections,
            "audit": {"file": "audit.jsonl"},
        }
    )
    target = policy(client="203.0.113.0/24").target("v1/a")

    def told(gateway: Mitm, *forwarded: str) -> tuple[int, str | None]:
        return code(ask(gateway.port, target, [("X-Forwarded-For", line) for line in forwarded]))

    spoofed, refused = ("203.0.113.9",), (403, "client_not_allowed")
    assert told(lab.gateway, *spoofed) == refused
    assert not upstream.touched
    assert told(trusting, *spoofed) == (200, None)
    assert told(trusting, "198.51.100.7", "203.0.113.9") == (200, None)
    assert told(trusting, "203.0.113.9, 198.51.100.7") == refused
    assert told(trusting, "203.0.113.9, unknown") == refused
    assert told(trusting) == refused
    assert all(not one.all("x-forwarded-for") for one in upstream.requests)
    assert eventually(lambda: len(audit_of(trusting)) == 5)
    clients = [line["client"] for line in audit_of(trusting)]
    assert clients == ["203.0.113.9", "203.0.113.9", "198.51.100.7", "127.0.0.1", "127.0.0.1"]


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["on", "off"])
def test_nobody_is_believed_inside_a_tunnel_of_a_trusted_proxy(
    upstream: Recorder, make_gateway: MakeGateway, lane: str
) -> None:
    """A balancer that passes CONNECT, or TCP, on: inside, the client writes every header itself."""
    entry = {
        "upstream": upstream.url,
        "auth": {"type": "bearer", "token": "REALSECRET-policy-0123456789"},
        "signing_keys": [{"id": "k1", "secret": SECRET}],
    }
    config = {"gateway": {"trusted_proxies": ["127.0.0.0/8"]}, "connections": {"conn": entry}}
    gateway = make_gateway(config, "--set", f"presign_lane={lane}")
    claimed = {"X-Forwarded-For": "203.0.113.9"}
    office = wire(policy(client="203.0.113.0/24").target("v1/a"), claimed)
    anybody = wire(policy(id="anybody").target("v1/a"), claimed)
    with connect_tls(gateway.port, "presign.local", cafile=gateway.ca) as sock:
        assert parse_response(exchange(sock, anybody)).status == 200
        assert code(parse_response(exchange(sock, office))) == (403, "client_not_allowed")
    # TLS that is the connection's own, from a proxy that encrypts again, is no tunnel.
    with connect(gateway.port, Tls("presign.local", gateway.ca)) as sock:
        assert parse_response(exchange(sock, office)).status == 200
        assert parse_response(exchange(sock, office)).status == 200


@pytest.mark.slow
def test_a_revoked_id_is_refused_at_once_while_others_live_on(
    upstream: Recorder, make_gateway: MakeGateway
) -> None:
    entry = {
        "upstream": upstream.url,
        "auth": {"type": "bearer", "token": "REALSECRET-policy-0123456789"},
        "signing_keys": [{"id": "k1", "secret": SECRET}],
    }
    gateway = make_gateway(
        {"connections": {"conn": entry}, "registry": {"file": "registry.yaml"}}, start=False
    )
    path = write_config({"connections": {}}, gateway.directory, "registry.yaml")
    gateway.start()

    def told(**terms: str) -> tuple[int, str | None]:
        return code(ask(gateway.port, policy(**terms).target("v1/a")))

    assert told(id="nightly") == (200, None)
    draft = Draft.read(path, None)
    draft.revoked("ids")["conn/nightly"] = "2026-01-01T00:00:00Z"
    draft.write()
    assert eventually(lambda: told(id="nightly") == (403, "revoked"))
    assert told(id="nightly", max_body="5") == (403, "revoked")
    assert told(id="weekly") == (200, None)
    assert parse_response(send_raw(gateway.port, wire(Grant("conn").target("v1/a")))).status == 200
