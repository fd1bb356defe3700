"""A refused link in a browser: a page instead of JSON, on both paths, with the same header."""

from __future__ import annotations

import html
import json
import re

import pytest

from support.asking import SECRET, Grant, ask, code, in_an_hour, wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.policy import Policy
from support.proxy import Mitm
from support.raw import Response, send_raw
from support.recorder import Recorder
from support.signing import source_url

BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Accept-Language": "en",
}
FORGED = Grant("conn", secret="sk_another_0123456789abcdef")
LATE = Grant("conn", expires=1_700_000_000)


@pytest.fixture(scope="module", params=WAYS)
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    source = {"scheme": "source", "mode": "signed", "formats": ["png"], "signing_keys": [{"secret": SECRET}]}
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": {
            "conn": bearer_connection(upstream.url, SECRET),
            "conn_dead": bearer_connection("http://127.0.0.1:9", SECRET),
            "conn_few": bearer_connection(upstream.url, SECRET, limits=[{"rate": "1/hour", "burst": 1}]),
            "pk": source,
        },
        "limits": {"store": "memory://"},
    }
    return module_gateway(config, *WAYS[request.param])


def opened(gateway: Mitm, target: str, method: str = "GET", **more: str) -> Response:
    return ask(gateway.port, target, BROWSER | more, method)


def text_of(response: Response) -> str:
    without = re.sub(r"(?s)<style>.*</style>|<[^>]*>", " ", response.body.decode())
    return html.unescape(re.sub(r"\s+", " ", without))


@pytest.mark.parametrize(
    ("target", "status", "expected", "title"),
    [
        (LATE.target("v1/models"), 403, "expired", "This link has expired"),
        (FORGED.target("v1/models"), 403, "invalid", "This link is not valid"),
        ("/api/proxy/conn/v1/models", 400, "malformed", "This link is damaged"),
        ("/nothing", 404, "not_found", "There is nothing here"),
        (Grant("conn_dead").target("v1/models"), 502, "upstream", "Something went wrong"),
        (Grant("conn").target("v1/redirect"), 302, None, ""),
    ],
)  # fmt: skip
def test_a_refusal_is_a_page_for_a_person(
    gateway: Mitm, target: str, status: int, expected: str | None, title: str
) -> None:
    page, data = opened(gateway, target), ask(gateway.port, target)
    assert code(page) == code(data) == (status, expected)
    if expected is None:
        return
    assert page.header("content-type") == "text/html; charset=utf-8"
    assert data.header("content-type") == "application/json"
    assert title in text_of(page)
    if expected != "expired":  # that one counts seconds
        assert json.loads(data.body)["message"] in text_of(page)
    assert page.header("x-presign-request-id") in text_of(page)
    assert page.header("content-length") == str(len(page.body))
    for response in (page, data):
        assert response.header("vary") == "Accept, Sec-Fetch-Mode"
        assert response.header("cache-control") == "no-store"
    policy = page.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for never in (SECRET, REAL_SECRET, "<script", "PRESIGN-HMAC"):
        assert never not in page.body.decode()


def test_a_head_gets_the_header_of_the_page(gateway: Mitm) -> None:
    target = Grant("conn", "GET,HEAD", expires=1_700_000_000).target("v1/models")
    raw = send_raw(gateway.port, wire(target, BROWSER | {"Connection": "close"}, "HEAD"))
    assert raw.endswith(b"\r\n\r\n")
    assert b"Content-Type: text/html; charset=utf-8\r\n" in raw
    assert b"X-Presign-Error: expired\r\n" in raw


def test_a_page_that_fetches_gets_json(gateway: Mitm) -> None:
    response = opened(gateway, LATE.target("v1/models"), **{"Sec-Fetch-Mode": "cors"})
    assert json.loads(response.body)["error"]["code"] == "expired"


def test_a_source_url_keeps_its_bare_answer(gateway: Mitm) -> None:
    late = source_url(SECRET, "pk", "https://cdn.example.com/a.png", 1_700_000_000, "png")
    response = opened(gateway, late)
    assert (response.status, response.body) == (403, b"Forbidden")


def test_uses_that_are_spent_are_counted_in_words(gateway: Mitm, upstream: Recorder) -> None:
    target = Policy(SECRET, {"Max-Uses": "2"}, connection="conn", expires=in_an_hour()).target("v1/models")
    asked = opened(gateway, target)
    assert code(asked) == (428, "not_confirmed")
    cookie = (asked.header("set-cookie") or "").partition(";")[0]
    for _ in range(2):
        assert opened(gateway, target, Cookie=cookie).status == 200
    page, data = opened(gateway, target, Cookie=cookie), json.loads(ask(gateway.port, target).body)
    assert code(page) == (429, "limited")
    assert data["message"] == "2 of 2 uses of this presigned request are spent."
    assert data["message"] in text_of(page)
    assert "uses" in text_of(page)


def test_a_rate_says_when_to_come_again(gateway: Mitm, upstream: Recorder) -> None:
    target = Grant("conn_few").target("v1/models")
    assert ask(gateway.port, target).status == 200
    response = ask(gateway.port, target)
    again = int(response.header("retry-after") or "0")
    message = json.loads(response.body)["message"]
    assert re.fullmatch(r"The limit is 1 request in 1 hour: try again in [0-9a-z ]+\.", message)
    assert 3000 < again <= 3600


def test_the_page_comes_over_http2_too(gateway: Mitm) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    fields.append((":path", LATE.target("v1/models")))
    fields += [(name.lower(), value) for name, value in BROWSER.items()]
    with H2Client.through(gateway.port, "presign.local", cafile=gateway.ca) as client:
        reply = client.request(fields)
    assert reply.status == 403
    assert reply.header("content-type") == "text/html; charset=utf-8"
    assert b"This link has expired" in reply.body
