"""URLs in responses: which lead through the gateway, and which take the presign along."""

import time
from ipaddress import ip_network
from itertools import product
from urllib.parse import urljoin

import pytest

from presign_proxy.core.credentials import QueryCredential
from presign_proxy.core.decision import Forward
from presign_proxy.core.masking import Mask, mask_for
from presign_proxy.core.registry import Registry
from presign_proxy.core.rewrite_response import Reply, rewrite
from presign_proxy.signing.secret import Secret
from support.deciding import GATEWAY, KEY, code, connection, registry, request, sent, signed
from support.replies import AWAY, BASE, HEADERS, TOKEN, at_the_api, by_header, by_query, by_token, reply

INSIDE = {
    "https://api.example.com/base/v2/c?d=1#e": "/v2/c?d=1#e",
    "//api.example.com/base/v2": "/v2",
    "/base/v2/": "/v2/",
    "c": "/v1/a/c",
    "../c": "/v1/c",
    "?page=2": "/v1/a/b?page=2",
}


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
