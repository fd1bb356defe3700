"""Scheme presign: what is ours, what is well-formed, what is verified."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.connection import Upstream
from presign_proxy.core.credentials import HeaderCredential, QueryCredential
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.errors import Malformed
from presign_proxy.http.message import Origin
from presign_proxy.http.patterns import pattern
from presign_proxy.signing import base64url
from presign_proxy.signing.carrier_names import NAMES
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.secret import Secret
from support.deciding import (
    GATEWAY,
    KEY,
    NOW,
    SECRET,
    ask,
    code,
    connection,
    registry,
    request,
    sent,
    signed,
)
from support.signing import presign_headers, presign_params, presign_query, token
from support.text import is_utf8

TOKEN = token(SECRET, "conn", NOW + 60, "GET", "v1/*").encode()
HEADERS = tuple(
    (n.encode(), v.encode()) for n, v in presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/*").items()
)


def test_a_signed_request_is_forwarded_with_the_key_and_without_the_presign() -> None:
    forward = sent(request(signed("v1/models?limit=2").replace("?limit=2?", "?limit=2&")))
    assert (forward.origin.host, forward.sent.path, forward.sent.query) == (
        "api.example.com",
        b"/v1/models",
        b"limit=2",
    )
    assert (b"Authorization", f"Bearer {KEY}".encode()) in forward.sent.fields
    assert KEY not in repr(forward)
    assert KEY.encode() not in b"".join(value for _, value in forward.shown.fields)


FORGED = {
    "another digit": lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
    "another path signed": lambda url: url.replace("Paths=v1%2F%2A", "Paths=%2A"),
    "a longer life": lambda url: url.replace(str(NOW + 60), str(NOW + 61)),
    "more methods": lambda url: url.replace("Methods=GET", "Methods=%2A"),
    "another connection": lambda url: url.replace("/conn/", "/CONN/"),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_request_is_invalid(how: str) -> None:
    assert code(request(FORGED[how](signed()))) == "invalid"


MALFORMED = [
    ("upper-case signature", lambda u: u[:-64] + u[-64:].upper()),
    ("truncated signature", lambda u: u[:-32]),
    ("no signature", lambda u: u[:-64]),
    ("line feed behind it", lambda u: u + "%0A"),
    ("fields twice", lambda u: u + "&X-Presign-Paths=v1%2F%2A"),
    ("other case", lambda u: u + "&x-presign-paths=*"),
    ("underscores", lambda u: u + "&X_Presign_Paths=*"),
    ("dots", lambda u: u + "&X.Presign.Paths=*"),
    ("array", lambda u: u + "&X-Presign-Paths[]=*"),
    ("encoded name", lambda u: u + "&X-Presign%2DPaths=*"),
    ("twice encoded name", lambda u: u + "&X-Presign%252DPaths=*"),
    ("behind a semicolon", lambda u: u + "&a=1;X-Presign-Paths=*"),
    ("semicolons", lambda u: u.replace("&", ";")),
    ("behind a question mark", lambda u: u + "&a=1?X-Presign-Paths=*"),
    ("in a fragment", lambda u: u + "#X-Presign-Paths=*"),
    ("a fragment", lambda u: u + "#frag"),
    ("unknown field", lambda u: u + "&X-Presign-Foo=1"),
    ("no value", lambda u: u.replace(f"Expires={NOW + 60}", "Expires")),
    ("invalid UTF-8", lambda u: u.replace("v1%2F%2A", "v1/%ff")),
    ("broken escape", lambda u: u.replace("v1%2F%2A", "v1/%f")),
    ("a space in the target", lambda u: u.replace("models", "mod els")),
]


@pytest.mark.parametrize(("how", "change"), MALFORMED)
def test_a_presign_that_is_not_spelled_as_published_is_malformed(how: str, change) -> None:
    assert code(request(change(signed()))) == "malformed"


@pytest.mark.parametrize(
    "expires",
    [
        "1900000000.0",
        "01900000000",
        " 1900000000",
        "+1900000000",
        "1900000000000",
        "-1",
        "",
        "1_0",
        "٥",
        "0x10",
        "9" * 5000,
    ],
)
def test_expires_is_a_plain_number_of_seconds(expires: str) -> None:
    assert code(request(signed(expires=expires))) == "malformed"


LISTS = ["GET,", ",GET", "POST,GET", "GET,GET", "GET, POST", "get", "*,GET", "", "GET\nPOST"]


@pytest.mark.parametrize("methods", LISTS)
def test_a_signed_list_of_methods_that_no_signer_makes_is_malformed(methods: str) -> None:
    assert code(request(signed(methods=methods))) == "malformed"


@pytest.mark.parametrize(
    "paths",
    [
        "",
        "b,a",
        "a,a",
        "a,",
        "*,a",
        "**,a",
        "/*,v1",
        "/**,v1",
        "v1/*\nx",
        ",".join(f"{n:03}" for n in range(65)),
        "a" * 9000,
    ],
)
def test_a_signed_list_of_paths_that_would_grant_by_accident_is_malformed(paths: str) -> None:
    assert code(request(signed(paths=paths))) == "malformed"


def test_it_expires_the_second_after() -> None:
    asked = request(signed(expires=NOW))
    assert (code(asked, now=NOW), code(asked, now=NOW + 1)) == ("forward", "expired")


def test_eternity_is_granted_unless_the_connection_forbids_it() -> None:
    asked = request(signed(expires=0))
    assert code(asked) == "forward"
    for ceiling in (Ceiling(allow_no_expiry=False), Ceiling(max_lifetime=60)):
        assert code(asked, registry(connection(ceiling=ceiling))) == "no_expiry_not_allowed"


def test_a_signature_can_only_narrow_the_connection() -> None:
    narrow = Ceiling(methods=("GET",), paths=(pattern("v1/models"),), max_lifetime=60)
    known = registry(connection(ceiling=narrow))
    assert code(request(signed(paths="*")), known) == "forward"
    assert code(request(signed("v1/chat", paths="*")), known) == "path_not_allowed"
    assert code(request(signed(methods="*"), method="POST"), known) == "method_not_allowed"
    assert code(request(signed(expires=NOW + 61)), known) == "lifetime_too_long"


@pytest.mark.parametrize("method", ["POST", "get", "GE", "ET", "HEAD", "G"])
def test_only_the_signed_method_is_allowed(method: str) -> None:
    assert code(request(signed(methods="GET,PUT"), method=method)) == "method_not_allowed"


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "TRACK", "get", "Get"])
def test_no_wildcard_grants_a_tunnel_or_an_echo(method: str) -> None:
    assert code(request(signed(methods="*"), method=method)) == "method_not_allowed"


def test_head_comes_with_get_only_where_the_connection_says_so() -> None:
    asked = request(signed(), method="HEAD")
    assert code(asked) == "method_not_allowed"
    assert code(asked, registry(connection(ceiling=Ceiling(head_as_get=True)))) == "forward"


def test_an_old_key_verifies_until_its_last_second() -> None:
    keys = KeyRing(
        (
            SigningKey("k2", Secret("sk_another_0123456789abcdef0123456789")),
            SigningKey("k1", Secret(SECRET), NOW),
        )
    )
    known = registry(connection(keys=keys))
    decision = ask(request(signed()), known)
    assert isinstance(decision, Forward)
    assert decision.facts.key == "k1"
    assert code(request(signed()), known, now=NOW + 1) == "invalid"


def test_a_disabled_connection_tells_only_those_who_hold_a_signature() -> None:
    known = registry(connection(enabled=False))
    assert code(request(signed()), known) == "revoked"
    assert code(request(signed()[:-1] + "z"), known) == "malformed"
    assert code(request(FORGED["another digit"](signed())), known) == "invalid"


def test_every_unknown_answers_alike() -> None:
    unknown = presign_query(SECRET, "nobody", NOW + 60, "GET", "v1/*")
    assert code(request(f"/api/proxy/nobody/v1/models?{unknown}")) == "invalid"
    assert code(request(f"/v1/models?{unknown}", host="other.test")) == "invalid"


def test_headers_carry_it_at_the_gateway_and_at_the_api() -> None:
    assert code(request("/api/proxy/conn/v1/models", *HEADERS)) == "forward"
    assert code(request("/v1/models", *HEADERS, host="api.example.com", scheme="https")) == "forward"
    lower = tuple((name.lower(), value) for name, value in HEADERS)
    assert code(request("/api/proxy/conn/v1/models", *lower)) == "forward"


def test_header_and_path_that_name_two_connections_are_malformed() -> None:
    assert code(request("/api/proxy/other/v1/models", *HEADERS)) == "malformed"


@pytest.mark.parametrize("name", [b"X_Presign_Paths", b"X-Presign-Foo", b"x-presign"])
def test_a_header_that_looks_like_a_field_is_malformed(name: bytes) -> None:
    assert code(request(signed(), (name, b"*"))) == "malformed"


def test_two_carriers_are_malformed_even_where_they_agree() -> None:
    assert code(request(signed(), *HEADERS)) == "malformed"
    assert code(request(signed(), (b"Authorization", b"Bearer " + TOKEN))) == "malformed"
    assert code(request(b"/p/" + TOKEN + b"/v1/models", *HEADERS)) == "malformed"
    twice = (b"Authorization", b"Bearer " + TOKEN)
    assert code(request("/api/proxy/conn/v1/models", twice, twice)) == "malformed"


def test_a_presign_in_part_is_malformed() -> None:
    assert code(request("/api/proxy/conn/v1/models")) == "malformed"
    assert code(request("/api/proxy/conn/v1/models", HEADERS[1])) == "malformed"
    assert code(request("/anything", HEADERS[1], host="other.test")) == "malformed"


def test_anything_else_at_a_gateway_host_is_not_found() -> None:
    for target in ("/", "/api/proxy", "/api", "//api/proxy/conn/v1", "/API/proxy/conn/v1", "*"):
        assert code(request(target)) == "not_found"
    assert code(request(signed().replace("/conn/v1/models", "/conn"))) == "not_found"


def test_the_path_token_carries_it() -> None:
    forward = sent(request(b"/p/" + TOKEN + b"/v1/models?a=1"))
    assert (forward.sent.path, forward.sent.query, forward.gateway_prefix) == (b"/v1/models", b"a=1", b"")


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer " + TOKEN,
        b"token " + TOKEN,
        TOKEN,
        b"Bearer\t" + TOKEN,
        b"Token token=" + TOKEN,
        basic(b"x:" + TOKEN),
        basic(TOKEN + b":"),
        basic(TOKEN),
    ],
)
def test_the_key_token_stands_where_a_key_would(value: bytes) -> None:
    forward = sent(request("/v1/models", (b"Authorization", value), host="api.example.com", scheme="https"))
    assert TOKEN not in b"".join(value for _, value in forward.sent.fields)


ASTRAY = {
    "a header that the credential does not fill": (b"X-Other", TOKEN),
    "behind two scheme words": (b"Authorization", b"Bearer Bearer " + TOKEN),
    "as another parameter": (b"Authorization", b"Token key=" + TOKEN),
    "as a second parameter": (b"Authorization", b"Token a=b, token=" + TOKEN),
    "in quotes": (b"Authorization", b'Token token="' + TOKEN + b'"'),
    "a folded line": (b"Authorization", b"\r\n Bearer x " + TOKEN),
    "proxy authorization": (b"Proxy-Authorization", basic(b"u:" + TOKEN)),
    "as user name beside a password": (b"Authorization", basic(TOKEN + b":x-oauth-basic")),
    "in both halves of Basic": (b"Authorization", basic(TOKEN + b":" + TOKEN)),
    "base64 with a stray byte": (
        b"Authorization",
        basic(b"u:" + TOKEN)[:-4] + b"!" + basic(b"u:" + TOKEN)[-4:],
    ),
    "in a cookie": (b"Cookie", b"key=" + TOKEN),
}


@pytest.mark.parametrize("how", ASTRAY)
def test_a_token_that_went_astray_never_passes_through(how: str) -> None:
    for host in (GATEWAY, "other.test"):
        target = "/api/proxy/conn/v1/models" if host == GATEWAY else "/v1/models"
        assert code(request(target, ASTRAY[how], host=host)) == "malformed"


@pytest.mark.parametrize(
    "query",
    [
        "api_key=%70" + TOKEN.decode()[1:],
        "a=1;api_key=" + TOKEN.decode(),
        TOKEN.decode(),
        "k=" + TOKEN.decode(),
    ],
)
def test_a_token_in_a_query_that_no_credential_fills_never_passes_through(query: str) -> None:
    assert code(request(f"/v1/models?{query}", host="other.test")) in ("malformed", "invalid")
    assert code(request(f"/v1/models?{query}", host="api.example.com", scheme="https")) == "malformed"


def test_a_token_in_the_path_of_another_host_never_passes_through() -> None:
    assert code(request(b"/p/" + TOKEN + b"/v1/models", host="other.test")) == "not_found"
    assert code(request(b"/a/" + TOKEN + b"/v1/models", host="other.test")) == "malformed"


@pytest.mark.parametrize(
    "name",
    [
        "X-Presign-Expires",
        "x-presign-signature",
        "X-PRESIGN-EXPIRES",
        "X-pReSiGn-Paths",
        "X-PRESIGn-Methods",
        "X_Presign_Connection",
        "X%2DPresign%2DExpires",
        "%58-%50resign-Expires",
    ],
)
def test_a_field_in_the_path_of_another_host_never_passes_through(name: str) -> None:
    """As a path parameter or behind an encoded `?`: some parser takes it for a part of a presign."""
    for before in (";", "%3F", "&"):
        assert code(request(f"/v1/models{before}{name}=1", host="other.test")) == "malformed"


@pytest.mark.parametrize("path", ["/blog/x-presign-expires", "/resign/%20", "/X-Presign-Other=1", "/presign"])
def test_a_path_that_only_speaks_of_presigns_is_not_ours(path: str) -> None:
    assert code(request(path, host="other.test")) == "pass"


def test_a_key_token_fits_the_slot_of_the_connections_own_key() -> None:
    header = HeaderCredential(((b"X-Api-Key", b"", Secret(KEY)),))
    query = QueryCredential((("key", Secret(KEY)),))
    by_header, by_query = registry(connection(injector=header)), registry(connection(injector=query))
    at = {"host": "api.example.com", "scheme": "https"}
    assert code(request("/v1/models", (b"x-api-key", TOKEN), **at), by_header) == "forward"
    assert code(request(b"/v1/models?key=" + TOKEN, **at), by_query) == "forward"
    assert code(request("/v1/models", (b"x-api-key", TOKEN), **at), by_query) == "malformed"
    assert code(request(b"/v1/models?key=" + TOKEN, **at), by_header) == "malformed"
    forward = sent(request(b"/v1/models?a=1&key=" + TOKEN + b"&b=2", **at), by_query)
    assert forward.sent.query == b"a=1&b=2&key=" + KEY.encode()


def test_a_token_that_is_not_canonical_is_malformed() -> None:
    payload, _, signature = TOKEN[4:].partition(b".")
    for bad in (payload + b"=", payload[:-1], payload[:-1] + bytes([payload[-1] ^ 1]), b"+" + payload[1:]):
        assert code(request(b"/p/ps1_" + bad + b"." + signature + b"/v1/models")) in ("malformed", "invalid")


def test_the_connection_is_found_by_address_if_only_one_fits() -> None:
    base = connection("base", upstream=Upstream(Origin("https", "api.example.com", 443), b"/base"))
    at = {"host": "api.example.com", "scheme": "https"}
    query = presign_query(SECRET, "conn", NOW + 60, "GET", "*")
    assert code(request(f"/v1/models?{query}", **at)) == "forward"
    assert code(request(f"/base/x?{query}", **at), registry(connection(), base)) == "invalid"
    assert code(request(f"/%62ase/x?{query}", **at), registry(connection(), base)) == "invalid"
    assert code(request(f"/v1/models?{query}", **at), registry(connection(), connection("twin"))) == "invalid"


def test_plain_http_towards_an_https_upstream_is_a_mismatch() -> None:
    params = presign_params(SECRET, "conn", NOW + 60, "GET", "v1/*") | {"X-Presign-Connection": "conn"}
    fields = tuple((name.encode(), value.encode()) for name, value in params.items())
    assert code(request("/v1/models", *fields, host="api.example.com", scheme="http")) == "host_mismatch"
    assert (
        code(request("/v1/models", *fields, host="api.example.com:8443", scheme="https")) == "host_mismatch"
    )
    assert code(request("/v1/models", *fields, host="evil.test", scheme="https")) == "host_mismatch"


@pytest.mark.parametrize("kind", ["host", "sni", ":authority", "front-sni"])
def test_names_that_disagree_are_a_mismatch(kind: str) -> None:
    asked = request(signed(), names=(("host", GATEWAY), (kind, "evil.test")))
    assert code(asked) == "host_mismatch"


def test_without_a_registry_nothing_is_let_through() -> None:
    from presign_proxy.core.decide import decide

    for asked in (request(signed()), request("/", host="other.test"), request("/v1/pk/x.png")):
        decision = decide(None, asked, NOW, "req_test")
        assert getattr(decision, "code", None) == "unavailable"


def test_what_is_not_ours_passes_or_is_unsigned() -> None:
    asked = request(
        "/?next=https%3A%2F%2Fpresign.local%2F%3FX-Presign-Expires%3D1",
        (b"X-Category", b"ps2_slim"),
        host="other.test",
    )
    assert code(asked) == "pass"
    assert code(asked, registry(deny=True)) == "unsigned"


@pytest.mark.parametrize(
    "host",
    ["localhost:8080", "127.0.0.1:8080", "127.0.0.9:8080", "[::1]:8080", "10.1.2.3:8080", "0.0.0.0:8080"],
)
def test_the_listener_itself_is_the_gateway(host: str) -> None:
    assert code(request("/", host=host, listener=("10.1.2.3", 8080))) == "not_found"
    assert code(request("/", host=host.replace("8080", "8081"), listener=("10.1.2.3", 8080))) == "pass"


def test_a_huge_path_that_looks_like_a_presign_costs_no_time() -> None:
    """A pattern that could backtrack took seconds for one head, before any signature was looked at."""
    started = time.process_time()
    for target in ("/" + "x-presign-" * 6400, "/?" + "%&" * 30000 + "=x-presign", "/" + "ps1_" * 16000):
        code(request(target, host="other.test"))
    assert time.process_time() - started < 2


def test_random_names_leave_nothing_in_memory() -> None:
    from presign_proxy.core import redact
    from presign_proxy.http import field_names

    for n in range(50):
        redact.redact(b"/", ((f"x{n}".encode() * 5000, b"v"),))
    before = field_names._short_key.cache_info().currsize
    redact.redact(b"/", ((b"y" * 65, b"v"),))
    assert field_names._short_key.cache_info().currsize == before


@given(st.text("ABQIYZaSgwk048-_", max_size=12))
def test_base64url_has_one_spelling_for_each_text(encoded: str) -> None:
    try:
        raw = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        good = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == encoded and is_utf8(raw)
    except ValueError:
        good = False
    if good:
        assert base64url.encode(base64url.decode(encoded.encode(), "it")) == encoded
    else:
        with pytest.raises(Malformed):
            base64url.decode(encoded.encode(), "it")


@pytest.mark.parametrize("field", ["expires", "methods", "paths", "signature"])
def test_a_presign_that_lacks_a_field_is_told_which(field: str) -> None:
    path, _, query = signed().partition("?")
    kept = [one for one in query.split("&") if one.partition("=")[0] != NAMES[field]]
    assert len(kept) == len(query.split("&")) - 1
    decision = ask(request(f"{path}?{'&'.join(kept)}"))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.detail) == ("malformed", f"the presign has no {field}")
