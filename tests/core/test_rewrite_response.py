"""Responses on their way to the client: redirects, and what is added to their heads and taken off."""

from urllib.parse import urljoin

import pytest

from presign_proxy.core.connection import Conduct
from presign_proxy.core.decision import Forward
from presign_proxy.core.masking import Mask, mask_for
from presign_proxy.core.rewrite_response import Reply, rewrite
from presign_proxy.errors import Denied
from support.deciding import KEY, connection, registry, request, sent
from support.replies import (
    AWAY,
    BASE,
    HEADERS,
    TOKEN,
    at_the_api,
    by_header,
    by_query,
    by_token,
    location,
    reply,
)


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
