"""Responses on their way to the client: redirects, headers, masks."""

import base64
import gzip
import json
import zlib
from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.bodies import Body
from presign_proxy.connections import Conduct, Upstream
from presign_proxy.decisions import Forward
from presign_proxy.decoding import DecodingError
from presign_proxy.errors import Denied
from presign_proxy.injectors import BasicCredential
from presign_proxy.masking import Mask, MaskedStream, mask_for
from presign_proxy.message import Origin
from presign_proxy.replies import Reply, rewrite
from presign_proxy.secret import Secret
from support.deciding import KEY, NOW, SECRET, connection, registry, request, sent, signed
from support.signing import presign_headers, token

BASE = connection(upstream=Upstream(Origin("https", "api.example.com", 443), b"/base"))
HEADERS = tuple(
    (n.encode(), v.encode()) for n, v in presign_headers(SECRET, "conn", NOW + 60, "GET", "*").items()
)
TOKEN = token(SECRET, "conn", NOW + 60, "GET", "*")


def by_query(**conduct: bool) -> Forward:
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
    assert location(by_query(), value) == "/api/proxy/conn" + INSIDE[value]
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
            b"NEL",
        )
    ]
    dropped = (b"Set-Cookie", b"WWW-Authenticate", b"X-Accel-Redirect", b"X-Presign-Error", b"Keep-Alive")
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
    (200, (b"Transfer-Encoding", b"gzip, chunked")),
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
