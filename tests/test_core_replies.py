"""Responses on their way to the client: redirects, headers, masks."""

import base64
import gzip
import json
import time
import zlib
from ipaddress import ip_network
from itertools import product
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.connection import Conduct, Upstream
from presign_proxy.core.content_coding import DecodingError
from presign_proxy.core.credentials import BasicCredential, QueryCredential
from presign_proxy.core.decision import Forward
from presign_proxy.core.masking import MAX_SHOWN, Mask, MaskedStream, mask_for
from presign_proxy.core.registry import Registry
from presign_proxy.core.response_body import Body
from presign_proxy.core.rewrite_response import Reply, rewrite
from presign_proxy.errors import Denied
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import Secret
from support.deciding import GATEWAY, KEY, NOW, SECRET, code, connection, registry, request, sent, signed
from support.signing import presign_headers, token

BASE = connection(upstream=Upstream(Origin("https", "api.example.com", 443), b"/base"))
HEADERS = tuple(
    (n.encode(), v.encode()) for n, v in presign_headers(SECRET, "conn", NOW + 60, "GET", "*").items()
)
TOKEN = token(SECRET, "conn", NOW + 60, "GET", "*")


def by_query(**conduct: Any) -> Forward:
    known = connection(upstream=BASE.upstream, conduct=Conduct(**conduct))
    return sent(request(signed("v1/a/b", paths="*")), registry(known))


def by_header(**conduct: bool) -> Forward:
    known = connection(upstream=BASE.upstream, conduct=Conduct(**conduct))
    return sent(request("/api/proxy/conn/v1/a/b", *HEADERS), registry(known))


def by_token() -> Forward:
    return sent(request(f"/p/{TOKEN}/v1/a/b"), registry(BASE))


def at_the_api() -> Forward:
    return sent(request("/base/v1/a/b", *HEADERS, host="api.example.com", scheme="https"), registry(BASE))


def reply(
    forward: Forward, *fields: tuple[bytes, bytes], status: int = 200, mask: Mask | None = None
) -> Reply:
    return rewrite(Reply(status, b"OK", fields), forward, mask or mask_for(forward.connection.injector))


def location(forward: Forward, value: str) -> str:
    """Where a client is sent; "refused" if nowhere."""
    try:
        fields = dict(reply(forward, (b"Location", value.encode("latin-1")), status=302).fields)
    except Denied:
        return "refused"
    return fields[b"Location"].decode("latin-1")


AWAY = [
    "https://evil.test/x",
    "//evil.test/x",
    "///evil.test/x",
    "////evil.test/x",
    "https:///evil.test/x",
    "https:/evil.test",
    "https:evil.test",
    "http://api.example.com/base/x",
    "https://api.example.com:8443/base/x",
    "\\\\evil.test/x",
    "/\\evil.test",
    "https://api.example.com\\@evil.test/",
    "https://api.example.com@evil.test/",
    "javascript:alert(1)",
    "//\tevil.test/x",
    " //evil.test",
    "https://[::1",
    "ht\ttps://evil.test",
    "data:text/html,x",
    "é",
]


@pytest.mark.parametrize("value", AWAY)
def test_a_redirect_away_does_not_take_a_presign_that_clients_send_again(value: str) -> None:
    assert location(by_header(), value) == "refused"
    assert location(at_the_api(), value) == "refused"
    assert location(by_header(redirects=True), value) == value
    assert location(by_query(), value) == value


def by_tunnel(*fields: tuple[bytes, bytes], **conduct: bool) -> Forward:
    """At the API itself, in a tunnel that the client asked the gateway for."""
    known = connection(upstream=BASE.upstream, conduct=Conduct(**conduct))
    at = {"host": "api.example.com", "scheme": "https", "tunnelled": True}
    return sent(request("/base/v1/a/b", *(fields or HEADERS), **at), registry(known))


@pytest.mark.parametrize(
    "value",
    [
        "https://objects.example.net/x?sig=1",
        "//objects.example.net/x",
        "HTTPS://objects.example.net:8443",
        "https://objects.example.net#x",
    ],
)
def test_a_redirect_away_passes_where_the_client_comes_back_through_the_gateway(value: str) -> None:
    assert location(by_tunnel(), value) == value
    key = (b"Authorization", f"Bearer {TOKEN}".encode())
    assert location(by_tunnel(key), value) == value


@pytest.mark.parametrize(
    "value",
    [
        *(value for value in AWAY if value not in ("https://evil.test/x", "//evil.test/x", AWAY[8])),
        *("http://evil.test/x", "https://localhost/x", "https://a.localhost/x", "https://printer.local/x"),
        *("https://intranet/x", "https://127.0.0.1/x", "https://[::1]/x", "https://10.0.0.1/x"),
        *("https://2130706433/x", "https://evil.test./x y", "https://u:p@evil.test/", "https://evil.test:0/"),
    ],
)
def test_a_redirect_that_a_client_follows_without_its_proxy_is_refused_in_a_tunnel_too(value: str) -> None:
    assert location(by_tunnel(), value) == "refused"


@pytest.mark.parametrize("value", ["https://api.example.com/other", "/other", "/base/../conn_b/x", "/base"])
def test_a_redirect_out_of_the_base_path_leaves_the_gateway(value: str) -> None:
    assert location(by_header(), value) == "refused"
    got = location(by_query(), value)
    assert got.startswith("https://api.example.com/") or got == value
    assert "/api/proxy" not in got


INSIDE = {
    "https://api.example.com/base/v2/c?d=1#e": "/v2/c?d=1#e",
    "//api.example.com/base/v2": "/v2",
    "/base/v2/": "/v2/",
    "c": "/v1/a/c",
    "../c": "/v1/c",
    "?page=2": "/v1/a/b?page=2",
}


@pytest.mark.parametrize("value", INSIDE)
def test_a_redirect_inside_takes_the_form_the_client_used(value: str) -> None:
    assert location(by_header(), value) == "/api/proxy/conn" + INSIDE[value]
    assert location(at_the_api(), value) == value
    relative = location(by_token(), value)
    assert TOKEN not in relative
    url = f"http://presign.local/p/{TOKEN}/v1/a/b?x=1"
    assert urljoin(url, relative) == f"http://presign.local/p/{TOKEN}{INSIDE[value]}"


# -- the presign of a URL goes where the URL leads --------------------------------------------------------


def led(forward: Forward, name: str, value: str, status: int = 200) -> tuple[str, str]:
    """A header of an answer: as a flow shows it, and as the client gets it."""
    found = rewrite(Reply(status, b"OK", ((name.encode(), value.encode()),)), forward, Mask(()))
    return (
        dict(found.fields)[name.encode()].decode("latin-1"),
        dict(found.sent.fields)[name.encode()].decode("latin-1"),
    )


def granted(path: str = "v1/a/b", more: str = "", method: str = "GET", **sign: str) -> tuple[Forward, str]:
    """A grant by URL, and the presign in its query."""
    target = signed(path, **{"paths": "*"} | sign) + more
    presign = signed(path, **{"paths": "*"} | sign).partition("?")[2]
    return sent(request(target, method=method), registry(connection(upstream=BASE.upstream))), presign


def with_presign(url: str, presign: str) -> str:
    head, mark, fragment = url.partition("#")
    return f"{head}{'&' if '?' in head else '?'}{presign}{mark}{fragment}"


@pytest.mark.parametrize("value", INSIDE)
def test_a_redirect_inside_takes_the_presign_of_the_url_along(value: str) -> None:
    """Without it, `curl -L` got 400 at the gateway."""
    forward, presign = granted(more="&own=1")
    shown, got = led(forward, "Location", value, 302)
    assert got == with_presign("/api/proxy/conn" + INSIDE[value], presign)
    assert shown == got.replace(presign, "presign:conn")
    assert code(request(got.partition("#")[0]), registry(BASE)) == "forward"


@pytest.mark.parametrize(
    ("location", "status", "method", "sign", "taken"),
    [
        ("/base/v1/a/", 301, "GET", {"paths": "v1/a/*"}, True),
        ("/base/v1/other", 301, "GET", {"paths": "v1/a/*"}, False),
        ("/base/v1/a/%2e%2e/other", 301, "GET", {"paths": "v1/a/*"}, False),
        ("/base/v1/a/x;y.jpg", 301, "GET", {"paths": "v1/a/*.jpg,v1/a/b"}, False),
        ("/base/v1/a/x", 303, "POST", {"paths": "v1/a/*", "methods": "POST"}, False),
        ("/base/v1/a/x", 302, "POST", {"paths": "v1/a/*", "methods": "POST"}, False),
        ("/base/v1/a/x", 307, "POST", {"paths": "v1/a/*", "methods": "POST"}, True),
        ("/base/v1/a/x", 303, "POST", {"paths": "v1/a/*", "methods": "GET,POST"}, True),
        ("/base/v1/a/x", 303, "HEAD", {"paths": "v1/a/*", "methods": "HEAD"}, True),
    ],
)
def test_a_presign_is_added_only_where_it_would_be_granted(
    location: str, status: int, method: str, sign: dict[str, str], taken: bool
) -> None:
    forward, presign = granted(method=method, **sign)
    shown, got = led(forward, "Location", location, status)
    assert (presign in got) == taken
    assert presign not in shown


def test_a_presign_is_never_added_to_a_url_that_leads_elsewhere() -> None:
    outside = ["https://api.example.com/other", "/other", "/base/../conn_b/x", "/base"]
    tricks = [
        "https://api.example.com:443@evil.test/base/v1",
        "https://api.example.com.evil.test/base/v1",
        "https://api.example.com evil.test/base/v1",
        "https://api.example.com\u3002evil.test/base/v1",
        "https://evil.test\uff0fapi.example.com/base/v1",
        "//evil.test/ https://api.example.com/base/v1",
        "/ /evil.test/../base",
    ]
    away = [value for value in AWAY if value != "é" and "\t" not in value]
    names = ("Location", "Link", "Operation-Location", "X-Goog-Upload-URL", "Content-Location")
    for value, name, status in product([*away, *outside, *tricks], names, (200, 302)):
        given = f"<{value}>; rel=next" if name == "Link" else value
        for forward, presign in (granted(), (by_token(), TOKEN)):
            shown, got = led(forward, name, given, status)
            assert presign not in got, (name, value)
            assert shown == got


def test_a_header_that_a_connection_names_leads_through_the_gateway() -> None:
    """It named the upstream, where the client has no credential."""
    inside, elsewhere = b"https://api.example.com/base/v1/a?page=2", b"https://other.example.com/x"
    named = by_query(url_headers=frozenset((b"x-next",)))
    for name in (b"X-Next", b"x-next"):
        got = reply(named, (name, inside)).sent
        assert dict(got.fields)[name].startswith(
            b"http://presign.local/api/proxy/conn/v1/a?page=2&X-Presign-"
        )
        assert dict(reply(named, (name, elsewhere)).sent.fields)[name] == elsewhere
    assert dict(reply(by_query(), (b"X-Next", inside)).sent.fields)[b"X-Next"] == inside


def test_an_upstream_cannot_put_a_presign_of_its_own_beside_ours() -> None:
    for hidden in ("X-Presign-Paths=*", "x-presign-paths=*", "X-Presign-Signature=" + "0" * 64):
        _, got = led(granted()[0], "Location", f"/base/v1/x?{hidden}", 302)
        assert code(request(got), registry(BASE)) == "malformed"


def test_a_key_token_in_the_query_goes_where_the_url_leads() -> None:
    known = connection(upstream=BASE.upstream, injector=QueryCredential((("key", Secret(KEY)),)))
    forward = sent(request(f"/api/proxy/conn/v1/a/b?x=1&key={TOKEN}"), registry(known))
    _, got = led(forward, "Location", "/base/v2?page=2", 302)
    assert got == f"/api/proxy/conn/v2?page=2&key={TOKEN}"
    assert code(request(got), registry(known)) == "forward"


def test_a_redirect_at_the_apis_own_url_keeps_its_presign() -> None:
    query = signed(paths="*").partition("?")[2] + "&X-Presign-Connection=conn"
    at = {"host": "api.example.com", "scheme": "https"}
    forward = sent(request(f"/base/v1/a?{query}", **at), registry(BASE))
    shown, got = led(forward, "Location", "https://api.example.com/base/v1/a/?page=2", 301)
    assert got == f"/base/v1/a/?page=2&{query}"
    assert query not in shown
    for outside in ("/other", "https://evil.test/base/v1", "//evil.test/"):
        assert led(forward, "Location", outside, 301) == (outside, outside)


ENCODED = {
    "/base/v1/caf\u00e9/": "/v1/caf%C3%A9/",
    "/base/v1/a b|c{d}": "/v1/a%20b%7Cc%7Bd%7D",
    "https://api.example.com/base/v1/\u00fcber?q=\u00fc b": "/v1/%C3%BCber?q=%C3%BC%20b",
    "\u65e5\u672c?x=1#\u8a9e": "/v1/a/%E6%97%A5%E6%9C%AC?x=1#%E8%AA%9E",
}


@pytest.mark.parametrize("value", ENCODED)
def test_a_redirect_in_raw_utf_8_is_percent_encoded_and_led_through_the_gateway(value: str) -> None:
    """It was 502 to some carriers, and led the others out of the gateway."""
    assert led(by_header(), "Location", value, 302)[1] == "/api/proxy/conn" + ENCODED[value]
    forward, presign = granted()
    assert led(forward, "Location", value, 302)[1] == with_presign(
        "/api/proxy/conn" + ENCODED[value], presign
    )
    here = f"http://presign.local/p/{TOKEN}/v1/a/b"
    assert urljoin(here, led(by_token(), "Location", value, 302)[1]) == (
        f"http://presign.local/p/{TOKEN}{ENCODED[value]}"
    )


HANDED_OUT = ["Operation-Location", "Azure-AsyncOperation", "X-Goog-Upload-URL", "Location"]


@pytest.mark.parametrize("name", HANDED_OUT)
def test_a_url_to_ask_later_is_the_gateways_whole_url(name: str) -> None:
    """Clients ask it as it stands, without resolving it."""
    for value in ("https://api.example.com/base/v2/op?id=1", "/base/v2/op?id=1", "../../v2/op?id=1"):
        assert led(by_header(), name, value, 202)[1] == "http://presign.local/api/proxy/conn/v2/op?id=1"
        shown, got = led(by_token(), name, value, 202)
        assert got == f"http://presign.local/p/{TOKEN}/v2/op?id=1"
        assert shown == "http://presign.local/p/presign:conn/v2/op?id=1"
        forward, presign = granted()
        shown, got = led(forward, name, value, 202)
        assert got == f"http://presign.local/api/proxy/conn/v2/op?id=1&{presign}"
        assert shown == "http://presign.local/api/proxy/conn/v2/op?id=1&presign:conn"
        assert led(at_the_api(), name, value, 202) == (value, value)
    assert led(by_header(), name, "https://other.example/x", 202)[1] == "https://other.example/x"


LINK = (
    '<https://api.example.com/base/v1/l?page=2>; rel="next"; title="<https://api.example.com/base/x>, <",'
    "</base/v1/l?page=9>;rel=last , <https://other.example/>; rel=help, <?page=1>; rel=first"
)


def test_the_next_page_is_the_gateways() -> None:
    page = "http://presign.local/api/proxy/conn/v1/"
    assert led(by_header(), "Link", LINK)[1] == (
        f'<{page}l?page=2>; rel="next"; title="<https://api.example.com/base/x>, <",'
        f"<{page}l?page=9>;rel=last , <https://other.example/>; rel=help, <{page}a/b?page=1>; rel=first"
    )
    forward, presign = granted()
    shown, got = led(forward, "Link", LINK)
    assert f'<{page}l?page=2&{presign}>; rel="next"' in got
    assert shown == got.replace(presign, "presign:conn")
    assert f"<http://presign.local/p/{TOKEN}/v1/l?page=2>" in led(by_token(), "Link", LINK)[1]
    assert led(at_the_api(), "Link", LINK) == (LINK, LINK)


COSTLY = {
    "open": "<" * 60000,
    "many": "<a>" * 20000,
    "quotes": '"' * 60000,
    "escapes": '"' + '\\"' * 30000,
    "quoted escapes": '"\\' * 30000,
    "long": "<" + "a" * 60000,
    "as many as are led": "<a>," * 32 + '"' + "\\" * 60000,
    "dots": "/base/" + "../" * 20000,
    "segments": "/base/" + "a/" * 30000,
    "UTF-8": "é" * 30000,
}


@pytest.mark.parametrize("value", COSTLY.values(), ids=COSTLY)
def test_a_link_made_to_cost_costs_no_time(value: str) -> None:
    started = time.process_time()
    led(by_header(), "Link", value)
    led(by_header(), "Operation-Location", value)
    assert time.process_time() - started < 5


def test_a_client_behind_a_proxy_that_ends_tls_gets_https_urls() -> None:
    """But not one that only says so itself."""
    proxies = (ip_network("10.0.0.0/8"),)
    known = Registry({"conn": BASE}, frozenset({GATEWAY}), trusted_proxies=proxies)
    for client, said, scheme in (
        ("10.0.0.1", b"https", "https"),
        ("10.0.0.1", b"http, https", "https"),
        ("10.0.0.1", b"https, http", "http"),
        ("192.0.2.1", b"https", "http"),
    ):
        asked = request("/api/proxy/conn/v1/a", *HEADERS, (b"X-Forwarded-Proto", said), client=client)
        got = led(sent(asked, known), "Operation-Location", "/base/v2/x", 202)[1]
        assert got == f"{scheme}://presign.local/api/proxy/conn/v2/x"


def test_an_echoed_credential_is_masked_in_a_url_that_is_led() -> None:
    forward, presign = granted()
    found = rewrite(
        Reply(302, b"OK", ((b"Location", f"/base/v1?key={KEY}".encode()),)),
        forward,
        mask_for(forward.connection.injector),
    )
    for one in (found, found.sent):
        assert KEY.encode() not in dict(one.fields)[b"Location"]
    assert presign.encode() in dict(found.sent.fields)[b"Location"]


ESCAPED = [f"%{ord(KEY[0]):02x}{KEY[1:]}", f"{KEY[:9]}%{ord(KEY[9]):02X}{KEY[10:]}",
           "".join(f"%{ord(char):02X}" for char in KEY)]  # fmt: skip


@pytest.mark.parametrize("escaped", ESCAPED)
@pytest.mark.parametrize("name", ["Location", "Operation-Location", "Content-Location", "Link"])
@pytest.mark.parametrize("carrier", ["query", "header", "token", "the API"])
def test_a_credential_that_is_echoed_in_escapes_is_masked_once_they_are_taken_off(
    carrier: str, name: str, escaped: str
) -> None:
    """An escape of a letter that needs none is no form of the key, until the path is brought into its own."""
    asked = {"query": lambda: granted()[0], "header": by_header, "token": by_token, "the API": at_the_api}
    forward = asked[carrier]()
    url = f"/base/v1/{escaped}/x"
    for value in (url, f"https://api.example.com{url}", f"/elsewhere/{escaped}"):
        status = 302 if name == "Location" and carrier == "query" else 201
        fields = ((name.encode(), (f"<{value}>; rel=next" if name == "Link" else value).encode()),)
        found = rewrite(Reply(status, b"OK", fields), forward, mask_for(forward.connection.injector))
        for one in (found, found.sent):
            assert KEY.encode() not in dict(one.fields)[name.encode()]


def names(found: Reply) -> list[bytes]:
    return [name.lower() for name, _ in found.fields]


def test_headers_that_speak_for_the_gateway_are_dropped_in_gateway_form() -> None:
    fields = [
        (name, b"x")
        for name in (
            b"Strict-Transport-Security",
            b"Alt-Svc",
            b"Clear-Site-Data",
            b"Service-Worker-Allowed",
        )
    ]
    dropped = (
        b"NEL",
        b"Set-Cookie",
        b"WWW-Authenticate",
        b"X-Accel-Redirect",
        b"X-Presign-Error",
        b"Keep-Alive",
    )
    always = [(name, b"x") for name in dropped]
    assert not {name.lower() for name, _ in (*fields, *always)} & set(
        names(reply(by_query(), *fields, *always))
    )
    kept = names(reply(at_the_api(), *fields, *always))
    assert {name.lower() for name, _ in fields} <= set(kept)
    assert not {name.lower() for name, _ in always} & set(kept)


def test_gateway_form_is_sandboxed_and_nothing_sniffs() -> None:
    got = reply(
        by_query(), (b"Content-Security-Policy", b"default-src *"), (b"X-Content-Type-Options", b"off")
    )
    assert [v for n, v in got.fields if n == b"Content-Security-Policy"] == [b"default-src *", b"sandbox"]
    assert [v for n, v in got.fields if n.lower() == b"x-content-type-options"] == [b"nosniff"]
    assert b"content-security-policy" not in names(reply(at_the_api()))


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (b"public, max-age=60", b"private, max-age=60"),
        (b"s-maxage=60, max-age=5", b"private, max-age=5"),
        (b"no-store", b"no-store"),
        (b"private", b"private"),
    ],
)
def test_shared_caches_store_nothing(given_value: bytes, expected: bytes) -> None:
    fields = (
        (b"Cache-Control", given_value),
        (b"CDN-Cache-Control", b"max-age=1"),
        (b"X-Accel-Expires", b"9"),
    )
    got = reply(by_query(), *fields)
    assert dict(got.fields)[b"Cache-Control"] == expected
    assert not {b"cdn-cache-control", b"x-accel-expires"} & set(names(got))
    assert dict(reply(by_query(cache=True), *fields).fields)[b"Cache-Control"] == given_value


def test_every_response_says_no_referrer_and_which_request_it_was() -> None:
    got = dict(reply(by_query(), (b"Referrer-Policy", b"unsafe-url")).fields)
    assert got[b"Referrer-Policy"] == b"no-referrer"
    assert got[b"x-presign-request-id"] == b"req_test"


BROKEN = [
    (200, (b"X A", b"1")),
    (200, (b"X-A", b"1\r\n b")),
    (200, (b"X-A", b"a\x00b")),
    (200, (b"X-A", b"a\rb")),
    (101, (b"Upgrade", b"x")),
    (103, (b"Link", b"x")),
    (1000, (b"A", b"1")),
    (200, (b"Content-Encoding", b"br")),
    (206, (b"Content-Encoding", b"gzip")),
    (200, (b"Content-Encoding", b"gzip, gzip")),
]


@pytest.mark.parametrize(("status", "field"), BROKEN)
def test_a_response_that_cannot_be_read_is_not_passed_on(status: int, field: tuple[bytes, bytes]) -> None:
    with pytest.raises(Denied) as denied:
        reply(by_query(), field, status=status)
    assert denied.value.code == "upstream"


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_gets_no_framing(status: int) -> None:
    fields = ((b"Transfer-Encoding", b"chunked"), (b"Content-Encoding", b"gzip"))
    got = reply(by_query(), *fields, status=status)
    assert b"transfer-encoding" not in names(got)
    assert not got.encoded


def test_an_echoed_key_is_masked_in_every_part_of_the_head() -> None:
    raw = KEY.encode()
    fields = ((b"X-Echo", b"Bearer " + raw), (raw, b"name"), (b"Cache-Control", b'x="' + raw + b'"'))
    found = rewrite(Reply(200, b"OK " + raw, fields), by_query(), mask_for(by_query().connection.injector))
    assert raw not in repr(found).encode()
    assert dict(found.fields)[b"X-Echo"] == b"Bearer " + b"*" * len(raw)


def test_a_key_that_is_echoed_once_among_thousands_of_fields_costs_one_search() -> None:
    """Each field was searched for each form: one answer kept a worker for most of a second."""
    asked: list[bytes] = []

    class Counting(Mask):
        def mask(self, data: bytes) -> bytes:
            asked.append(data)
            return super().mask(data)

    raw = KEY.encode()
    fields = ((b"X-Echo", raw), *[(b"x", b"")] * 5000, (raw, raw))
    found = rewrite(Reply(200, b"OK", fields), by_query(), Counting((raw,)))
    assert raw not in repr(found).encode()
    assert found.fields[: len(fields)] == (
        (b"X-Echo", b"*" * len(raw)),
        *[(b"x", b"")] * 5000,
        (b"*" * len(raw), b"*" * len(raw)),
    )
    assert len(asked) < 5


def test_a_key_in_the_reason_alone_is_masked() -> None:
    raw = KEY.encode()
    forward = by_query(cache=True)
    found = rewrite(Reply(200, raw, ()), forward, mask_for(forward.connection.injector))
    assert raw not in repr(found).encode()


HARD = "sk+R3AL/S=cr&t<'\"~!ü9"
FORMS = {
    "raw": HARD.encode(),
    "urlencoded": quote(HARD, safe="").encode(),
    "urlencoded lower": quote(HARD, safe="").lower().replace("r3al", "R3AL").replace("s%3d", "S%3d").encode(),
    "encodeURIComponent": quote(HARD, safe="!'()*").encode(),
    "form": quote(HARD, safe="").replace("%20", "+").encode(),
    "json": json.dumps(HARD)[1:-1].encode(),
    "json php": json.dumps(HARD)[1:-1].replace("/", "\\/").encode(),
    "json go": json.dumps(HARD)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c").encode(),
    "html": HARD.replace("&", "&amp;")
    .replace("<", "&lt;")
    .replace("'", "&#39;")
    .replace('"', "&quot;")
    .encode(),
    "hex": HARD.encode().hex().encode(),
    "HEX": HARD.encode().hex().upper().encode(),
    "base64": base64.b64encode(HARD.encode()),
    "base64 of Bearer": base64.b64encode(b"Bearer " + HARD.encode() + b" and more"),
    "base64 shifted": base64.b64encode(b"ab" + HARD.encode() + b"x"),
    "base64url": base64.urlsafe_b64encode(b"a" + HARD.encode() + b"xy"),
}


@pytest.mark.parametrize("how", FORMS)
def test_an_echoed_key_is_masked_in_every_form_and_at_every_split(how: str) -> None:
    mask = Mask([HARD.encode()])
    text = b"before " + FORMS[how] + b" after"
    whole = mask.mask(text)
    assert len(whole) == len(text)
    core = FORMS[how][4:-4]
    assert core not in whole, whole
    for at in range(len(text) + 1):
        stream = MaskedStream(mask)
        assert stream(text[:at]) + stream(text[at:]) + stream(b"") == whole


def test_basic_is_masked_as_rendered() -> None:
    mask = mask_for(BasicCredential(Secret("someuser"), Secret("verysecret")))
    encoded = base64.b64encode(b"someuser:verysecret")
    assert encoded not in mask.mask(b"Authorization: Basic " + encoded)
    assert b"verysecret" not in mask.mask(b"x verysecret x")


@given(
    st.lists(
        st.sampled_from([b"s", b"sk-", b"sk-REAL", KEY.encode(), b"x", b"\n\n", KEY.encode()[:-1]]),
        max_size=12,
    )
)
def test_a_stream_is_masked_like_the_whole(chunks: list[bytes]) -> None:
    mask = Mask([KEY.encode()])
    stream = MaskedStream(mask)
    assert b"".join([*map(stream, [c for c in chunks if c]), stream(b"")]) == mask.mask(b"".join(chunks))


def test_the_last_letter_of_a_word_goes_on_after_a_moment() -> None:
    """It waited for the next word, for as long as that took."""
    stream = MaskedStream(Mask([KEY.encode()]))
    assert stream(b"three words") == b"three word"
    assert stream.is_short
    assert stream.overdue() == b"s"
    assert not stream.is_short
    assert stream(b", and more") == b", and more"


def test_a_key_that_comes_byte_by_byte_shows_three_of_them() -> None:
    """However long its upstream waits between them; what may not go on is masked once it is whole."""
    for text in (KEY.encode(), b"x" + KEY.encode() + KEY.encode(), KEY.encode()[:3] + KEY.encode() + b"."):
        stream = MaskedStream(Mask([KEY.encode()]))
        shown = b"".join([stream(bytes([one])) + stream.overdue() for one in text]) + stream(b"")
        assert len(shown) == len(text)
        assert KEY.encode()[:4] not in shown
        assert shown.count(b"*") >= text.count(KEY.encode()) * (len(KEY) - MAX_SHOWN)


@given(
    st.lists(
        st.sampled_from(
            [b"s", b"sk", b"sk-", b"sk-REAL", KEY.encode(), b"x", KEY.encode()[:-1], KEY[2:].encode()]
        ),
        max_size=12,
    ),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_what_goes_on_early_differs_from_the_mask_by_three_bytes_of_a_key(
    chunks: list[bytes], waits: list[bool]
) -> None:
    mask = Mask([KEY.encode()])
    stream, found = MaskedStream(mask), b""
    for chunk, wait in zip(chunks, waits, strict=False):
        found += stream(chunk)
        if wait:
            found += stream.overdue()
    found += stream(b"")
    text = b"".join(chunks)
    assert len(found) == len(text)
    whole = mask.mask(text)
    assert all(ours in (masked, plain) for ours, masked, plain in zip(found, whole, text, strict=True))
    shown = [at for at, (ours, masked) in enumerate(zip(found, whole, strict=True)) if ours != masked]
    starts = [at for at in range(len(text)) if text.startswith(KEY.encode(), at)]
    assert all(any(start <= at < start + MAX_SHOWN for start in starts) for at in shown)


def test_an_event_is_not_held_back() -> None:
    """Server-sent events end in a blank line, which begins no secret."""
    stream = MaskedStream(Mask([KEY.encode()]))
    assert stream(b"data: hello s\n\n") == b"data: hello s\n\n"


@pytest.mark.parametrize(
    "pack", [gzip.compress, zlib.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])]
)
def test_a_compressed_echo_is_unpacked_and_masked(pack) -> None:
    text = b"key: " + KEY.encode() + b"!" * 200_000
    packed = pack(text)
    body = Body(Mask([KEY.encode()]), encoded=True)
    out = [piece for at in range(0, len(packed), 7) for piece in body.feed(packed[at : at + 7])] + list(
        body.finish()
    )
    assert b"".join(out) == text.replace(KEY.encode(), b"*" * len(KEY))
    assert max(map(len, out)) <= 65536 + 100


def test_a_truncated_or_false_encoding_breaks_off() -> None:
    for data in (gzip.compress(b"x" * 1000)[:-4], b"not gzip at all"):
        body = Body(Mask([KEY.encode()]), encoded=True)
        with pytest.raises(DecodingError):
            list(body.feed(data)) + list(body.finish())


@pytest.mark.parametrize("chunk", [64 * 1024, 512 * 1024])
def test_members_without_content_cost_no_more_than_their_bytes(chunk: int) -> None:
    """What is left of a chunk was copied at each of their ends."""
    empty = gzip.compress(b"", mtime=0)
    body = Body(Mask([KEY.encode()]), encoded=True)
    members = chunk // len(empty)
    pieces = list(body.feed(empty * members))
    assert not any(pieces)
    assert len(pieces) > members // 20, "others have their turn between two of them"
    assert list(body.feed(gzip.compress(b"end"))) == [b"end"]
    assert not list(body.finish())
