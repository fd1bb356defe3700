"""Every form in which a request may be addressed (SPEC §1.2), on one port, and the forms that lie."""

import base64
import contextlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.asking import SECRET, Grant, ask, code, in_an_hour, wire
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.machine import needs_ipv6
from support.proxy import Mitm
from support.raw import (
    Response,
    Tls,
    connect,
    connect_tls,
    exchange,
    parse_response,
    send_raw,
)
from support.recorder import Recorder
from support.signing import presign_params, sign, source_url

HOSTS = ("api", "base", "one", "twin", "keyed", "vault", "other", "nobody")
NAMES = tuple(f"{host}.tls.test" for host in HOSTS)
API = Grant("conn_api")
FORWARDED = (200, None)
INVALID = (403, "invalid")
MISMATCH = (403, "host_mismatch")
MALFORMED = (400, "malformed")


@pytest.fixture(scope="module")
def trap(tls_upstream: Recorder) -> dict[str, list[str]]:
    """Every name of these tests leads to the recorder: what is let through by mistake arrives."""
    evil = {"evil.test": [f"127.0.0.1#{tls_upstream.port}"]}
    return evil | {
        name: ["127.0.0.1"] for name in (*NAMES, "img.tls.test", "sub.img.tls.test", "evilimg.tls.test")
    }


def auth_header(name: str) -> dict[str, Any]:
    return {"type": "header", "headers": {name: REAL_SECRET}}


def connections(port: int, tls_port: int) -> dict[str, Any]:
    def at(host: str, base: str = "", **extra: Any) -> dict[str, Any]:
        return bearer_connection(f"https://{host}.tls.test:{tls_port}{base}", SECRET, **extra)

    query = {"type": "query", "params": {"key": REAL_SECRET}}
    keys = [{"secret": SECRET}]
    source = {"scheme": "source", "formats": ["png", "webp"], "allow_networks": ["127.0.0.0/8"]}
    img = f"http://img.tls.test:{port}"
    return {
        "conn_api": at("api"),
        "conn_base": at("base", "/base"),
        "conn_one": at("one", "/one"),
        "conn_two": at("one", "/two"),
        "conn_twin_a": at("twin"),
        "conn_twin_b": at("twin"),
        "conn_plain": bearer_connection(f"http://127.0.0.1:{port}", SECRET),
        "conn_xkey": at("keyed", "/xkey") | {"auth": auth_header("X-Api-Key")},
        "conn_private": at("keyed", "/private") | {"auth": auth_header("PRIVATE-TOKEN")},
        "conn_query": at("keyed", "/query") | {"auth": query},
        "pk_signed": source | {"mode": "signed", "allowed_origins": [img], "signing_keys": keys},
        "pk_secure": source
        | {
            "mode": "signed",
            "allowed_origins": [f"https://vault.tls.test:{tls_port}"],
            "signing_keys": keys,
            "intercept": True,
            "auth": {"type": "bearer", "token": REAL_SECRET},
        },
        "pk_plain": source | {"mode": "allowlist", "allowed_origins": [img]},
        "pk_tls": source
        | {"mode": "allowlist", "allowed_origins": [f"https://img.tls.test:{tls_port}", img]},
    }


@pytest.fixture(scope="module")
def config(tls_upstream: Recorder) -> dict[str, Any]:
    return {
        "gateway": {"hosts": ["presign.local", "presign.click"]},
        "connections": connections(tls_upstream.port, tls_upstream.tls_port),
    }


@pytest.fixture(scope="module")
def front(module_gateway: MakeGateway, config: dict[str, Any], trap: dict[str, list[str]]) -> Mitm:
    """The gateway; it passes what is not ours."""
    return module_gateway(config, dns=trap)


def ask_tls(front: Mitm, host: str, port: int, request: bytes, sni: str | None = None) -> Response:
    """CONNECT, TLS and one HTTP/1.1 request."""
    with connect_tls(front.port, host, port, sni, front.ca) as sock:
        return parse_response(exchange(sock, request))


def ask_h2(
    client: H2Client, authority: str, path: str, *fields: tuple[str, str]
) -> tuple[int | None, str | None]:
    head = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)]
    with client:
        reply = client.request([*head, *((name.lower(), value) for name, value in fields)])
    return reply.status, reply.header("x-presign-error")


# -- gateway form -------------------------------------------------------------------------------------

Send = Callable[[Mitm, str], tuple[int | None, str | None]]


def _direct(host: str) -> Send:
    return lambda front, target: code(ask(front.port, target, host=host.format(port=front.port)))


def _absolute(host: str, sni: str = "") -> Send:
    def send(front: Mitm, target: str) -> tuple[int | None, str | None]:
        name = host.format(port=front.port)
        tls = Tls(sni, front.ca) if sni else None
        return code(ask(front.port, f"http://{name}{target}", host=name, tls=tls))

    return send


def _direct_tls(sni: str, host: str) -> Send:
    return lambda front, target: code(
        ask(front.port, target, host=host.format(port=front.port), tls=Tls(sni, front.ca))
    )


def _direct_h2(sni: str, host: str) -> Send:
    return lambda front, target: ask_h2(
        H2Client.direct(front.port, sni, front.ca), host.format(port=front.port), target
    )


def _tunnel(host: str, port: int) -> Send:
    def send(front: Mitm, target: str) -> tuple[int | None, str | None]:
        named = host if port == 443 else f"{host}:{port}"
        return code(ask_tls(front, host, port, wire(target, host=named)))

    return send


def _tunnel_h2(front: Mitm, target: str) -> tuple[int | None, str | None]:
    return ask_h2(H2Client.through(front.port, "presign.local", 443, None, front.ca), "presign.local", target)


def _tunnel_plain(front: Mitm, target: str) -> tuple[int | None, str | None]:
    with connect(front.port) as sock:
        head = b"CONNECT presign.local:80 HTTP/1.1\r\nHost: presign.local:80\r\n\r\n"
        sock.sendall(head)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        return code(parse_response(exchange(sock, wire(target))))


GATEWAY_FORMS: dict[str, Send] = {
    "direct, a gateway name": _direct("presign.local"),
    "direct, a gateway name in capitals": _direct("PRESIGN.Local"),
    "direct, a gateway name and the port": _direct("presign.local:{port}"),
    "direct, a gateway name and any port": _direct("presign.click:8443"),
    "direct, a gateway name and a final dot": _direct("presign.local."),
    "direct, localhost": _direct("localhost:{port}"),
    "direct, 127.0.0.1": _direct("127.0.0.1:{port}"),
    "direct, another loopback address": _direct("127.8.8.8:{port}"),
    "direct, [::1]": _direct("[::1]:{port}"),
    "absolute form, a gateway name": _absolute("presign.local"),
    "absolute form, a gateway name and a port": _absolute("presign.local:8080"),
    "absolute form, localhost": _absolute("localhost:{port}"),
    "absolute form, to a TLS proxy": _absolute("presign.local", "localhost"),
    "direct TLS, a gateway name": _direct_tls("presign.local", "presign.local"),
    "direct TLS, a gateway name and the port": _direct_tls("presign.local", "presign.local:{port}"),
    "direct TLS without SNI": _direct_tls("127.0.0.1", "127.0.0.1:{port}"),
    "direct TLS, localhost": _direct_tls("localhost", "localhost:{port}"),
    "direct h2, a gateway name": _direct_h2("presign.local", "presign.local"),
    "direct h2, a gateway name and the port": _direct_h2("presign.local", "presign.local:{port}"),
    "direct h2 without SNI": _direct_h2("127.0.0.1", "127.0.0.1:{port}"),
    "direct h2, localhost": _direct_h2("localhost", "localhost:{port}"),
    "CONNECT and TLS": _tunnel("presign.local", 443),
    "CONNECT and TLS, another port": _tunnel("presign.local", 8443),
    "CONNECT and h2": _tunnel_h2,
    "CONNECT and plain HTTP": _tunnel_plain,
}


@pytest.mark.parametrize("form", GATEWAY_FORMS)
def test_gateway_form_is_forwarded(form: str, front: Mitm, tls_upstream: Recorder) -> None:
    assert GATEWAY_FORMS[form](front, API.target("v1/models")) == FORWARDED
    check_forwarded(tls_upstream, "/v1/models")


@pytest.mark.parametrize("form", GATEWAY_FORMS)
def test_anything_else_at_a_gateway_host_is_not_found(form: str, front: Mitm, tls_upstream: Recorder) -> None:
    assert GATEWAY_FORMS[form](front, f"/other?{API.query}") == (404, "not_found")
    assert not tls_upstream.touched


def check_forwarded(upstream: Recorder, target: str) -> None:
    (request,) = upstream.wait_for(1)
    assert request.target == target
    assert request.all("authorization") == [f"Bearer {REAL_SECRET}"]
    assert b"presign" not in request.raw.lower()
    assert b"ps1_" not in request.raw


@needs_ipv6
def test_gateway_answers_on_an_ipv6_listener(
    make_gateway: MakeGateway, config: dict[str, Any], trap: dict[str, list[str]], tls_upstream: Recorder
) -> None:
    gateway = make_gateway(config, dns=trap, start=False)
    gateway.argv += ["--mode", f"regular@127.0.0.1:{gateway.port}", "--mode", f"regular@::1:{gateway.port}"]
    gateway.start()
    with socket.create_connection(("::1", gateway.port), 10) as sock:
        request = wire(API.target("v1/models"), host=f"[::1]:{gateway.port}")
        assert code(parse_response(exchange(sock, request))) == FORWARDED
    check_forwarded(tls_upstream, "/v1/models")


def test_gateway_names_are_never_looked_up(front: Mitm) -> None:
    for host in ("presign.local", "presign.click"):
        assert code(ask(front.port, f"http://{host}/", host=host)) == (404, "not_found")
        assert code(ask_tls(front, host, 443, wire("/", host=host))) == (404, "not_found")
    assert not {"presign.local", "presign.click"} & set(front.lookups())


NOT_FORMS = [
    "/",
    "/favicon.ico",
    "/api/proxy",
    "/api",
    "/API/proxy/conn_api/v1/models",
    "/p",
    "/v1",
    "/v2/x/y",
]


@pytest.mark.parametrize("path", NOT_FORMS)
@pytest.mark.parametrize("query", ["", f"?{API.query}"], ids=["bare", "presigned"])
def test_unknown_path_at_a_gateway_host_is_answered_in_json(
    path: str, query: str, front: Mitm, tls_upstream: Recorder
) -> None:
    response = ask(front.port, path + query)
    assert code(response) == (404, "not_found")
    assert response.header("content-type") == "application/json"
    assert json.loads(response.body)["error"]["code"] == "not_found"
    assert not tls_upstream.touched


@pytest.mark.parametrize("target", ["/api/proxy/conn_api/v1/models", "/api/proxy/conn_api/"])
def test_gateway_url_without_a_presign_is_malformed(target: str, front: Mitm, tls_upstream: Recorder) -> None:
    assert code(ask(front.port, target)) == MALFORMED
    assert not tls_upstream.touched


@pytest.mark.parametrize("host", ["127.0.0.1:{other}", "localhost:{other}"])
def test_loopback_with_another_port_is_not_the_gateway(
    host: str, front: Mitm, tls_upstream: Recorder
) -> None:
    host = host.format(other=tls_upstream.port)
    assert code(ask(front.port, f"http://{host}/other", host=host)) == FORWARDED
    (request,) = tls_upstream.wait_for(1)
    assert request.target == "/other"


# -- interception -------------------------------------------------------------------------------------


def carried(grant: Grant, carrier: str, *, named: bool, path: str) -> tuple[str, dict[str, str]]:
    """Target and headers of a request that carries a grant to the API itself."""
    if carrier == "header":
        return path, grant.headers if named else grant.unnamed
    query = f"{grant.query}&X-Presign-Connection={grant.connection}" if named else grant.query
    return f"{path}?{query}", {}


# Connection, host, path, named: what comes of it. Ports are those of the upstream.
INTERCEPTED = {
    "the only match": ("conn_api", "api", "/v1/models", False, FORWARDED),
    "the one that is named": ("conn_api", "api", "/v1/models", True, FORWARDED),
    "no match": ("conn_api", "nobody", "/v1/models", False, INVALID),
    "no match, but one is named": ("conn_api", "nobody", "/v1/models", True, MISMATCH),
    "several matches": ("conn_twin_a", "twin", "/v1/models", False, INVALID),
    "several matches, one named": ("conn_twin_a", "twin", "/v1/models", True, FORWARDED),
    "several matches, the other named": ("conn_twin_b", "twin", "/v1/models", True, FORWARDED),
    "below the base path": ("conn_base", "base", "/base/v1/models", False, FORWARDED),
    "below the base path, named": ("conn_base", "base", "/base/v1/models", True, FORWARDED),
    "beside the base path": ("conn_base", "base", "/v1/models", False, INVALID),
    "beside the base path, named": ("conn_base", "base", "/v1/models", True, (403, "path_not_allowed")),
    "a longer name than the base path": ("conn_base", "base", "/basement/v1/models", False, INVALID),
    "told apart by the base path": ("conn_two", "one", "/two/v1/models", False, FORWARDED),
    "the other base path": ("conn_two", "one", "/one/v1/models", False, INVALID),
    "the other base path, named": ("conn_two", "one", "/one/v1/models", True, (403, "path_not_allowed")),
    "an unknown connection is named": ("conn_nobody", "api", "/v1/models", True, INVALID),
}


@pytest.mark.parametrize("carrier", ["query", "header"])
@pytest.mark.parametrize("version", ["h1", "h2"])
@pytest.mark.parametrize("case", INTERCEPTED)
def test_intercepted_request_finds_its_connection(
    case: str, version: str, carrier: str, front: Mitm, tls_upstream: Recorder
) -> None:
    connection, host, path, named, expected = INTERCEPTED[case]
    name, port = f"{host}.tls.test", tls_upstream.tls_port
    target, headers = carried(Grant(connection, "GET", "v1/*"), carrier, named=named, path=path)
    if version == "h2":
        client = H2Client.through(front.port, name, port, None, front.ca)
        found: tuple[int | None, str | None] = ask_h2(client, f"{name}:{port}", target, *headers.items())
    else:
        found = code(ask_tls(front, name, port, wire(target, headers, host=f"{name}:{port}")))
    assert found == expected
    if expected == FORWARDED:
        check_forwarded(tls_upstream, path)
    else:
        assert not tls_upstream.touched


@pytest.mark.parametrize("carrier", ["query", "header"])
@pytest.mark.parametrize(("named", "expected"), [(True, MISMATCH), (False, INVALID)])
def test_wrong_port_is_refused(
    named: bool, expected: tuple[int, str], carrier: str, front: Mitm, tls_upstream: Recorder
) -> None:
    target, headers = carried(API, carrier, named=named, path="/v1/models")
    host = f"api.tls.test:{tls_upstream.port}"
    request = wire(target, headers, host=host)
    assert code(ask_tls(front, "api.tls.test", tls_upstream.port, request)) == expected
    assert not tls_upstream.touched


@pytest.mark.parametrize("carrier", ["query", "header"])
@pytest.mark.parametrize(("named", "expected"), [(True, MISMATCH), (False, INVALID)])
def test_http_towards_an_https_upstream_is_refused(
    named: bool, expected: tuple[int, str], carrier: str, front: Mitm, tls_upstream: Recorder
) -> None:
    target, headers = carried(API, carrier, named=named, path="/v1/models")
    for port in (tls_upstream.tls_port, tls_upstream.port):
        host = f"api.tls.test:{port}"
        assert code(ask(front.port, f"http://{host}{target}", headers, host=host)) == expected
    assert not tls_upstream.touched


def test_http_in_a_tunnel_towards_an_https_upstream_is_refused(front: Mitm, tls_upstream: Recorder) -> None:
    host = f"api.tls.test:{tls_upstream.tls_port}"
    with connect(front.port) as sock:
        sock.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert code(parse_response(exchange(sock, wire("/v1/models", API.headers, host=host)))) == MISMATCH
    assert not tls_upstream.touched


def test_tls_towards_an_http_upstream_is_refused(front: Mitm, tls_upstream: Recorder) -> None:
    host, grant = f"127.0.0.1:{tls_upstream.port}", Grant("conn_plain")
    request = wire("/v1/models", grant.headers, host=host)
    assert code(ask_tls(front, "127.0.0.1", tls_upstream.port, request)) == MISMATCH
    assert not tls_upstream.touched


def test_absolute_form_with_the_apis_own_name_is_forwarded(front: Mitm, tls_upstream: Recorder) -> None:
    host, grant = f"127.0.0.1:{tls_upstream.port}", Grant("conn_plain")
    assert code(ask(front.port, f"http://{host}/v1/models?{grant.query}", host=host)) == FORWARDED
    check_forwarded(tls_upstream, "/v1/models")


@pytest.mark.parametrize("place", ["gateway", "http API", "https API, no ALPN"])
def test_request_line_in_two_pieces_is_still_ours(place: str, front: Mitm, tls_upstream: Recorder) -> None:
    """A presign may be longer than a segment; mitmproxy takes the first one alone for something else."""
    plain, tls_port = f"127.0.0.1:{tls_upstream.port}", tls_upstream.tls_port
    if place == "gateway":
        sock, request = tunnel(front, "presign.local:80"), wire(API.target("v1/models"))
    elif place == "http API":
        target = f"/v1/models?{Grant('conn_plain').query}"
        sock, request = tunnel(front, plain), wire(target, host=plain)
    else:
        sock = connect_tls(front.port, "api.tls.test", tls_port, None, front.ca, alpn=())
        request = wire(f"/v1/models?{API.query}", host=f"api.tls.test:{tls_port}")
    with sock:
        sock.sendall(request[:100])
        time.sleep(0.1)
        received = exchange(sock, request[100:], 3)
    arrived = b"".join([*tls_upstream.fragments, *(one.raw for one in tls_upstream.requests)])
    assert b"presign" not in arrived.lower()
    assert received.startswith(b"HTTP/1.1 200 ")


# To mitmproxy a first segment is no HTTP without three letters, and a blank before the end of a line.
METHODS = ["QUERY", "PURGE", "MKCALENDAR", "VERSION-CONTROL", "M-SEARCH", "X-RUN", "Q"]


@pytest.mark.parametrize("first", [1, 2, 4, 100, 10_000], ids=lambda size: f"{size} bytes first")
@pytest.mark.parametrize("method", METHODS)
def test_a_request_with_a_rare_method_in_a_tunnel_is_ours_however_it_comes(
    method: str, first: int, front: Mitm, tls_upstream: Recorder
) -> None:
    plain = f"127.0.0.1:{tls_upstream.port}"
    request = wire(f"/v1/models?{Grant('conn_plain').query}", host=plain, method=method)
    with tunnel(front, plain) as sock:
        sock.sendall(request[:first])
        time.sleep(0.1 if first < len(request) else 0)
        received = exchange(sock, request[first:], 3)
    arrived = b"".join([*tls_upstream.fragments, *(one.raw for one in tls_upstream.requests)])
    assert b"presign" not in arrived.lower()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert parse_response(received).header("x-presign-request-id")


LIES = [names for names in itertools.product(("api", "other"), repeat=3) if set(names) == {"api", "other"}]


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("version", ["h1", "h2"])
@pytest.mark.parametrize(("dialled", "sni", "host"), LIES)
def test_names_that_disagree_are_refused(
    dialled: str, sni: str, host: str, version: str, named: bool, front: Mitm, tls_upstream: Recorder
) -> None:
    port = tls_upstream.tls_port
    dialled, sni, host = (f"{name}.tls.test" for name in (dialled, sni, host))
    target, headers = carried(API, "header", named=named, path="/v1/models")
    if version == "h2":
        client = H2Client.through(front.port, dialled, port, sni, front.ca)
        found: tuple[int | None, str | None] = ask_h2(client, f"{host}:{port}", target, *headers.items())
    else:
        found = code(ask_tls(front, dialled, port, wire(target, headers, host=f"{host}:{port}"), sni))
    assert found in ([MISMATCH] if named else [MISMATCH, INVALID])
    assert not tls_upstream.touched


@pytest.mark.parametrize(("authority", "host"), [("api", "other"), ("other", "api")])
def test_http2_host_that_disagrees_with_authority_is_refused(
    authority: str, host: str, front: Mitm, tls_upstream: Recorder
) -> None:
    port = tls_upstream.tls_port
    client = H2Client.through(front.port, "api.tls.test", port, None, front.ca)
    fields = (*API.headers.items(), ("host", f"{host}.tls.test:{port}"))
    status, _ = ask_h2(client, f"{authority}.tls.test:{port}", "/v1/models", *fields)
    assert status in (400, 403, None)
    assert not tls_upstream.touched


@pytest.mark.parametrize("host", ["api.tls.test", "api.tls.test:1", "evil.test", "presign.local"])
def test_absolute_form_that_disagrees_with_host_is_refused(
    host: str, front: Mitm, tls_upstream: Recorder
) -> None:
    grant = Grant("conn_plain")
    url = f"http://127.0.0.1:{tls_upstream.port}/v1/models"
    assert code(ask(front.port, url, grant.headers, host=host)) == MISMATCH
    assert not tls_upstream.touched


URLS_THAT_LIE = [
    "https://evil.test",
    "https://evil.test:{port}",
    "http://api.tls.test:{port}",
    "https://api.tls.test",
]


@pytest.mark.parametrize("url", URLS_THAT_LIE)
def test_whole_url_inside_a_tunnel_that_names_another_origin_is_refused(
    url: str, front: Mitm, tls_upstream: Recorder
) -> None:
    port = tls_upstream.tls_port
    target = url.format(port=port) + "/v1/models"
    request = wire(target, API.headers, host=f"api.tls.test:{port}")
    assert code(ask_tls(front, "api.tls.test", port, request)) == MISMATCH
    assert not tls_upstream.touched


def test_whole_url_inside_a_tunnel_does_not_hide_another_sni(front: Mitm, tls_upstream: Recorder) -> None:
    port = tls_upstream.tls_port
    host = f"api.tls.test:{port}"
    request = wire(f"https://{host}/v1/models", API.headers, host=host)
    assert code(ask_tls(front, "api.tls.test", port, request, "other.tls.test")) == MISMATCH
    assert not tls_upstream.touched
    assert code(ask_tls(front, "api.tls.test", port, request)) == FORWARDED


def test_gateway_host_inside_a_tunnel_to_the_api_is_refused(front: Mitm, tls_upstream: Recorder) -> None:
    request = wire(API.target("v1/models"), host="presign.local")
    response = ask_tls(front, "api.tls.test", tls_upstream.tls_port, request)
    assert response.status in (400, 403, 404)
    assert not tls_upstream.touched


def test_api_host_inside_a_tunnel_to_the_gateway_is_refused(front: Mitm, tls_upstream: Recorder) -> None:
    request = wire(API.target("v1/models"), host=f"api.tls.test:{tls_upstream.tls_port}")
    assert code(ask_tls(front, "presign.local", 443, request)) == MISMATCH
    assert not tls_upstream.touched


# -- reverse mode -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reverse(
    module_gateway: MakeGateway, config: dict[str, Any], trap: dict[str, list[str]], tls_upstream: Recorder
) -> dict[str, Mitm]:
    """A gateway in front of the plain upstream, and one in front of the TLS one."""
    targets = {
        "http": f"http://127.0.0.1:{tls_upstream.port}",
        "https": f"https://api.tls.test:{tls_upstream.tls_port}",
    }
    return {
        scheme: module_gateway(config, "--mode", f"reverse:{url}", dns=trap)
        for scheme, url in targets.items()
    }


REVERSE_OWN = {"http": Grant("conn_plain"), "https": Grant("conn_api")}


@pytest.mark.parametrize("scheme", REVERSE_OWN)
@pytest.mark.parametrize("host", ["presign.local", "whatever.test"])
@pytest.mark.parametrize("connection", ["conn_plain", "conn_api", "conn_base"])
def test_reverse_mode_serves_gateway_urls(
    connection: str, host: str, scheme: str, reverse: dict[str, Mitm], tls_upstream: Recorder
) -> None:
    target = Grant(connection).target("v1/models")
    assert code(ask(reverse[scheme].port, target, host=host)) == FORWARDED
    check_forwarded(tls_upstream, "/base/v1/models" if connection == "conn_base" else "/v1/models")


@pytest.mark.parametrize("scheme", REVERSE_OWN)
@pytest.mark.parametrize("carrier", ["query", "header", "key", "path"])
def test_reverse_mode_takes_presigns_on_the_paths_of_its_api(
    carrier: str, scheme: str, reverse: dict[str, Mitm], tls_upstream: Recorder
) -> None:
    grant = REVERSE_OWN[scheme]
    target, headers = {
        "query": (f"/v1/models?{grant.query}", {}),
        "header": ("/v1/models", grant.unnamed),
        "key": ("/v1/models", {"Authorization": f"Bearer {grant.token}"}),
        "path": (f"/p/{grant.token}/v1/models", {}),
    }[carrier]
    assert code(ask(reverse[scheme].port, target, headers, host="whatever.test")) == FORWARDED
    check_forwarded(tls_upstream, "/v1/models")


@pytest.mark.parametrize("scheme", REVERSE_OWN)
def test_reverse_mode_refuses_the_presign_of_another_api(
    scheme: str, reverse: dict[str, Mitm], tls_upstream: Recorder
) -> None:
    grant = REVERSE_OWN["http" if scheme == "https" else "https"]
    assert code(ask(reverse[scheme].port, "/v1/models", grant.headers)) == MISMATCH
    assert code(ask(reverse[scheme].port, "/v1/models", grant.unnamed)) == INVALID
    assert not tls_upstream.touched


def test_reverse_mode_leaves_other_requests_to_the_api(
    reverse: dict[str, Mitm], tls_upstream: Recorder
) -> None:
    assert code(ask(reverse["http"].port, "/v1/models?sig=1&exp=2", {"X-Api-Key": "own"})) == FORWARDED
    (request,) = tls_upstream.wait_for(1)
    assert (request.target, request.header("x-api-key")) == ("/v1/models?sig=1&exp=2", "own")
    assert request.header("authorization") is None


@pytest.mark.parametrize("hosts", [[], ["presign.local", "presign.local"], ["presign.local", "evil.test"]])
def test_reverse_mode_refuses_other_than_one_host(
    hosts: list[str], reverse: dict[str, Mitm], tls_upstream: Recorder
) -> None:
    lines = [f"GET {Grant('conn_plain').target('v1/models')} HTTP/1.1", *(f"Host: {host}" for host in hosts)]
    received = send_raw(reverse["http"].port, "\r\n".join([*lines, "", ""]).encode())
    assert code(parse_response(received)) == (400, "malformed")
    assert not tls_upstream.touched


def test_reverse_mode_refuses_a_host_that_goes_on_in_the_next_line(
    reverse: dict[str, Mitm], tls_upstream: Recorder
) -> None:
    """mitmproxy replaces it, and with it what others take for a field of its own."""
    head = f"GET {Grant('conn_plain').target('v1/models')} HTTP/1.1\r\nHost: presign.local\r\n"
    received = send_raw(reverse["http"].port, f"{head} Transfer-Encoding: chunked\r\n\r\n".encode())
    assert code(parse_response(received)) == (400, "malformed")
    assert not tls_upstream.touched


def test_reverse_mode_serves_sources(reverse: dict[str, Mitm], tls_upstream: Recorder) -> None:
    src = f"http://img.tls.test:{tls_upstream.port}/a.png"
    assert ask(reverse["https"].port, source_url(SECRET, "pk_signed", src, in_an_hour())).status == 200
    (request,) = tls_upstream.wait_for(1)
    assert request.target == "/a.png"


# -- tokens and carriers ------------------------------------------------------------------------------


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def keyed(connection: str) -> tuple[str, str]:
    """Token and base path of a connection at keyed.tls.test."""
    return Grant(connection).token, "/" + connection.removeprefix("conn_")


SLOTS: dict[str, tuple[str, Callable[[str], dict[str, str]]]] = {
    "Bearer": ("conn_xkey", lambda token: {"Authorization": f"Bearer {token}"}),
    "bearer": ("conn_xkey", lambda token: {"authorization": f"bearer {token}"}),
    "token": ("conn_private", lambda token: {"Authorization": f"token {token}"}),
    "no scheme word": ("conn_query", lambda token: {"Authorization": token}),
    "Basic's password": ("conn_query", lambda token: {"Authorization": basic("user", token)}),
    "Basic's user name": ("conn_query", lambda token: {"Authorization": basic(token, "")}),
    "X-Api-Key": ("conn_xkey", lambda token: {"x-api-key": token}),
    "PRIVATE-TOKEN": ("conn_private", lambda token: {"Private-Token": token}),
}


@pytest.mark.parametrize("slot", SLOTS)
def test_key_token_is_taken_where_the_credential_goes(slot: str, front: Mitm, tls_upstream: Recorder) -> None:
    connection, headers = SLOTS[slot]
    token, base = keyed(connection)
    host = f"keyed.tls.test:{tls_upstream.tls_port}"
    request = wire(f"{base}/v1/models", headers(token), host=host)
    assert code(ask_tls(front, "keyed.tls.test", tls_upstream.tls_port, request)) == FORWARDED
    check_credential(tls_upstream, connection)


@pytest.mark.parametrize("before", ["", "a=b&"])
@pytest.mark.parametrize("after", ["", "&c=d"])
def test_key_token_is_taken_from_the_query(
    before: str, after: str, front: Mitm, tls_upstream: Recorder
) -> None:
    token, base = keyed("conn_query")
    host = f"keyed.tls.test:{tls_upstream.tls_port}"
    request = wire(f"{base}/v1/models?{before}key={token}{after}", host=host)
    assert code(ask_tls(front, "keyed.tls.test", tls_upstream.tls_port, request)) == FORWARDED
    query = "&".join([*filter(None, (before.strip("&"), after.strip("&"))), f"key={REAL_SECRET}"])
    (seen,) = tls_upstream.wait_for(1)
    assert seen.target == f"/query/v1/models?{query}"
    check_credential(tls_upstream, "conn_query")


def check_credential(upstream: Recorder, connection: str) -> None:
    """The real secret stands once, where the connection's own `auth` puts it, and no token anywhere."""
    (request,) = upstream.wait_for(1)
    assert request.raw.count(REAL_SECRET.encode()) == 1
    assert b"ps1_" not in request.raw
    assert request.header("authorization") is None
    slot = {"conn_xkey": "x-api-key", "conn_private": "private-token"}.get(connection)
    assert slot is None or request.all(slot) == [REAL_SECRET]


@pytest.mark.parametrize("slot", ["Bearer", "X-Api-Key"])
def test_key_token_agrees_with_the_gateway_url(slot: str, front: Mitm, tls_upstream: Recorder) -> None:
    token, _ = keyed("conn_xkey")
    headers = SLOTS[slot][1](token)
    assert code(ask(front.port, "/api/proxy/conn_xkey/v1/models", headers)) == FORWARDED
    check_credential(tls_upstream, "conn_xkey")
    tls_upstream.clear()
    assert code(ask(front.port, "/api/proxy/conn_private/v1/models", headers)) == MALFORMED
    assert not tls_upstream.touched


WRONG_SLOTS = {
    "another API's header": {"X-Api-Key": "{}"},
    "a header of no API": {"X-Custom": "{}"},
    "Cookie": {"Cookie": "{}"},
    "Referer": {"Referer": "{}"},
}


@pytest.mark.parametrize("slot", WRONG_SLOTS)
@pytest.mark.parametrize("place", ["gateway", "API", "foreign"])
def test_key_token_in_the_wrong_header_is_malformed(
    slot: str, place: str, front: Mitm, tls_upstream: Recorder
) -> None:
    grant = Grant("conn_plain")
    headers = {name: value.format(grant.token) for name, value in WRONG_SLOTS[slot].items()}
    url, host = {
        "gateway": ("/api/proxy/conn_plain/v1/models", "presign.local"),
        "API": (f"{tls_upstream.url}/v1/models", f"127.0.0.1:{tls_upstream.port}"),
        "foreign": ("http://evil.test/v1/models", "evil.test"),
    }[place]
    assert code(ask(front.port, url, headers, host=host)) == MALFORMED
    assert not tls_upstream.touched


@pytest.mark.parametrize("name", ["key", "token", "access_token"])
def test_key_token_in_a_parameter_of_no_credential_is_malformed(
    name: str, front: Mitm, tls_upstream: Recorder
) -> None:
    token = Grant("conn_plain").token
    assert code(ask(front.port, f"/api/proxy/conn_plain/v1/models?{name}={token}")) == MALFORMED
    assert not tls_upstream.touched


def test_good_token_at_a_foreign_host_is_refused(front: Mitm, tls_upstream: Recorder) -> None:
    headers = {"Authorization": f"Bearer {Grant('conn_plain').token}"}
    assert code(ask(front.port, "http://evil.test/v1/models", headers, host="evil.test")) == MISMATCH
    assert not tls_upstream.touched


@pytest.mark.parametrize("path", ["v1/models", "v1/chat/completions?stream=1", ""])
def test_path_token_is_forwarded(path: str, front: Mitm, tls_upstream: Recorder) -> None:
    assert code(ask(front.port, f"/p/{API.token}/{path}")) == FORWARDED
    check_forwarded(tls_upstream, f"/{path}")


def test_path_token_outside_a_gateway_host_is_refused(front: Mitm, tls_upstream: Recorder) -> None:
    host = f"127.0.0.1:{tls_upstream.port}"
    response = ask(front.port, f"http://{host}/p/{API.token}/v1/models", host=host)
    assert code(response) == (404, "not_found")
    assert not tls_upstream.touched


CARRIERS: dict[str, Callable[[Grant], tuple[str, dict[str, str]]]] = {
    "query": lambda grant: (f"?{grant.query}", {}),
    "header": lambda grant: ("", grant.headers),
    "key": lambda grant: ("", {"Authorization": f"Bearer {grant.token}"}),
}


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations([*CARRIERS, "path"], 2)))
def test_two_carriers_are_malformed_even_where_they_agree(
    one: str, two: str, front: Mitm, tls_upstream: Recorder
) -> None:
    found = [CARRIERS[name](API) for name in (one, two) if name != "path"]
    base = f"/p/{API.token}" if two == "path" else "/api/proxy/conn_api"
    query = "".join(query for query, _ in found)
    headers = {name: value for _, fields in found for name, value in fields.items()}
    assert code(ask(front.port, f"{base}/v1/models{query}", headers)) == MALFORMED
    assert not tls_upstream.touched


@pytest.mark.parametrize("field", presign_params("secret", "id", 0, "*", "*"))
def test_carrier_in_two_parts_or_twice_is_malformed(field: str, front: Mitm, tls_upstream: Recorder) -> None:
    fields = API.unnamed
    pairs = [f"{name}={value}" for name, value in fields.items()]
    missing = "&".join(pair for pair in pairs if not pair.startswith(field))
    base = "/api/proxy/conn_api/v1/models"
    split = ask(front.port, f"{base}?{missing}", {field: fields[field]})
    twice_in_query = ask(front.port, f"{base}?{'&'.join(pairs)}&{field}={fields[field]}")
    twice_in_header = ask(front.port, base, [*fields.items(), (field, fields[field])])
    assert [code(one) for one in (split, twice_in_query, twice_in_header)] == [MALFORMED] * 3
    assert not tls_upstream.touched


# -- scheme source ------------------------------------------------------------------------------------


def bare(response: Response) -> bool:
    """Whether it is the refusal of scheme source: 403 and no detail."""
    return (response.status, response.body, response.header("x-presign-error")) == (403, b"Forbidden", None)


def img(upstream: Recorder, path: str = "/a/b.png", host: str = "img.tls.test") -> str:
    return f"http://{host}:{upstream.port}{path}"


@pytest.mark.parametrize("path", ["/a/b.png", "/a%20b.png?w=1&h=%202", "/", "", "/ü.png"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_signed_source_is_fetched(method: str, path: str, front: Mitm, tls_upstream: Recorder) -> None:
    url = source_url(SECRET, "pk_signed", img(tls_upstream, path), in_an_hour(), "png")
    assert ask(front.port, url + "&utm=dropped", method=method).status == 200
    (request,) = tls_upstream.wait_for(1)
    assert (request.method, request.target) == (method, path.replace("ü", "%C3%BC") or "/")
    assert request.header("host") == f"img.tls.test:{tls_upstream.port}"


SIGNED_LIES: dict[str, Callable[[Recorder], str]] = {
    "another origin": lambda up: source_url(
        SECRET, "pk_signed", img(up, host="evilimg.tls.test"), in_an_hour(), "png"
    ),
    "another port": lambda up: source_url(
        SECRET, "pk_signed", f"http://img.tls.test:{up.tls_port}/a.png", in_an_hour(), "png"
    ),
    "another scheme": lambda up: source_url(
        SECRET, "pk_signed", f"https://img.tls.test:{up.port}/a.png", in_an_hour(), "png"
    ),
    "another format": lambda up: source_url(SECRET, "pk_signed", img(up), in_an_hour(), "exe"),
    "no exp": lambda up: source_url(SECRET, "pk_signed", img(up), in_an_hour()).partition("&exp")[0],
    "exp=0": lambda up: source_url(SECRET, "pk_signed", img(up), 0, "png"),
    "plain text": lambda up: f"/v1/pk_signed/img.tls.test:{up.port}/a/b.png.png",
    "signed for a project in allowlist mode": lambda up: source_url(
        SECRET, "pk_plain", img(up), in_an_hour(), "png"
    ),
    "an unknown project": lambda up: source_url(SECRET, "pk_nobody", img(up), in_an_hour(), "png"),
    "a connection of the other scheme": lambda up: source_url(
        SECRET, "conn_api", img(up), in_an_hour(), "png"
    ),
}


@pytest.mark.parametrize("lie", SIGNED_LIES)
def test_source_that_is_not_as_signed_is_a_bare_403(lie: str, front: Mitm, tls_upstream: Recorder) -> None:
    response = ask(front.port, SIGNED_LIES[lie](tls_upstream))
    assert bare(response), response
    assert not tls_upstream.touched


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_source_is_for_get_and_head_only(method: str, front: Mitm, tls_upstream: Recorder) -> None:
    url = source_url(SECRET, "pk_signed", img(tls_upstream), in_an_hour(), "png")
    assert bare(ask(front.port, url, method=method))
    assert not tls_upstream.touched


@pytest.mark.parametrize(
    ("host", "project", "tls"),
    [
        ("img.tls.test:{port}", "pk_plain", False),
        ("sub.img.tls.test:{port}", "pk_plain", False),
        ("IMG.tls.test:{port}", "pk_plain", False),
        ("img.tls.test:{tls_port}", "pk_tls", True),
        ("img.tls.test:{port}", "pk_tls", False),
    ],
)
def test_allowlisted_source_is_fetched(
    host: str, project: str, tls: bool, front: Mitm, tls_upstream: Recorder
) -> None:
    host = host.format(port=tls_upstream.port, tls_port=tls_upstream.tls_port)
    response = ask(front.port, f"/v1/{project}/{host}/a/b.jpg.webp")
    assert response.status == 200, response
    (request,) = tls_upstream.wait_for(1)
    assert (request.target, request.tls, request.header("host")) == ("/a/b.jpg", tls, host.lower())
    assert request.header("authorization") is None


@pytest.mark.parametrize(
    "source",
    [
        "evilimg.tls.test:{port}/a.png.png",  # no label boundary
        "tls.test:{port}/a.png.png",  # above the origin
        "img.tls.test.evil.test:{port}/a.png.png",
        "img.tls.test:{tls_port}/a.png.png",  # another port
        "img.tls.test/a.png.png",
        "img.tls.test:{port}@evil.test/a.png.png",
        "evil.test/img.tls.test:{port}/a.png.png",
        "http://img.tls.test:{port}/a.png.png",  # with its scheme
        "img.tls.test:{port}/a.png.exe",  # a format that is not served
        "img.tls.test:{port}/a",
    ],
)
def test_source_outside_the_allowlist_is_a_bare_403(source: str, front: Mitm, tls_upstream: Recorder) -> None:
    source = source.format(port=tls_upstream.port, tls_port=tls_upstream.tls_port)
    assert bare(ask(front.port, f"/v1/pk_plain/{source}"))
    assert not tls_upstream.touched


def intercepted(upstream: Recorder, target: str, key: str = "") -> str:
    """A request target on the intercepted origin, signed; `target` is the source's own."""
    exp = in_an_hour()
    src = f"https://vault.tls.test:{upstream.tls_port}{target}"
    signed = f"sig={sign(SECRET, f'pk_secure:{src}:{exp}')}&exp={exp}{key}"
    return f"{target}{'&' if '?' in target else '?'}{signed}"


@pytest.mark.parametrize("key", ["", "&key=pk_secure"])
@pytest.mark.parametrize("target", ["/a.png", "/a.png?w=1&x=%20&&flag&=", "/a%2Fb//c?sigh=1&exposure=2"])
def test_intercepted_source_gets_the_credential(
    target: str, key: str, front: Mitm, tls_upstream: Recorder
) -> None:
    host = f"vault.tls.test:{tls_upstream.tls_port}"
    request = wire(intercepted(tls_upstream, target, key), host=host)
    assert ask_tls(front, "vault.tls.test", tls_upstream.tls_port, request).status == 200
    check_forwarded(tls_upstream, target)


def test_intercepted_source_may_carry_its_signature_in_front(front: Mitm, tls_upstream: Recorder) -> None:
    exp = in_an_hour()
    src = f"https://vault.tls.test:{tls_upstream.tls_port}/a.png?w=1"
    target = f"/a.png?exp={exp}&sig={sign(SECRET, f'pk_secure:{src}:{exp}')}&w=1"
    request = wire(target, host=f"vault.tls.test:{tls_upstream.tls_port}")
    assert ask_tls(front, "vault.tls.test", tls_upstream.tls_port, request).status == 200
    check_forwarded(tls_upstream, "/a.png?w=1")


CHANGES: dict[str, Callable[[str], str]] = {
    "another path": lambda target: target.replace("/a.png", "/b.png"),
    "another value": lambda target: target.replace("w=1", "w=2"),
    "one more parameter": lambda target: target + "&w=2",
    "an unknown project": lambda target: target + "&key=pk_nobody",
    "a later exp": lambda target: target.replace("exp=1", "exp=2"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_intercepted_source_that_was_changed_is_a_bare_403(
    change: str, front: Mitm, tls_upstream: Recorder
) -> None:
    target = CHANGES[change](intercepted(tls_upstream, "/a.png?w=1"))
    request = wire(target, host=f"vault.tls.test:{tls_upstream.tls_port}")
    response = ask_tls(front, "vault.tls.test", tls_upstream.tls_port, request)
    assert bare(response), response
    assert not tls_upstream.touched


@pytest.mark.parametrize("second", ["&sig=" + "0" * 64, "&exp=1", "&sig=", "&sig"])
def test_good_signature_beside_another_one_never_reaches_the_upstream(
    second: str, front: Mitm, tls_upstream: Recorder
) -> None:
    """Passed on as somebody else's, it would give the upstream a URL that works: all it takes is an edit."""
    target = intercepted(tls_upstream, "/a.png") + second
    request = wire(target, host=f"vault.tls.test:{tls_upstream.tls_port}")
    ask_tls(front, "vault.tls.test", tls_upstream.tls_port, request)
    good = target.partition("sig=")[2][:64]
    assert good not in b"".join(seen.raw for seen in tls_upstream.requests).decode("latin-1")


SAS = "/container/blob.png?sv=2024-11-04&se=2030-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=a%2Bb%2F%3D&exp=1893456000"


@pytest.mark.parametrize("host", ["img", "other"])
def test_sig_and_exp_of_other_people_pass_untouched(host: str, front: Mitm, tls_upstream: Recorder) -> None:
    name = f"{host}.tls.test:{tls_upstream.port}"
    for target in (SAS, f"/a.png?sig={'0' * 64}&exp=1&sig=&&flag"):
        sent = wire(f"http://{name}{target}", {"X-Own": "1"}, host=name)
        assert parse_response(send_raw(front.port, sent)).status == 200
        (request,) = tls_upstream.wait_for(1)
        assert request.raw == sent.replace(f"http://{name}".encode(), b"", 1)
        tls_upstream.clear()


def test_api_that_signs_with_sig_alone_passes_on_an_intercepted_origin(
    front: Mitm, tls_upstream: Recorder
) -> None:
    target = "/a.png?sig=abc&se=1"
    request = wire(target, host=f"vault.tls.test:{tls_upstream.tls_port}")
    assert ask_tls(front, "vault.tls.test", tls_upstream.tls_port, request).status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert (seen.target, seen.header("authorization")) == (target, None)


# -- unsigned: pass -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock(module_gateway: MakeGateway, trap: dict[str, list[str]]) -> Mitm:
    """mitmdump without the addon.

    It chooses HTTP/1.1 or 2 before it knows the upstream, as the gateway has to.
    """
    return module_gateway(None, "--set", "connection_strategy=lazy", dns=trap)


ODD = [
    ("X-Odd", "  spaced\tvalue "),
    ("x-odd", "twice"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("Cookie", "a=b"),
    ("Authorization", "Bearer own"),
    ("X_Under_Score", "1"),
    ("Accept-Encoding", "br, gzip"),
]
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
UNSIGNED: dict[str, bytes] = {
    "plain": wire("http://{host}/a?x=%20&&flag&=&y=1+2", host="{host}"),
    "odd headers": wire("http://{host}/a", ODD, host="{host}"),
    "odd path": wire("http://{host}/a/../b//c/%2e%2e/%2Fd;p=1/~!$'()*", host="{host}"),
    "body": wire("http://{host}/a", {"Content-Type": "text/plain"}, "POST", "{host}", b"x" * 5000),
    "chunked body": wire("http://{host}/a", (), "PUT", "{host}")[:-2] + CHUNKED,
    "HEAD": wire("http://{host}/a", {"Connection": "close"}, "HEAD", "{host}"),
    "OPTIONS": wire("http://{host}/a", {"Origin": "https://a.test"}, "OPTIONS", "{host}"),
    "setcookie": wire("http://{host}/setcookie", host="{host}"),
    "redirect": wire("http://{host}/redirect", host="{host}"),
    "chunked answer": wire("http://{host}/chunked", host="{host}"),
    "trailing question mark": wire("http://{host}/a?", host="{host}"),
    "unknown method": wire("http://{host}/a", host="{host}").replace(b"GET", b"PROPFIND", 1),
    "a signature of others": wire("http://{host}" + SAS, host="{host}"),
    "almost a token": wire("http://{host}/a?t=ps1x", {"Authorization": "Bearer ps-1"}, host="{host}"),
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_unsigned_request_passes_as_through_bare_mitmproxy(
    case: str, front: Mitm, stock: Mitm, tls_upstream: Recorder
) -> None:
    data = UNSIGNED[case].replace(b"{host}", f"img.tls.test:{tls_upstream.port}".encode())
    received = [send_raw(proxy.port, data) for proxy in (front, stock)]
    ours, theirs = tls_upstream.wait_for(2)
    assert (ours.raw, ours.body) == (theirs.raw, theirs.body)
    assert received[0] == received[1]


@pytest.mark.parametrize("case", ["plain", "odd headers", "odd path", "body", "setcookie"])
def test_unsigned_request_in_a_tunnel_passes_as_through_bare_mitmproxy(
    case: str, front: Mitm, stock: Mitm, tls_upstream: Recorder
) -> None:
    host = f"other.tls.test:{tls_upstream.tls_port}"
    data = UNSIGNED[case].replace(b"http://{host}", b"").replace(b"{host}", host.encode())
    received = []
    for proxy in (front, stock):
        with connect_tls(proxy.port, "other.tls.test", tls_upstream.tls_port, None, proxy.ca) as sock:
            received.append(exchange(sock, data))
    ours, theirs = tls_upstream.wait_for(2)
    assert (ours.raw, ours.body, ours.sni, ours.alpn) == (theirs.raw, theirs.body, theirs.sni, theirs.alpn)
    assert received[0] == received[1]


def test_unsigned_http2_passes_as_through_bare_mitmproxy(
    front: Mitm, stock: Mitm, tls_upstream: Recorder
) -> None:
    host, fields = (
        f"other.tls.test:{tls_upstream.tls_port}",
        [("x-odd", "1"), ("cookie", "a=b"), ("te", "trailers")],
    )
    replies = []
    for proxy in (front, stock):
        client = H2Client.through(proxy.port, "other.tls.test", tls_upstream.tls_port, None, proxy.ca)
        head = [(":method", "POST"), (":scheme", "https"), (":authority", host), (":path", "/a?&x=%20")]
        with client:
            replies.append(client.request([*head, *fields, ("content-length", "4")], b"body"))
    ours, theirs = tls_upstream.wait_for(2)
    assert (ours.raw, ours.body) == (theirs.raw, theirs.body)
    assert (replies[0].headers, replies[0].body) == (replies[1].headers, replies[1].body)


def test_unsigned_raw_bytes_pass_in_a_tunnel(front: Mitm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, connect(front.port) as sock:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        sock.sendall(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"\x00raw\xff")
        server.settimeout(5)
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(5)
            assert accepted.recv(100) == b"\x00raw\xff"
            accepted.sendall(b"\x01answer")
            assert sock.recv(100) == b"\x01answer"


# -- unsigned: deny -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def egress(module_gateway: MakeGateway, config: dict[str, Any], trap: dict[str, list[str]]) -> Mitm:
    """An egress gateway: what is not ours is refused."""
    gateway = config["gateway"] | {"unsigned": "deny"}
    return module_gateway(config | {"gateway": gateway}, dns=trap)


UNSIGNED_CODE = (403, "unsigned")


def check_unsigned(response: Response) -> None:
    assert code(response) == UNSIGNED_CODE
    assert response.header("content-type") == "application/json"
    assert json.loads(response.body)["error"]["code"] == "unsigned"


@pytest.mark.parametrize("host", ["evil.test", "img.tls.test", "127.0.0.1"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_unsigned_request_is_denied(host: str, method: str, egress: Mitm, tls_upstream: Recorder) -> None:
    name = f"{host}:{tls_upstream.port}"
    check_unsigned(ask(egress.port, f"http://{name}/v1/models", method=method, host=name))
    assert not tls_upstream.connections


@pytest.mark.parametrize("origin_form", ["evil.test", "api.tls.test"])
def test_unsigned_origin_form_is_denied(origin_form: str, egress: Mitm, tls_upstream: Recorder) -> None:
    check_unsigned(ask(egress.port, "/v1/models", host=origin_form))
    assert not tls_upstream.connections


@pytest.mark.parametrize("target", ["evil.test:443", "evil.test:80", "api.tls.test:22", "127.0.0.1:6379"])
def test_connect_to_a_foreign_place_is_denied(target: str, egress: Mitm, tls_upstream: Recorder) -> None:
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    check_unsigned(parse_response(send_raw(egress.port, request)))
    assert not tls_upstream.connections
    assert "evil.test" not in egress.lookups()


def test_unsigned_request_in_an_allowed_tunnel_is_denied(egress: Mitm, tls_upstream: Recorder) -> None:
    port = tls_upstream.tls_port
    host = f"api.tls.test:{port}"
    check_unsigned(ask_tls(egress, "api.tls.test", port, wire("/v1/models", host=host)))
    client = H2Client.through(egress.port, "api.tls.test", port, None, egress.ca)
    assert ask_h2(client, host, "/v1/models") == UNSIGNED_CODE
    assert not tls_upstream.connections


def test_refusals_of_other_requests_on_an_intercepted_origin_are_explained(
    egress: Mitm, tls_upstream: Recorder
) -> None:
    """Only what is of scheme source is refused without a word."""
    port = tls_upstream.tls_port
    host = f"vault.tls.test:{port}"
    check_unsigned(ask_tls(egress, "vault.tls.test", port, wire("/a.png", host=host)))
    half = {"X-Presign-Signature": "0" * 64}
    assert code(ask_tls(egress, "vault.tls.test", port, wire("/a.png", half, host=host))) == MALFORMED
    assert not tls_upstream.connections


def test_presigned_requests_go_through_an_egress_gateway(egress: Mitm, tls_upstream: Recorder) -> None:
    port = tls_upstream.tls_port
    request = wire("/v1/models", API.headers, host=f"api.tls.test:{port}")
    assert code(ask_tls(egress, "api.tls.test", port, request)) == FORWARDED
    assert code(ask(egress.port, API.target("v1/models"))) == FORWARDED
    assert code(ask_tls(egress, "presign.local", 443, wire(API.target("v1/models")))) == FORWARDED
    assert len(tls_upstream.wait_for(3)) == 3


RAW = {
    "binary": b"\x00\x01\x02\xff",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "almost HTTP": b"GET\x00/ HTTP/1.1\r\n\r\n",
}
# What could still become HTTP has until the deadline for request heads, 10 s.
UNFINISHED = {
    "nothing": b"",
    "TLS that stops": b"\x16\x03\x01\x00\x05hello",
    "SMTP": b"EHLO evil.test\r\n",
    "a head that stops": b"GET / HTTP/1.1\r\nHost: evil.test\r\n",
    **RAW,
}
DEADLINE = 13


def tunnel(egress: Mitm, target: str) -> socket.socket:
    """A tunnel that was let through, and nothing sent in it."""
    sock = connect(egress.port, timeout=15)
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    return sock


def answer_until_closed(sock: socket.socket) -> bytes:
    """What comes back until the other side closes. Raises TimeoutError where it does not."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(4096):
            received += piece
    return received


@pytest.mark.parametrize("payload", RAW)
@pytest.mark.parametrize("host", ["api.tls.test", "presign.local"])
def test_raw_bytes_in_an_allowed_tunnel_reach_nobody(
    payload: str, host: str, egress: Mitm, tls_upstream: Recorder
) -> None:
    with tunnel(egress, f"{host}:{tls_upstream.tls_port}") as sock:
        sock.settimeout(3)
        sock.sendall(RAW[payload])
        assert b"HTTP/1.1 2" not in answer_until_closed(sock)
    assert not tls_upstream.connections


@pytest.fixture(scope="module")
def unfinished(egress: Mitm, tls_upstream: Recorder) -> Iterator[dict[tuple[str, str], socket.socket]]:
    """Connections that say too little, all opened at once so that the deadline is waited for once."""
    with contextlib.ExitStack() as opened:
        socks: dict[tuple[str, str], socket.socket] = {}
        for place, payload in itertools.product(("listener", "api.tls.test", "presign.local"), UNFINISHED):
            direct = place == "listener"
            sock = connect(egress.port) if direct else tunnel(egress, f"{place}:{tls_upstream.tls_port}")
            socks[place, payload] = opened.enter_context(sock)
            sock.sendall(UNFINISHED[payload])
        started = time.monotonic()
        for sock in socks.values():
            sock.settimeout(max(0.01, started + DEADLINE - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                sock.recv(1, socket.MSG_PEEK)
        yield socks


@pytest.mark.slow
@pytest.mark.parametrize("payload", UNFINISHED)
@pytest.mark.parametrize("place", ["listener", "api.tls.test", "presign.local"])
def test_connection_that_never_becomes_a_request_is_closed(
    place: str, payload: str, unfinished: dict[tuple[str, str], socket.socket]
) -> None:
    sock = unfinished[place, payload]
    sock.settimeout(0.1)
    assert b"HTTP/1.1 2" not in answer_until_closed(sock)


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_websocket_upgrade_is_denied(egress: Mitm, tls_upstream: Recorder) -> None:
    port = tls_upstream.tls_port
    host = f"api.tls.test:{port}"
    check_unsigned(ask_tls(egress, "api.tls.test", port, wire("/v1/realtime", WEBSOCKET, host=host)))
    presigned = wire("/v1/realtime", WEBSOCKET | API.headers, host=host)
    response = ask_tls(egress, "api.tls.test", port, presigned)
    assert code(response) == (426, "upgrade_required")
    assert not tls_upstream.connections


# Two by two, as mitmproxy itself refuses ignore_hosts beside allow_hosts.
@pytest.mark.parametrize("options", [("ignore_hosts", "tcp_hosts"), ("allow_hosts", "udp_hosts")])
def test_options_that_bypass_an_egress_gateway_are_refused_at_start(
    options: tuple[str, str], make_gateway: MakeGateway, config: dict[str, Any]
) -> None:
    gateway = config["gateway"] | {"unsigned": "deny"}
    given = [part for option in options for part in ("--set", f"{option}=api\\.tls\\.test")]
    returncode, log = make_gateway(config | {"gateway": gateway}, *given, start=False).run()
    assert returncode != 0
    for option in options:
        assert f"option {option} is not allowed" in log
    assert "Traceback" not in log


def test_option_of_the_command_line_makes_an_egress_gateway(
    make_gateway: MakeGateway, config: dict[str, Any], tls_upstream: Recorder
) -> None:
    gateway = make_gateway(config, "--set", "presign_unsigned=deny")
    check_unsigned(ask(gateway.port, f"{tls_upstream.url}/v1/models", host=tls_upstream.url[7:]))
    assert not tls_upstream.connections
