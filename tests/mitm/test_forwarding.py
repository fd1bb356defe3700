"""What leaves for the upstream and what comes back: kept byte for byte, or taken off (SPEC §2 and §4)."""

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pytest
import trustme

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Given, Grant, ask, code, wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import Mitm
from support.raw import Response, connect, connect_tls, exchange, parse_response
from support.recorder import Recorder
from support.seen import Headers, Seen
from support.signing import source_url

REAL = f"Bearer {REAL_SECRET}"
API = Grant("conn_api")
MALFORMED = (400, "malformed")
UPSTREAM = (502, "upstream")
H2 = "h2.tls.test"


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder) -> Mitm:
    """One connection for each way to treat requests and responses."""

    def at(base: str = "", **extra: Any) -> dict[str, Any]:
        return bearer_connection(upstream.url + base, SECRET, **extra)

    def auth(**kind: Any) -> dict[str, Any]:
        return {"upstream": upstream.url, "auth": kind, "signing_keys": [{"secret": SECRET}]}

    preset = {"preset": "anthropic", "auth": {"token": REAL_SECRET}, "signing_keys": [{"secret": SECRET}]}
    connections = {
        "conn_api": at(),
        "conn_base": at("/base/v9"),
        "conn_tls": bearer_connection(f"https://api.tls.test:{tls_upstream.tls_port}", SECRET),
        "conn_xtoken": auth(
            type="header", headers={"X-Token": REAL_SECRET, "X-Second": "second-" + REAL_SECRET}
        ),
        "conn_basic": auth(type="basic", username="user", password=REAL_SECRET),
        "conn_query": auth(type="query", params={"api_key": REAL_SECRET}),
        "conn_preset": preset | {"upstream": upstream.url},
        "conn_slash": at(allow_encoded_slash=True),
        "conn_reject": at(on_client_credentials="reject"),
        "conn_lax": at(cookies="pass", cache="pass", redirects="pass"),
        "pk_img": {
            "scheme": "source",
            "mode": "signed",
            "allowed_origins": [upstream.url],
            "allow_networks": ["127.0.0.0/8"],
            "formats": ["png"],
            "auth": {"type": "bearer", "token": REAL_SECRET},
            "signing_keys": [{"secret": SECRET}],
        },
    }
    config = {"gateway": {"hosts": ["presign.local"]}, "connections": connections}
    return module_gateway(config, dns={"api.tls.test": ["127.0.0.1"]})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the upstream answer requests for `…/scripted` as told."""

    def script(status: int = 200, *headers: tuple[str, str], body: bytes = b"body") -> None:
        answer = Answer(status, headers, body)
        monkeypatch.setitem(BEHAVIOURS, "scripted", lambda request: answer)

    return script


def proxied(connection: str, path: str) -> str:
    return f"/api/proxy/{connection}/{path}"


def seen(gateway: Mitm, upstream: Recorder, path: str, headers: Given = (), **more: Any) -> Seen:
    """Send a request with the header carrier and return what the upstream saw."""
    given = list(headers.items()) if isinstance(headers, dict) else list(headers)
    connection = more.pop("connection", "conn_api")
    grant = Grant(connection)
    response = ask(gateway.port, proxied(connection, path), [*grant.headers.items(), *given], **more)
    assert code(response) == (200, None), response
    (request,) = upstream.wait_for(1)
    return request


# -- query and path -----------------------------------------------------------------------------------

ODD_QUERY = "flag&x=%20&y=1+2&&=&a=b=c&%7e=%7E&q=a;b&utf8=%c3%BC&x=%20&last"


@pytest.mark.parametrize("query", [ODD_QUERY, "", "&", "=", "a", "a&", "&a", "a=1&a=2", "presign=1"])
def test_query_survives_byte_for_byte(query: str, gateway: Mitm, upstream: Recorder) -> None:
    assert seen(gateway, upstream, f"v1/models?{query}").target == f"/v1/models?{query}"


@pytest.mark.parametrize("place", ["before", "after", "between"])
def test_query_survives_around_the_presign(place: str, gateway: Mitm, upstream: Recorder) -> None:
    fields = API.query.split("&")
    query = {
        "before": f"{API.query}&{ODD_QUERY}",
        "after": f"{ODD_QUERY}&{API.query}",
        "between": f"{fields[0]}&flag&{fields[1]}&x=%20&y=1+2&{fields[2]}&&=&a=b=c&{fields[3]}",
    }[place]
    assert code(ask(gateway.port, proxied("conn_api", f"v1/models?{query}"))) == (200, None)
    (request,) = upstream.wait_for(1)
    expected = "flag&x=%20&y=1+2&&=&a=b=c" if place == "between" else ODD_QUERY
    assert request.target == f"/v1/models?{expected}"


def test_query_that_was_nothing_but_a_presign_leaves_no_question_mark(
    gateway: Mitm, upstream: Recorder
) -> None:
    assert code(ask(gateway.port, API.target("v1/models"))) == (200, None)
    (request,) = upstream.wait_for(1)
    assert request.target == "/v1/models"


@pytest.mark.parametrize("name", ["api_key", "API_KEY", "api-key", "api%5Fkey", "%61pi_key", "api%255Fkey"])
def test_parameter_of_the_credential_is_ours_in_every_spelling(
    name: str, gateway: Mitm, upstream: Recorder
) -> None:
    path = f"v1/models?a=1&{name}=own&b=2+3&{name}&c"
    request = seen(gateway, upstream, path, connection="conn_query")
    assert request.target == f"/v1/models?a=1&b=2+3&c&api_key={REAL_SECRET}"
    assert request.header("authorization") is None


CANONICAL = {
    "v1/%7Euser": "/v1/~user",
    "v1/%41%2d%5F": "/v1/A-_",
    "v1/caf%c3%a9": "/v1/caf%C3%A9",
    "v1/café": "/v1/caf%C3%A9",
    'v1/a"<>^`{|}': "/v1/a%22%3C%3E%5E%60%7B%7C%7D",
    "v1/!$&'()*+,;=:@": "/v1/!$&'()*+,;=:@",
    "v1/a%20b%3a": "/v1/a%20b%3A",
    "v1/models/": "/v1/models/",
    "": "/",
}


@pytest.mark.parametrize("path", CANONICAL)
def test_canonical_path_is_forwarded(path: str, gateway: Mitm, upstream: Recorder) -> None:
    assert seen(gateway, upstream, path).target == CANONICAL[path]


@pytest.mark.parametrize("path", CANONICAL)
def test_canonical_path_is_forwarded_below_the_base(path: str, gateway: Mitm, upstream: Recorder) -> None:
    request = seen(gateway, upstream, path, connection="conn_base")
    assert request.target == "/base/v9" + CANONICAL[path]


def test_canonical_path_is_what_is_matched(gateway: Mitm, upstream: Recorder) -> None:
    grant = Grant("conn_api", paths="v1/über/*")
    assert code(ask(gateway.port, proxied("conn_api", "%76%31/%C3%BCber/x"), grant.headers)) == (200, None)
    (request,) = upstream.wait_for(1)
    assert request.target == "/v1/%C3%BCber/x"


def test_encoded_slash_is_forwarded_where_the_connection_allows_it(gateway: Mitm, upstream: Recorder) -> None:
    refused = ask(gateway.port, proxied("conn_api", "v1/a%2fb"), API.headers)
    assert code(refused) == (403, "path_not_allowed")
    assert not upstream.touched
    assert seen(gateway, upstream, "v1/a%2fb", connection="conn_slash").target == "/v1/a%2Fb"


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"]
)
def test_method_and_body_are_forwarded(method: str, gateway: Mitm, upstream: Recorder) -> None:
    body = bytes(range(256))
    request = seen(gateway, upstream, "v1/models", method=method, body=body)
    assert (request.method, request.body) == (method, body)
    assert request.all("content-length") == ["256"]


def test_chunked_body_is_forwarded_with_one_framing(gateway: Mitm, upstream: Recorder) -> None:
    head = wire(
        proxied("conn_api", "v1/files"), [*API.headers.items(), ("Transfer-Encoding", "chunked")], "POST"
    )
    chunks = b"3;ext=1\r\none\r\n4\r\n two\r\n0\r\nX-Api-Key: trailing\r\n\r\n"
    with connect(gateway.port) as sock:
        assert parse_response(exchange(sock, head + chunks)).status == 200
    (request,) = upstream.wait_for(1)
    assert (request.body, request.trailers) == (b"one two", b"")
    assert len(request.all("transfer-encoding") + request.all("content-length")) == 1


# -- request headers ----------------------------------------------------------------------------------


STRIPPED = [
    # Credentials that a client brings.
    "Authorization",
    "Proxy-Authorization",
    "X-Api-Key",
    "api-key",
    "x-goog-api-key",
    "PRIVATE-TOKEN",
    "X-Amz-Date",
    "X-Amz-Security-Token",
    "X-Amz-Content-Sha256",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "Cookie",
    # Who the client is.
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "Fastly-Connecting-IP",
    # This connection only.
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Proxy-Authenticate",
    # What changes the path behind our back.
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "lower": str.lower,
    "UPPER": str.upper,
    "under_score": lambda name: name.replace("-", "_"),
    "UNDER_SCORE": lambda name: name.replace("-", "_").upper(),
    "mixed": lambda name: name.replace("-", "_", 1).swapcase(),
}
LEFT = "Xdelete-me-42"
"""The value of every header that has to go."""


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("connection", ["conn_api", "conn_xtoken", "conn_query"])
def test_client_credentials_and_identity_are_taken_off(
    connection: str, spelling: str, gateway: Mitm, upstream: Recorder
) -> None:
    names = [*STRIPPED, *(["X-Token", "X-Second"] if connection == "conn_xtoken" else [])]
    spelt = [(SPELLINGS[spelling](name), LEFT) for name in names]
    request = seen(gateway, upstream, "v1/models", [*spelt, ("X-Kept", "1")], connection=connection)
    left = [name for name, value in request.headers if LEFT in value]
    assert not left
    assert request.all("x-kept") == ["1"]
    assert request.raw.count(b"second-") == (1 if connection == "conn_xtoken" else 0)


@pytest.mark.parametrize("spelling", ["lower", "under_score"])
def test_client_credentials_are_taken_off_in_http2(spelling: str, gateway: Mitm, upstream: Recorder) -> None:
    names = [SPELLINGS[spelling](name).lower() for name in STRIPPED]
    # RFC 9113, 8.2.2 forbids these in HTTP/2: a request with one of them may be refused.
    names = [name for name in names if name not in ("keep-alive", "proxy-connection", "te")]
    fields = [*API.headers.items(), *((name, LEFT) for name in names), ("x-kept", "1")]
    head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    with H2Client.through(gateway.port, "presign.local", 443, None, gateway.ca) as client:
        lower = [(name.lower(), value) for name, value in fields]
        assert client.request([*head, (":path", proxied("conn_api", "v1/models")), *lower]).status == 200
    (request,) = upstream.wait_for(1)
    assert LEFT.encode() not in request.raw
    assert request.all("authorization") == [REAL]
    assert request.all("x-kept") == ["1"]


KEPT = [
    ("User-Agent", "client/1.0"),
    ("Accept", "text/event-stream"),
    ("Accept-Language", "de, en;q=0.5"),
    ("Content-Type", "application/json"),
    ("Idempotency-Key", "0e1f-key"),
    ("OpenAI-Organization", "org"),
    ("X-Amz-Target", "DynamoDB_20120810.GetItem"),
    ("X-Odd", "first"),
    ("If-None-Match", '"abc"'),
    ("Range", "bytes=0-9"),
    ("x-odd", "second"),
    ("Origin", "https://app.test"),
    ("Referer", "https://app.test/page?sig=short"),
    ("X_Under_Score", "kept"),
    ("X-Empty", ""),
    ("X-Bytes", "caf\u00e9"),
    ("X-Request-Id", "client-7"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
]


def test_all_other_headers_are_kept_in_order(gateway: Mitm, upstream: Recorder) -> None:
    request = seen(gateway, upstream, "v1/models", KEPT)
    sent = [(name, value.encode("utf-8").decode("latin-1")) for name, value in KEPT]
    assert [field for field in request.headers if field in sent] == sent
    others = {name.lower() for name, _ in request.headers} - {name.lower() for name, _ in KEPT}
    assert others == {"host", "authorization", "accept-encoding"}


def test_host_is_the_upstreams_own(gateway: Mitm, upstream: Recorder) -> None:
    assert seen(gateway, upstream, "v1/models").all("host") == [f"127.0.0.1:{upstream.port}"]


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("conn_api", [("authorization", REAL)]),
        ("conn_xtoken", [("x-token", REAL_SECRET), ("x-second", f"second-{REAL_SECRET}")]),
        (
            "conn_basic",
            [("authorization", "Basic " + base64.b64encode(f"user:{REAL_SECRET}".encode()).decode())],
        ),
        ("conn_preset", [("x-api-key", REAL_SECRET)]),
    ],
)
def test_credential_is_put_on_once(
    connection: str, expected: Headers, gateway: Mitm, upstream: Recorder
) -> None:
    own = [(name, LEFT) for name, _ in expected] * 2
    request = seen(gateway, upstream, "v1/models", own, connection=connection)
    names = {name for name, _ in expected}
    assert [(name.lower(), value) for name, value in request.headers if name.lower() in names] == expected


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("X-Custom", "X-Custom"),
        ("close, x-custom", "X-Custom"),
        ("keep-alive,X-CUSTOM , x-other", "X-Custom"),
        (" ,, X-Custom", "x-custom"),
    ],
)
@pytest.mark.parametrize("header", ["Connection", "Proxy-Connection"])
def test_header_that_connection_names_is_taken_off(
    header: str, value: str, named: str, gateway: Mitm, upstream: Recorder
) -> None:
    request = seen(gateway, upstream, "v1/models", [(header, value), (named, LEFT), ("X-Kept", "1")])
    assert LEFT.encode() not in request.raw
    assert request.all("x-kept") == ["1"]


@pytest.mark.parametrize("value", ["Authorization", "close, authorization", "X-Presign-Signature"])
def test_connection_cannot_take_off_what_we_put_on(value: str, gateway: Mitm, upstream: Recorder) -> None:
    response = ask(gateway.port, proxied("conn_api", "v1/models"), {**API.headers, "Connection": value})
    if response.status == 200:
        (request,) = upstream.wait_for(1)
        assert request.all("authorization") == [REAL]
        assert "authorization" not in (request.header("connection") or "").lower()
    else:
        assert code(response) == MALFORMED
        assert not upstream.touched


def test_second_connection_header_counts_too(gateway: Mitm, upstream: Recorder) -> None:
    fields = [("Connection", "keep-alive"), ("X-Custom", LEFT), ("Connection", "x-custom")]
    assert LEFT.encode() not in seen(gateway, upstream, "v1/models", fields).raw


PRESIGNED_REFERERS = pytest.mark.parametrize(
    "referer",
    [
        "http://presign.local" + API.target("v1/models"),
        f"http://presign.local/p/{API.token}/v1/models",
        f"https://api.test/v1/models?key={API.token}",
        "http://presign.local/api/proxy/conn_api/v1?x%2Dpresign%2Dsignature=1",
        "http://presign.local" + source_url(SECRET, "pk_img", "http://a.test/a", 1893456000),
    ],
    ids=["query", "path token", "key token", "encoded", "source"],
)


@PRESIGNED_REFERERS
def test_referer_that_holds_a_presign_is_taken_off(referer: str, gateway: Mitm, upstream: Recorder) -> None:
    assert seen(gateway, upstream, "v1/models", {"Referer": referer}).header("referer") is None


@PRESIGNED_REFERERS
def test_a_request_without_a_presign_tells_nobody_whence_it_comes(
    referer: str, gateway: Mitm, upstream: Recorder
) -> None:
    """A client that has followed a redirect to somebody else's server, through the gateway that lets it."""
    fields = {"Referer": referer, "X-Own": "1"}
    assert ask(gateway.port, f"{upstream.url}/else", fields, host=upstream.url[7:]).status == 200
    (request,) = upstream.wait_for(1)
    assert (request.header("referer"), request.header("x-own")) == (None, "1")


def test_default_header_of_a_preset_is_added_where_absent(gateway: Mitm, upstream: Recorder) -> None:
    request = seen(gateway, upstream, "v1/messages", connection="conn_preset")
    assert request.all("anthropic-version") == ["2023-06-01"]
    for name in ("anthropic-version", "Anthropic-Version"):
        upstream.clear()
        request = seen(gateway, upstream, "v1/messages", {name: "2020-01-01"}, connection="conn_preset")
        assert request.all("anthropic-version") == ["2020-01-01"]


@pytest.mark.parametrize("value", ["br, gzip", "gzip", "*", "identity;q=0", None])
def test_reply_is_asked_for_without_coding(value: str | None, gateway: Mitm, upstream: Recorder) -> None:
    request = seen(gateway, upstream, "v1/models", {"Accept-Encoding": value} if value else {})
    assert request.all("accept-encoding") == ["identity"]


def test_cookies_pass_where_the_connection_says_so(
    gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    answers(200, ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"))
    cookies = {"Cookie": "session=1; other=2"}
    strict = ask(gateway.port, proxied("conn_api", "scripted"), API.headers | cookies)
    lax = ask(gateway.port, proxied("conn_lax", "scripted"), Grant("conn_lax").headers | cookies)
    first, second = upstream.wait_for(2)
    assert (first.all("cookie"), second.all("cookie")) == ([], ["session=1; other=2"])
    assert all_of(strict, "set-cookie") == []
    assert all_of(lax, "set-cookie") == ["a=1; Path=/", "b=2"]


OWN_CREDENTIALS: dict[str, tuple[str, dict[str, str]]] = {
    "Authorization": ("", {"Authorization": "Bearer own"}),
    "X-Api-Key": ("", {"X-Api-Key": "own"}),
    "in odd spelling": ("", {"x_api_KEY": "own"}),
    "a signature of AWS": ("", {"X-Amz-Security-Token": "own"}),
}


@pytest.mark.parametrize("own", OWN_CREDENTIALS)
def test_client_credentials_are_rejected_where_the_connection_says_so(
    own: str, gateway: Mitm, upstream: Recorder
) -> None:
    query, headers = OWN_CREDENTIALS[own]
    grant = Grant("conn_reject")
    target = proxied("conn_reject", "v1/models") + query
    assert code(ask(gateway.port, target, grant.headers | headers)) == MALFORMED
    assert not upstream.touched


@pytest.mark.parametrize("carrier", ["header", "query", "path", "key"])
def test_presign_alone_is_no_client_credential(carrier: str, gateway: Mitm, upstream: Recorder) -> None:
    grant = Grant("conn_reject")
    target, headers = carried(grant, carrier, "v1/models")
    assert code(ask(gateway.port, target, headers)) == (200, None)
    (request,) = upstream.wait_for(1)
    assert request.all("authorization") == [REAL]


def carried(grant: Grant, carrier: str, path: str) -> tuple[str, dict[str, str]]:
    """A gateway URL and headers with the grant in this carrier."""
    base = proxied(grant.connection, path)
    forms: dict[str, tuple[str, dict[str, str]]] = {
        "query": (grant.target(path), {}),
        "header": (base, grant.headers),
        "path": (f"/p/{grant.token}/{path}", {}),
        "key": (base, {"Authorization": f"Bearer {grant.token}"}),
    }
    return forms[carrier]


def test_upstream_that_speaks_http2_sees_the_same(
    make_gateway: MakeGateway, make_recorder: Callable[..., Recorder], ca: trustme.CA
) -> None:
    recorder = make_recorder(cert=ca.issue_cert(H2), alpn=("h2",))
    connection = bearer_connection(f"https://{H2}:{recorder.tls_port}", SECRET)
    gateway = make_gateway({"connections": {"conn_api": connection}}, dns={H2: ["127.0.0.1"]})
    fields = [*API.headers.items(), ("authorization", LEFT), ("cookie", LEFT), ("x-kept", "1")]
    head = [(":method", "POST"), (":scheme", "https"), (":authority", "presign.local")]
    head.append((":path", proxied("conn_api", "v1/files?a=%20&&b")))
    with H2Client.through(gateway.port, "presign.local", 443, None, gateway.ca) as client:
        lower = [(name.lower(), value) for name, value in fields]
        reply = client.request([*head, *lower], b"body", [("x-api-key", LEFT)])
    assert (reply.status, reply.body) == (200, b'{"ok": true}')
    (request,) = recorder.wait_for(1)
    assert request.alpn == "h2"
    assert (request.target, request.body) == ("/v1/files?a=%20&&b", b"body")
    assert request.all(":authority") == [f"{H2}:{recorder.tls_port}"]
    assert request.all("authorization") == [REAL]
    assert request.all("x-kept") == ["1"]
    assert not re.search(rb"presign|Xdelete|cookie", request.everything)


# -- response headers ---------------------------------------------------------------------------------


def all_of(response: Response, name: str) -> list[str]:
    return [value for key, value in response.headers if key.lower() == name]


def intercepted(gateway: Mitm, upstream: Recorder, path: str, headers: dict[str, str]) -> Response:
    """A request to the API's own address, through the proxy."""
    return ask(gateway.port, f"{upstream.url}/{path}", headers, host=f"127.0.0.1:{upstream.port}")


WHOLE_ORIGIN = [
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    ("Alt-Svc", 'h3=":443"'),
    ("Clear-Site-Data", '"*"'),
    ("Service-Worker-Allowed", "/"),
]


def test_gateway_form_is_boxed_in_for_browsers(
    gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    answers(
        200, *WHOLE_ORIGIN, ("Content-Type", "text/html"), ("Content-Security-Policy", "script-src 'self'")
    )
    for carrier in ("query", "header", "path", "key"):
        response = ask(gateway.port, *carried(API, carrier, "scripted"))
        assert response.status == 200
        for name, _ in WHOLE_ORIGIN:
            assert all_of(response, name.lower()) == [], carrier
        assert "sandbox" in all_of(response, "content-security-policy")
        assert "script-src 'self'" in all_of(response, "content-security-policy")
        assert all_of(response, "x-content-type-options") == ["nosniff"]
        assert all_of(response, "referrer-policy") == ["no-referrer"]


def test_source_is_boxed_in_for_browsers(
    gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    answers(200, *WHOLE_ORIGIN, ("Content-Type", "text/html"))
    response = ask(gateway.port, source_url(SECRET, "pk_img", f"{upstream.url}/scripted", API.expires, "png"))
    assert response.status == 200
    assert all_of(response, "content-security-policy") == ["sandbox"]
    assert all_of(response, "x-content-type-options") == ["nosniff"]
    for name, _ in WHOLE_ORIGIN:
        assert all_of(response, name.lower()) == []


def test_intercepted_response_keeps_what_speaks_for_its_own_origin(
    gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    answers(200, *WHOLE_ORIGIN, ("Content-Security-Policy", "script-src 'self'"))
    response = intercepted(gateway, upstream, "scripted", API.headers)
    for name, value in WHOLE_ORIGIN:
        assert all_of(response, name.lower()) == [value]
    assert all_of(response, "content-security-policy") == ["script-src 'self'"]
    assert all_of(response, "referrer-policy") == ["no-referrer"]


def test_upstreams_own_referrer_policy_is_replaced(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(200, ("Referrer-Policy", "unsafe-url"), ("X-Content-Type-Options", "nosniff"))
    response = ask(gateway.port, *carried(API, "query", "scripted"))
    assert all_of(response, "referrer-policy") == ["no-referrer"]
    assert set(all_of(response, "x-content-type-options")) == {"nosniff"}


@pytest.mark.parametrize("headers", [{"Service-Worker": "script"}, {"service-worker": "script"}])
def test_service_worker_cannot_be_registered_at_the_gateway(
    headers: dict[str, str], gateway: Mitm, upstream: Recorder
) -> None:
    response = ask(gateway.port, API.target("v1/worker.js"), headers)
    assert 400 <= response.status < 500
    assert response.header("x-presign-error")
    assert not upstream.touched


def test_challenges_of_the_upstream_are_dropped(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(401, ("WWW-Authenticate", 'Bearer realm="upstream"'), ("X-Kept", "1"), ("Retry-After", "3"))
    response = ask(gateway.port, *carried(API, "header", "scripted"))
    assert (response.status, response.body) == (401, b"body")
    assert all_of(response, "www-authenticate") == []
    assert (response.header("x-kept"), response.header("retry-after")) == ("1", "3")


def test_upstream_cannot_speak_with_our_headers(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(200, ("X-Presign-Error", "expired"), ("X-Presign-Request-Id", "req_upstream"))
    response = ask(gateway.port, *carried(API, "header", "scripted"))
    assert response.header("x-presign-error") is None
    assert len(all_of(response, "x-presign-request-id")) == 1
    assert response.header("x-presign-request-id") != "req_upstream"


CACHE_CONTROLS = [
    None,
    "public, max-age=600",
    "max-age=600",
    "s-maxage=600",
    "Public, S-MaxAge=1, immutable",
    "no-store",
    "private, max-age=60",
    "no-cache",
    "must-revalidate, proxy-revalidate",
]


@pytest.mark.parametrize("value", CACHE_CONTROLS)
@pytest.mark.parametrize("form", ["gateway", "intercepted"])
def test_nothing_may_be_kept_by_shared_caches(
    form: str, value: str | None, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    others = (("CDN-Cache-Control", "max-age=9"), ("Surrogate-Control", "max-age=9"), ("ETag", '"1"'))
    answers(200, *others, *([("Cache-Control", value)] if value else []))
    if form == "gateway":
        response = ask(gateway.port, *carried(API, "query", "scripted"))
    else:
        response = intercepted(gateway, upstream, "scripted", API.headers)
    tokens = [token.strip().lower() for one in all_of(response, "cache-control") for token in one.split(",")]
    assert {"private", "no-store"} & set(tokens)
    assert not [token for token in tokens if token == "public" or token.startswith("s-maxage")]
    assert response.header("cdn-cache-control") is None
    assert response.header("surrogate-control") is None
    if value and "max-age=60" in value:
        assert re.search(r"max-age=60", ",".join(tokens))


def test_caching_passes_where_the_connection_says_so(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(200, ("Cache-Control", "public, s-maxage=600"))
    response = ask(gateway.port, *carried(Grant("conn_lax"), "query", "scripted"))
    assert all_of(response, "cache-control") == ["public, s-maxage=600"]


def test_response_is_otherwise_passed_as_it_is(gateway: Mitm, answers: Callable[..., None]) -> None:
    kept = [("X-Odd", "1"), ("X-RateLimit-Remaining", "9"), ("x-odd", "2"), ("Content-Language", "de")]
    answers(418, *kept, ("Content-Type", "text/plain"), body=b"\x00\xff" * 50)
    response = ask(gateway.port, *carried(API, "query", "scripted"))
    assert (response.status, response.body) == (418, b"\x00\xff" * 50)
    assert [field for field in response.headers if field in kept] == kept


# -- redirects ------------------------------------------------------------------------------------------

ELSEWHERE = {
    "absolute": "{origin}/{base}v1/elsewhere?a=b#c",
    "absolute path": "/{base}v1/elsewhere?a=b#c",
    "relative path": "../elsewhere?a=b#c",
    "network path": "//{authority}/{base}v1/elsewhere?a=b#c",
}


def redirect(
    gateway: Mitm,
    upstream: Recorder,
    answers: Callable[..., None],
    connection: str,
    carrier: str,
    location: str,
    status: int = 302,
) -> tuple[Response, str]:
    """Follow one redirect as a client would: the response, and where it leads from the client's URL."""
    base = "base/v9/" if connection == "conn_base" else ""
    authority = f"127.0.0.1:{upstream.port}"
    value = location.format(origin=upstream.url, authority=authority, base=base)
    answers(status, ("Location", value), ("X-Sent", value))
    target, headers = carried(Grant(connection), carrier, "v1/deep/scripted")
    response = ask(gateway.port, target, headers)
    return response, urljoin(f"http://presign.local{target}", response.header("location") or "")


@pytest.mark.parametrize("location", ELSEWHERE)
@pytest.mark.parametrize("carrier", ["query", "header", "key"])
@pytest.mark.parametrize("connection", ["conn_api", "conn_base"])
def test_redirect_into_the_upstream_leads_to_the_gateway(
    connection: str,
    carrier: str,
    location: str,
    gateway: Mitm,
    upstream: Recorder,
    answers: Callable[..., None],
) -> None:
    response, leads = redirect(gateway, upstream, answers, connection, carrier, ELSEWHERE[location])
    assert response.status == 302
    head, presign, _ = re.split(r"(&X-Presign-[^#]*|(?=#))", leads, maxsplit=1)
    assert head == f"http://presign.local/api/proxy/{connection}/v1/elsewhere?a=b"
    assert leads.endswith("#c")
    assert bool(presign) == (carrier == "query")  # the others send theirs again, in the header
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("location", [*ELSEWHERE.values(), "{origin}/{base}", "{origin}/{base}a:b/c", "?q=1"])
@pytest.mark.parametrize("connection", ["conn_api", "conn_base"])
def test_redirect_behind_a_path_token_does_not_repeat_the_token(
    connection: str, location: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    response, leads = redirect(gateway, upstream, answers, connection, "path", location)
    origin, base = upstream.url, "base/v9/" if connection == "conn_base" else ""
    absolute = urljoin(
        f"{origin}/{base}v1/deep/scripted",
        location.format(origin=origin, authority=f"127.0.0.1:{upstream.port}", base=base),
    )
    below = absolute.removeprefix(f"{origin}/{base}")
    assert response.status == 302
    token = re.escape(f"/p/{Grant(connection).token}"[:14])  # up to its expiry, which is made anew
    assert re.match(rf"http://presign\.local{token}[^/]*/", leads)
    assert leads.partition("/p/")[2].partition("/")[2] == below
    assert "ps1_" not in repr(response.headers)


@pytest.mark.parametrize("location", ["/other", "{origin}/base/v90/x", "../../../../x", "/base/v9/../x"])
@pytest.mark.parametrize("carrier", ["query", "path", "header", "key"])
def test_redirect_above_the_base_does_not_lead_to_somebody_else_at_the_gateway(
    carrier: str, location: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    response, leads = redirect(gateway, upstream, answers, "conn_base", carrier, location)
    if carrier in ("header", "key"):
        assert code(response) == (403, "redirect_not_allowed")
    else:
        assert response.status == 302
        assert leads.startswith(f"{upstream.url}/")


@pytest.mark.parametrize("path", ["scripted", "v1/scripted", "v1/a/b/c/scripted"])
def test_redirect_behind_a_path_token_resolves_at_any_depth(
    path: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    answers(307, ("Location", "/v2/target"))
    target = f"/p/{API.token}/{path}"
    location = ask(gateway.port, target, method="POST").header("location") or ""
    leads = urljoin(f"http://presign.local{target}", location)
    assert leads == f"http://presign.local/p/{API.token}/v2/target"
    # And it works: the client's next request is granted.
    assert code(ask(gateway.port, leads.removeprefix("http://presign.local"))) == (200, None)


@pytest.mark.parametrize("location", ELSEWHERE)
def test_redirect_of_an_intercepted_request_is_left_alone(
    location: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    value = ELSEWHERE[location].format(origin=upstream.url, authority=f"127.0.0.1:{upstream.port}", base="")
    answers(302, ("Location", value))
    response = intercepted(gateway, upstream, "v1/deep/scripted", API.headers)
    assert (response.status, response.header("location")) == (302, value)


AWAY = [
    "http://other.test/elsewhere",
    "https://127.0.0.1:{port}/v1/models",
    "http://127.0.0.1:1/v1/models",
    "http://127.0.0.1:{port}@other.test/",
    "//other.test/elsewhere",
    "\\\\other.test/elsewhere",
    "/\\other.test/elsewhere",
    "HTTP://OTHER.test",
]


@pytest.mark.parametrize("location", AWAY)
@pytest.mark.parametrize("carrier", ["query", "path"])
def test_redirect_to_another_origin_is_passed_where_the_presign_stays_behind(
    carrier: str, location: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    value = location.format(port=upstream.port)
    answers(302, ("Location", value))
    response = ask(gateway.port, *carried(API, carrier, "scripted"))
    assert (response.status, response.header("location")) == (302, value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("carrier", ["header", "key"])
def test_redirect_to_another_origin_is_refused_where_the_client_would_resend_the_presign(
    carrier: str, status: int, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    for location in AWAY:
        answers(status, ("Location", location.format(port=upstream.port)))
        response = ask(gateway.port, *carried(API, carrier, "scripted"))
        assert code(response) == (403, "redirect_not_allowed"), location
        assert response.header("location") is None


@pytest.mark.parametrize("carrier", ["header", "key"])
def test_redirect_to_another_origin_is_refused_in_interception_too(
    carrier: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    answers(302, ("Location", "https://other.test/elsewhere"))
    headers = API.headers if carrier == "header" else {"Authorization": f"Bearer {API.token}"}
    assert code(intercepted(gateway, upstream, "scripted", headers)) == (403, "redirect_not_allowed")


@pytest.mark.parametrize("carrier", ["header", "key"])
def test_redirect_to_another_origin_passes_where_the_connection_says_so(
    carrier: str, gateway: Mitm, answers: Callable[..., None]
) -> None:
    answers(302, ("Location", "http://other.test/elsewhere"))
    response = ask(gateway.port, *carried(Grant("conn_lax"), carrier, "scripted"))
    assert (response.status, response.header("location")) == (302, "http://other.test/elsewhere")


def test_location_of_something_created_elsewhere_is_passed(
    gateway: Mitm, answers: Callable[..., None]
) -> None:
    answers(201, ("Location", "http://other.test/created"))
    response = ask(gateway.port, *carried(API, "header", "scripted"))
    assert (response.status, response.header("location")) == (201, "http://other.test/created")


# -- bodies that were encoded ------------------------------------------------------------------------

ECHO = f"you sent {REAL_SECRET} and no more, {'x' * 500}".encode()
MASKED = ECHO.replace(REAL_SECRET.encode(), b"*" * len(REAL_SECRET))


ENCODED = {
    "gzip": ("gzip", gzip.compress(ECHO)),
    "x-gzip": ("x-gzip", gzip.compress(ECHO)),
    "in capitals": ("GZIP", gzip.compress(ECHO)),
    "zlib": ("deflate", zlib.compress(ECHO)),
    "deflate without zlib's header": ("deflate", zlib.compress(ECHO)[2:-4]),
    "gzip with padding behind its end": ("gzip", gzip.compress(ECHO) + bytes(512)),
    "gzip with a word behind its end": ("gzip", gzip.compress(ECHO) + b"\x1f."),
    "gzip in two members": ("gzip", gzip.compress(ECHO[:9]) + gzip.compress(ECHO[9:])),
    "gzip, and a name that is no coding": ("gzip, aws-chunked", gzip.compress(ECHO)),
    "identity": ("identity", ECHO),
    "nothing": ("", ECHO),
}


@pytest.mark.parametrize("how", ENCODED)
@pytest.mark.parametrize("form", ["gateway", "intercepted"])
def test_encoded_reply_is_decoded_and_masked(
    form: str, how: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    coding, body = ENCODED[how]
    answers(200, ("Content-Encoding", coding), ("Content-Type", "text/plain"), body=body)
    if form == "gateway":
        response = ask(gateway.port, *carried(API, "query", "scripted"))
    else:
        response = intercepted(gateway, upstream, "scripted", API.headers)
    assert (response.status, response.body) == (200, MASKED)
    assert (response.header("content-encoding") or "identity") == "identity"
    length = response.header("content-length")
    assert length is None or int(length) == len(MASKED)


def test_encoded_reply_is_decoded_in_http2(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(200, ("Content-Encoding", "gzip"), body=gzip.compress(ECHO))
    head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    with H2Client.through(gateway.port, "presign.local", 443, None, gateway.ca) as client:
        reply = client.request([*head, (":path", API.target("scripted"))])
    assert (reply.status, reply.body) == (200, MASKED)


@pytest.mark.parametrize(("method", "length"), [("POST", ["0"]), ("PUT", ["0"]), ("GET", [])])
def test_a_request_without_a_body_over_http2_says_so_to_an_upstream_of_http1(
    method: str, length: list[str], gateway: Mitm, upstream: Recorder
) -> None:
    head = [(":method", method), (":scheme", "https"), (":authority", "presign.local")]
    with H2Client.through(gateway.port, "presign.local", 443, None, gateway.ca) as client:
        assert client.request([*head, (":path", API.target("v1/models"))]).status == 200
    (request,) = upstream.requests
    assert request.all("content-length") == length
    assert request.all("transfer-encoding") == []


def test_encoded_reply_to_head_is_passed(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(200, ("Content-Encoding", "gzip"), body=gzip.compress(ECHO))
    response = ask(gateway.port, *carried(API, "query", "scripted"), method="HEAD")
    assert (response.status, response.body) == (200, b"")


@pytest.mark.parametrize("coding", ["aws-chunked", "utf-8", "none"])
@pytest.mark.parametrize("form", ["gateway", "intercepted"])
def test_a_reply_whose_coding_is_none_is_passed_as_what_it_is_and_masked(
    form: str, coding: str, gateway: Mitm, upstream: Recorder, answers: Callable[..., None]
) -> None:
    """S3 says "aws-chunked" of objects that were uploaded so; it was answered 502."""
    answers(200, ("Content-Encoding", coding), body=ECHO)
    if form == "gateway":
        response = ask(gateway.port, *carried(API, "query", "scripted"))
    else:
        response = intercepted(gateway, upstream, "scripted", API.headers)
    assert (response.status, response.body) == (200, MASKED)
    assert response.header("content-encoding") == coding


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "compress", "gzip, gzip", "br, aws-chunked"])
def test_reply_that_cannot_be_decoded_is_refused(
    coding: str, gateway: Mitm, answers: Callable[..., None]
) -> None:
    answers(200, ("Content-Encoding", coding), body=b"\x0b\x02\x80" + ECHO)
    response = ask(gateway.port, *carried(API, "query", "scripted"))
    assert code(response) == UPSTREAM
    assert REAL_SECRET.encode() not in response.body


def test_reply_that_is_not_as_encoded_is_cut_off(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(200, ("Content-Encoding", "gzip"), body=b"not gzip " + ECHO)
    response = ask(gateway.port, *carried(API, "query", "scripted"))
    assert REAL_SECRET.encode() not in response.body


def test_echoed_credential_is_masked_in_headers(gateway: Mitm, answers: Callable[..., None]) -> None:
    answers(
        200, ("X-Echo", REAL), ("Location", f"/v1?key={REAL_SECRET}"), ("X-Hex", REAL_SECRET.encode().hex())
    )
    response = ask(gateway.port, *carried(API, "query", "scripted"))
    assert REAL_SECRET not in repr(response.headers)
    assert REAL_SECRET.encode().hex() not in repr(response.headers)
    assert response.header("x-echo") == "Bearer " + "*" * len(REAL_SECRET)


def test_echoed_request_holds_no_credential(gateway: Mitm, upstream: Recorder) -> None:
    """The upstream tells all it was sent; what reaches the client is the request without its secret."""
    response = ask(gateway.port, *carried(API, "query", "v1/echo?a=%20&&b"))
    echoed = json.loads(response.body)
    assert echoed["target"] == "/v1/echo?a=%20&&b"
    assert REAL_SECRET not in response.body.decode()
    assert "presign" not in response.body.decode().lower()


def test_tls_upstream_sees_its_own_name(gateway: Mitm, tls_upstream: Recorder) -> None:
    port = tls_upstream.tls_port
    host = f"api.tls.test:{port}"
    with connect_tls(gateway.port, "api.tls.test", port, None, gateway.ca) as sock:
        sent = wire("/v1/models", Grant("conn_tls").headers, host=host)
        assert code(parse_response(exchange(sock, sent))) == (200, None)
    assert code(ask(gateway.port, Grant("conn_tls").target("v1/models"))) == (200, None)
    for request in tls_upstream.wait_for(2):
        assert (request.sni, request.all("host")) == ("api.tls.test", [host])
        assert request.all("authorization") == [REAL]


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9"])
def test_request_that_says_it_came_over_another_version_is_refused(
    version: str, gateway: Mitm, upstream: Recorder
) -> None:
    """The rules of that version ask for no Host, and for no framing."""
    request = wire(API.target("v1/models")).replace(b"HTTP/1.1", version.encode())
    for data in (request, request.replace(b"Host: presign.local\r\n", b"")):
        with connect(gateway.port) as sock:
            assert code(parse_response(exchange(sock, data))) == MALFORMED
    assert not upstream.touched


@pytest.mark.parametrize("value", [b"\x0cb", b"\x0bb", b"b\x0c", b"b\x1f", b"b\r", b"\x1cb", b"\x00"])
def test_control_at_the_edge_of_a_value_is_refused(value: bytes, gateway: Mitm, upstream: Recorder) -> None:
    """mitmproxy strips it before anybody looks; another parser takes it for a part of the value."""
    request = wire(API.target("v1/models")).replace(b"\r\n\r\n", b"\r\nX-A: " + value + b"\r\n\r\n")
    with connect(gateway.port) as sock:
        assert code(parse_response(exchange(sock, request))) == MALFORMED
    assert not upstream.touched


@pytest.mark.parametrize("coding", [b"\x0bchunked", b"chunked\x0c", b"\x0cchunked", b"chunked\r"])
def test_coding_that_not_everybody_reads_as_chunked_is_refused(
    coding: bytes, gateway: Mitm, upstream: Recorder
) -> None:
    """To a balancer in front of the gateway the body would be the next request."""
    head = wire(API.target("v1/models"), method="POST").removesuffix(b"\r\n")
    with connect(gateway.port) as sock:
        received = exchange(sock, head + b"Transfer-Encoding:" + coding + b"\r\n\r\n0\r\n\r\n")
    response = parse_response(received)
    assert (code(response), response.header("connection")) == (MALFORMED, "close")
    assert not upstream.touched


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"deflate, chunked", b"compress, chunked"])
def test_body_in_another_coding_than_chunked_is_refused(
    coding: bytes, gateway: Mitm, upstream: Recorder
) -> None:
    """It was forwarded as chunked alone: the same octets, which now mean themselves."""
    head = wire(API.target("v1/models"), method="POST").removesuffix(b"\r\n")
    with connect(gateway.port) as sock:
        received = exchange(sock, head + b"Transfer-Encoding: " + coding + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    response = parse_response(received)
    assert (code(response), response.header("connection")) == (MALFORMED, "close")
    assert not upstream.touched


@pytest.mark.parametrize("size", [b"3 ", b"3\t", b"3;a\rb", b"3;\x00", b"3;\n", b"0" * 15 + b"3", b"3 x"])
def test_chunk_whose_size_not_everybody_reads_alike_is_not_passed_on(
    size: bytes, gateway: Mitm, upstream: Recorder
) -> None:
    """A balancer in front of the gateway may see the next request where the gateway sees the body."""
    head = wire(API.target("v1/models"), {"Transfer-Encoding": "chunked"}, method="POST")
    with connect(gateway.port) as sock:
        sock.sendall(head + size + b"\r\nabc\r\n0\r\n\r\n" + wire(API.target("v1/models")))
        sock.settimeout(5)
        while sock.recv(4096):
            pass
    assert not any(seen.complete for seen in upstream.requests)


@pytest.mark.parametrize("size", [b"3", b"003", b"3;a=b", b'3;a="b c"'])
def test_chunk_with_an_extension_is_passed_on_without_it(
    size: bytes, gateway: Mitm, upstream: Recorder
) -> None:
    head = wire(API.target("v1/models"), {"Transfer-Encoding": "chunked"}, method="POST")
    with connect(gateway.port) as sock:
        received = exchange(sock, head + size + b"\r\nabc\r\n0\r\n\r\n")
    assert parse_response(received).status == 200
    (seen,) = upstream.wait_for(1)
    assert seen.body == b"abc"


@pytest.mark.parametrize("space", [b"\x0b", b"\x0c", b"\r"])
def test_odd_space_in_a_request_line_is_refused(space: bytes, gateway: Mitm, upstream: Recorder) -> None:
    request = wire(API.target("v1/models")).replace(b"GET ", b"GET" + space)
    with connect(gateway.port) as sock:
        assert code(parse_response(exchange(sock, request))) == MALFORMED
    assert not upstream.touched


def test_body_may_hold_any_octet_and_come_with_its_head(gateway: Mitm, upstream: Recorder) -> None:
    body = bytes(range(256))
    request = wire(API.target("v1/models"), method="POST", body=b"x" * 256)
    with connect(gateway.port) as sock:
        assert parse_response(exchange(sock, request.replace(b"x" * 256, body))).status == 200
    (seen,) = upstream.wait_for(1)
    assert seen.body == body


@pytest.mark.parametrize("line", [b"X-A: b\r\n folded", b"X-A : b", b"X-\xe9: b", b"X-Presign-Foo: 1"])
def test_nothing_is_served_behind_a_malformed_request(line: bytes, gateway: Mitm, upstream: Recorder) -> None:
    """Others may see its end somewhere else than we do."""
    good = wire(API.target("v1/models"))
    bad = good.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    with connect(gateway.port) as sock:
        received = exchange(sock, bad + good)
        assert code(parse_response(received)) == MALFORMED
        sock.settimeout(5)
        assert sock.recv(1) == b""
    assert not upstream.touched


def test_nothing_is_served_behind_a_malformed_source_request(gateway: Mitm, upstream: Recorder) -> None:
    """Its refusals are all of one status, so that cannot tell."""
    good = wire(API.target("v1/models"))
    bad = wire(source_url(SECRET, "pk_img", f"{upstream.url}/a.png", 1), method=":AD")
    with connect(gateway.port) as sock:
        assert parse_response(exchange(sock, bad + good)).status == 403
        sock.settimeout(5)
        assert sock.recv(1) == b""
    assert not upstream.touched


def test_nothing_is_served_behind_a_malformed_request_to_nowhere(gateway: Mitm, upstream: Recorder) -> None:
    """It is refused for its address, before anybody looks at its method."""
    with connect(gateway.port) as sock:
        received = exchange(sock, wire("/nowhere", method=":AD") + wire(API.target("v1/models")))
        assert parse_response(received).status == 404
        sock.settimeout(5)
        assert sock.recv(1) == b""
    assert not upstream.touched


def test_presign_in_the_trailers_of_another_request_is_in_no_log(gateway: Mitm, upstream: Recorder) -> None:
    """A body that ends without its last line break runs into the next request on the connection."""
    first = wire(API.target("v1/models"), {"Transfer-Encoding": "chunked"}, method="POST")
    with connect(gateway.port) as sock:
        exchange(sock, first + b"3\r\nabc\r\n0\r\n" + wire(API.target("v1/models")))
    upstream.wait_for_heads(1)
    with connect(gateway.port) as sock:
        assert parse_response(exchange(sock, wire(API.target("v1/models")))).status == 200
    assert API.query.partition("Signature=")[2] not in gateway.log()
