"""Programs tell in headers where their user is. Nobody is told a presigned URL in that way."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote

import pytest

from presign_proxy.signing import disclosure
from presign_proxy.signing.disclosure import discloses
from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, code
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import bearer_connection
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import parse_response, send_raw
from support.recorder import Recorder
from support.signing import source_url
from support.work import steps

API = Grant("conn_api")
COOKIES = Grant("conn_cookies")
URL = "https://presign.local" + API.target("v1/models")
SOURCE = "https://motioness.com" + source_url(SECRET, "pk", "https://a.test/a.png", 1893456000)


def in_base64(text: str, before: str = "") -> str:
    return before + base64.b64encode(text.encode()).decode()


TELLING = {
    "a page's own URL": ("HX-Current-URL", URL),
    "where a ping comes from": ("Ping-From", URL),
    "the next page": ("Next-Url", f"/api/proxy/conn_api/v1?{API.query}"),
    "an address before it was rewritten": ("X-Page-Url", f"https://presign.local/x?{API.query}"),
    "escaped": ("X-Page", quote(URL, safe="")),
    "escaped three times": ("X-Page", quote(quote(quote(URL, safe=""), safe=""), safe="")),
    "JSON": ("X-Page", '{"headers": {"X-Presign-Signature": "' + API.headers["X-Presign-Signature"] + '"}}'),
    "JSON in JSON": ("X-Page", r"{\"x-presign-signature\":\"" + API.headers["X-Presign-Signature"] + r"\"}"),
    "JSON as Gson writes it": ("X-Page", '{"page": "' + URL.replace("=", r"\u003d") + '"}'),
    "JSON as Gson writes it, in JSON": ("X-Page", r"{\"page\":\"" + URL.replace("=", r"\\u003D") + r"\"}"),
    "a source, in JSON as Gson writes it": ("X-Page", SOURCE.replace("=", r"\u003d")),
    "a list of names and values": (
        "X-Page",
        '[{"name": "X-Presign-Signature", "value": "' + API.headers["X-Presign-Signature"] + '"}]',
    ),
    "base64": ("X-Page", in_base64(URL)),
    "base64 for URLs, behind letters": (
        "X-Page",
        "v1-" + base64.urlsafe_b64encode(URL.encode()).decode().rstrip("="),
    ),
    "base64, escaped": ("X-Page", quote(in_base64(URL), safe="")),
    "a key in base64": ("X-Session", in_base64('{"key": "' + API.token + '"}')),
    "a source": ("HX-Current-URL", SOURCE),
    "a source in base64": ("X-Page", in_base64(SOURCE)),
}
COOKIE = f"theme=dark; back={quote(URL, safe='')}; lang=de"
INNOCENT = {
    "Access-Control-Request-Headers": "x-presign-expires,x-presign-paths,x-presign-signature",
    "X-Hub-Signature-256": "sha256=" + "0a" * 32,
    "X-Page": "https://app.test/?"
    + quote("next=https://app.test/a/very/long/way/to/another/page?id=" + "7" * 64),
    "X-Json": in_base64(
        '{"user": "somebody", "of": "an organisation", "scopes": ["read", "write", "admin"]}'
    ),
    "X-Signed": "keyId=1,sig=" + "0a" * 32,
}


@pytest.fixture(scope="module", params=["lane", "flows"])
def gateway(
    request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder
) -> Iterator[Mitm]:
    connections = {
        "conn_api": bearer_connection(upstream.url, SECRET),
        "conn_cookies": bearer_connection(upstream.url, SECRET, cookies="pass"),
    }
    config = {"gateway": {"hosts": ["presign.local"], "unsigned": "pass"}, "connections": connections}
    lane = "on" if request.param == "lane" else "off"
    yield module_gateway(config, "--set", f"presign_lane={lane}", "-w", "dump")


def asked(way: str, gateway: Mitm, upstream: Recorder, fields: dict[str, str]) -> None:
    """Send a request that arrives, with these fields."""
    fields = fields | {"X-Own": "1"}
    if way == "somebody else's":
        response = ask(gateway.port, f"{upstream.url}/else", fields, host=upstream.url[7:])
    elif way == "granted":
        response = ask(gateway.port, COOKIES.target("v1/models"), fields)
    else:
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
        lower = [(name.lower(), value) for name, value in fields.items()]
        with H2Client.through(gateway.port, "presign.local", cafile=gateway.ca) as client:
            assert client.request([*head, (":path", COOKIES.target("v1/models")), *lower]).status == 200
        return
    assert response.status == 200


WAYS = ("somebody else's", "granted", "granted over HTTP/2")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", TELLING)
def test_a_program_that_tells_where_its_user_is_tells_nobody_a_presign(
    how: str, way: str, gateway: Mitm, upstream: Recorder
) -> None:
    """htmx tells the page in `HX-Current-URL`, browsers theirs in `Ping-From`."""
    name, value = TELLING[how]
    asked(way, gateway, upstream, {name: value})
    (request,) = upstream.wait_for(1)
    assert (request.header(name), request.header("x-own")) == (None, "1")


@pytest.mark.parametrize("way", WAYS)
def test_a_cookie_that_holds_a_presigned_url_stays_here(way: str, gateway: Mitm, upstream: Recorder) -> None:
    asked(way, gateway, upstream, {"Cookie": COOKIE})
    asked(way, gateway, upstream, {"Cookie": "theme=dark; lang=de"})
    first, second = upstream.wait_for(2)
    assert (first.header("cookie"), second.header("cookie")) == (None, "theme=dark; lang=de")


@pytest.mark.parametrize("way", WAYS)
def test_what_only_looks_like_a_presign_arrives(way: str, gateway: Mitm, upstream: Recorder) -> None:
    asked(way, gateway, upstream, INNOCENT)
    (request,) = upstream.wait_for(1)
    assert {name: request.header(name) for name in INNOCENT} == INNOCENT


@pytest.mark.parametrize("at", ["the gateway", "another host"])
def test_a_token_in_the_place_of_the_method_goes_nowhere_and_into_no_dump(
    at: str, gateway: Mitm, upstream: Recorder
) -> None:
    target = API.target("v1/models") if at == "the gateway" else f"{upstream.url}/else"
    host = "presign.local" if at == "the gateway" else upstream.url[7:]
    data = f"{API.token} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert code(parse_response(send_raw(gateway.port, data.encode()))) == (400, "malformed")
    assert not upstream.touched
    dump = gateway.directory / "dump"
    assert eventually(lambda: b"[redacted]" in dump.read_bytes())
    for place in (dump.read_bytes(), gateway.log().encode()):
        assert API.headers["X-Presign-Signature"].encode() not in place


# -- what is looked at --------------------------------------------------------------------------------


def units() -> list[bytes]:
    signature = b"0" * 64
    return [
        *(
            b"x",
            b"%",
            b"%41",
            b"%2541",
            b"ps1_",
            b".",
            b"sig=",
            b"exp=1&",
            b"x-presign-signature",
            b"-",
            b"=",
        ),
        *(
            b"x" * 95 + b" ",
            b"x" * 97 + b" ",
            b"x-presign-signature" + b"=" * 13,
            b"sig=" + signature[1:] + b"g",
        ),
        *(b"ps1_" + signature, b"." + signature[1:], b"x-presign-signature=" + signature[1:] + b"g"),
        base64.b64encode(b"x-presign-signature=ps1_sig="),
    ]


def test_a_value_of_60_kib_costs_no_more_steps_than_a_short_one() -> None:
    """All of it is a bounded number of searches."""
    for unit in units():
        value = (unit * (60_000 // len(unit) + 1))[:60_000]
        assert steps(partial(discloses, value)) < 5_000, unit


def test_no_search_goes_over_a_byte_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is searched is a few times as long as what came."""
    searched = 0
    stock = disclosure._shows

    def counted(text: bytes) -> bool:
        nonlocal searched
        searched += len(text)
        return stock(text)

    monkeypatch.setattr(disclosure, "_shows", counted)
    for unit in units():
        searched = 0
        discloses((unit * (60_000 // len(unit) + 1))[:60_000])
        assert searched < 5 * 60_000, unit


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the upstream answer requests for `…/scripted` with these fields."""

    def script(*headers: tuple[str, str]) -> None:
        monkeypatch.setitem(BEHAVIOURS, "scripted", lambda request: Answer(200, headers, b"body"))

    return script


# -- answers ------------------------------------------------------------------------------------------

REPORTING = (
    ("NEL", '{"report_to": "all", "max_age": 60}'),
    ("Report-To", '{"group": "all", "max_age": 60, "endpoints": [{"url": "https://collector.test"}]}'),
    ("Reporting-Endpoints", 'all="https://collector.test"'),
    ("Content-Security-Policy-Report-Only", "default-src 'none'; report-uri https://collector.test"),
    ("Expect-CT", 'max-age=60, report-uri="https://collector.test"'),
)
POLICIES = {
    "default-src 'none'; report-uri https://collector.test/r?k=1": "default-src 'none';",
    "report-uri /r": "",
    "img-src *;REPORT-URI\t/r ;  report-to all;script-src 'self'": "img-src *;;;script-src 'self'",
    "img-src *, default-src 'self'; report-to all, report-uri /r": "img-src *, default-src 'self';,",
    "img-src https://a.test/report-uri; report-uris x": "img-src https://a.test/report-uri; report-uris x",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_browser_reports_no_presigned_url_to_whom_an_answer_names(
    policy: str, gateway: Mitm, answers: Callable[..., None], upstream: Recorder
) -> None:
    """A page that breaks its own policy, as every page in a sandbox does, made the browser send the whole URL
    to the collector that the policy names.
    """
    answers(*REPORTING, ("Content-Security-Policy", policy))
    named = f"X-Presign-Connection=conn_api&{API.query}"
    at_api = ask(gateway.port, f"{upstream.url}/scripted?{named}", host=upstream.url[7:])
    for response in (ask(gateway.port, API.target("scripted")), at_api):
        assert response.status == 200
        assert [response.header(name) for name, _ in REPORTING] == [None] * len(REPORTING)
        policies = [value for name, value in response.headers if name.lower() == "content-security-policy"]
        assert policies[0] == POLICIES[policy]
