"""Through a proxy to the upstream, on both paths: a real Squid, SOCKS5, and proxies that say odd things."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.asking import SECRET, Grant, ask, code, in_an_hour
from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.config import write_config
from support.gateways import MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.process import LOADED
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import connect, parse_response
from support.recorder import Recorder
from support.serving import Serve
from support.signing import source_url
from support.socks_proxy import SocksProxy
from support.squid import PASSWORD, USER, Squid
from support.token_endpoint import TokenEndpoint

NAME = "api.tls.test"
BEHIND = {NAME: "127.0.0.1", "plain.tls.test": "127.0.0.1"}
"""Names that only the proxies resolve."""
NOWHERE = {"2606:2800:220:1::1": "127.0.0.9"}
"""A public address, and where a proxy finds nobody that listens."""
UPSTREAM = (502, "upstream")


@pytest.fixture(params=("lane", "flows", "flows as served"))
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return WAYS[request.param]


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    found = Squid(BEHIND).start()
    yield found
    found.stop()


def told(gateway: Mitm) -> list[str]:
    """What the audit log says of the ends of its requests, at least one."""
    path = gateway.directory / "audit.jsonl"
    eventually(lambda: audit_lines(path))
    return [str(line["detail"]) for line in audit_lines(path)]


def config(proxy: Any, connections: dict[str, Any], **gateway: Any) -> dict[str, Any]:
    section = {"hosts": ["presign.local"], "upstream_proxy": proxy} | gateway
    return {"gateway": section, "connections": connections, "audit": {"file": "audit.jsonl"}}


def api(upstream: Recorder, **more: Any) -> dict[str, Any]:
    return bearer_connection(f"https://{NAME}:{upstream.tls_port}", SECRET, **more)


def behind(squid: Squid, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    return {"url": f"http://{USER}@127.0.0.1:{squid.port}", "password": password, **more}


@pytest.mark.needs("squid")
def test_what_only_the_proxy_reaches_is_reached(
    make_gateway: MakeGateway, squid: Squid, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    """The names resolve nowhere but at the proxy. Plain http goes through a tunnel, too."""
    plain = f"http://plain.tls.test:{tls_upstream.port}"
    gateway = make_gateway(
        config(
            behind(squid),
            {"conn": api(tls_upstream), "plain": bearer_connection(plain, SECRET, insecure_upstream=True)},
        ),
        *way,
    )
    before = len(squid.tunnels())
    for name in ("conn", "plain"):
        for _ in range(2):
            answer = ask(gateway.port, Grant(name).target("x"), {"Proxy-Authorization": "Basic Y2xpZW50OmI="})
            assert answer.status == 200
    assert [one.header("authorization") for one in tls_upstream.requests] == [f"Bearer {REAL_SECRET}"] * 4
    assert all(one.header("proxy-authorization") is None for one in tls_upstream.requests)
    gateway.stop()
    expected = {f"TCP_TUNNEL/200 {NAME}:{tls_upstream.tls_port}", f"TCP_TUNNEL/200 {plain[7:]}"}
    assert eventually(lambda: set(squid.tunnels()[before:]) == expected)
    assert PASSWORD not in gateway.log()


@pytest.mark.needs("squid")
def test_with_a_wrong_password_nothing_leaves(
    make_gateway: MakeGateway, squid: Squid, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    gateway = make_gateway(config(behind(squid, "wr0ng-password"), {"conn": api(tls_upstream)}), *way)
    answer = ask(gateway.port, Grant("conn").target("x"))
    assert code(answer) == UPSTREAM
    assert b"407" not in answer.body
    assert b"squid" not in answer.body.lower()
    assert tls_upstream.requests == []
    assert told(gateway) == ["the upstream proxy refused the user or the password (407)"]
    assert "wr0ng-password" not in gateway.log()


@pytest.mark.needs("squid")
def test_what_is_exempt_goes_past_the_proxy(
    make_gateway: MakeGateway, squid: Squid, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    """By a name of `no_proxy`, and by `upstream_proxy: none` of one connection; the others go through."""
    dns = {NAME: ["127.0.0.1"], "cdn.acme.com": ["127.0.0.1"]}
    other = bearer_connection(f"https://cdn.acme.com:{tls_upstream.tls_port}", SECRET)
    gateway = make_gateway(
        config(
            behind(squid, no_proxy=[".acme.com"]),
            {"conn": api(tls_upstream), "direct": api(tls_upstream, upstream_proxy="none"), "exempt": other},
        ),
        *way,
        dns=dns,
    )
    before = len(squid.tunnels())
    for name in ("direct", "exempt", "conn"):
        assert ask(gateway.port, Grant(name).target("x")).status == 200, name
    gateway.stop()
    assert eventually(lambda: len(squid.tunnels()) == before + 1)


@pytest.mark.parametrize("password", ["s0cks-secret-0123456789", "wr0ng"])
def test_through_socks5_with_a_password(
    make_gateway: MakeGateway, tls_upstream: Recorder, way: tuple[str, ...], password: str
) -> None:
    proxy = SocksProxy(BEHIND, "gateway", "s0cks-secret-0123456789").start()
    wanted = {"url": f"socks5://gateway@127.0.0.1:{proxy.port}", "password": password}
    gateway = make_gateway(config(wanted, {"conn": api(tls_upstream)}), *way)
    answer = ask(gateway.port, Grant("conn").target("x"))
    if password == "wr0ng":
        assert code(answer) == UPSTREAM
        assert told(gateway) == ["the upstream proxy refused the user or the password"]
        assert proxy.asked == []
    else:
        assert answer.status == 200
        assert proxy.asked == [(NAME, tls_upstream.tls_port)]
    proxy.stop()


def test_through_socks5_without_a_password(
    make_gateway: MakeGateway, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    proxy, strict = SocksProxy(BEHIND).start(), SocksProxy(BEHIND, "a", "b").start()
    for one, status in ((proxy, 200), (strict, 502)):
        wanted = {"url": f"socks5://127.0.0.1:{one.port}"}
        gateway = make_gateway(config(wanted, {"conn": api(tls_upstream)}), *way)
        assert ask(gateway.port, Grant("conn").target("x")).status == status
        gateway.stop()
        one.stop()
    assert told(gateway) == ["the upstream proxy wants a user and a password"]


def test_the_environment_names_the_proxy(
    make_gateway: MakeGateway, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    """With the password in it, as is usual there. What NO_PROXY names is reached directly."""
    proxy = SocksProxy(BEHIND, "gateway", "s0/cks").start()
    env = {
        "HTTPS_PROXY": f"socks5h://gateway:s0%2Fcks@127.0.0.1:{proxy.port}",
        "no_proxy": "cdn.acme.com, 10.0.0.0/8",
    }
    other = bearer_connection(f"https://cdn.acme.com:{tls_upstream.tls_port}", SECRET)
    gateway = make_gateway(
        config("env", {"conn": api(tls_upstream), "exempt": other}),
        *way,
        env=env,
        dns={"cdn.acme.com": ["127.0.0.1"]},
    )
    assert [ask(gateway.port, Grant(name).target("x")).status for name in ("conn", "exempt")] == [200, 200]
    assert proxy.asked == [(NAME, tls_upstream.tls_port)]
    proxy.stop()


def test_a_source_is_judged_here_and_the_proxy_is_told_the_address(
    make_gateway: MakeGateway, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    """The proxy would resolve the name to another place. It is told the next address if it refuses one. The
    certificate is still held against the name.
    """
    proxy = SocksProxy({"93.184.216.34": "127.0.0.1", "cdn.acme.com": "127.0.0.9"} | NOWHERE).start()
    source = {
        "scheme": "source",
        "mode": "signed",
        "any_public_origin": True,
        "formats": ["jpg"],
        "ports": [tls_upstream.tls_port],
        "signing_keys": [{"secret": SECRET}],
    }
    dns = {"cdn.acme.com": [*NOWHERE, "93.184.216.34"], "inner.acme.com": ["93.184.216.34", "10.0.0.1"]}
    gateway = make_gateway(config({"url": f"socks5://127.0.0.1:{proxy.port}"}, {"pk": source}), *way, dns=dns)
    for host, status in (("cdn.acme.com", 200), ("inner.acme.com", 403)):
        url = f"https://{host}:{tls_upstream.tls_port}/ok/a.jpg"
        target = source_url(SECRET, "pk", url, in_an_hour(), "jpg")
        assert ask(gateway.port, target).status == status, host
    assert proxy.asked == [(one, tls_upstream.tls_port) for one in (*NOWHERE, "93.184.216.34")]
    proxy.stop()


def test_tokens_are_asked_for_through_the_proxy_too(
    make_gateway: MakeGateway, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    """And past it where the connection goes past it."""
    endpoint, proxy = TokenEndpoint(), SocksProxy(BEHIND | {"id.plain.test": "127.0.0.1"}).start()
    auth = {
        "type": "oauth2",
        "token_url": f"http://id.plain.test:{endpoint.port}/token",
        "client_id": "me",
        "client_secret": "client-s3cret-0123456789",
    }
    more = {"auth": auth, "insecure_upstream": True}
    gateway = make_gateway(
        config(
            {"url": f"socks5://127.0.0.1:{proxy.port}"},
            {"conn": api(tls_upstream, **more), "direct": api(tls_upstream, upstream_proxy="none", **more)},
        ),
        *way,
        dns={NAME: ["127.0.0.1"], "id.plain.test": ["127.0.0.1"]},
    )
    assert [ask(gateway.port, Grant(name).target("x")).status for name in ("direct", "conn")] == [200, 200]
    assert proxy.asked == [("id.plain.test", endpoint.port), (NAME, tls_upstream.tls_port)]
    proxy.stop()
    endpoint.stop()


def test_a_proxy_that_is_the_gateway_itself_is_refused(
    make_gateway: MakeGateway, tls_upstream: Recorder, way: tuple[str, ...]
) -> None:
    """Each of its requests would come back to it."""
    gateway = make_gateway(config({"url": "http://127.0.0.1:1"}, {"conn": api(tls_upstream)}), *way)
    own = {"url": f"http://localhost:{gateway.port}"}
    write_config(config(own, {"conn": api(tls_upstream)}), gateway.directory)
    assert eventually(lambda: gateway.log().count(LOADED) == 2)
    assert code(ask(gateway.port, Grant("conn").target("x"))) == UPSTREAM
    assert told(gateway) == ["the upstream proxy is the gateway itself, or its store"]


def test_workers_of_presign_serve_go_through_the_proxy(
    make_served: Callable[..., Serve], tls_upstream: Recorder, ca_pem: Path
) -> None:
    """With another event loop, and on the lane and off it."""
    proxy = SocksProxy(BEHIND, "gateway", "s0cks-secret-0123456789").start()
    wanted = {"url": f"socks5://gateway@127.0.0.1:{proxy.port}", "password": "s0cks-secret-0123456789"}
    connection = api(tls_upstream, tls={"ca": str(ca_pem)})
    served = make_served(config(wanted, {"conn": connection}))
    assert ask(served.port, Grant("conn").target("x")).status == 200
    assert ask(served.port, Grant("conn").target("x"), {"Expect": "100-continue"}).status == 200
    assert proxy.asked == [(NAME, tls_upstream.tls_port)] * 2
    proxy.stop()


# -- proxies that say odd things --------------------------------------------------------------------------


class OddProxy:
    """A proxy in the hands of a test: accepts, reads the CONNECT, and says what it is told."""

    def __init__(self, answer: Callable[[Wire], None]) -> None:
        self.hand, self.heads = ByHand(), list[bytes]()
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                wire = self.hand.accept(30)
                self.heads.append(wire.read_head())
                self._answer(wire)
        except OSError:
            return

    @property
    def url(self) -> str:
        return f"http://{USER}@127.0.0.1:{self.hand.port}"


def say(data: bytes) -> Callable[[Wire], None]:
    return lambda wire: wire.send(data)


def hang_up(wire: Wire) -> None:
    wire.close()


ODD: dict[str, tuple[Callable[[Wire], None], str]] = {
    "403": (
        say(b"HTTP/1.1 403 Forbidden\r\nX: " + PASSWORD.encode() + b"\r\n\r\n"),
        "refused the connection (403)",
    ),
    "302": (say(b"HTTP/1.1 302 Found\r\nLocation: //evil.test/\r\n\r\n"), "refused the connection (302)"),
    "502": (say(b"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n"), "refused the connection (502)"),
    "an announcement": (say(b"HTTP/1.1 100 Continue\r\n\r\n"), "refused the connection (100)"),
    "garbage": (say(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "does not answer with valid HTTP"),
    "an odd version": (say(b"HTTP/2 200\r\n\r\n"), "does not answer with valid HTTP"),
    "bytes behind the head": (
        say(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
        "sent bytes behind its answer, before the upstream was asked anything",
    ),
    "a body of 200": (
        say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
        "sent bytes behind its answer, before the upstream was asked anything",
    ),
    "a huge head": (say(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "answers with a head that is too large"),
    "an end": (hang_up, "closed the connection"),
}  # fmt: skip


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest) -> Iterator[tuple[OddProxy, str]]:
    answer, why = ODD[request.param]
    found = OddProxy(answer)
    yield found, why
    found.hand.stop()


def test_what_a_proxy_says_instead_of_a_tunnel_is_nobodys_answer(
    make_gateway: MakeGateway, odd: tuple[OddProxy, str], way: tuple[str, ...]
) -> None:
    proxy, why = odd
    connection = bearer_connection("http://plain.tls.test:8000", SECRET, insecure_upstream=True, max_uses=9)
    wanted = {"url": proxy.url, "password": PASSWORD}
    gateway = make_gateway(config(wanted, {"conn": connection}), *way, "-w", "flows.mitm")
    headers = {"Proxy-Authorization": "Basic Y2xpZW50OnNlY3JldA=="}
    answer = ask(gateway.port, Grant("conn").target("x"), headers)
    assert code(answer) == UPSTREAM
    assert told(gateway) == [f"the upstream proxy {why}"]
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    place = b"plain.tls.test:8000"
    head = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n"
    assert proxy.heads == [head % (place, place, basic)], "and nothing of the client"
    gateway.stop()
    everything = gateway.log().encode() + (gateway.directory / "flows.mitm").read_bytes()
    for secret in (PASSWORD.encode(), basic, REAL_SECRET.encode()):
        assert secret not in everything + answer.body
    assert b"forged" not in answer.body


def test_a_proxy_that_says_nothing_is_given_up_and_one_that_drips_too(
    make_gateway: MakeGateway, way: tuple[str, ...]
) -> None:
    def drip(wire: Wire) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
            wire.send(bytes([byte]))
            time.sleep(0.05)

    for answer in (lambda _: None, drip):
        proxy = OddProxy(answer)
        more = {"insecure_upstream": True, "timeouts": {"connect": "1s"}}
        connection = bearer_connection("http://plain.tls.test:8000", SECRET, **more)
        gateway = make_gateway(config({"url": proxy.url}, {"conn": connection}), *way)
        assert code(ask(gateway.port, Grant("conn").target("x"))) == (504, "upstream")
        assert told(gateway) == ["the upstream was not connected to in time"]
        gateway.stop()
        proxy.hand.stop()


def test_a_200_with_a_length_is_a_tunnel_all_the_same(
    make_gateway: MakeGateway, way: tuple[str, ...]
) -> None:
    """RFC 9110, 9.3.6: the length of an answer to CONNECT means nothing."""
    proxy = ByHand()
    connection = bearer_connection("http://plain.tls.test:8000", SECRET, insecure_upstream=True)
    gateway = make_gateway(config({"url": f"http://127.0.0.1:{proxy.port}"}, {"conn": connection}), *way)
    with connect(gateway.port) as client:
        client.sendall(b"GET %s HTTP/1.1\r\nHost: presign.local\r\n\r\n" % Grant("conn").target("x").encode())
        wire = proxy.accept()
        assert b"Proxy-Authorization" not in wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert REAL_SECRET.encode() in wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert parse_response(Wire(client).read_response()).status == 200
    proxy.stop()


def test_what_is_revoked_while_the_proxy_thinks_gets_no_credential(
    make_gateway: MakeGateway, way: tuple[str, ...]
) -> None:
    proxy = ByHand()
    connection = bearer_connection("http://plain.tls.test:8000", SECRET, insecure_upstream=True)
    wanted = config({"url": f"http://127.0.0.1:{proxy.port}"}, {"conn": connection, "other": connection})
    gateway = make_gateway(wanted, *way)
    with connect(gateway.port) as client:
        client.sendall(b"GET %s HTTP/1.1\r\nHost: presign.local\r\n\r\n" % Grant("conn").target("x").encode())
        wire = proxy.accept()
        wire.read_head()
        wanted["connections"]["conn"] = connection | {"enabled": False}
        write_config(wanted, gateway.directory)
        assert eventually(lambda: gateway.log().count(LOADED) == 2)
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        assert code(parse_response(Wire(client).read_response())) == (403, "revoked")
        assert wire.read_to_end() == b"", "neither a credential nor a request"
    proxy.stop()


GET = b"GET %s HTTP/1.1\r\nHost: presign.local\r\n\r\n"
CONNECTED = b"HTTP/1.1 200 OK\r\n\r\n"
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def replaced(wanted: dict[str, Any], proxy: ByHand, gateway: Mitm) -> None:
    """Have the gateway use another proxy from now on."""
    wanted["gateway"]["upstream_proxy"] = {"url": f"http://127.0.0.1:{proxy.port}"}
    write_config(wanted, gateway.directory)
    assert eventually(lambda: gateway.log().count("1 connection from") == 2)


@pytest.mark.parametrize("when", ["it has a connection that is kept", "it thinks"])
def test_no_credential_leaves_through_a_proxy_that_was_replaced(
    make_gateway: MakeGateway, way: tuple[str, ...], when: str
) -> None:
    """The lane asks the new proxy. On the flow path, what was under way is refused."""
    first, second = ByHand(), ByHand()
    connection = bearer_connection("http://plain.tls.test:8000", SECRET, insecure_upstream=True)
    wanted = config({"url": f"http://127.0.0.1:{first.port}"}, {"conn": connection})
    gateway, asked = make_gateway(wanted, *way), GET % Grant("conn").target("x").encode()
    with connect(gateway.port) as client:
        client.sendall(asked)
        wire = first.accept()
        wire.read_head()
        if when == "it thinks":
            replaced(wanted, second, gateway)
            wire.send(CONNECTED)
        else:
            wire.send(CONNECTED)
            assert REAL_SECRET.encode() in wire.read_head()
            wire.send(DONE)
            assert parse_response(Wire(client).read_response()).status == 200
            replaced(wanted, second, gateway)
            client.sendall(asked)
        if when == "it thinks" and way != WAYS["lane"]:
            assert code(parse_response(Wire(client).read_response())) == (503, "unavailable")
            assert REAL_SECRET.encode() not in wire.read_to_end()
            client.sendall(asked)
        other = second.accept()
        assert other.read_head().startswith(b"CONNECT plain.tls.test:8000 ")
        other.send(CONNECTED)
        assert REAL_SECRET.encode() in other.read_head()
        other.send(DONE)
        assert parse_response(Wire(client).read_response()).status == 200
    assert REAL_SECRET.encode() not in wire.read_to_end()
    first.stop()
    second.stop()
