"""WebSocket clients of other people, unchanged, through a real gateway; each with a twin that is refused."""

import asyncio
import json
import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme
import websocket
import websockets
from websockets.sync.client import ClientConnection, connect

from support.apis import BAGGAGE, OWN_KEY
from support.asking import SECRET, Grant
from support.gateways import MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.places import TESTS
from support.proxy import Mitm
from support.websocket_server import WORDS, WebSocketServer, check_sent

NODE = TESTS / "support" / "node"
API = Grant("conn_ws", "GET", "v1/*")
OPENAI = Grant("conn_openai", "GET", "v1/realtime")
LATE = Grant("conn_ws", "GET", "v1/*", expires="1714808400")
WITHOUT = Grant("conn_without", "GET", "v1/*")
TEXT = "".join(WORDS)
IN_PAGES = "openai-insecure-api-key."
"""What a page offers before its key, as a subprotocol."""


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> Iterator[WebSocketServer]:
    with WebSocketServer(ca.issue_cert("api.openai.com")) as found:
        yield found


@pytest.fixture(scope="module")
def plain() -> Iterator[WebSocketServer]:
    with WebSocketServer() as found:
        yield found


@pytest.fixture(scope="module", params=["lane", "flows as served"])
def proxy(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    server: WebSocketServer,
    plain: WebSocketServer,
) -> Mitm:
    openai_ = {"preset": "openai", "auth": {"token": REAL_SECRET}, "signing_keys": [{"secret": SECRET}]}
    connections = {
        "conn_ws": bearer_connection(
            plain.url, SECRET, websocket=True, key_slots={"headers": ["Sec-WebSocket-Protocol"]}
        ),
        "conn_without": bearer_connection(plain.url, SECRET),
        "conn_openai": openai_,
    }
    dns = {"api.openai.com": [f"127.0.0.1#{server.port}"]}
    return module_gateway({"connections": connections}, *WAYS[request.param], dns=dns)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, proxy: Mitm, server: WebSocketServer) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "NODE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.ca))
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(proxy.ca))
    server.heads.clear()


def at(proxy: Mitm, target: str) -> str:
    return f"ws://127.0.0.1:{proxy.port}{target}"


# -- Python -----------------------------------------------------------------------------------------------


def trusting(proxy: Mitm) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(proxy.ca))


PLACES: dict[str, tuple[str, Mapping[str, str]]] = {
    "query": (API.target("v1/echo"), {}),
    "headers": ("/api/proxy/conn_ws/v1/echo", API.headers),
    "path token": (f"/p/{API.token}/v1/echo", {"Authorization": f"Bearer {OWN_KEY}"}),
    "key token": ("/v1/echo", {"Authorization": f"Bearer {API.token}"}),
    "key among subprotocols": ("/v1/echo", {"Sec-WebSocket-Protocol": IN_PAGES + API.token}),
}


@pytest.mark.parametrize("place", PLACES)
def test_websockets_talks_by_every_carrier(proxy: Mitm, plain: WebSocketServer, place: str) -> None:
    plain.heads.clear()
    target, headers = PLACES[place]
    more = {**BAGGAGE, **headers}
    with connect(at(proxy, target), additional_headers=more, subprotocols=["chat"], proxy=None) as client:  # type: ignore[list-item]
        assert client.subprotocol == "chat"
        for message in ("hello", "x" * 200_000, b"\0" * 70_000, ""):
            client.send(message)
            assert client.recv(10) == message
        assert client.ping().wait(10)
    assert (client.close_code, client.protocol.close_rcvd.code if client.protocol.close_rcvd else 0) == (
        1000,
        1000,
    )
    check_sent(plain)


def test_websockets_reaches_the_api_by_its_real_name_with_a_key(proxy: Mitm, server: WebSocketServer) -> None:
    headers = {"Authorization": f"Bearer {OPENAI.token}"}
    url = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
    with connect(url, additional_headers=headers, proxy=proxy.url, ssl=trusting(proxy)) as client:
        assert json.loads(client.recv(10))["type"] == "session.created"
    check_sent(server)


def test_websockets_reaches_the_api_by_its_real_name_with_a_key_among_subprotocols(
    proxy: Mitm, server: WebSocketServer
) -> None:
    def opened(key: str) -> ClientConnection:
        offered: Any = ["realtime", IN_PAGES + key]
        url = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
        return connect(url, subprotocols=offered, proxy=proxy.url, ssl=trusting(proxy))

    with opened(OPENAI.token) as client:
        assert client.subprotocol == "realtime"
        assert json.loads(client.recv(10))["type"] == "session.created"
    check_sent(server)
    for key, status in ((OPENAI.token[:-64] + "0" * 64, 403), (f"x{OPENAI.token}", 400)):
        with pytest.raises(websockets.InvalidStatus) as caught:
            opened(key)
        assert caught.value.response.status_code == status
    assert len(server.heads) == 1


TWINS = {
    "an expired URL": (LATE.target("v1/echo"), {}, 403),
    "another path": (API.target("v2/echo"), {}, 403),
    "a forged signature": (API.target("v1/echo")[:-64] + "0" * 64, {}, 403),
    "no presign": ("/api/proxy/conn_ws/v1/echo", {}, 400),
    "a connection without it": (WITHOUT.target("v1/echo"), {}, 426),
    "a key of its own": ("/api/proxy/conn_ws/v1/echo", {"Authorization": f"Bearer {OWN_KEY}"}, 400),
    "an expired key among subprotocols": ("/v1/echo", {"Sec-WebSocket-Protocol": IN_PAGES + LATE.token}, 403),
    "a key as a subprotocol": ("/v1/echo", {"Sec-WebSocket-Protocol": API.token}, 400),
}


@pytest.mark.parametrize("what", TWINS)
def test_websockets_is_refused(proxy: Mitm, plain: WebSocketServer, what: str) -> None:
    plain.heads.clear()
    target, headers, status = TWINS[what]
    with pytest.raises(websockets.InvalidStatus) as caught:
        connect(at(proxy, target), additional_headers=headers, proxy=None)
    assert caught.value.response.status_code == status
    assert not plain.heads


def test_websockets_is_told_what_the_upstream_refuses(proxy: Mitm) -> None:
    with pytest.raises(websockets.InvalidStatus) as caught:
        connect(at(proxy, API.target("v1/refused")), proxy=None)
    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b"not with " + b"*" * len(REAL_SECRET) + b"\n"


def test_websocket_client_talks_and_its_twin_is_refused(proxy: Mitm, plain: WebSocketServer) -> None:
    plain.heads.clear()
    client = websocket.create_connection(at(proxy, API.target("v1/echo")), timeout=10, header=BAGGAGE)
    client.send("hello")
    assert client.recv() == "hello"
    client.send_binary(bytes(100_000))
    assert client.recv() == bytes(100_000)
    client.close()
    check_sent(plain)
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection(at(proxy, LATE.target("v1/echo")), timeout=10)
    assert caught.value.status_code == 403
    assert caught.value.resp_headers is not None
    assert caught.value.resp_headers["x-presign-error"] == "expired"


def test_websocket_client_goes_through_the_proxy(proxy: Mitm, server: WebSocketServer) -> None:
    options: dict[str, Any] = {
        "http_proxy_host": "127.0.0.1",
        "http_proxy_port": proxy.port,
        "proxy_type": "http",
        "sslopt": {"ca_certs": str(proxy.ca)},
        "header": {"Authorization": f"Bearer {OPENAI.token}"},
        "timeout": 10,
    }
    client = websocket.create_connection("wss://api.openai.com/v1/realtime", **options)
    assert json.loads(client.recv())["type"] == "session.created"
    client.close()
    check_sent(server)
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection("wss://api.openai.com/v1/other", **options)
    assert caught.value.status_code == 403


async def spoken(client: openai.AsyncOpenAI) -> str:
    text = ""
    async with client.realtime.connect(model="gpt-realtime") as connection:
        async for event in connection:
            if event.type == "session.created":
                await connection.response.create()
            elif event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.done":
                return text
    return text


@pytest.mark.parametrize("how", ["base URL", "key and proxy"])
def test_the_realtime_client_of_openai_talks_and_its_twin_is_refused(
    proxy: Mitm, server: WebSocketServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wrong = OPENAI.token[:-64] + "0" * 64
    if how == "base URL":
        good = openai.AsyncOpenAI(api_key=OWN_KEY, base_url=f"{proxy.url}/p/{OPENAI.token}/v1")
        bad = openai.AsyncOpenAI(api_key=OWN_KEY, base_url=f"{proxy.url}/p/{wrong}/v1")
    else:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        good, bad = openai.AsyncOpenAI(api_key=OPENAI.token), openai.AsyncOpenAI(api_key=wrong)
    assert asyncio.run(spoken(good)) == TEXT
    check_sent(server)
    count = len(server.heads)
    with pytest.raises(websockets.InvalidStatus) as caught:
        asyncio.run(spoken(bad))
    assert caught.value.response.status_code == 403
    assert len(server.heads) == count


# -- Node -------------------------------------------------------------------------------------------------


def node(program: str, *arguments: str, **env: str) -> tuple[int, str]:
    argv: list[str | Path] = ["node", NODE / program, *arguments]
    done = subprocess.run(argv, env=os.environ | env, capture_output=True, check=False, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.needs("node", "node packages")
@pytest.mark.parametrize("kind", ["ws", "undici"])
def test_node_talks_and_its_twin_is_refused(proxy: Mitm, plain: WebSocketServer, kind: str) -> None:
    """undici's is the global WebSocket of node 22 and later: it adds no header, as in a browser."""
    plain.heads.clear()
    code, said = node("sockets.mjs", kind, at(proxy, API.target("v1/echo")), json.dumps(BAGGAGE))
    assert (code, said) == (0, "said 6000 chat\nclosed 1000\n")
    check_sent(plain)
    for grant in (LATE, WITHOUT):
        code, said = node("sockets.mjs", kind, at(proxy, grant.target("v1/echo")), "{}")
        assert code == 1
        assert "said" not in said
    assert len(plain.heads) == 1


@pytest.mark.needs("node", "node packages")
@pytest.mark.parametrize("how", ["base URL", "key"])
@pytest.mark.parametrize("kind", ["ws", "websocket"])
def test_the_realtime_client_of_nodes_sdk_talks_and_its_twin_is_refused(
    proxy: Mitm, server: WebSocketServer, kind: str, how: str
) -> None:
    """The one for browsers puts its key into a subprotocol, which the upstream never sees."""

    def asked(token: str) -> tuple[int, str]:
        key, path = (OWN_KEY, f"/p/{token}/v1") if how == "base URL" else (token, "/v1")
        return node("realtime.mjs", kind, OPENAI_API_KEY=key, OPENAI_BASE_URL=proxy.url + path)

    assert asked(OPENAI.token) == (0, f"{TEXT}\n")
    check_sent(server)
    code, said = asked(OPENAI.token[:-64] + "0" * 64)
    assert code == 1
    assert "error" in said
    assert len(server.heads) == 1


# -- what a browser sends ---------------------------------------------------------------------------------


def test_an_origin_is_passed_on_and_decides_nothing(proxy: Mitm, plain: WebSocketServer) -> None:
    """Who has the URL may use it, from any page: the gateway adds nothing that a browser would bring."""
    plain.heads.clear()
    for origin in ("https://app.example", "null"):
        with connect(at(proxy, API.target("v1/echo")), origin=origin, proxy=None) as client:  # type: ignore[arg-type]
            client.send("hello")
            assert client.recv(10) == "hello"
        assert plain.heads[-1].headers["Origin"] == origin
