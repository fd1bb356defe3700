"""Pages of other origins: which may call a connection, what they may send, and what they can read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from presign_proxy.core.connection import Conduct, Connection
from presign_proxy.core.cors import Cors, merged
from presign_proxy.core.decision import Decision, Deny, Forward, Preflight
from presign_proxy.core.masking import mask_for
from presign_proxy.core.registry import Registry
from presign_proxy.core.rewrite_response import Reply, rewrite
from presign_proxy.http.message import Fields
from support.deciding import NOW, SECRET, ask, connection, project, registry, request, sent, signed
from support.signing import token

APP, OTHER = b"https://app.example.com", b"https://evil.example.com"
RULES = Cors(frozenset((APP,)), frozenset((b"x-mine", b"x-api-key")), (b"X-Total",), 300)


def listing(rules: Cors = RULES, name: str = "conn", **changes: Any) -> Connection:
    return connection(name, conduct=Conduct(cors=rules), **changes)


KNOWN = registry(listing(), connection("conn_plain"))


def preflight(
    target: str = "/api/proxy/conn/v1/models",
    origin: bytes = APP,
    method: bytes = b"POST",
    headers: bytes = b"",
    known: Registry = KNOWN,
    **more: Any,
) -> Decision:
    fields = [(b"Origin", origin), (b"Access-Control-Request-Method", method)]
    if headers:
        fields.append((b"Access-Control-Request-Headers", headers))
    return ask(request(target, *fields, method="OPTIONS", **more), known)


def named(fields: Fields, name: bytes) -> list[bytes]:
    return [value for key, value in fields if key.lower() == name.lower()]


def permitted(decision: Decision) -> Fields:
    assert isinstance(decision, Preflight), decision
    return decision.answer.fields


def readable_by(fields: Fields) -> list[bytes]:
    return named(fields, b"Access-Control-Allow-Origin")


# -- preflights ---------------------------------------------------------------------------------------


def test_a_listed_page_may_send_what_it_asks_about() -> None:
    asked = b"content-type,X-Presign-Signature, x-presign-max-uses,authorization,X-Mine,x-foreign"
    decision = preflight(headers=asked)
    fields = permitted(decision)
    assert decision.answer.status == 204
    assert readable_by(fields) == [APP]
    assert named(fields, b"Access-Control-Allow-Methods") == [b"POST"]
    assert named(fields, b"Access-Control-Max-Age") == [b"300"]
    assert named(fields, b"Access-Control-Allow-Headers") == [
        b"content-type, x-presign-signature, x-presign-max-uses, authorization, x-mine"
    ]
    assert named(fields, b"Access-Control-Allow-Credentials") == []
    assert b"Origin" in named(fields, b"Vary")[0]


def test_only_methods_that_the_connection_allows_are_told() -> None:
    allowing = listing()
    allowing = replace(allowing, ceiling=allowing.ceiling._replace(methods=("GET", "PUT")))
    fields = permitted(preflight(method=b"DELETE", known=registry(allowing)))
    assert named(fields, b"Access-Control-Allow-Methods") == [b"GET, PUT"]


@pytest.mark.parametrize("method", [b"PO ST", b"GET, DELETE", b"", b"GET\x0b", b"a(b)"])
def test_a_method_that_is_no_token_is_not_repeated(method: bytes) -> None:
    decision = preflight(method=method)
    if isinstance(decision, Preflight):
        assert named(decision.answer.fields, b"Access-Control-Allow-Methods") == [b""]


def test_names_that_are_no_tokens_are_not_repeated() -> None:
    rules = Cors(frozenset((APP,)))
    fields = permitted(preflight(headers=b"x-a, x b, ,<script>, x-c\xff,X-D", known=registry(listing(rules))))
    assert named(fields, b"Access-Control-Allow-Headers") == [b"x-a, x-d"]
    fields = permitted(preflight(headers=b"x," * 3000, known=registry(listing(rules))))
    assert named(fields, b"Access-Control-Allow-Headers") == []


@pytest.mark.parametrize("origin", [
    OTHER, b"https://app.example.com.evil.example", b"http://app.example.com", b"https://app.example.com:8443",
    b"https://APP.example.com", b"null", b"", b"https://app.example.com/", b"*",
    b"https://app.example.com https://evil.example.com",
])  # fmt: skip
def test_a_page_that_is_not_listed_is_told_nothing(origin: bytes) -> None:
    decision = preflight(origin=origin)
    assert isinstance(decision, Deny)
    assert readable_by(decision.answer.fields) == []


def test_a_page_that_another_connection_lists_is_told_nothing() -> None:
    known = registry(listing(), listing(Cors(frozenset((OTHER,))), "conn_other"))
    assert isinstance(preflight(origin=OTHER, known=known), Deny)
    assert isinstance(preflight("/api/proxy/conn_other/v1/models", OTHER, known=known), Preflight)


@pytest.mark.parametrize("known", [KNOWN, registry()], ids=["lists another page", "lists none"])
def test_the_owner_reads_that_what_was_refused_is_a_preflight_of_a_page_that_is_not_listed(
    known: Registry,
) -> None:
    """ "The signature does not allow this method" led to the signature, where nothing was wrong."""
    decision = preflight(signed(), OTHER, known=known)
    assert isinstance(decision, Deny)
    assert decision.code == "method_not_allowed"
    assert "it is a preflight of a page whose origin cors.origins does not list" in decision.detail
    plain = ask(request(signed(), (b"Origin", OTHER), method="OPTIONS"), known)
    forged = preflight(signed()[:-4] + "0000", OTHER, known=known)
    assert isinstance(plain, Deny)
    assert isinstance(forged, Deny)
    assert "preflight" not in plain.detail + forged.detail
    assert (decision.sentence, decision.answer) == (plain.sentence, plain.answer)


def test_an_unknown_connection_answers_like_one_without_rules() -> None:
    answers = [preflight(f"/api/proxy/{name}/v1/models") for name in ("conn_none", "conn_plain")]
    plain = [(one.code, one.answer.fields[1:], one.sentence) for one in answers if isinstance(one, Deny)]
    assert len(plain) == 2
    assert plain[0] == plain[1]


@pytest.mark.parametrize("fields", [
    [(b"Origin", APP)],
    [(b"Access-Control-Request-Method", b"POST")],
    [(b"Origin", APP), (b"Origin", APP), (b"Access-Control-Request-Method", b"POST")],
    [(b"Origin", APP), *[(b"Access-Control-Request-Method", one) for one in (b"GET", b"POST")]],
    [(b"Origin", APP), (b"Access-Control-Request-Method", b"POST"), (b"Content-Length", b"5")],
    [(b"Origin", APP), (b"Access-Control-Request-Method", b"POST"), (b"Transfer-Encoding", b"chunked")],
])  # fmt: skip
def test_what_is_no_preflight_is_decided_like_any_request(fields: list[tuple[bytes, bytes]]) -> None:
    decision = ask(request("/api/proxy/conn/v1/models", *fields, method="OPTIONS"), KNOWN)
    assert isinstance(decision, Deny)
    assert isinstance(ask(request(signed(methods="OPTIONS"), *fields, method="OPTIONS"), KNOWN), Forward)


@pytest.mark.parametrize("method", ["GET", "POST", "options", "HEAD"])
def test_another_method_is_never_a_preflight(method: str) -> None:
    fields = [(b"Origin", APP), (b"Access-Control-Request-Method", b"POST")]
    assert isinstance(ask(request("/api/proxy/conn/v1/models", *fields, method=method), KNOWN), Deny)


def test_a_preflight_that_two_parsers_read_in_two_ways_is_refused() -> None:
    decision = preflight(headers=b"x-a\x00b")
    assert isinstance(decision, Deny)
    assert decision.code == "malformed"
    fields = [(b"Origin", APP), (b"Access-Control-Request-Method", b"GET")]
    fields += [(b"X-%d" % number, b"1") for number in range(100)]
    decision = ask(request("/api/proxy/conn/v1/models", *fields, method="OPTIONS"), KNOWN)
    assert isinstance(decision, Deny)
    assert decision.code == "too_large"


def test_a_signed_url_that_permits_options_is_not_spent_by_a_preflight() -> None:
    known = registry(listing(max_uses=1))
    for _ in range(3):
        assert isinstance(preflight(signed(methods="OPTIONS"), known=known), Preflight)


def test_any_page_may_be_listed_but_gets_no_cookies_and_no_private_network() -> None:
    known = registry(listing(Cors(frozenset((b"*",)), credentials=True)))
    fields = [(b"Origin", OTHER), (b"Access-Control-Request-Method", b"GET")]
    fields.append((b"Access-Control-Request-Private-Network", b"true"))
    found = permitted(ask(request("/api/proxy/conn/v1/models", *fields, method="OPTIONS"), known))
    assert readable_by(found) == [b"*"]
    assert named(found, b"Access-Control-Allow-Credentials") == []
    assert named(found, b"Access-Control-Allow-Private-Network") == []
    fields[0] = (b"Origin", APP)
    found = permitted(ask(request("/api/proxy/conn/v1/models", *fields, method="OPTIONS"), KNOWN))
    assert named(found, b"Access-Control-Allow-Private-Network") == [b"true"]


def test_a_preflight_to_the_api_itself_is_answered_and_one_of_another_page_goes_its_way() -> None:
    assert isinstance(preflight("/v1/models", host="api.example.com", scheme="https"), Preflight)
    other = preflight("/v1/models", OTHER, host="api.example.com", scheme="https")
    assert not isinstance(other, Preflight | Forward | Deny)
    assert not isinstance(preflight("/v1", host="another.example.com", scheme="https"), Preflight | Deny)
    denying = registry(listing(), deny=True)
    refused = preflight("/v1/models", OTHER, known=denying, host="api.example.com", scheme="https")
    assert isinstance(refused, Deny)
    assert refused.code == "unsigned"


def test_a_preflight_whose_connection_is_not_named_is_answered_for_pages_that_are_listed_anywhere() -> None:
    known = registry(
        listing(), listing(Cors(frozenset((OTHER,)), frozenset((b"x-b",)), (), 60), "conn_other")
    )
    key = token(SECRET, "conn", NOW + 60, "GET", "*")
    for target in ("/v1/models", f"/p/{key}/v1/models"):
        fields = permitted(preflight(target, headers=b"x-mine, x-b, x-c", known=known))
        assert named(fields, b"Access-Control-Allow-Headers") == [b"x-mine, x-b"]
        assert named(fields, b"Access-Control-Max-Age") == [b"60"]
        assert isinstance(preflight(target, b"https://third.example.com", known=known), Deny)


def test_a_source_project_lists_pages_too() -> None:
    known = registry(replace(project(), conduct=Conduct(cors=RULES)), connection())
    fields = permitted(preflight("/v1/pk/aHR0cHM.png?sig=1&exp=2", method=b"PUT", known=known))
    assert named(fields, b"Access-Control-Allow-Methods") == [b"GET, HEAD"]
    refused = ask(request("/v1/pk/aHR0cHM.png?sig=1&exp=2", (b"Origin", APP)), known)
    assert isinstance(refused, Deny)
    assert refused.answer.body == b"Forbidden"
    assert readable_by(refused.answer.fields) == [APP]


# -- answers ------------------------------------------------------------------------------------------


def answered(forward: Forward, *fields: tuple[bytes, bytes]) -> Fields:
    mask = mask_for(forward.connection.injector)
    return rewrite(Reply(200, b"OK", (*fields, (b"Content-Length", b"0"))), forward, mask).fields


UPSTREAMS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"access-control-allow-credentials", b"true"),
    (b"Access-Control-Expose-Headers", b"*"),
    (b"Access-Control-Allow-Private-Network", b"true"),
    (b"Timing-Allow-Origin", b"*"),
    (b"Vary", b"Accept"),
)


def test_no_page_reads_the_answer_of_a_connection_without_rules_whatever_its_upstream_says() -> None:
    target = "/api/proxy/conn_plain/v1/models"
    asked = request(signed().replace("/conn/", "/conn/"), (b"Origin", APP))
    fields = answered(sent(asked, registry(connection())), *UPSTREAMS)
    assert not [name for name, _ in fields if name.lower().startswith((b"access-control", b"timing"))]
    assert isinstance(ask(request(target, (b"Origin", APP)), KNOWN), Deny)


def test_a_listed_page_reads_the_answer() -> None:
    fields = answered(sent(request(signed(), (b"Origin", APP)), KNOWN), *UPSTREAMS)
    assert readable_by(fields) == [APP]
    exposed = b"X-Presign-Error, X-Presign-Request-Id, Retry-After, RateLimit, RateLimit-Policy, X-Total"
    assert named(fields, b"Access-Control-Expose-Headers") == [exposed]
    assert named(fields, b"Access-Control-Allow-Credentials") == []
    assert named(fields, b"Vary") == [b"Accept", b"Origin"]


@pytest.mark.parametrize("fields", [(), ((b"Origin", OTHER),), ((b"Origin", APP), (b"Origin", APP))])
def test_another_page_is_served_like_any_client_and_reads_nothing(fields: Fields) -> None:
    found = answered(sent(request(signed(), *fields), KNOWN), *UPSTREAMS)
    assert readable_by(found) == []
    assert named(found, b"Vary") == [b"Accept", b"Origin"]


def test_cookies_are_for_listed_pages_of_connections_that_pass_cookies_on() -> None:
    known = registry(listing(RULES._replace(credentials=True)))
    fields = answered(sent(request(signed(), (b"Origin", APP)), known))
    assert named(fields, b"Access-Control-Allow-Credentials") == [b"true"]


@pytest.mark.parametrize("target", [
    signed(expires=NOW - 60), signed(methods="POST"), "/api/proxy/conn/v1/models", "/nothing",
    "/api/proxy/conn_none/v1?X-Presign-Expires=1", "/p/ps1_bad/v1/models",
])  # fmt: skip
def test_a_listed_page_reads_why_it_is_refused(target: str) -> None:
    for origin, expected in ((APP, [APP]), (OTHER, [])):
        decision = ask(request(target, (b"Origin", origin)), KNOWN)
        assert isinstance(decision, Deny)
        assert readable_by(decision.answer.fields) == expected
        exposed = named(decision.answer.fields, b"Access-Control-Expose-Headers")
        assert [b"X-Presign-Error" in one for one in exposed] == [True] * len(expected)


def test_without_any_rules_refusals_are_as_ever() -> None:
    decision = ask(request("/api/proxy/conn/v1/models", (b"Origin", APP)), registry())
    assert isinstance(decision, Deny)
    assert readable_by(decision.answer.fields) == []
    assert named(decision.answer.fields, b"Vary") == [b"Accept, Sec-Fetch-Mode"]


def test_rules_for_unknown_connections_permit_what_any_of_the_rules_permits() -> None:
    assert merged([]) is None
    assert merged([RULES, RULES]) == RULES._replace(expose=())
    both = merged([RULES, Cors(frozenset((b"*",)), frozenset((b"x-b",)), (b"X-Secret",), 60, True)])
    assert both == Cors(frozenset((APP, b"*")), RULES.headers | {b"x-b"}, (), 60, True)
