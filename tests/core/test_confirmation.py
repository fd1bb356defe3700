"""A look at a link spends no use of it: who is asked to continue, and who continues."""

from __future__ import annotations

import pytest

from presign_proxy.core.confirmation import without_confirmation
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.http.message import Fields
from presign_proxy.signing.keys import signature_id
from support.deciding import NOW, SECRET, ask, connection, registry, request, signed
from support.policy import Policy

NAVIGATE = (b"Sec-Fetch-Mode", b"navigate")
SLACK = (b"User-Agent", b"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)")


def link(uses: int = 3, methods: str = "GET,HEAD,POST") -> Policy:
    return Policy(SECRET, {"Max-Uses": str(uses)}, expires=NOW + 60, methods=methods)


def code(target: str, *fields: tuple[bytes, bytes], method: str = "GET") -> str:
    decision = ask(request(target, *fields, method=method))
    return decision.code if isinstance(decision, Deny) else "granted"


def cookie(policy: Policy) -> tuple[bytes, bytes]:
    return (b"Cookie", b"theme=dark; presign-continue-%b=1" % signature_id(policy.signature).encode())


@pytest.mark.parametrize(("fields", "expected"), [
    ([NAVIGATE], "not_confirmed"),
    ([(b"Accept", b"text/html,*/*;q=0.8")], "not_confirmed"),
    ([SLACK], "not_confirmed"),
    ([(b"User-Agent", b"WhatsApp/2.23.20.0 A"), (b"Accept", b"*/*")], "not_confirmed"),
    ([(b"Sec-Purpose", b"prefetch"), (b"Sec-Fetch-Mode", b"no-cors")], "not_confirmed"),
    ([(b"Sec-Purpose", b"prefetch;prerender"), NAVIGATE], "not_confirmed"),
    ([(b"X-Moz", b"prefetch")], "not_confirmed"),
    ([], "granted"),
    ([(b"Accept", b"*/*"), (b"User-Agent", b"curl/8.5.0")], "granted"),
    ([(b"Sec-Fetch-Mode", b"cors"), (b"Accept", b"text/html")], "granted"),
    ([(b"User-Agent", b"DiscordBot (https://discord.js.org, 14.0)")], "granted"),
    ([(b"X-Purpose-Of-It", b"prefetch")], "granted"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_only_looks_is_asked_and_who_uses_is_served(fields: Fields, expected: str, method: str) -> None:
    policy = link()
    for target in (policy.target("v1/models"), f"/p/{policy.token}/v1/models"):
        assert code(target, *fields, method=method) == expected


def test_a_person_who_continues_is_served_and_a_program_that_looks_ahead_never_is() -> None:
    policy, another = link(), link(4)
    target = policy.target("v1/models")
    assert code(target, NAVIGATE, cookie(policy)) == "granted"
    assert code(target, NAVIGATE, (b"COOKIE", b"a=1"), cookie(policy)) == "granted"
    assert code(target, NAVIGATE, cookie(another)) == "not_confirmed"
    site = b"Sec-Fetch-Site"
    assert code(target, NAVIGATE, cookie(policy), (site, b"same-origin")) == "granted"
    for other in (b"none", b"cross-site", b"same-site", b""):  # it was opened again, not continued
        assert code(target, NAVIGATE, cookie(policy), (site, other)) == "not_confirmed"
    name, value = cookie(policy)
    assert code(target, NAVIGATE, (name, value.replace(b"=1", b"=0"))) == "not_confirmed"
    assert code(target, NAVIGATE, (b"Sec-Purpose", b"prefetch"), cookie(policy)) == "not_confirmed"
    assert code(target, NAVIGATE, SLACK, cookie(policy)) == "not_confirmed"


def test_only_uses_are_asked_about_and_only_of_links() -> None:
    assert code(signed(), NAVIGATE) == "granted"
    policy = link()
    fields = [(name.encode(), value.encode()) for name, value in policy.headers.items()]
    assert code("/api/proxy/conn/v1/models", NAVIGATE, *fields) == "granted"
    bearer = (b"Authorization", f"Bearer {policy.token}".encode())
    assert code("/api/proxy/conn/v1/models", NAVIGATE, bearer) == "granted"
    assert code(policy.target("v1/models"), NAVIGATE, method="POST") == "granted"


def test_the_uses_that_the_connection_allows_count_too_and_their_number_is_not_told() -> None:
    known = registry(connection(max_uses=7))
    decision = ask(request(signed(), NAVIGATE), known)
    assert isinstance(decision, Deny)
    assert decision.code == "not_confirmed"
    assert "7" not in (decision.sentence or "")
    assert isinstance(ask(request(signed()), known), Forward)


@pytest.mark.parametrize(("uses", "said"), [(1, "This link works once."), (3, "can be used 3 times in all.")])
def test_the_page_says_how_often_and_sets_a_cookie_that_grants_nothing(uses: int, said: str) -> None:
    policy = link(uses)
    decision = ask(request(policy.target("v1/models"), NAVIGATE))
    assert isinstance(decision, Deny)
    answer = decision.answer
    body, fields = answer.body.decode(), dict(answer.fields)
    assert answer.status == 428
    assert said in body
    assert '<a class="go" href="" rel="nofollow">Continue</a>' in body
    sid = signature_id(policy.signature)
    expected = f"presign-continue-{sid}=1; Max-Age=300; Path=/; HttpOnly; SameSite=Strict"
    assert fields[b"Set-Cookie"].decode() == expected
    assert fields[b"Content-Security-Policy"].endswith(b"; sandbox allow-same-origin")
    assert fields[b"Cache-Control"] == b"no-store"
    assert policy.signature not in f"{body}{fields}"


def test_a_program_that_looks_ahead_gets_no_cookie_to_continue_with() -> None:
    decision = ask(request(link().target("v1/models"), SLACK))
    assert isinstance(decision, Deny)
    assert b"Set-Cookie" not in dict(decision.answer.fields)


@pytest.mark.parametrize(("target", "expected"), [
    (Policy(SECRET, {"Max-Uses": "3"}, expires=NOW - 60), "expired"),
    (Policy("sk_another_0123456789abcdef", {"Max-Uses": "3"}, expires=NOW + 60), "invalid"),
    (Policy(SECRET, {"Max-Uses": "3"}, expires=NOW + 60, paths="v2/*"), "path_not_allowed"),
])  # fmt: skip
def test_nobody_is_asked_to_continue_to_a_refusal(target: Policy, expected: str) -> None:
    assert code(target.target("v1/models"), NAVIGATE) == expected


@pytest.mark.parametrize(("value", "left"), [
    (b"a=1; b=2", b"a=1; b=2"),
    (b"a=1; presign-continue-00=1; b=2", b"a=1; b=2"),
    (b"presign-continue-00=1; b=2", b"b=2"),
    (b"presign-continue-00=1", None),
    (b"presign-continue-00=1;presign-continue-11=1", None),
    (b"my-presign-continue-00=1", b"my-presign-continue-00=1"),
])  # fmt: skip
def test_no_upstream_gets_the_cookie(value: bytes, left: bytes | None) -> None:
    kept = without_confirmation((b"Cookie", value))
    assert (kept[1] if kept else None) == left
