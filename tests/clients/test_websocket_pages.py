"""Pages in a real browser that open a WebSocket through a gateway; each with a twin that is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from presign_proxy.config.registry_file.storage import write_private
from support.asking import SECRET, Grant
from support.browser import Browser
from support.config import write_config
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.lanes import WAYS
from support.proxy import Mitm
from support.puppet import eventually
from support.serving import presign
from support.web import serving
from support.websocket_server import WebSocketServer, check_sent

pytestmark = pytest.mark.needs("chromedriver")
LATE = 1714808400
TALK = """
  return new Promise((resolve) => {
    const socket = new WebSocket(%s, %s), said = []
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => {
      socket.send('hello \u00fc')
      socket.send(new Uint8Array([0, 255, 10]))
      socket.send('x'.repeat(200000))
    }
    socket.onmessage = ({data}) => {
      said.push(typeof data !== 'string' ? [...new Uint8Array(data)] : data.length > 9 ? data.length : data)
      if (said.length == 3) socket.close(1000, 'done')
    }
    socket.onerror = () => said.push('error')
    socket.onclose = ({code}) => resolve([said, socket.protocol, code])
  })"""
KEEP = """
  return new Promise((resolve) => {
    const socket = new WebSocket(%s, %s)
    window.ended = null
    socket.onopen = () => socket.send('hello')
    socket.onmessage = ({data}) => resolve(data)
    socket.onclose = ({code}) => { window.ended = code; resolve('closed') }
  })"""
SAID = [["hello ü", [0, 255, 10], 200000], "realtime", 1000]
REFUSED = [["error"], "", 1006]
PLACES = ("URL", "path token", "subprotocol")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("site")
    (directory / "index.html").write_text("<!DOCTYPE html>")
    with serving(directory) as url:
        yield url


@pytest.fixture(scope="module")
def server() -> Iterator[WebSocketServer]:
    with WebSocketServer() as found:
        yield found


@pytest.fixture(scope="module", params=["lane", "flows as served"])
def gateway(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    server: WebSocketServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Mitm:
    directory = tmp_path_factory.mktemp("pages")
    directory.chmod(0o700)
    realtime = {"websocket": True, "key_slots": {"headers": ["Sec-WebSocket-Protocol"]}}
    one = bearer_connection(server.url, SECRET) | {"signing_keys": [{"id": "k1", "secret": SECRET}]}
    connections = {
        "conn_page": one | realtime,
        "conn_brief": one | realtime | {"max_duration": "2s"},
        "conn_revoked": one | realtime,
        "conn_without": one,
    }
    write_private(directory / "registry.json", json.dumps({"connections": connections}).encode())
    config = write_config({"registry": {"file": "registry.json"}}, directory)
    return module_gateway(config, *WAYS[request.param])


@pytest.fixture(autouse=True)
def opened(browser: Browser, page: str, server: WebSocketServer) -> None:
    browser.open(page)
    server.heads.clear()


def asked(gateway: Mitm, place: str, grant: Grant) -> tuple[str, str]:
    """The arguments of `new WebSocket`, as a page writes them."""
    base, protocols = f"ws://127.0.0.1:{gateway.port}", ["realtime"]
    if place == "URL":
        url = base + grant.target("v1/echo")
    elif place == "path token":
        url = f"{base}/p/{grant.token}/v1/echo"
    else:
        url = f"{base}/v1/echo"
        protocols.append(f"openai-insecure-api-key.{grant.token}")
    return json.dumps(url), json.dumps(protocols)


@pytest.mark.parametrize("place", PLACES)
def test_a_page_talks_over_a_websocket(
    browser: Browser, gateway: Mitm, server: WebSocketServer, page: str, place: str
) -> None:
    assert browser.run(TALK % asked(gateway, place, Grant("conn_page", "GET", "v1/*"))) == SAID
    (head,) = server.heads
    assert head.headers["Sec-WebSocket-Protocol"] == "realtime"
    assert head.headers["Origin"] == page.rstrip("/")
    check_sent(server)


TWINS: dict[str, dict[str, Any]] = {
    "expired": {"connection": "conn_page", "expires": LATE},
    "of another signer": {"connection": "conn_page", "secret": "sk_another_0123456789abcdef"},
    "for another method": {"connection": "conn_page", "methods": "POST"},
    "for a connection without it": {"connection": "conn_without"},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", TWINS)
def test_a_page_gets_an_error_in_place_of_a_websocket(
    browser: Browser, gateway: Mitm, server: WebSocketServer, place: str, what: str
) -> None:
    grant = Grant(**{"methods": "GET", "paths": "v1/*", **TWINS[what]})
    assert browser.run(TALK % asked(gateway, place, grant)) == REFUSED
    assert not server.heads


def test_a_page_that_offers_nothing_but_its_key_gets_an_error(
    browser: Browser, gateway: Mitm, server: WebSocketServer
) -> None:
    """Browsers expect one of the subprotocols that they offer, and no server can choose the key."""
    url, protocols = asked(gateway, "subprotocol", Grant("conn_page", "GET"))
    assert browser.run(TALK % (url, json.dumps(json.loads(protocols)[1:]))) == REFUSED
    assert "Sec-WebSocket-Protocol" not in server.heads[-1].headers


def ended(browser: Browser) -> bool:
    return browser.run("return window.ended") == 1006


def test_a_page_loses_its_websocket_at_the_end_of_its_time(browser: Browser, gateway: Mitm) -> None:
    assert browser.run(KEEP % asked(gateway, "URL", Grant("conn_brief", "GET"))) == "hello"
    assert eventually(lambda: ended(browser), 20)


def test_a_page_loses_its_websocket_when_its_owner_revokes_it(browser: Browser, gateway: Mitm) -> None:
    grant = Grant("conn_revoked", "GET")
    assert browser.run(KEEP % asked(gateway, "subprotocol", grant)) == "hello"
    presign(gateway.config.parent, "revoke", "--connection", "conn_revoked", "--now")
    assert eventually(lambda: ended(browser), 20)
    assert browser.run(TALK % asked(gateway, "subprotocol", grant)) == REFUSED
