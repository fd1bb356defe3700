"""Scheme presign, carrier by carrier: what is found in a query, a header, a token and a path, and what is
said of that which is not spelled as it should be.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest

from presign_proxy.core.connection import Conduct, KeyForms
from presign_proxy.core.credentials import CredentialSlots, HeaderCredential
from presign_proxy.core.decision import Deny
from presign_proxy.core.registry import Registry
from presign_proxy.http.message import Request, head_of
from presign_proxy.signing import presign_scheme
from presign_proxy.signing.key_token import TokenSlot
from presign_proxy.signing.presign_scheme import Presign, recognise
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.signed_policy import Terms
from presign_proxy.signing.signer import Signer
from support.deciding import (
    GATEWAY,
    KEY,
    NOW,
    SECRET,
    ask,
    code,
    connection,
    project,
    registry,
    request,
    sent,
    signed,
)
from support.signing import presign_headers, presign_query, token

AT = {"host": "api.example.com", "scheme": "https"}
AWAY = {"host": "other.test"}
TOKEN = token(SECRET, "conn", NOW + 60, "GET", "v1/*").encode()
OTHER_TOKEN = token(SECRET, "conn", NOW + 61, "GET", "v1/*").encode()
HEADERS = {
    name.encode(): value.encode()
    for name, value in presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/*").items()
}
SIGNATURE = HEADERS[b"X-Presign-Signature"].decode()
LIST = 8192


def read(asked: Request) -> Presign:
    found = recognise(asked, head_of(asked), gateway=asked.origin.host == GATEWAY)
    assert found is not None
    return found


def told(asked: Request, known: Registry | None = None) -> str:
    """What the audit log is told of a malformed request."""
    decision = ask(asked, known)
    assert isinstance(decision, Deny)
    assert decision.code == "malformed"
    return decision.detail


# -- what is read -----------------------------------------------------------------------------------------


def test_each_carrier_is_read_for_what_it_says() -> None:
    common = {
        "connection_id": "conn",
        "expires": str(NOW + 60),
        "methods": "GET",
        "paths": "v1/*",
        "signature": SIGNATURE,
        "path": b"/v1/models",
    }
    bearer = (b"Authorization", b"Bearer " + TOKEN)
    slot = TokenSlot("header", b"authorization")
    query = signed("v1/models").partition("?")[2]
    for asked, differing in (
        (request(signed()), {"carrier": "query", "gateway": True, "query": None, "slots": ()}),
        (
            request(f"/api/proxy/conn/v1/models?a=1&{query}&&b=%20"),
            {"carrier": "query", "gateway": True, "query": b"a=1&&b=%20", "slots": ()},
        ),
        (
            request("/v1/models?", *HEADERS.items(), **AT),
            {"carrier": "header", "gateway": False, "query": b"", "slots": ()},
        ),
        (
            request(b"/p/" + TOKEN + b"/v1/models?x"),
            {"carrier": "path", "gateway": True, "query": b"x", "slots": ()},
        ),
        (
            request("/v1/models", bearer, **AT),
            {"carrier": "key", "gateway": False, "query": None, "slots": (slot,)},
        ),
        (
            request(b"/v1/models?a&Key[]=" + TOKEN + b"&b=2", **AT),
            {"carrier": "key", "gateway": False, "query": b"a&b=2", "slots": (TokenSlot("param", b"key"),)},
        ),
        (
            request(b"/v1/models?key=" + TOKEN, **AT),
            {"carrier": "key", "gateway": False, "query": None, "slots": (TokenSlot("param", b"key"),)},
        ),
    ):
        found = read(asked)._asdict()
        expected = common | differing
        assert {name: found[name] for name in expected} == expected


def test_a_presign_may_say_twice_for_whom_it_is_where_it_says_the_same() -> None:
    assert code(request(f"{signed()}&X-Presign-Connection=conn")) == "forward"
    assert code(request("/api/proxy/conn/v1/models", *HEADERS.items())) == "forward"
    assert told(request(f"{signed()}&X-Presign-Connection=other")) == "two different connections are named"


@pytest.mark.parametrize("path", ["v1/ü*", "v1/\N{NO-BREAK SPACE}*", "v1/\N{SOFT HYPHEN}*", "v1/*😀"])
def test_a_list_may_hold_any_character_that_controls_nothing(path: str) -> None:
    """In a header as UTF-8."""
    fields = presign_headers(SECRET, "conn", NOW + 60, "GET", f"v1/models,{path}")
    if path < "v1/m":
        fields = presign_headers(SECRET, "conn", NOW + 60, "GET", f"{path},v1/models")
    assert (
        code(request("/api/proxy/conn/v1/models", *((n.encode(), v.encode()) for n, v in fields.items())))
        == "forward"
    )


# -- what is malformed, and why ---------------------------------------------------------------------------


def without(*names: str) -> str:
    query = presign_query(SECRET, "conn", NOW + 60, "GET", "v1/*")
    kept = [
        piece for piece in query.split("&") if not piece.startswith(tuple(f"X-Presign-{n}" for n in names))
    ]
    return f"/api/proxy/conn/v1/models?{'&'.join(kept)}"


LONG = "expires is neither 0 nor a plain Unix time in seconds"
CASES: list[tuple[str | bytes, str]] = [
    ("/api/proxy/conn/v1/models", "the URL names a connection but no presign"),
    (without("Expires", "Paths"), "the presign has no expires, paths"),
    (without("Signature"), "the presign has no signature"),
    (without("Methods"), "the presign has no methods"),
    (signed(expires="1900000000000"), "expires has 13 digits: milliseconds, where seconds are expected"),
    (signed(expires="19000000000000"), LONG),
    (signed(expires="0900000000000"), LONG),
    (signed(expires="1e9"), LONG),
    (signed()[:-1], "the signature is not 64 lower-case hex digits"),
    (signed().replace("/conn/", "/co.nn/"), "the connection id is not 1 to 64 of A-Z a-z 0-9 _ -"),
    (signed().encode().replace(b"/conn/", b"/co\xffnn/"), "the connection id is not 1 to 64"),
    (signed(paths="a" * LIST), ""),
    (signed(paths="a" * (LIST + 1)), f"a list is longer than {LIST} bytes"),
    (signed(paths="😀" * (LIST // 4)), ""),
    (signed(paths="😀" * (LIST // 4) + "a"), f"a list is longer than {LIST} bytes"),
    (signed(methods="A" * LIST), "methods holds something that is not an upper-case method"),
    (signed(methods="A" * (LIST + 1)), f"a list is longer than {LIST} bytes"),
    (signed(methods="😀" * (LIST // 4) + "a"), f"a list is longer than {LIST} bytes"),
    (signed(paths="v1/\x85"), "a list holds a control character"),
    (signed(methods="GET\n"), "a list holds a control character"),
    (signed(paths="v1/\x7f"), "a list holds a control character"),
    (signed() + "&X-Presign-Foo=1", "a query parameter looks like a presign field"),
    (signed() + "&a%3bX-Presign-Paths=1", "a query parameter looks like a presign field"),
    (signed() + "&a=1;x_presign_paths=1", "a query parameter looks like a presign field"),
    (signed().replace(f"Expires={NOW + 60}", "Expires"), "a presign parameter has no value"),
    (signed() + "&X-Presign-Paths=v1%2F%2A", "paths is given twice"),
    (
        signed().replace("&X-Presign-Methods", ";X-Presign-Methods"),
        "a presign field is hidden",
    ),
    (signed() + ";a=1", "the signature is not 64 lower-case hex digits"),
]


@pytest.mark.parametrize(("target", "why"), CASES, ids=[f"{why}-{n}" for n, (_, why) in enumerate(CASES)])
def test_the_audit_log_says_what_is_wrong_with_a_url(target: str | bytes, why: str) -> None:
    decision = ask(request(target))
    detail = getattr(decision, "detail", "")
    assert detail.startswith(why)
    assert ("longer than" in detail) == ("longer than" in why)


def test_the_audit_log_knows_milliseconds() -> None:
    meant = "expires has 13 digits: milliseconds, where seconds are expected"
    assert told(request(signed(expires="1900000000000"))) == meant
    assert told(request(signed(expires="19000000000000"))) == LONG


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (b"X-Presign-Foo", b"1", "a header looks like a presign field but is none"),
        (b"X_Presign_Paths", b"1", "a header looks like a presign field but is none"),
        (b"X-PresignPaths", b"1", "a header looks like a presign field but is none"),
        (b"x-presign-paths", b"v1/*", "paths is given twice"),
    ],
)
def test_the_audit_log_says_what_is_wrong_with_a_header(name: bytes, value: bytes, why: str) -> None:
    assert told(request("/api/proxy/conn/v1/models", *HEADERS.items(), (name, value))) == why


def test_a_presign_header_that_is_no_text_is_malformed() -> None:
    fields = HEADERS | {b"X-Presign-Paths": b"v1/\xff"}
    assert told(request("/api/proxy/conn/v1/models", *fields.items())) == "a presign header is not UTF-8"


def test_the_audit_log_says_which_carriers_a_request_had() -> None:
    asked = request(signed(), *HEADERS.items(), (b"Authorization", b"Bearer " + TOKEN))
    assert told(asked) == "it carries more than one presign: query, header, key"
    asked = request(b"/p/" + TOKEN + b"/v1/models", (b"Authorization", b"Bearer " + TOKEN))
    assert told(asked) == "it carries more than one presign: key, path"


# -- tokens -----------------------------------------------------------------------------------------------


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


def url_safe(text: bytes) -> bytes:
    return b"Basic " + base64.urlsafe_b64encode(text).rstrip(b"=")


ASTRAY = "a token is in a place that is not for a credential"
HALVES = "a token in Basic is neither the password nor the user name"
BESIDE = "the token is a user name, and its password is not one of key_slots.passwords"
BROKEN = "Basic holds a token but is not well-formed"
QUERY = "a token in the query is not a plain value"
PATH = "there is a token in the path of another host"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (b"X-Custom", b"a " + TOKEN, ASTRAY),
        (b"Proxy-Authorization", b"Bearer " + TOKEN, ASTRAY),
        (b"Proxy-Authorization", b"token token=" + TOKEN, ASTRAY),
        (b"Authorization", b"Bearer x " + TOKEN, ASTRAY),
        (b"Proxy-Authorization", basic(b"u:" + TOKEN), HALVES),
        (b"Authorization", basic(TOKEN + b":x"), BESIDE),
        (b"Authorization", basic(TOKEN + b":" + TOKEN), HALVES),
        (b"Authorization", basic(b"u:" + TOKEN) + b"A", BROKEN),
        (b"Authorization", basic(b"user:" + TOKEN).rstrip(b"=") + b"AAAAA", BROKEN),
        (b"Authorization", basic(b"u:" + TOKEN).replace(b"Basic ", b"bAsIc !"), BROKEN),
        (b"Authorization", basic(b"u:" + TOKEN).replace(b"Basic ", b"Basic \xff"), BROKEN),
        (b"Authorization", basic(b"u:" + TOKEN).replace(b"Basic ", b"Basic \xe9"), BROKEN),
        (b"Authorization", url_safe(b"\xff\xfe\xfb:" + TOKEN), BROKEN),
        (b"Authorization", url_safe(b"\xfb\x00\x00:" + TOKEN), BROKEN),
        (b"Authorization", url_safe(b"us:" + TOKEN), BROKEN),
        (b"Referer", TOKEN[:4] + b"x", "the token is not of the form"),
        (b"Authorization", b"Bearer ps1_x", "the token is not of the form"),
        (b"Authorization", b"Bearer " + TOKEN + b" x", "the token is not of the form"),
        (b"Authorization", b"Bearer " + TOKEN + b", " + TOKEN, "the token is not of the form"),
        (b"Authorization", b"Token token=ps1_x", "the token is not of the form"),
    ],
)
def test_the_audit_log_says_where_a_token_stood(name: bytes, value: bytes, why: str) -> None:
    for at in (AT, AWAY):
        assert told(request("/v1/models", (name, value), **at)).startswith(why)


@pytest.mark.parametrize("dangling", [b"A", b"AA", b"A=", b"_", b"-"])
@pytest.mark.parametrize("user", [b"", b"u", b"us", b"use"])
def test_base64_that_a_lenient_decoder_reads_hides_no_token(user: bytes, dangling: bytes) -> None:
    """One digit too many is dropped by some, and the rest is read."""
    value = basic(user + b":" + TOKEN).rstrip(b"=") + dangling
    assert code(request("/v1/models", (b"Authorization", value), **AWAY)) in ("malformed", "invalid")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Authorization", b""),
        (b"Authorization", b"Basic"),
        (b"Authorization", b"Basic A"),
        (b"Authorization", b"Basic AAAAA"),
        (b"Authorization", b"Basic !"),
        (b"Authorization", basic(b"user:password")),
        (b"Proxy-Authorization", basic(b"user:password")),
        (b"Authorization", b"Bearer sk-abc"),
        (b"X-Custom", b"steps1_a ps2_slim"),
        (b"Referer", b"https://presign.local/p/" + TOKEN + b"/v1/models"),
    ],
)
def test_what_other_people_carry_is_not_ours(name: bytes, value: bytes) -> None:
    assert code(request("/v1/models", (name, value), **AWAY)) == "pass"
    # Nor does it stand in the way of a token elsewhere.
    bearer = (b"Authorization", b"Bearer " + TOKEN)
    if name != b"Authorization":
        assert code(request("/v1/models", (name, value), bearer, **AT)) == "forward"
        assert code(request("/v1/models", bearer, (name, value), **AT)) == "forward"


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer " + TOKEN,
        b"Bearer   " + TOKEN,
        b"token token=" + TOKEN,
        basic(TOKEN + b":"),
        basic(TOKEN),
        basic(b":" + TOKEN),
        basic(b"us\xc3\xa9r:" + TOKEN),
        b"BASIC" + basic(b"u:" + TOKEN)[5:],
    ],
)
def test_a_token_in_authorization_is_taken_whole(value: bytes) -> None:
    found = read(request("/v1/models", (b"Authorization", value), **AT))
    assert (found.connection_id, found.signature) == ("conn", SIGNATURE)


def test_a_token_beside_the_name_of_another_version_is_found() -> None:
    bearer = (b"Authorization", b"Bearer " + TOKEN)
    assert code(request("/v1/models", (b"X-Category", b"ps2_slim"), bearer, **AT)) == "forward"
    away = f"ps2_abc.{SIGNATURE}".encode()
    assert told(request("/v1/models", (b"X-Category", b"a " + away), bearer, **AT)) == ASTRAY


def test_a_token_in_a_presign_header_is_that_header_s_affair() -> None:
    fields = HEADERS | {b"X-Presign-Paths": TOKEN}
    assert code(request("/api/proxy/conn/v1/models", *fields.items())) == "invalid"


@pytest.mark.parametrize("name", [b"X\nA", b"X\n", b"\nAuthorization"])
def test_a_line_break_in_a_name_beside_a_token_is_malformed(name: bytes) -> None:
    """There seem to be more names than fields then."""
    bearer = (b"Authorization", b"Bearer " + TOKEN)
    for fields in ((bearer, (name, b"x")), ((name, b"x"), bearer)):
        assert code(request("/v1/models", *fields, **AT)) == "malformed"


@pytest.mark.parametrize("query", ["q=ps1_games", "q=ps1_", "ps2_slim", "q=%70s1_games&sort=x.y"])
def test_what_people_look_for_is_no_token(query: str) -> None:
    assert code(request(f"/search?{query}", **AWAY)) == "pass"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (b"a=%70s1_" + TOKEN[4:], QUERY),
        (b"a=x" + TOKEN, "the token stands in a slot that the connection's credential does not fill"),
        (b"a=x%20" + TOKEN, QUERY),
        (b"a=1;key=" + TOKEN, QUERY),
        (TOKEN, QUERY),
        (b"key=ps1_x." + SIGNATURE.encode(), "the token does|the token is|the base64url of the token"),
        (b"key=" + TOKEN + b"&key=" + TOKEN, "a slot holds the token twice"),
        (b"key=" + TOKEN + b"&key=" + OTHER_TOKEN, "it carries more than one presign: key, key"),
    ],
)
def test_the_audit_log_says_where_in_a_query_a_token_stood(query: bytes, why: str) -> None:
    detail = told(request(b"/v1/models?b=1&" + query, **AT))
    assert any(detail.startswith(one) for one in why.split("|"))


# -- one key in several slots, and at the gateway ---------------------------------------------------------

BEARER = (b"Authorization", b"Bearer " + TOKEN)
API_KEY = (b"X-Api-Key", TOKEN)


def keyed(**more: Any) -> Registry:
    """A connection whose key goes into X-Api-Key."""
    return registry(connection(injector=HeaderCredential(((b"X-Api-Key", b"", Secret(KEY)),)), **more))


@pytest.mark.parametrize("reject", [False, True])
def test_a_client_that_fills_two_slots_from_one_key_is_served(reject: bool) -> None:
    known = keyed(conduct=Conduct(reject_client_credentials=reject))
    for fields in ((BEARER, API_KEY), (API_KEY, BEARER), ((b"Authorization", basic(b"u:" + TOKEN)), API_KEY)):
        forward = sent(request("/v1/models", *fields, **AT), known)
        assert forward.sent is not None
        assert b"ps1_" not in repr(forward.sent).encode()
        assert [value for name, value in forward.sent.fields if name == b"X-Api-Key"] == [KEY.encode()]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((BEARER, (b"X-Api-Key", OTHER_TOKEN)), "it carries more than one presign: key, key"),
        ((BEARER, API_KEY, (b"Api-Key", TOKEN)), "the token stands in a slot"),
        ((BEARER, (b"X-Other", TOKEN)), "the token stands in a slot"),
        ((BEARER, BEARER), "a slot holds the token twice"),
        ((API_KEY, (b"X_Api_Key", TOKEN)), "a slot holds the token twice"),
        ((BEARER, API_KEY, *HEADERS.items()), "it carries more than one presign: header, key"),
    ],
)
def test_another_token_or_another_slot_beside_a_key_token_is_malformed(
    fields: tuple[tuple[bytes, bytes], ...], why: str
) -> None:
    assert told(request("/v1/models", *fields, **AT), keyed()).startswith(why)


def test_a_key_of_the_clients_own_beside_a_key_token_is_rejected_where_the_connection_says_so() -> None:
    known = keyed(conduct=Conduct(reject_client_credentials=True))
    assert told(request("/v1/models", BEARER, (b"X-Api-Key", b"mine"), **AT), known).startswith("the client")


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/v1/x/y.png", "/v1/", "/v1/pk/a.png"]
)
def test_an_sdk_that_takes_a_host_only_needs_no_path_of_the_gateways(path: str) -> None:
    known = registry(connection(), project())
    assert sent(request(path, BEARER), known).plain.path == path.encode()


@pytest.mark.parametrize("path", ["/", "/v2/models", "/v1%2Fmodels", "/v1/../v2/models"])
def test_a_key_token_at_the_gateway_grants_no_more_than_was_signed(path: str) -> None:
    assert code(request(path, BEARER)) == "path_not_allowed"


def test_nothing_but_a_key_token_is_taken_at_any_path_of_the_gateway() -> None:
    for path in ("/v1", "/models", "/"):
        assert code(request(path)) == "not_found"
        assert code(request(path, *HEADERS.items())) == "not_found"
        assert code(request(f"{path}?{presign_query(SECRET, 'conn', NOW + 60, 'GET', '*')}")) == "not_found"
        assert code(request(path, (b"X-Api-Key", TOKEN))) != "forward"  # not this connection's slot
    assert code(request("/api/proxy/other/v1/models", BEARER)) == "malformed"
    assert code(request(b"/p/" + TOKEN + b"/v1/models", BEARER)) == "malformed"


@pytest.mark.parametrize("query", ["sig=1&exp=2", "exp=1900000000", "SIG=0", "a=1;sig=0"])
def test_a_key_token_beside_a_source_signature_is_malformed_and_bare(query: str) -> None:
    known = registry(connection(), project())
    decision = ask(request(f"/v1/pk/a.png?{query}", BEARER), known)
    assert isinstance(decision, Deny)
    assert (decision.code, decision.style) == ("malformed", "bare")


# -- the path ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/proxy/conn/v1/models", "/p/x/y", "/p/ps1_x", "/v1/ps1_x", "/%20"])
def test_a_path_of_another_host_is_its_own_affair(path: str) -> None:
    assert code(request(path, **AWAY)) == "pass"


def test_at_the_gateway_nothing_but_its_own_forms_holds_a_presign() -> None:
    for target in ("/", "/other", "/pp/x", "/api/proxy"):
        asked = request(target)
        assert recognise(asked, head_of(asked), gateway=True) is None


def test_a_token_or_a_field_in_the_path_of_another_host_is_malformed() -> None:
    assert told(request(b"/q/" + TOKEN + b"/v1", **AWAY)) == PATH
    assert told(request(b"/x/%70s1_" + TOKEN[4:], **AWAY)) == PATH
    assert told(request("/x;X-Presign-Paths=1", **AWAY)) == "there is a presign field in the path"


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/p/ps1_x/v1", "malformed"),
        (b"/p//v1", "malformed"),
        (b"/p/" + TOKEN + b"x/v1", "malformed"),
        (b"/p/" + TOKEN, "not_found"),
        (b"/p/" + TOKEN + b"/", "path_not_allowed"),
    ],
)
def test_a_path_token_ends_at_the_next_slash(target: bytes, wanted: str) -> None:
    assert code(request(target)) == wanted


def test_what_stands_behind_the_prefix_is_forwarded_with_its_slash() -> None:
    known = registry(connection())
    for target in (signed("v1/a/"), b"/p/" + TOKEN + b"/v1/a/"):
        assert sent(request(target), known).sent.path == b"/v1/a/"


# -- what nearly all requests are spared ------------------------------------------------------------------


class Spared:
    """Stands in for what costs time, and fails where it is used."""

    def __call__(self, *_: object) -> None:
        pytest.fail("this was to be spared")

    search = __call__


@pytest.mark.parametrize("name", ["decodings", "fold_decoded", "hides", "_CONTROL"])
def test_a_presigned_url_is_not_searched_for_look_alikes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presign_scheme, name, Spared())
    assert code(request(f"{signed()}&limit=2&order=asc")) == "forward"


@pytest.mark.parametrize("query", ["a=1&b=2", "q=resign", "q=presign&x=1", ""])
@pytest.mark.parametrize("name", ["hides", "_SPELLED"])
def test_a_query_that_holds_no_presign_is_not_taken_apart(
    query: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presign_scheme, name, Spared())
    assert code(request(f"/v1/models?{query}", **AWAY)) == "pass"


@pytest.mark.parametrize("field", ["methods", "paths"])
def test_a_list_is_measured_in_bytes_however_few_characters_they_are(field: str) -> None:
    longest = {"methods": "GET", "paths": "v1/*"}
    longest[field] = "\U0001d11e" * (LIST // 4)
    for more, expected in (("", False), ("a", True)):
        given = longest | {field: longest[field] + more}
        headers = presign_headers(SECRET, "conn", NOW + 60, given["methods"], given["paths"])
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        decision = ask(request("/api/proxy/conn/v1/models", *fields))
        assert isinstance(decision, Deny)
        assert (decision.detail == f"a list is longer than {LIST} bytes") is expected


# -- subprotocols of a WebSocket --------------------------------------------------------------------------

UPGRADE = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"))
SHAKE = (*UPGRADE, (b"Sec-WebSocket-Version", b"13"), (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="))
IN_PAGES = b"openai-insecure-api-key."
NOT_THE_KEY = "a token in Sec-WebSocket-Protocol is not the one key among the subprotocols"
NO_WEBSOCKET = "a token is a subprotocol of a request that asks for no WebSocket"
NO_SHAPE = "the text before the token is not one of the connection's key_shapes"
NOT_LISTED = "the token stands in a slot that the connection's credential does not fill"


def realtime(**changes: Any) -> Registry:
    """A connection that lists the header in which pages send a key."""
    slots = CredentialSlots(frozenset({b"authorization", b"sec-websocket-protocol"}))
    conduct = changes.pop("conduct", Conduct(websocket=True))
    return registry(connection(conduct=conduct, taken=slots, **changes))


def offers(*lines: bytes, more: tuple[tuple[bytes, bytes], ...] = SHAKE, **at: Any) -> Request:
    """A handshake with these lines of subprotocols."""
    return request("/v1/realtime", *more, *((b"Sec-WebSocket-Protocol", line) for line in lines), **at)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([b"realtime, " + IN_PAGES + TOKEN], b"realtime"),
        ([IN_PAGES + TOKEN + b",realtime"], b"realtime"),
        ([b"realtime ,\t" + IN_PAGES + TOKEN + b" , chat"], b"realtime, chat"),
        ([b"realtime", IN_PAGES + TOKEN], b"realtime"),
        ([b"realtime, " + IN_PAGES + b"sk-" + TOKEN], b"realtime"),
        ([IN_PAGES + TOKEN + b", base64url.bearer.authorization.k8s.io.bWluZQ"], b""),
        ([IN_PAGES + TOKEN], b""),
    ],
)
@pytest.mark.parametrize("at", [AT, {}], ids=["its own name", "gateway"])
def test_a_key_among_the_subprotocols_is_taken_off(
    lines: list[bytes], kept: bytes, at: dict[str, Any]
) -> None:
    known = realtime(key_forms=KeyForms(frozenset({b"sk-"})))
    asked = offers(*lines, **at)
    assert read(asked).slots == (TokenSlot("header", b"sec-websocket-protocol"),)
    plain = sent(asked, known).plain
    found = [value for name, value in plain.fields if name.lower() == b"sec-websocket-protocol"]
    assert found == ([kept] if kept else [])
    assert b"ps1_" not in repr(plain).encode()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([b"realtime, " + TOKEN], NOT_THE_KEY),
        ([TOKEN], NOT_THE_KEY),
        ([b"sk-" + TOKEN], NOT_THE_KEY),
        ([b"x." + IN_PAGES + TOKEN], NOT_THE_KEY),
        ([b"OpenAI-insecure-api-key." + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + IN_PAGES + TOKEN], NO_SHAPE),
        ([IN_PAGES + b"sk-" + TOKEN], NO_SHAPE),
        ([IN_PAGES + b"x" * 33 + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b" x"], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b", " + IN_PAGES + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b", " + IN_PAGES + b"sk-" + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b", " + IN_PAGES + OTHER_TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b", " + TOKEN], NOT_THE_KEY),
        ([TOKEN + b", " + IN_PAGES + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b", " + IN_PAGES + b"ps1_x"], NOT_THE_KEY),
        ([IN_PAGES + b"ps2_x, " + IN_PAGES + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN + b", %70s1_AAAA." + b"0" * 64], NOT_THE_KEY),
        ([b"base64url.bearer.authorization.k8s.io." + TOKEN], NOT_THE_KEY),
        ([IN_PAGES + TOKEN, IN_PAGES + TOKEN], "a slot holds the token twice"),
        ([IN_PAGES + TOKEN, IN_PAGES + OTHER_TOKEN], "it carries more than one presign: key, key"),
        ([IN_PAGES + b"ps1_x"], "the token is not of the form"),
        ([IN_PAGES + TOKEN[:-1]], "the token is not of the form"),
    ],
)
def test_a_token_elsewhere_among_the_subprotocols_is_malformed(lines: list[bytes], why: str) -> None:
    for at in (AT, AWAY, {}):
        assert told(offers(*lines, **at), realtime()).startswith(why)


def test_a_key_with_a_signed_policy_is_taken_from_the_subprotocols_too() -> None:
    signer = Signer("conn", SECRET)
    grant = signer.sign(["GET"], ["v1/*"], expires_at=NOW + 60, terms=Terms(id="page"))
    assert grant.token.startswith("ps2_")
    plain = sent(offers(b"realtime, " + IN_PAGES + grant.token.encode(), **AT), realtime()).plain
    assert (b"Sec-WebSocket-Protocol", b"realtime") in plain.fields
    assert b"ps2_" not in repr(plain).encode()
    both = IN_PAGES + grant.token.encode() + b", " + IN_PAGES + TOKEN
    assert told(offers(both, **AT), realtime()) == NOT_THE_KEY


def test_a_subprotocol_holds_a_key_only_in_a_handshake() -> None:
    line = b"realtime, " + IN_PAGES + TOKEN
    for more in ((), (*UPGRADE[1:],), ((b"Upgrade", b"h2c"), *SHAKE[1:]), SHAKE[1:]):
        assert told(offers(line, more=more, **AT), realtime()) == NO_WEBSOCKET
    # What asks for WebSocket in another way than a handshake is refused as one.
    assert code(offers(line, more=UPGRADE, **AT), realtime()) == "malformed"
    assert code(offers(line, **AT), realtime(conduct=Conduct())) == "upgrade_required"


@pytest.mark.parametrize("name", [b"Sec_WebSocket_Protocol", b"Sec-WebSocket-Extensions", b"X-Protocol"])
def test_no_other_header_has_subprotocols(name: bytes) -> None:
    asked = request("/v1/realtime", *SHAKE, (name, b"realtime, " + IN_PAGES + TOKEN), **AT)
    assert told(asked, realtime()) == ASTRAY
    assert code(request("/v1/realtime", *SHAKE, (name, IN_PAGES + TOKEN), **AT), realtime()) == "malformed"


def test_a_connection_lists_the_header_or_no_key_is_a_subprotocol() -> None:
    allowed = registry(connection(conduct=Conduct(websocket=True)))
    assert told(offers(b"realtime, " + IN_PAGES + TOKEN, **AT), allowed) == NOT_LISTED


def test_the_same_key_may_also_be_a_header_and_another_may_not() -> None:
    line = b"realtime, " + IN_PAGES + TOKEN
    for word, expected in ((TOKEN, "forward"), (OTHER_TOKEN, "malformed")):
        more = (*SHAKE, (b"Authorization", b"Bearer " + word))
        assert code(offers(line, more=more, **AT), realtime()) == expected
    target = f"/v1/realtime?{presign_query(SECRET, 'conn', NOW + 60, 'GET', 'v1/*')}"
    asked = request(target, *SHAKE, (b"Sec-WebSocket-Protocol", line), **AT)
    assert told(asked, realtime()) == "it carries more than one presign: query, key"


def test_a_key_of_the_clients_own_among_the_subprotocols_is_no_token() -> None:
    """It is removed as ever, also if the connection lists the header, and also if a key looks like one."""
    for own in (b"sk-mine", b"sk-ps1_mine", b"steps1_mine"):
        bearer = (b"Authorization", b"Bearer " + TOKEN)
        asked = offers(b"realtime, " + IN_PAGES + own, more=(*SHAKE, bearer), **AT)
        plain = sent(asked, realtime()).plain
        assert (b"Sec-WebSocket-Protocol", b"realtime") in plain.fields
        assert own not in repr(plain).encode()


def test_a_connection_that_rejects_own_credentials_takes_the_key_and_any_subprotocol() -> None:
    rejecting = realtime(conduct=Conduct(websocket=True, reject_client_credentials=True))
    bearer = (b"Authorization", b"Bearer " + TOKEN)
    assert code(offers(b"realtime, " + IN_PAGES + TOKEN, **AT), rejecting) == "forward"
    assert code(offers(b"realtime", more=(*SHAKE, bearer), **AT), rejecting) == "forward"
    own = offers(b"realtime, " + IN_PAGES + b"sk-mine", more=(*SHAKE, bearer), **AT)
    assert code(own, rejecting) == "malformed"
