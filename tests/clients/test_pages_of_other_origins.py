"""Pages of other origins in a real browser: what a page that is listed can do, and one that is not cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from docs.test_signing_recipes import CASES, Case
from support.asking import SECRET, Grant
from support.browser import Browser
from support.deciding import code, request
from support.documents import DOCS, block
from support.gateways import MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.proxy import Mitm
from support.recorder import Recorder
from support.web import serving

pytestmark = pytest.mark.needs("chromedriver")
RECIPE = block(DOCS["signing.md"], "javascript").replace("export ", "")
TELL = (
    "(answer) => answer.text().then((text) => [answer.status, answer.headers.get('X-Presign-Error'), text])"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two pages of different origins. The gateway lists the first."""
    directory = tmp_path_factory.mktemp("site")
    (directory / "index.html").write_text("<!DOCTYPE html>")
    with serving(directory) as first, serving(directory) as second:
        yield [first, second]


@pytest.fixture(scope="module", params=["lane", "flows"])
def gateway(
    request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder, pages: list[str]
) -> Mitm:
    cors = {"origins": [pages[0].rstrip("/")], "expose": ["X-Echo"]}
    config = {
        "gateway": {"unsigned": "deny"},
        "connections": {
            "conn": bearer_connection(upstream.url, SECRET, cors=cors),
            "conn_cookies": bearer_connection(upstream.url, SECRET, cors=cors, cookies="pass"),
            "conn_plain": bearer_connection(upstream.url, SECRET),
        },
    }
    return module_gateway(config, *WAYS[request.param])


def fetched(browser: Browser, url: str, options: dict[str, Any] | None = None) -> Any:
    """Status, code and text of an answer that a page can read; else the error of the page."""
    given = json.dumps(options or {})
    return browser.run(f"return fetch({json.dumps(url)}, {given}).then({TELL}).catch((error) => error.name)")


def url_of(gateway: Mitm, path: str, connection: str = "conn", **more: Any) -> str:
    return f"http://127.0.0.1:{gateway.port}{Grant(connection, **more).target(path)}"


def test_a_page_posts_json_with_a_presign_in_each_carrier(
    browser: Browser, gateway: Mitm, upstream: Recorder, pages: list[str]
) -> None:
    browser.open(pages[0])
    grant, base = Grant("conn", "POST", "v1/*"), f"http://127.0.0.1:{gateway.port}"
    kind = {"Content-Type": "application/json"}
    for url, headers in (
        (base + grant.target("v1/echo"), kind),
        (f"{base}/api/proxy/conn/v1/echo", kind | grant.headers),
        (f"{base}/p/{grant.token}/v1/echo", kind),
        (f"{base}/v1/echo", kind | {"Authorization": f"Bearer {grant.token}"}),
        (f"{base}/api/proxy/conn/v1/echo", kind | {"Authorization": f"Bearer {grant.token}", "X-Any": "1"}),
    ):
        upstream.clear()
        status, refusal, _ = fetched(
            browser, url, {"method": "POST", "headers": headers, "body": '{"model": "gpt-5-mini"}'}
        )
        assert (status, refusal) == (200, None), url
        (seen,) = upstream.requests  # the preflight is not among them
        assert (seen.method, seen.body) == ("POST", b'{"model": "gpt-5-mini"}')
        assert seen.header("authorization") == f"Bearer {REAL_SECRET}"
        assert b"ps1_" not in seen.raw


def test_a_page_that_is_not_listed_sends_no_json_and_reads_no_answer(
    browser: Browser, gateway: Mitm, upstream: Recorder, pages: list[str]
) -> None:
    browser.open(pages[1])
    upstream.clear()
    options = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"}
    for connection in ("conn", "conn_plain"):
        url = url_of(gateway, "v1/echo", connection, methods="GET,POST")
        assert fetched(browser, url, options) == "TypeError"
    assert not upstream.requests
    assert fetched(browser, url_of(gateway, "v1/echo")) == "TypeError"
    browser.open(pages[0])
    assert fetched(browser, url_of(gateway, "v1/echo", "conn_plain")) == "TypeError"
    assert fetched(browser, url_of(gateway, "v1/echo"))[0] == 200


@pytest.mark.parametrize(("grant", "expected"), [
    ({"expires": 1_700_000_000}, [403, "expired"]),
    ({"methods": "PUT"}, [403, "method_not_allowed"]),
    ({"secret": "sk_another_0123456789abcdef"}, [403, "invalid"]),
])  # fmt: skip
def test_a_page_reads_why_it_is_refused(
    browser: Browser, gateway: Mitm, pages: list[str], grant: dict[str, Any], expected: list[Any]
) -> None:
    browser.open(pages[0])
    status, refusal, text = fetched(browser, url_of(gateway, "v1/echo", **grant))
    assert [status, refusal] == expected
    assert json.loads(text)["error"]["code"] == refusal
    browser.open(pages[1])
    assert fetched(browser, url_of(gateway, "v1/echo", **grant)) == "TypeError"


def test_a_page_reads_a_stream_event_by_event(browser: Browser, gateway: Mitm, pages: list[str]) -> None:
    browser.open(pages[0])
    url = json.dumps(url_of(gateway, "v1/sse"))
    took = """
      const answer = await fetch(%s), reader = answer.body.getReader(), pieces = []
      for (;;) {
        const {done, value} = await reader.read()
        if (done) return pieces
        pieces.push(new TextDecoder().decode(value))
      }"""
    pieces = browser.run(took % url)
    assert len(pieces) == 5
    assert all(piece.count("data: ") == 1 for piece in pieces)
    listened = """
      return new Promise((resolve) => {
        const source = new EventSource(%s), found = []
        source.onmessage = (event) => {
          found.push([event.data, source.readyState])
          if (found.length == 5) { source.close(); resolve(found) }
        }
        source.onerror = () => { source.close(); resolve(["error", ...found]) }
      })"""
    assert browser.run(listened % url) == [[f"event {number}", 1] for number in range(5)]
    browser.open(pages[1])
    assert browser.run(listened % url) == ["error"]


def test_cookies_are_for_connections_that_pass_them_on(
    browser: Browser, gateway: Mitm, pages: list[str]
) -> None:
    browser.open(pages[0])
    options = {"credentials": "include"}
    assert fetched(browser, url_of(gateway, "v1/echo"), options) == "TypeError"
    assert fetched(browser, url_of(gateway, "v1/echo", "conn_cookies"), options)[0] == 200


def test_the_recipe_for_webcrypto_signs_what_the_gateway_takes(
    browser: Browser, gateway: Mitm, upstream: Recorder, pages: list[str]
) -> None:
    browser.open(pages[0])
    base = f"http://127.0.0.1:{gateway.port}"
    args = json.dumps([base, "conn", SECRET, "v1/echo", ["POST", "GET"], ["v1/*"]])
    signed = browser.run(f"{RECIPE}\nreturn presign(...{args})")
    assert fetched(browser, signed, {"method": "POST", "body": "{}"})[0] == 200
    assert fetched(browser, signed, {"method": "PUT"})[:2] == [403, "method_not_allowed"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_recipe_for_webcrypto_agrees_with_the_published_vectors(
    browser: Browser, pages: list[str], case: Case
) -> None:
    browser.open(pages[0])
    args = json.dumps(["http://presign.local", *case.args, 60])
    at = (case.expires - 60) * 1000
    signed = browser.run(f"{RECIPE}\nDate.now = () => {at}\nreturn presign(...{args})")
    target = signed.removeprefix("http://presign.local")
    assert case.fields["X-Presign-Signature"] in target
    assert code(request(target, method=case.method), case.registry) == "forward"
