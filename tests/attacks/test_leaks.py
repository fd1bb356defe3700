"""Neither a credential nor a usable signature is in anything that mitmproxy writes, shows or exports."""

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from mitmproxy import http
from mitmproxy.io import FlowReader

from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2client import H2Client
from support.leaks import LONG_AGO, Field, Issuer, Traces, fully_quoted
from support.mitmweb import MitmWeb, Updates
from support.proxy import Mitm
from support.puppet import SCRIPTS, eventually
from support.raw import Hang, connect, connect_tls, exchange, parse_response, send_raw
from support.recorder import Recorder
from support.websocket import HANDSHAKE

GATEWAY = "presign.local"
PLAIN = ("conn_bearer", "conn_header", "conn_query", "conn_basic")
HELD = ("held_bearer", "held_header", "held_query", "held_basic")
"""The same over again, with an upstream that does not answer."""
CREDENTIALS = {
    name: f"REALSECRET+{name}/=0123456789" for name in (*PLAIN, *HELD, "conn_tls", "conn_h2", "pk_leak")
}
SIGNING = {name: f"sk_signing_secret_of_{name}_0123456789" for name in CREDENTIALS}
USABLE = re.compile(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])|ps[12]_[A-Za-z0-9_-]+\.[0-9a-f]{8}")
ROUTES = ("direct", "absolute", "tunnel", "h2")


def auth(cid: str) -> dict[str, Any]:
    """Where the connection puts its credential."""
    secret = CREDENTIALS[cid]
    others: dict[str, dict[str, Any]] = {
        "header": {"type": "header", "headers": {"X-Upstream-Key": secret}},
        "query": {"type": "query", "params": {"upstream_key": secret}},
        "basic": {"type": "basic", "username": "leaky", "password": secret},
    }
    return others.get(cid.partition("_")[2], {"type": "bearer", "token": secret})


def config(upstreams: dict[str, str], source_port: int) -> dict[str, Any]:
    keys = {name: [{"secret": secret}] for name, secret in SIGNING.items()}
    connections: dict[str, Any] = {
        cid: {"upstream": url, "auth": auth(cid), "signing_keys": keys[cid]} for cid, url in upstreams.items()
    }
    connections["conn_bearer"] |= {
        "websocket": True,
        "key_slots": {"headers": ["Sec-WebSocket-Protocol"]},
    }
    connections["pk_leak"] = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [f"http://127.0.0.1:{source_port}"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["png"],
        "auth": {"type": "bearer", "token": CREDENTIALS["pk_leak"]},
        "signing_keys": keys["pk_leak"],
    }
    return {"gateway": {"hosts": [GATEWAY]}, "connections": connections, "audit": {"file": "audit.jsonl"}}


@dataclass
class Traffic:
    """Sends what holders and attackers send, one connection for each request."""

    gateway: Mitm
    issuer: Issuer

    def send(self, route: str, target: str, fields: list[Field], host: str = GATEWAY) -> int | None:
        """The status of the answer; None where the connection was closed or the stream reset instead."""
        if route == "h2":
            return self._send_h2(target, fields, host)
        shown = f"http://{host}{target}" if route == "absolute" else target
        lines = [f"GET {shown} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1")
        with self.connected(route, host) as sock, contextlib.suppress(ValueError, Hang):
            return parse_response(exchange(sock, data)).status
        return None

    def connected(self, route: str, host: str) -> Any:
        if route == "tunnel":
            name, _, port = host.partition(":")
            return connect_tls(self.gateway.port, name, int(port or 443), cafile=self.gateway.ca)
        return connect(self.gateway.port)

    def _send_h2(self, target: str, fields: list[Field], host: str) -> int | None:
        name, _, port = host.partition(":")
        head = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", target)]
        with H2Client.through(self.gateway.port, name, int(port or 443), cafile=self.gateway.ca) as client:
            return client.request(
                [*head, ("accept", "*/*"), *((key.lower(), value) for key, value in fields)]
            ).status


def granted(issuer: Issuer, cid: str) -> Iterator[tuple[str, list[Field]]]:
    """One presigned request in each carrier."""
    token = issuer.token(cid)
    named = f"/api/proxy/{cid}/v1/models"
    in_password = base64.b64encode(f"any:{token}".encode()).decode()
    yield issuer.url(cid, "v1/models"), []
    yield named, issuer.headers(cid)
    yield f"/p/{token}/v1/models", []
    if cid != "conn_query":
        yield named, [("Authorization", f"Bearer {token}")]
        yield named, [("Authorization", f"Basic {in_password}")]
    if cid == "conn_header":
        yield named, [("X-Upstream-Key", token)]
    if cid == "conn_query":
        yield f"{named}?upstream_key={token}", []


def granted_with_referer(issuer: Issuer, cid: str) -> Iterator[tuple[str, list[Field]]]:
    """Presigned requests from a page that was itself fetched with a presign."""
    page = f"http://{GATEWAY}{issuer.url(cid, 'page')}"
    token = issuer.token(cid)
    for referer in (
        page,
        page.replace("X-", "%58-"),
        f"http://{GATEWAY}/p/{token}/page",
        f"http://h/?k={token}",
    ):
        yield issuer.url(cid, "v1/models"), [("Referer", referer)]


def offer(token: str) -> Field:
    """The key of a page, among the subprotocols of its WebSocket."""
    return "Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{token}"


def handshake(*fields: Field) -> list[Field]:
    given = [one.partition(": ") for one in HANDSHAKE]
    return [*((name, value) for name, _, value in given), *fields]


def refused(issuer: Issuer, cid: str) -> Iterator[tuple[str, list[Field]]]:
    """Presigned requests with something wrong; their signatures may be good elsewhere."""
    good = issuer.query(cid)
    token = issuer.token(cid)
    signature = issuer.fields(cid)["X-Presign-Signature"]
    named = f"/api/proxy/{cid}/v1/models"
    yield issuer.url(cid, "v1/models", expires=LONG_AGO), []
    yield named, issuer.headers(cid, expires=LONG_AGO)
    yield f"/p/{issuer.token(cid, expires=LONG_AGO)}/v1/models", []
    yield issuer.url(cid, "v2/other", paths="v1/*"), []
    yield issuer.url(cid, "v1/%2e%2e/admin"), []
    yield f"{named}?{good}&X-Presign-Expires=1", []
    yield f"{named}?{good}&x-presign-signature={signature}", []
    yield f"{named}?X-Presign-Signature={signature}", []
    yield f"{named}?{good}#X-Presign-Signature={signature}", []
    yield f"{named}?{good.replace(signature, fully_quoted(signature[:-1]))}", []
    yield f"/api/proxy/conn_nobody/v1/models?{good}", []
    yield f"/elsewhere?{good}", []
    yield f"/elsewhere/{token}/", []
    yield named, [*issuer.headers(cid), ("X-Presign-Unknown", signature)]
    yield named, [("X-Somewhere", token)]
    yield named, [("Authorization", f"Token {token}"), *issuer.headers(cid)]
    yield named, [("Referer", f"http://{GATEWAY}{named}?{good}")]
    yield f"/p/{token}x/v1/models", []
    yield named, [offer(token)]
    yield named, [offer(issuer.token(cid, expires=LONG_AGO))]
    yield named, [("Sec-WebSocket-Protocol", f"realtime, {token}")]
    yield f"{named}?{good}", [("Upgrade", "websocket"), ("X-Copy", f"/p/{token}/v1")]


BREAKS = {"hdrreflect": 200, "bodyreflect": 200, "rawecho": 502, "garbage": 502, "close": 502}
"""How the upstream misbehaves, and what the client then gets."""


def heads_that_never_parse(issuer: Issuer) -> list[bytes]:
    """Bytes with a good signature that mitmproxy itself finds fault with, before any hook."""
    url = issuer.url("conn_bearer", "v1/models")
    quoted = url[:-64] + fully_quoted(url[-64:])
    host = f"Host: {GATEWAY}\r\n".encode()
    heads = [
        f"GET {url} extra HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"GET {quoted} extra HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"GET {url}\r\n\r\n".encode(),
        f"GET {url} HTTP/1.1\r\n".encode() + host + b"Content-Length: x\r\n\r\n",
        f"GET {url} HTTP/1.1\r\n".encode() + host + b"no colon here\r\n\r\n",
        f"GET http://[{url} HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"GET {url} HTTP/1.1\r\n".encode() + host + b"Transfer-Encoding: other\r\n\r\n",
        f"CONNECT {url} HTTP/1.1\r\n\r\n".encode(),
    ]
    token = f"Bearer {issuer.token('conn_bearer')}".encode()
    return [
        *heads,
        b"CONNECT presign.local:443 HTTP/1.1\r\nProxy-Authorization: " + token + b"\r\n\r\n",
        b"CONNECT presign.local:443 HTTP/1.1\r\nX-Presign-Signature: " + url[-64:].encode() + b"\r\n\r\n",
    ]


@dataclass
class Harvest:
    """All that one mitmproxy left behind, and what had been asked of it."""

    directory: Path
    log: str
    issuer: Issuer
    upstream_saw: bytes
    ended: list[tuple[str, str, int | None, int | None]]
    """Route, target without query, status, and the status that was meant (None: any refusal)."""

    def read(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    def flows(self) -> list[http.HTTPFlow]:
        with (self.directory / "dump").open("rb") as file:
            return [flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]

    def check(self, data: bytes) -> None:
        """Neither a credential nor a signature of this run stands in `data`, nor anything shaped like one."""
        assert not Traces([*CREDENTIALS.values(), *self.issuer.issued]).found_in(data)
        shaped = USABLE.search(data)
        assert not shaped, data[max(0, shaped.start() - 200) : shaped.end() + 50]


@pytest.fixture(scope="module")
def h2_upstream(ca: trustme.CA) -> Iterator[Recorder]:
    """An upstream that speaks HTTP/2."""
    recorder = Recorder(ca.issue_cert(*TLS_NAMES), alpn=("h2", "http/1.1")).start()
    yield recorder
    recorder.stop()


@pytest.fixture(scope="module")
def harvest(
    module_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder, h2_upstream: Recorder
) -> Iterator[Harvest]:
    """Everything at once: dump, HAR, full terminal output, exports; ended by SIGTERM with four in flight."""
    hand = ByHand()
    upstreams = dict.fromkeys(PLAIN, upstream.url) | dict.fromkeys(HELD, hand.url)
    upstreams["conn_tls"] = f"https://api.tls.test:{tls_upstream.tls_port}"
    upstreams["conn_h2"] = f"https://api.tls.test:{h2_upstream.tls_port}"
    gateway = module_gateway(
        config(upstreams, upstream.port),
        *("-w", "dump", "--set", "hardump=all.har", "--set", "flow_detail=4", "-v"),
        *("-s", str(SCRIPTS / "exporter.py")),
        env={"EXPORTS": "exports"},
        dns={"api.tls.test": ["127.0.0.1"]},
    )
    issuer = Issuer(SIGNING)
    ended = run_traffic(Traffic(gateway, issuer), tls_upstream.tls_port, upstream.port)
    recorders = (upstream, tls_upstream, h2_upstream)
    saw = b"".join(seen.everything for recorder in recorders for seen in recorder.requests)
    with contextlib.ExitStack() as stack:
        for cid in HELD:
            sock = stack.enter_context(connect(gateway.port))
            sock.sendall(f"GET {issuer.url(cid, 'held')} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode())
            saw += hand.accept().read_head()
        gateway.stop()
    hand.stop()
    yield Harvest(gateway.directory, gateway.log(), issuer, saw, ended)


def run_traffic(traffic: Traffic, tls_port: int, port: int) -> list[tuple[str, str, int | None, int | None]]:
    ended: list[tuple[str, str, int | None, int | None]] = []

    def send(route: str, target: str, fields: list[Field], meant: int | None, host: str = GATEWAY) -> None:
        status = traffic.send(route, target, fields, host)
        ended.append((route, target.partition("?")[0], status, meant))

    issuer = traffic.issuer
    for cid in PLAIN:
        for target, fields in granted(issuer, cid):
            send("direct", target, fields, 200)
        for behaviour, status in BREAKS.items():
            send("direct", issuer.url(cid, behaviour), [], status)
    for route in ROUTES:
        for target, fields in granted(issuer, "conn_bearer"):
            send(route, target, fields, 200)
        for target, fields in granted_with_referer(issuer, "conn_bearer"):
            send(route, target, fields, 200)
        for target, fields in refused(issuer, "conn_bearer"):
            send(route, target, fields, None)
        for behaviour, status in BREAKS.items():
            send(route, issuer.url("conn_bearer", behaviour), [], status)
        send(route, issuer.source("pk_leak", f"http://127.0.0.1:{port}/a.png"), [], 200)
        send(route, issuer.source("pk_leak", f"http://127.0.0.1:{port}/a.png", LONG_AGO), [], None)
    for route in ROUTES[:3]:  # of HTTP/1.1; the upstream answers as to any GET
        token = issuer.token("conn_bearer")
        send(route, "/v1/models", handshake(offer(token)), 200)
        send(route, "/v1/models", handshake(offer(token), offer(token)), None)
        send(route, "/v1/models", handshake(offer(issuer.token("conn_bearer", expires=LONG_AGO))), None)
    for route in ("tunnel", "h2"):
        host = f"api.tls.test:{tls_port}"
        send(route, "/v1/models", issuer.headers("conn_tls"), 200, host)
        send(route, "/v1/models", [("Authorization", f"Bearer {issuer.token('conn_tls')}")], 200, host)
        send(route, "/v1/models", issuer.headers("conn_tls", expires=LONG_AGO), None, host)
        for behaviour, status in BREAKS.items():
            for cid in ("conn_tls", "conn_h2"):
                meant = 502 if cid == "conn_h2" and status != 200 else status
                send(route, issuer.url(cid, behaviour), [], meant)
    for data in heads_that_never_parse(issuer):
        with contextlib.suppress(Hang):
            send_raw(traffic.gateway.port, data, timeout=0.5)  # a tunnel is open and silent
    leave_half_a_head(traffic, issuer.url("conn_bearer", "v1/models"))
    return ended


def leave_half_a_head(traffic: Traffic, url: str) -> None:
    """A client that goes away in the middle of its head, plain and inside TLS."""
    for route in ("direct", "tunnel"):
        with traffic.connected(route, GATEWAY) as sock:
            sock.sendall(f"GET {url} HTTP/1.1\r\nHost: {GATEWAY}\r\nX-Half".encode())


def test_the_traffic_was_what_it_was_meant_to_be(harvest: Harvest) -> None:
    wrong = [
        one for one in harvest.ended if (one[2] != one[3] if one[3] else one[2] not in (None, 400, 403, 404))
    ]
    assert not wrong
    for cid in CREDENTIALS:
        assert Traces([CREDENTIALS[cid]]).found_in(harvest.upstream_saw), cid


def test_no_upstream_sees_a_signature_not_even_in_a_referer(harvest: Harvest) -> None:
    assert not Traces(harvest.issuer.issued).found_in(harvest.upstream_saw)


def test_a_dump_holds_neither_key_nor_signature(harvest: Harvest) -> None:
    harvest.check(harvest.read("dump"))


def test_a_parsed_dump_holds_neither_key_nor_signature(harvest: Harvest) -> None:
    flows = harvest.flows()
    assert len(flows) > len(harvest.ended) // 2
    harvest.check(repr([flow.get_state() for flow in flows]).encode())


def test_a_saved_flow_names_the_connection_in_place_of_its_key(harvest: Harvest) -> None:
    shown: dict[str, set[str]] = {cid: set() for cid in CREDENTIALS}
    for flow in harvest.flows():
        for cid in CREDENTIALS:
            if flow.comment.startswith(f"presign: granted by {cid} ("):
                shown[cid].add(flow.request.url + str(flow.request.headers))
    for cid, requests in shown.items():
        assert requests, cid
        for request in requests:
            assert f"presign:{cid}" in request or f"presign%3A{cid}" in request


def test_flows_cut_off_by_sigterm_are_saved_without_key(harvest: Harvest) -> None:
    held = [flow for flow in harvest.flows() if flow.request.path.startswith("/held")]
    assert len(held) == len(HELD)
    assert not any(flow.response for flow in held)
    harvest.check(repr([flow.get_state() for flow in held]).encode())


def test_a_har_file_holds_neither_key_nor_signature(harvest: Harvest) -> None:
    har = harvest.read("all.har")
    assert len(json.loads(har)["log"]["entries"]) > len(harvest.ended) // 2
    harvest.check(har)


def test_the_terminal_at_full_detail_shows_neither_key_nor_signature(harvest: Harvest) -> None:
    assert "presign:conn_bearer" in harvest.log
    harvest.check(harvest.log.encode())


def test_exports_of_every_format_hold_neither_key_nor_signature(harvest: Harvest) -> None:
    exports = harvest.read("exports")
    for name in ("curl", "httpie", "raw", "raw_request", "raw_response", "har", "state"):
        assert exports.count(f"== {name}\n".encode()) >= len(PLAIN), name
    harvest.check(exports)


def test_the_audit_log_holds_neither_key_nor_signature(harvest: Harvest) -> None:
    audit = harvest.read("audit.jsonl")
    assert audit.count(b'"decision":"forward"') >= len(PLAIN)
    harvest.check(audit)


@dataclass
class Web:
    """mitmweb with the gateway in it, and an upstream that answers when told to."""

    gateway: Mitm
    page: MitmWeb
    hand: ByHand
    issuer: Issuer

    def check(self, data: bytes) -> None:
        assert not Traces([*CREDENTIALS.values(), *self.issuer.issued]).found_in(data)


@pytest.fixture(scope="module")
def web(module_gateway: MakeGateway) -> Iterator[Web]:
    hand = ByHand()
    settings = config(dict.fromkeys(PLAIN, hand.url), hand.port)
    gateway = module_gateway(settings, binary="mitmweb")
    assert gateway.web_port is not None
    page = MitmWeb(gateway.web_port)
    assert eventually(page.answers)
    yield Web(gateway, page, hand, Issuer(SIGNING))
    hand.stop()


@pytest.fixture
def empty_web(web: Web) -> Web:
    """The same mitmweb for every test, emptied: reading all it shows takes a while."""
    web.page.clear()
    return web


@pytest.mark.parametrize("cid", PLAIN)
def test_mitmweb_shows_no_key_of_a_request_in_flight_or_answered(cid: str, empty_web: Web) -> None:
    web = empty_web
    with Updates(web.page.port) as updates, Wire(connect(web.gateway.port)) as client:
        target = web.issuer.url(cid, f"held/{cid}")
        client.send(f"GET {target} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode())
        api = web.hand.accept()
        sent = api.read_head()
        assert Traces([CREDENTIALS[cid]]).found_in(sent)
        assert updates.wait_for(f"/held/{cid}")
        (in_flight,) = [
            flow for flow in web.page.flows() if flow["request"]["path"].startswith(f"/held/{cid}")
        ]
        assert not in_flight.get("response")
        assert in_flight["comment"].startswith(f"presign: granted by {cid} (")
        web.check(web.page.everything())
        web.check(updates.received)

        echoed = re.sub(rb"[\r\n]+", b" ", sent)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(echoed)}\r\n".encode()
        api.send(head + b"X-Echo: " + echoed + b"\r\n\r\n" + echoed)
        web.check(client.read_response())
        assert updates.wait_for('"status_code": 200')
        web.check(web.page.everything())
        web.check(updates.received)


def test_mitmweb_shows_no_key_of_an_upstream_that_broke_off(empty_web: Web) -> None:
    web = empty_web
    for cid in PLAIN:
        with Updates(web.page.port) as updates, Wire(connect(web.gateway.port)) as client:
            target = web.issuer.url(cid, "broken")
            client.send(f"GET {target} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode())
            with web.hand.accept() as api:
                api.send(b"HTTP/1.1 200 OK\r\nX-Echo: " + re.sub(rb"[\r\n]+", b" ", api.read_head()))
            assert client.read_response().startswith(b"HTTP/1.1 502 ")
            assert updates.wait_for("/broken")
            web.check(web.page.everything() + updates.received)


def test_mitmweb_shows_no_signature_of_refused_requests(empty_web: Web) -> None:
    web = empty_web
    traffic = Traffic(web.gateway, web.issuer)
    with Updates(web.page.port) as updates:
        sent = 0
        for route in ("direct", "h2"):
            for target, fields in refused(web.issuer, "conn_bearer"):
                assert traffic.send(route, target, fields) in (None, 400, 403, 404)
                sent += 1
        assert len(web.page.flows()) > sent // 2
        web.check(web.page.everything() + updates.received)
