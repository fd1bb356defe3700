"""What a refused client is told (SPEC §5), what it is not told, and what the audit log says instead."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import audit_log
from support.asking import SECRET, Grant, ask, code, in_an_hour, wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.process import free_port
from support.proxy import SCRIPT, Mitm
from support.puppet import eventually
from support.raw import Response, connect_tls, exchange, parse_response, send_raw
from support.recorder import Recorder
from support.signing import sign, source_url

OTHER_SECRET = "sk_a_secret_that_signs_nothing_here_012345"
BEARER = {"type": "bearer", "token": REAL_SECRET}
KEYS = [{"secret": SECRET}]


@pytest.fixture(scope="module")
def dead_port() -> int:
    """A port where nobody listens."""
    return free_port()


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, upstream: Recorder, tls_upstream: Recorder, dead_port: int) -> Mitm:
    """A gateway with a connection for every way to be refused. It denies what is unsigned."""
    source = {"scheme": "source", "mode": "signed", "formats": ["png"], "signing_keys": KEYS}
    source |= {"allow_networks": ["127.0.0.0/8"]}
    api = f"https://api.tls.test:{tls_upstream.tls_port}"
    connections = {
        "conn_api": bearer_connection(upstream.url, SECRET),
        "conn_tls": bearer_connection(api, SECRET),
        "conn_twin": bearer_connection(f"{api}/twin", SECRET),
        "conn_twin_too": bearer_connection(f"{api}/twin", SECRET),
        "conn_narrow": bearer_connection(
            upstream.url, SECRET, allow={"methods": ["GET"], "paths": ["v1/models"]}
        ),
        "conn_off": bearer_connection(upstream.url, SECRET, enabled=False),
        "conn_short": bearer_connection(upstream.url, SECRET, max_lifetime="10m"),
        "conn_mortal": bearer_connection(upstream.url, SECRET, allow_no_expiry=False),
        "conn_dead": bearer_connection(f"http://127.0.0.1:{dead_port}", SECRET),
        "conn_nowhere": bearer_connection("https://nowhere.invalid", SECRET),
        "conn_untrusted": bearer_connection(f"https://wrong.test:{tls_upstream.tls_port}", SECRET),
        "conn_slow": bearer_connection(upstream.url, SECRET, timeouts={"response": "1s"}),
        "pk_img": source | {"allowed_origins": [upstream.url]},
        "pk_off": source | {"allowed_origins": [upstream.url], "enabled": False},
        "pk_dead": source | {"allowed_origins": [f"http://127.0.0.1:{dead_port}"]},
        "pk_slow": source | {"allowed_origins": [upstream.url], "timeouts": {"response": "1s"}},
        "pk_plain": source | {"mode": "allowlist", "allowed_origins": [upstream.url]},
        "pk_intercept": source
        | {"allowed_origins": [f"http://img.test:{upstream.port}"], "intercept": True, "auth": BEARER}
        | {"insecure_upstream": True},
    }
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": connections,
        "audit": {"file": "audit.jsonl"},
    }
    dns = {name: ["127.0.0.1"] for name in ("api.tls.test", "wrong.test", "img.test", "foreign.test")}
    return module_gateway(config, dns=dns)


def flipped(signature: str) -> str:
    return signature[:-1] + format(int(signature[-1], 16) ^ 1, "x")


def spoiled(grant: Grant) -> dict[str, str]:
    """The grant's header carrier with a bad signature."""
    return grant.headers | {"X-Presign-Signature": flipped(grant.headers["X-Presign-Signature"])}


API, TLS = Grant("conn_api"), Grant("conn_tls")
PROXIED = "/api/proxy/conn_api/v1/models"
Asked = tuple[str, dict[str, str]]
"""A target at `presign.local`, and headers."""


def at_api(grant: Grant, path: str = "v1/models") -> Asked:
    return f"/api/proxy/{grant.connection}/{path}", grant.headers


# One request or more for every line of the table: (status, code) and what is asked.
REFUSALS: dict[str, tuple[int, str, str, Asked]] = {
    "no presign": (400, "malformed", "GET", (PROXIED, {})),
    "a field missing": (
        400,
        "malformed",
        "GET",
        (PROXIED, {"X-Presign-Signature": "0" * 64}),
    ),
    "a field twice": (
        400,
        "malformed",
        "GET",
        (f"{PROXIED}?{API.query}&X-Presign-Paths=*", {}),
    ),
    "two carriers": (400, "malformed", "GET", (f"{PROXIED}?{API.query}", API.headers)),
    "an unknown field": (400, "malformed", "GET", (PROXIED, API.headers | {"X-Presign-Admin": "1"})),
    "expires in milliseconds": (
        400,
        "malformed",
        "GET",
        at_api(Grant("conn_api", expires=in_an_hour() * 1000)),
    ),
    "lists out of order": (400, "malformed", "GET", at_api(Grant("conn_api", methods="POST,GET"))),
    "an unknown connection": (403, "invalid", "GET", at_api(Grant("conn_nobody"))),
    "a bad signature": (403, "invalid", "GET", (PROXIED, spoiled(API))),
    "a signature of somebody else": (403, "invalid", "GET", at_api(Grant("conn_api", secret=OTHER_SECRET))),
    "a connection of the other scheme": (403, "invalid", "GET", at_api(Grant("pk_img"))),
    "expired": (403, "expired", "GET", at_api(Grant("conn_api", expires=int(time.time()) - 5))),
    "disabled": (403, "revoked", "GET", at_api(Grant("conn_off"))),
    "a method not signed": (403, "method_not_allowed", "POST", at_api(Grant("conn_api", "GET"))),
    "a method the connection does not allow": (
        403,
        "method_not_allowed",
        "POST",
        at_api(Grant("conn_narrow")),
    ),
    "HEAD where GET was signed": (403, "method_not_allowed", "HEAD", at_api(Grant("conn_api", "GET"))),
    "a path not signed": (403, "path_not_allowed", "GET", at_api(Grant("conn_api", paths="v2/*"))),
    "a path the connection does not allow": (
        403,
        "path_not_allowed",
        "GET",
        at_api(Grant("conn_narrow"), "v1/files"),
    ),
    "a path with dots": (403, "path_not_allowed", "GET", at_api(API, "v1/../models")),
    "too long a lifetime": (403, "lifetime_too_long", "GET", at_api(Grant("conn_short"))),
    "no expiry where that is forbidden": (
        403,
        "no_expiry_not_allowed",
        "GET",
        at_api(Grant("conn_mortal", expires=0)),
    ),
    "no expiry where a lifetime is set": (
        403,
        "no_expiry_not_allowed",
        "GET",
        at_api(Grant("conn_short", expires=0)),
    ),
    "another host": (
        403,
        "host_mismatch",
        "GET",
        ("http://foreign.test/v1/models", API.headers),
    ),
    "unsigned": (403, "unsigned", "GET", ("http://foreign.test/v1/models", {})),
    "unknown place at the gateway": (404, "not_found", "GET", ("/healthz", {})),
    "a header over its cap": (431, "too_large", "GET", (PROXIED, API.headers | {"X-Long": "x" * 70_000})),
    "too many headers": (
        431,
        "too_large",
        "GET",
        (PROXIED, API.headers | {f"X-{n}": "1" for n in range(101)}),
    ),
    "a dead upstream": (502, "upstream", "GET", at_api(Grant("conn_dead"))),
    "an upstream that does not resolve": (502, "upstream", "GET", at_api(Grant("conn_nowhere"))),
    "an upstream with another's certificate": (502, "upstream", "GET", at_api(Grant("conn_untrusted"))),
    "an upstream that talks nonsense": (502, "upstream", "GET", at_api(API, "v1/garbage")),
    "an upstream that hangs up": (502, "upstream", "GET", at_api(API, "v1/close")),
    "an upstream that redirects to somebody else": (
        403,
        "redirect_not_allowed",
        "GET",
        at_api(API, "v1/redirect"),
    ),
    "an upstream that takes too long": (504, "upstream", "GET", at_api(Grant("conn_slow"), "v1/slow")),
}


def refused(gateway: Mitm, name: str, method: str | None = None) -> Response:
    _, _, own_method, (target, headers) = REFUSALS[name]
    host = "foreign.test" if "foreign.test" in target else "presign.local"
    return ask(gateway.port, target, headers, method or own_method, host)


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_has_its_status_code_and_shape(name: str, gateway: Mitm) -> None:
    status, expected, method, _ = REFUSALS[name]
    response = refused(gateway, name)
    assert code(response) == (status, expected)
    assert response.header("content-type") == "application/json"
    check_quiet(response)
    if method == "HEAD":
        return
    error = json.loads(response.body)["error"]
    assert json.loads(response.body) == {"error": error, "message": error["message"], "type": "error"}
    assert error.keys() == {"code", "type", "message", "request_id"}
    assert error["code"] == error["type"] == expected
    assert error["request_id"] == response.header("x-presign-request-id")
    assert re.fullmatch(r"req_[0-9A-Za-z_-]{8,64}", error["request_id"])
    assert response.header("content-length") == str(len(response.body))


def check_quiet(response: Response) -> None:
    """No secret, signature, canonical string, version or exception in an answer of ours."""
    shown = repr(response)
    for never in (REAL_SECRET, SECRET, OTHER_SECRET, "PRESIGN-HMAC", "Traceback", "conn_", "127.0.0.1"):
        assert never not in shown
    assert not re.search(r"mitmproxy|python|\b[0-9a-f]{64}\b", shown, re.IGNORECASE)
    assert response.header("server") is None
    assert response.header("via") is None
    assert "no-store" in (response.header("cache-control") or "")


@pytest.mark.parametrize(
    "name",
    [
        "no presign",
        "a bad signature",
        "expired",
        "unsigned",
        "unknown place at the gateway",
        "a dead upstream",
    ],
)
def test_refused_head_has_the_header_of_a_get_and_no_body(name: str, gateway: Mitm) -> None:
    get, head = refused(gateway, name, "GET"), refused(gateway, name, "HEAD")
    assert without_id(head) == without_id(get)._replace(body=b"")
    target, headers = REFUSALS[name][3]
    host = "foreign.test" if "foreign.test" in target else "presign.local"
    raw = send_raw(gateway.port, wire(target, {**headers, "Connection": "close"}, "HEAD", host))
    assert raw.endswith(b"\r\n\r\n"), raw


def without_id(response: Response) -> Response:
    """The response with its request id, in header and body, blotted out."""
    text = response.header("x-presign-request-id") or "-"
    headers = [(name, value.replace(text, "*")) for name, value in response.headers]
    return response._replace(headers=headers, body=response.body.replace(text.encode(), b"*"))


def test_request_ids_are_unique_and_on_forwarded_responses_too(gateway: Mitm, upstream: Recorder) -> None:
    responses = [ask(gateway.port, *at_api(API)) for _ in range(20)]
    responses += [ask(gateway.port, *at_api(API, "v1/status?code=404")) for _ in range(5)]
    responses += [refused(gateway, "a bad signature") for _ in range(20)]
    ids = {response.header("x-presign-request-id") for response in responses}
    assert len(ids) == len(responses)
    assert None not in ids
    assert all(response.header("x-presign-error") is None for response in responses[:25])
    for request in upstream.wait_for(25):
        assert b"req_" not in request.raw


def test_forwarded_source_has_a_request_id(gateway: Mitm, upstream: Recorder) -> None:
    response = ask(gateway.port, source_url(SECRET, "pk_img", f"{upstream.url}/a.png", in_an_hour(), "png"))
    assert response.status == 200
    assert response.header("x-presign-request-id")
    assert response.header("x-presign-error") is None


def test_request_id_of_the_upstream_or_of_the_client_does_not_become_ours(
    gateway: Mitm, upstream: Recorder
) -> None:
    response = ask(gateway.port, PROXIED, API.headers | {"X-Presign-Request-Id": "req_of_the_client"})
    assert code(response) == (400, "malformed")
    assert response.header("x-presign-request-id") != "req_of_the_client"
    assert not upstream.touched


# -- one answer for all that is invalid ----------------------------------------------------------------


def through_tunnel(gateway: Mitm, upstream: Recorder, headers: dict[str, str], path: str) -> bytes:
    port = upstream.tls_port
    with connect_tls(gateway.port, "api.tls.test", port, None, gateway.ca) as sock:
        return exchange(sock, wire(path, headers, host=f"api.tls.test:{port}"))


def blotted(received: bytes) -> bytes:
    found = re.search(rb"X-Presign-Request-Id: (\S+)", received, re.IGNORECASE)
    assert found, received
    assert received.count(found[1]) == 2
    return received.replace(found[1], b"*" * len(found[1]))


def test_all_that_is_invalid_gets_one_identical_answer(gateway: Mitm, tls_upstream: Recorder) -> None:
    nobody, other = Grant("conn_nobody"), Grant("conn_api", secret=OTHER_SECRET)

    def direct(target: str, headers: dict[str, str]) -> bytes:
        return send_raw(gateway.port, wire(target, headers))

    late = {"X-Presign-Expires": str(int(time.time()) - 99)}
    answers = {
        "unknown connection": direct(*at_api(nobody)),
        "unknown connection, query": direct(nobody.target("v1/models"), {}),
        "unknown connection, token": direct(f"/p/{nobody.token}/v1/models", {}),
        "unknown connection, key": direct(
            PROXIED.replace("api/v1", "nobody/v1"), {"Authorization": nobody.token}
        ),
        "bad signature": direct(PROXIED, spoiled(API)),
        "bad signature, query": direct(other.target("v1/models"), {}),
        "bad signature, token": direct(f"/p/{other.token}/v1/models", {}),
        "bad signature and expired": direct(PROXIED, spoiled(API) | late),
        "bad signature and a bad path": direct(PROXIED + "/../x", spoiled(API)),
        "bad signature of a disabled connection": direct(*at_api(Grant("conn_off", secret=OTHER_SECRET))),
        "bad signature, lists out of order": direct(
            *at_api(Grant("conn_api", "POST,GET", secret=OTHER_SECRET))
        ),
        "the other scheme": direct(*at_api(Grant("pk_img"))),
        "no connection named, none matches": send_raw(
            gateway.port, wire("http://foreign.test/v1/models", TLS.unnamed, host="foreign.test")
        ),
        "no connection named, several match": through_tunnel(
            gateway, tls_upstream, Grant("conn_twin").unnamed, "/twin/v1/models"
        ),
        "named, bad signature": through_tunnel(gateway, tls_upstream, spoiled(TLS), "/v1/models"),
    }
    distinct = {blotted(answer) for answer in answers.values()}
    assert len(distinct) == 1, distinct
    assert parse_response(distinct.pop()).status == 403
    assert not tls_upstream.touched


# -- scheme source --------------------------------------------------------------------------------------


def src(upstream: Recorder, project: str = "pk_img", path: str = "/a.png", **other: Any) -> str:
    values: dict[str, Any] = {"exp": in_an_hour(), "image_format": "png"} | other
    return source_url(SECRET, project, f"{upstream.url}{path}", **values)


SOURCE_REFUSALS: dict[str, Callable[[Recorder], str]] = {
    "bad signature": lambda up: src(up).replace("sig=", "sig=0")[:-1],
    "another signature": lambda up: re.sub("sig=[0-9a-f]{64}", "sig=" + "0" * 64, src(up)),
    "unknown project": lambda up: src(up, "pk_nobody"),
    "presign connection": lambda up: src(up, "conn_api"),
    "expired": lambda up: src(up, exp=int(time.time()) - 5),
    "exp=0": lambda up: src(up, exp=0),
    "exp missing": lambda up: src(up).partition("&exp=")[0],
    "exp twice": lambda up: src(up) + "&exp=1",
    "format not served": lambda up: src(up, image_format="exe"),
    "disabled": lambda up: src(up, "pk_off"),
    "origin not allowed": lambda up: source_url(
        SECRET, "pk_img", "http://foreign.test/a.png", in_an_hour(), "png"
    ),
    "plain text in signed mode": lambda up: f"/v1/pk_img/127.0.0.1:{up.port}/a.png.png",
    "signed in allowlist mode": lambda up: src(up, "pk_plain"),
    "plain text, not listed": lambda up: "/v1/pk_plain/foreign.test/a.png.png",
    "not base64url": lambda up: src(up).replace("/v1/pk_img/", "/v1/pk_img/!"),
    "presign beside it": lambda up: f"{src(up)}&{API.query}",
}


def test_all_refusals_of_a_source_are_one_bare_403(gateway: Mitm, upstream: Recorder) -> None:
    answers = {
        name: send_raw(gateway.port, wire(make(upstream), host="presign.local"))
        for name, make in SOURCE_REFUSALS.items()
    }
    answers["POST"] = send_raw(gateway.port, wire(src(upstream), method="POST"))
    distinct = set(answers.values())
    assert len(distinct) == 1, answers
    response = parse_response(distinct.pop())
    assert (response.status, response.body) == (403, b"Forbidden")
    assert response.header("x-presign-error") is None
    check_quiet(response)
    assert not upstream.touched


def test_refused_intercepted_source_is_the_same_bare_403(gateway: Mitm, upstream: Recorder) -> None:
    host, exp = f"img.test:{upstream.port}", in_an_hour()
    signature = sign(SECRET, f"pk_intercept:http://{host}/a.png:{exp}")
    bad = [
        f"/b.png?sig={signature}&exp={exp}",
        f"/a.png?sig={signature}&exp={exp + 1}",
        f"/a.png?sig={signature}&exp={exp}&key=pk_nobody",
    ]
    expected = send_raw(gateway.port, wire(src(upstream, "pk_nobody")))
    for target in bad:
        assert send_raw(gateway.port, wire(f"http://{host}{target}", host=host)) == expected
    assert not upstream.touched
    assert ask(gateway.port, f"http://{host}/a.png?sig={signature}&exp={exp}", host=host).status == 200


UNFETCHABLE = {
    "nonsense": ("pk_img", "/garbage", 502, b"Bad Gateway"),
    "hangs up": ("pk_img", "/close", 502, b"Bad Gateway"),
    "dead": ("pk_dead", "/a.png", 502, b"Bad Gateway"),
    "too slow": ("pk_slow", "/slow", 504, b"Gateway Timeout"),
}


@pytest.mark.parametrize("case", UNFETCHABLE)
def test_source_that_cannot_be_fetched_keeps_its_status_and_says_no_more(
    case: str, gateway: Mitm, upstream: Recorder, dead_port: int
) -> None:
    project, path, status, reason = UNFETCHABLE[case]
    origin = f"http://127.0.0.1:{dead_port}" if case == "dead" else upstream.url
    response = ask(gateway.port, source_url(SECRET, project, origin + path, in_an_hour(), "png"))
    assert (response.status, response.body) == (status, reason)
    assert response.header("x-presign-error") is None
    check_quiet(response)


def test_source_with_a_head_over_its_cap_is_the_same_bare_403(gateway: Mitm, upstream: Recorder) -> None:
    response = ask(gateway.port, src(upstream), {"X-Long": "x" * 70_000})
    assert response == ask(gateway.port, src(upstream, "pk_nobody"))
    assert not upstream.touched


def test_refused_source_head_has_no_body(gateway: Mitm, upstream: Recorder) -> None:
    target = src(upstream, "pk_nobody")
    get, head = ask(gateway.port, target), ask(gateway.port, target, method="HEAD")
    assert head == get._replace(body=b"")
    raw = send_raw(gateway.port, wire(target, {"Connection": "close"}, "HEAD"))
    assert raw.endswith(b"\r\n\r\n")


# -- nothing of the server shows ------------------------------------------------------------------------

PRESIGNED = wire(PROXIED, API.headers)
UNPARSEABLE: dict[str, bytes] = {
    "no target": b"GET\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: presign.local\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: presign.local\r\n\r\n",
    "a line without a colon": b"GET / HTTP/1.1\r\nHost: presign.local\r\nnonsense\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : presign.local\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: presign.local\r\n folded\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: presign.local\r\nX: a\x00b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: presign.local\r\nHost: foreign.test\r\n\r\n",
    "a URL that is none": b"GET http:///a HTTP/1.1\r\nHost: presign.local\r\n\r\n",
    "another scheme": b"GET ftp://foreign.test/ HTTP/1.1\r\nHost: foreign.test\r\n\r\n",
    "a bad port": b"GET http://foreign.test:99999/ HTTP/1.1\r\nHost: foreign.test\r\n\r\n",
    "a length that is none": PRESIGNED[:-2] + b"Content-Length: -1\r\n\r\n",
    "two lengths": PRESIGNED[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": PRESIGNED[:-2] + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": PRESIGNED[:-2] + b"Transfer-Encoding: gzip\r\n\r\n",
    "a bad chunk": PRESIGNED[:-2] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "CONNECT to nothing": b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT to a bad port": b"CONNECT presign.local:99999 HTTP/1.1\r\nHost: presign.local\r\n\r\n",
    "CONNECT to a foreign host": b"CONNECT foreign.test:443 HTTP/1.1\r\nHost: foreign.test:443\r\n\r\n",
    "CONNECT with a presign": b"CONNECT api.tls.test:443 HTTP/1.1\r\nHost: a\r\nX-Presign-Paths: *\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: presign.local\r\n\r\n",
    "a request line without end": b"GET /" + b"a" * 70_000,
    "a header without end": b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000,
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", UNPARSEABLE)
def test_answer_to_an_unparseable_head_names_no_server(name: str, gateway: Mitm, upstream: Recorder) -> None:
    received = send_raw(gateway.port, UNPARSEABLE[name])
    check_anonymous(received)
    if received:
        assert 400 <= parse_response(received).status < 500
    assert not upstream.requests or not upstream.requests[0].complete


def check_anonymous(received: bytes) -> None:
    assert not re.search(rb"mitmproxy|\bpython|cpython", received, re.IGNORECASE), received
    assert not re.search(rb"^(server|via|x-powered-by):", received, re.IGNORECASE | re.MULTILINE), received
    for never in (SECRET.encode(), API.headers["X-Presign-Signature"].encode(), b"Traceback"):
        assert never not in received


def test_unparseable_head_is_answered_in_json_with_an_id(gateway: Mitm) -> None:
    response = parse_response(send_raw(gateway.port, UNPARSEABLE["a line without a colon"]))
    assert code(response) == (400, "malformed")
    error = json.loads(response.body)["error"]
    assert error["request_id"] == response.header("x-presign-request-id")


@pytest.mark.parametrize("path", ["/v1/garbage", "/v1/close", "/v1/models"])
def test_answers_in_http2_name_no_server(path: str, gateway: Mitm) -> None:
    for headers in (API.headers, spoiled(API), {}):
        with H2Client.through(gateway.port, "presign.local", 443, None, gateway.ca) as client:
            head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
            fields = [(name.lower(), value) for name, value in headers.items()]
            reply = client.request([*head, (":path", f"/api/proxy/conn_api{path}"), *fields])
        check_anonymous(reply.received)
        assert reply.header("x-presign-request-id")


def test_refused_http2_head_has_no_body(gateway: Mitm) -> None:
    head = [(":scheme", "https"), (":authority", "presign.local"), (":path", "/healthz")]
    with H2Client.through(gateway.port, "presign.local", 443, None, gateway.ca) as client:
        replies = [client.request([(":method", method), *head]) for method in ("GET", "HEAD")]
    assert [reply.status for reply in replies] == [404, 404]
    assert [bool(reply.body) for reply in replies] == [True, False]
    names = [[name for name, _ in reply.headers] for reply in replies]
    assert names[0] == names[1]


# -- no registry ----------------------------------------------------------------------------------------


def test_gateway_whose_script_was_deleted_refuses_in_both_schemes(
    make_gateway: MakeGateway, upstream: Recorder, tmp_path: Path
) -> None:
    source = {"scheme": "source", "mode": "signed", "formats": ["png"], "signing_keys": KEYS}
    source |= {"allowed_origins": [upstream.url], "allow_networks": ["127.0.0.0/8"]}
    config = {"connections": {"conn_api": bearer_connection(upstream.url, SECRET), "pk_img": source}}
    gateway = make_gateway(config, start=False)
    script = tmp_path / "presign.py"
    shutil.copy(SCRIPT, script)
    gateway.argv = [str(script) if arg == str(SCRIPT) else arg for arg in gateway.argv]
    gateway.start()
    assert ask(gateway.port, *at_api(API)).status == 200
    script.unlink()
    deadline = time.monotonic() + 10
    while (response := ask(gateway.port, *at_api(API))).status == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert code(response) == (503, "unavailable")
    check_quiet(response)
    response = ask(gateway.port, src(upstream))
    assert (response.status, response.body) == (503, b"Service Unavailable")


# -- the audit log --------------------------------------------------------------------------------------


def audit_lines(gateway: Mitm) -> list[dict[str, Any]]:
    return audit_log.audit_lines(gateway.directory / "audit.jsonl")


def audited(gateway: Mitm, request_id: str | None) -> dict[str, Any]:
    """The one line about a request, which is written a moment after its answer."""
    deadline = time.monotonic() + 5
    while not (found := [one for one in audit_lines(gateway) if one["request_id"] == request_id]):
        assert time.monotonic() < deadline, f"no line for {request_id}"
        time.sleep(0.02)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_is_audited_once_with_the_id_of_its_answer(name: str, gateway: Mitm) -> None:
    status, expected, method, _ = REFUSALS[name]
    line = audited(gateway, refused(gateway, name).header("x-presign-request-id"))
    assert (line["status"], line["method"]) == (status, method)
    if expected == "redirect_not_allowed":  # the upstream was asked
        assert (line["decision"], line["code"]) == ("forward", expected)
    elif status < 500:
        assert (line["decision"], line["code"]) == ("deny", expected)
        assert line["detail"]
    assert line["client"] == "127.0.0.1"


def test_permit_is_audited_with_what_was_forwarded(gateway: Mitm) -> None:
    response = ask(gateway.port, API.target("v1/%7Euser/status?code=404&secret=queryvalue"), body=b"12345")
    line = audited(gateway, response.header("x-presign-request-id"))
    expected = {
        "decision": "forward",
        "scheme": "presign",
        "carrier": "query",
        "connection": "conn_api",
        "method": "GET",
        "path": "/v1/~user/status",
        "client": "127.0.0.1",
        "code": None,
        "status": 404,
        "upstream_status": 404,
    }
    assert {name: line[name] for name in expected} == expected
    assert abs(line["time"] - time.time()) < 60


@pytest.mark.parametrize("carrier", ["query", "header", "path", "key"])
def test_audit_names_the_carrier(carrier: str, gateway: Mitm) -> None:
    target, headers = {
        "query": (API.target("v1/models"), {}),
        "header": (PROXIED, API.headers),
        "path": (f"/p/{API.token}/v1/models", {}),
        "key": (PROXIED, {"Authorization": f"Bearer {API.token}"}),
    }[carrier]
    line = audited(gateway, ask(gateway.port, target, headers).header("x-presign-request-id"))
    assert (line["decision"], line["carrier"]) == ("forward", carrier)


def test_audit_of_a_source_holds_origin_and_path_only(gateway: Mitm, upstream: Recorder) -> None:
    target = src(upstream, path="/a.png?token=queryvalue")
    line = audited(gateway, ask(gateway.port, target).header("x-presign-request-id"))
    assert (line["scheme"], line["connection"]) == ("source", "pk_img")
    assert line["path"] == f"{upstream.url}/a.png"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/api/proxy/conn_api/v1/hiddenpath", spoiled(API)),
        ("/api/proxy/conn_nobody/v1/hiddenpath", Grant("conn_nobody").headers),
        ("/api/proxy/conn_api/v1/hiddenpath", {}),
        ("/hiddenpath?hiddenquery=1", {}),
        ("http://foreign.test/hiddenpath", {}),
        ("http://foreign.test/hiddenpath", {"X-Presign-Paths": "hiddenpath"}),
    ],
)
def test_audit_holds_no_path_before_a_good_signature(
    target: str, headers: dict[str, str], gateway: Mitm
) -> None:
    host = "foreign.test" if "foreign.test" in target else "presign.local"
    response = ask(gateway.port, target, headers, host=host)
    line = audited(gateway, response.header("x-presign-request-id"))
    assert line["path"] is None
    assert "hidden" not in json.dumps(line)


def test_audit_holds_no_path_of_a_source_before_a_good_signature(gateway: Mitm, upstream: Recorder) -> None:
    before = len(audit_lines(gateway))
    ask(gateway.port, src(upstream, "pk_nobody", "/hiddenpath.png"))
    ask(gateway.port, re.sub("sig=[0-9a-f]{64}", "sig=" + "0" * 64, src(upstream, path="/hiddenpath.png")))
    deadline = time.monotonic() + 5
    while len(found := audit_lines(gateway)[before:]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [(one["scheme"], one["decision"], one["status"]) for one in found] == [("source", "deny", 403)] * 2
    assert "hidden" not in json.dumps(found)


def test_the_audit_log_tells_a_source_without_a_signature_from_one_of_no_project(
    gateway: Mitm, upstream: Recorder
) -> None:
    """Both answers are the same; the line said of both that there is no such project."""
    before = len(audit_lines(gateway))
    plain = f"127.0.0.1:{upstream.port}/hiddenpath.png.png"
    answers = [
        ask(gateway.port, target)
        for target in (
            f"/v1/pk_img/{plain}",
            f"/v1/pk_nobody/{plain}",
            re.sub("sig=[0-9a-f]{64}", "sig=" + "0" * 64, src(upstream)),
        )
    ]
    assert len({(one.status, one.body) for one in answers}) == 1
    assert eventually(lambda: len(audit_lines(gateway)[before:]) == 3, 20)
    found = audit_lines(gateway)[before:]
    assert [one["connection"] for one in found] == ["pk_img", None, "pk_img"]
    assert [one["detail"] for one in found[:2]] == [
        "the project is in signed mode, and the URL has no sig",
        "there is no such project",
    ]
    assert "hidden" not in json.dumps(found)


def test_there_is_one_line_for_every_decision(gateway: Mitm) -> None:
    before = len(audit_lines(gateway))
    ids = [ask(gateway.port, *at_api(API)).header("x-presign-request-id") for _ in range(10)]
    ids += [refused(gateway, "expired").header("x-presign-request-id") for _ in range(10)]
    for request_id in ids:
        audited(gateway, request_id)
    lines = audit_lines(gateway)[before:]
    assert [line["request_id"] for line in lines] == ids


def test_audit_log_holds_nothing_that_could_be_used(gateway: Mitm) -> None:
    """Last in this file: it reads what all the tests above have left."""
    log = gateway.directory / "audit.jsonl"
    assert log.stat().st_mode & 0o077 == 0
    text = log.read_text("utf-8")
    assert len(text.splitlines()) > 50
    for never in (REAL_SECRET, SECRET, OTHER_SECRET, "ps1_", "queryvalue", "PRESIGN-HMAC"):
        assert never not in text
    assert not re.search(r"[0-9a-fA-F]{64}", text)
