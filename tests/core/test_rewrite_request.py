"""What is taken off a request, and what is put on."""

import json

import pytest

from presign_proxy.core.connection import Conduct
from presign_proxy.core.credentials import BasicCredential, HeaderCredential, QueryCredential
from presign_proxy.core.decision import Deny
from presign_proxy.core.redact import redact
from presign_proxy.signing.secret import Secret
from support.deciding import KEY, NOW, SECRET, ask, code, connection, registry, request, sent, signed
from support.signing import token

GONE = [
    "Authorization",
    "Proxy-Authorization",
    "X-Api-Key",
    "api-key",
    "x-goog-api-key",
    "PRIVATE-TOKEN",
    "X-Amz-Date",
    "X-Amz-Security-Token",
    "X-Amz-Content-Sha256",
    "Cookie",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "X-Original-URL",
    "X-Original-Name",
    "X-Original-User-Id",
    "X-Original-Content-Host",
    "X-Vault-Token",
    "X-Consul-Token",
    "X-Nomad-Token",
    "X-Registry-Auth",
    "x_vault_token",
    "X-Rewrite-URL",
    "X_Api_Key",
    "X.Api.Key",
    "Authorization_",
    "X_Forwarded_For",
    "Content_Length",
    "Transfer_Encoding",
    "Transfer---Encoding",
    "X--Api__Key",
    "Proxy",
    "Remote-User",
    "Client-Cert",
    "X-SSL-Client-Cert",
    "X-Envoy-Original-Path",
    "Destination",
    "Accept-Encoding",
    "X-Presign",
]
KEPT = [
    "User-Agent",
    "Accept",
    "Content-Type",
    "X-Amz-Target",
    "X-Custom",
    "Authorization-Info",
    "Range",
    "If-None-Match",
    "Idempotency-Key",
    "X-Original-Filename",
    "X-Original-Content-Type",
    "X-Orig-File-Name",
    "X-User-Name",
    "Token-Count",
    "X-Vault-Namespace",
]


@pytest.mark.parametrize("name", [name for name in GONE if name != "X-Presign"])
def test_a_header_that_speaks_for_the_client_does_not_reach_the_upstream(name: str) -> None:
    field = (name.encode(), b"gzip" if name == "Accept-Encoding" else b"attacker")
    assert b"attacker" not in b"".join(value for _, value in sent(request(signed(), field)).sent.fields)


def test_everything_else_stays_in_its_order() -> None:
    fields = tuple((name.encode(), b"v%d" % n) for n, name in enumerate(KEPT))
    got = sent(request(signed(), *fields)).sent.fields
    assert got[: len(fields)] == fields
    assert got[len(fields) :] == (
        (b"Accept-Encoding", b"identity"),
        (b"Authorization", b"Bearer " + KEY.encode()),
    )


def test_headers_that_connection_names_go_and_framing_cannot_be_named() -> None:
    named = sent(request(signed(), (b"Connection", b"close, X-Custom"), (b"X-Custom", b"1")))
    assert b"X-Custom" not in [name for name, _ in named.sent.fields]
    for victim in (b"Content-Length", b"host", b"Content_Length"):
        assert code(request(signed(), (b"Connection", b"close, " + victim))) == "malformed"


def test_a_referer_goes_only_if_it_holds_a_presign() -> None:
    for value, stays in (
        (b"https://example.com/page", True),
        (b"https://presign.local/api/proxy/c/x?X-Presign-Signature=abc", False),
        (b"https://presign.local/api/proxy/c/x?x%2dpresign%2dsignature=abc", False),
        (b"http://presign.local/p/ps1_abcd." + b"0" * 64 + b"/x", False),
        (b"http://motioness.com/v1/pk/x.png?sig=" + b"0" * 64, False),
    ):
        names = [name for name, _ in sent(request(signed(), (b"Referer", value))).sent.fields]
        assert (b"Referer" in names) == stays


@pytest.mark.parametrize("query", ["flag&x=%20&y=1+2", "a=b=c&&=&", "x", "", "é=1", "a=%zz"])
def test_the_rest_of_the_query_survives_byte_for_byte(query: str) -> None:
    params = signed().partition("?")[2]
    for target in (f"?{query}&{params}", f"?{params}&{query}"):
        assert sent(request(f"/api/proxy/conn/v1/models{target}")).sent.query == query.encode()
    middle, last = params.rsplit("&", 1)
    assert sent(request(f"/api/proxy/conn/v1/models?{middle}&{query}&{last}")).sent.query == query.encode()


def test_a_query_without_anything_else_is_gone() -> None:
    assert sent(request(signed())).sent.query is None


@pytest.mark.parametrize(
    "name", ["key", "KEY", "k%65y", "%6bey", "+key", "key[]", "key%00", "a%3Bkey", "a;key"]
)
def test_a_parameter_that_auth_sets_goes_in_every_spelling(name: str) -> None:
    known = registry(connection(injector=QueryCredential((("key", Secret(KEY)),))))
    query = sent(request(f"{signed()}&{name}=attacker&other=1"), known).sent.query
    assert query == b"other=1&key=" + KEY.encode()


def test_other_ways_of_carrying_a_key() -> None:
    header = HeaderCredential(((b"X-Token", b"", Secret(KEY)), (b"X-Second", b"", Secret("two"))))
    forward = sent(request(signed(), (b"x_token", b"attacker")), registry(connection(injector=header)))
    assert forward.sent.fields[-2:] == ((b"X-Token", KEY.encode()), (b"X-Second", b"two"))
    assert forward.shown.fields[-1] == (b"X-Second", b"presign:conn")
    basic = sent(
        request(signed()), registry(connection(injector=BasicCredential(Secret("user"), Secret("pass"))))
    )
    assert basic.sent.fields[-1] == (b"Authorization", b"Basic dXNlcjpwYXNz")


def test_a_connection_may_reject_what_the_client_brings() -> None:
    known = registry(connection(conduct=Conduct(reject_client_credentials=True)))
    assert code(request(signed()), known) == "forward"
    for name in (b"Authorization", b"X-Api-Key", b"x_api_key"):
        assert code(request(signed(), (name, b"sk-mine")), known) == "malformed"
    bearer = (b"Authorization", b"Bearer " + token(SECRET, "conn", NOW + 60, "GET", "v1/*").encode())
    assert code(request("/api/proxy/conn/v1/models", bearer), known) == "forward"
    assert (
        code(request("/api/proxy/conn/v1/models", bearer, (b"Authorization", b"Bearer sk-mine")), known)
        == "malformed"
    )


def test_default_headers_are_added_where_absent() -> None:
    known = registry(connection(conduct=Conduct(default_fields=((b"anthropic-version", b"2023-06-01"),))))
    assert (b"anthropic-version", b"2023-06-01") in sent(request(signed()), known).sent.fields
    mine = (b"Anthropic-Version", b"2024-01-01")
    assert [
        v for n, v in sent(request(signed(), mine), known).sent.fields if n.lower() == b"anthropic-version"
    ] == [mine[1]]


def test_cookies_pass_only_where_the_connection_says_so() -> None:
    cookie = (b"Cookie", b"a=1")
    assert cookie not in sent(request(signed(), cookie)).sent.fields
    assert (
        cookie
        in sent(request(signed(), cookie), registry(connection(conduct=Conduct(cookies=True)))).sent.fields
    )


@pytest.mark.parametrize("field", [(b"Service-Worker", b"script"), (b"Expect", b"200-ok")])
def test_nothing_is_granted_that_outlives_the_request(field: tuple[bytes, bytes]) -> None:
    assert code(request(signed(), field)) == "malformed"


OVERRIDES = [
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "x_http_method_override",
    "Real-Method",
]


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_post_that_is_to_be_a_delete_does_not_go_on_as_a_post(name: str) -> None:
    """The header was taken off in silence, and the upstream took a bare POST."""
    for value in (b"DELETE", b"PATCH", b"", b"POST, DELETE"):
        refused = ask(request(signed(methods="*"), (name.encode(), value), method="POST"))
        assert isinstance(refused, Deny)
        assert refused.code == "malformed"
        assert name.lower().replace("_", "-") in refused.detail
        assert "overrides the method" in json.loads(refused.answer.body)["error"]["message"]
    # It says what the request is anyway.
    assert sent(request(signed(methods="*"), (name.encode(), b" post "), method="POST")).sent.fields == (
        (b"Accept-Encoding", b"identity"),
        (b"Authorization", b"Bearer " + KEY.encode()),
    )


def test_nobody_without_a_signature_learns_what_is_not_forwarded() -> None:
    asked = request(signed(methods="*")[:-64] + "0" * 64, (b"X-HTTP-Method", b"DELETE"), method="POST")
    assert code(asked) == "invalid"


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_move_does_not_lead_nowhere(method: str) -> None:
    for name in (b"Destination", b"destination", b"DESTINATION_"):
        refused = ask(request(signed(methods="*"), (name, b"/v1/other"), method=method))
        assert isinstance(refused, Deny)
        assert refused.code == "malformed"
        assert f"{method} with destination" in refused.detail
        assert "Destination" in json.loads(refused.answer.body)["error"]["message"]
    assert code(request(signed(methods="*"), method=method)) == "forward"


@pytest.mark.parametrize(
    "name",
    [
        "X-Amz-Copy-Source",
        "x-amz-copy-source-range",
        "X-Goog-Copy-Source",
        "x-ms-copy-source",
        "X_Amz_Copy_Source",
        "x-oss-copy-source",
        "X-Amz-Rename-Source",
        "X-Copy-From",
        "X-Copy-From-Account",
        "x-ms-file-rename-source",
        "x-qs-move-source",
        "X-Symlink-Target",
        "x-oss-symlink-target",
        "X-Object-Manifest",
    ],
)
def test_an_object_that_was_not_signed_is_not_copied_to_one_that_was(name: str) -> None:
    """The holder of a URL for one object could read every other one of the bucket with it."""
    field = (name.encode(), b"/bucket/secret")
    refused = ask(request(signed(methods="*"), field, method="PUT"))
    assert isinstance(refused, Deny)
    assert (refused.code, "names a second path" in refused.detail) == ("malformed", True)
    # Where the bucket is in the host or in the base path, it would be outside of all that can be signed.
    assert code(request(signed(methods="*", paths="*"), field, method="PUT")) == "malformed"


def test_a_refused_request_shows_nothing_that_could_be_used() -> None:
    held = b"ps1_abcd." + b"0" * 64
    shown = redact(
        b"/p/" + held + b"/v1/x?X-Presign-Signature=1",
        ((b"Authorization", b"Bearer " + held), (b"X-Presign-Signature", b"1"), (b"Accept", b"a")),
    )
    assert shown.target == b"/[redacted]?[redacted]"
    assert shown.fields == (
        (b"Authorization", b"[redacted]"),
        (b"X-Presign-Signature", b"[redacted]"),
        (b"Accept", b"a"),
    )


AUTH_NAMES = ["X-Token", "X_Token", "x-token", "XTOKEN-2"]
SPELLINGS = ["X-Token", "X_Token", "x.token", "XTOKEN_2", "X-Token_", "xtoken-2"]


@pytest.mark.parametrize("name", AUTH_NAMES)
def test_no_spelling_of_what_auth_sets_stays_beside_it(name: str) -> None:
    known = registry(connection(injector=HeaderCredential(((name.encode(), b"", Secret(KEY)),))))
    for spelling in SPELLINGS:
        fields = sent(request(signed(), (spelling.encode(), b"attacker")), known).sent.fields
        same = spelling.lower().replace("_", "-").replace(".", "-").strip("-") == name.lower().replace(
            "_", "-"
        )
        assert (b"attacker" in [value for _, value in fields]) != same


@pytest.mark.parametrize("name", ["api.key", "api_key", "key[]", "Key"])
def test_no_spelling_of_a_parameter_that_auth_sets_stays_beside_it(name: str) -> None:
    known = registry(connection(injector=QueryCredential(((name, Secret(KEY)),))))
    for spelling in (
        name,
        name.upper(),
        name.replace(".", "%2E"),
        name.replace("[", "%5B"),
        name.replace("_", "."),
    ):
        assert b"attacker" not in (sent(request(f"{signed()}&{spelling}=attacker"), known).sent.query or b"")
