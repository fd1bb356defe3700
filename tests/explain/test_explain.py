"""Explaining: the verdict is the gateway's, the steps tell it, and the usual mistakes are named."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presign_proxy.core.answers import refusal
from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.connection import Conduct, Upstream
from presign_proxy.core.credentials import CredentialSlots, QueryCredential
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.registry import Registry
from presign_proxy.core.revocations import Revocations
from presign_proxy.explain.explain import explain
from presign_proxy.explain.explanation import Explanation, render, shown
from presign_proxy.explain.input.paste import UnreadableUrl, parse
from presign_proxy.http.message import Origin, Request
from presign_proxy.http.patterns import pattern
from presign_proxy.signing.keys import KeyRing, SigningKey, signature_id
from presign_proxy.signing.secret import LateSecret, Secret
from presign_proxy.units import in_words, instant
from support.deciding import (
    GATEWAY,
    KEY,
    NOW,
    SECRET,
    UPSTREAM,
    ask,
    connection,
    project,
    registry,
    ring,
    signed,
)
from support.signing import (
    base64url,
    presign_canonical,
    presign_headers,
    presign_params,
    presign_query,
    presign_target,
    sign,
    source_url,
    token,
)

BASE = f"https://{GATEWAY}"
EXPIRES = NOW + 60
SECRETS = (SECRET, KEY)


def explained(asked: Request, known: Registry | None = None) -> Explanation:
    """The explanation of a request, held against the decision on it."""
    known = known or registry()
    found = explain(known, asked, NOW)
    agrees(found, asked, known)
    return found


def agrees(found: Explanation, asked: Request, known: Registry) -> None:
    """The verdict is the decision's; exactly the last step says no, and only where it is refused."""
    decision = ask(asked, known)
    refused = [step.outcome == "refused" for step in found.steps]
    if isinstance(decision, Deny):
        assert (found.verdict.decision, found.verdict.code) == ("deny", decision.code)
        assert found.verdict.status == refusal(decision.code, "", decision.style).status
        assert refused[-1], found.steps
        assert sum(refused) == 1
    else:
        assert found.verdict.decision == ("forward" if isinstance(decision, Forward) else "pass")
        assert not any(refused)
        if isinstance(decision, Forward):
            assert found.findings == ()
    text = json.dumps(found.to_json(), ensure_ascii=False) + "\n".join(render(found))
    assert not [secret for secret in SECRETS if secret in text]
    assert not re.search(r"[0-9a-fA-F]{64}", text)


def names(text: str, known: Registry | None = None, **how: str) -> list[str]:
    return [finding.name for finding in explained(parse(text, **how).request, known).findings]


def step(found: Explanation, name: str) -> str:
    one = next(step for step in found.steps if step.name == name)
    return "\n".join((one.text, *one.lines))


def url(canonical: str | None = None, secret: str = SECRET, **fields: str | int) -> str:
    """A URL whose signature covers something else than it should."""
    given = {"expires": EXPIRES, "methods": "GET", "paths": "v1/*"} | fields
    query = presign_query(secret, "conn", canonical=canonical, **given)
    return f"{BASE}/api/proxy/conn/v1/models?{query}"


def with_signature(change: Callable[[str], str], target: str | None = None) -> str:
    """A good URL with something done to the signature at its end."""
    good = BASE + (target or signed())
    return good[:-64] + change(good[-64:])


CANONICAL = presign_canonical("conn", EXPIRES, "GET", "v1/*")


def lines(label: str, *fields: str | int) -> str:
    return "\n".join(map(str, (label, *fields)))


LABEL = "PRESIGN-HMAC-SHA256"
LISTED = {"methods": "GET,POST", "paths": "a,v1/*"}
B64 = base64.b64encode(SECRET.encode()).decode()

# What the user did: the URL that came of it, and the finding that names it.
SIGNED_WRONGLY: dict[str, tuple[str, str]] = {
    "signed with echo": (url(CANONICAL + "\n"), "trailing_newline"),
    "signed lines that end in CR LF": (url(CANONICAL.replace("\n", "\r\n")), "crlf"),
    "signed backslash n": (url(CANONICAL.replace("\n", "\\n")), "literal_backslash_n"),
    "joined with colons": (url(CANONICAL.replace("\n", ":")), "other_separator"),
    "signed with another label": (url(lines("PRESIGN-HMAC", "conn", EXPIRES, "GET", "v1/*")), "other_label"),
    "forgot the label": (url(lines("conn", EXPIRES, "GET", "v1/*")), "no_label"),
    "swapped methods and paths": (url(lines(LABEL, "conn", EXPIRES, "v1/*", "GET")), "fields_swapped"),
    "percent-encoded before signing": (
        url(lines(LABEL, "conn", EXPIRES, "GET", quote("v1/*", safe=""))),
        "percent_encoded",
    ),
    "signed with a leading slash": (url(lines(LABEL, "conn", EXPIRES, "GET", "/v1/*")), "slash_added"),
    "signed without the leading slash": (url(CANONICAL, paths="/v1/*"), "slash_missing"),
    "signed with blanks after commas": (
        url(lines(LABEL, "conn", EXPIRES, "GET, POST", "a, v1/*"), **LISTED),
        "signed_with_blanks",
    ),
    "signed JSON": (
        url(lines(LABEL, "conn", EXPIRES, '["GET", "POST"]', '["a", "v1/*"]'), **LISTED),
        "signed_as_json",
    ),
    "signed lower-case methods": (url(lines(LABEL, "conn", EXPIRES, "get", "v1/*")), "case_of_methods"),
    "signed milliseconds, sent seconds": (
        url(lines(LABEL, "conn", f"{EXPIRES}000", "GET", "v1/*")),
        "signed_milliseconds",
    ),
    "signed a float": (url(lines(LABEL, "conn", f"{EXPIRES}.0", "GET", "v1/*")), "signed_fraction"),
    "signed the request instead of the lists": (
        url(lines(LABEL, "conn", EXPIRES, "GET", "v1/models")),
        "signed_request",
    ),
    "widened the methods": (url(CANONICAL.replace("GET", "POST")), "changed_methods"),
    "narrowed the paths": (url(lines(LABEL, "conn", EXPIRES, "GET", "*")), "changed_paths"),
    "gave it an end": (url(lines(LABEL, "conn", 0, "GET", "v1/*")), "changed_expires"),
    "signed without the id": (url(lines(LABEL, "", EXPIRES, "GET", "v1/*")), "other_connection_id"),
    "signed an unsorted list, sent it sorted": (
        url(lines(LABEL, "conn", EXPIRES, "POST,GET", "v1/*,a"), **LISTED),
        "signed_unsorted",
    ),
    "wrote a plus for a plus": (
        f"{BASE}/api/proxy/conn/v1/a?X-Presign-Expires={EXPIRES}&X-Presign-Methods=GET&X-Presign-Paths=v1/a+b"
        f"&X-Presign-Signature={sign(SECRET, presign_canonical('conn', EXPIRES, 'GET', 'v1/a+b'))}",
        "plus_for_space",
    ),
    "glued a path onto the paths": (
        f"{BASE}/api/proxy/conn/v1?X-Presign-Signature={sign(SECRET, CANONICAL)}&X-Presign-Expires={EXPIRES}"
        "&X-Presign-Methods=GET&X-Presign-Paths=v1%2F*/chat/completions",
        "paths_glued",
    ),
    "used the base64 form of the secret": (url(secret=B64), "secret_base64"),
    "decoded the secret from base64": ("", "secret_base64_decoded"),
    "decoded the secret from hex": ("", "secret_hex_decoded"),
    "read the secret with its newline": (url(secret=f"{SECRET}\n"), "secret_newline"),
    "read the secret from a Windows file": (url(secret=f"{SECRET}\r\n"), "secret_crlf"),
    "pasted the secret with a blank": (url(secret=f"{SECRET} "), "secret_blank"),
    "pasted the secret with quotes": (url(secret=f'"{SECRET}"'), "secret_quoted"),
    "pasted the secret with single quotes": (url(secret=f"'{SECRET}'"), "secret_quoted"),
    "left the prefix out": (url(secret=SECRET[3:]), "secret_without_prefix"),
    "used the hex form of the secret": (url(secret=SECRET.encode().hex()), "secret_hex"),
    "upper-cased the secret": (url(secret=SECRET.upper()), "secret_case"),
    "used some other secret": (url(secret="sk_another_secret_0123456789abcdef"), "unexplained"),
}


def mac_url(key: bytes) -> str:
    signature = hmac.new(key, CANONICAL.encode(), hashlib.sha256).hexdigest()
    return with_signature(lambda _: signature)


SIGNED_WRONGLY["decoded the secret from hex"] = (mac_url(bytes.fromhex(SECRET[3:])), "secret_hex_decoded")
SIGNED_WRONGLY["decoded the secret from base64"] = (
    mac_url(base64.b64decode(SECRET[3:] + "=" * (-len(SECRET[3:]) % 4))),
    "secret_base64_decoded",
)


@pytest.mark.parametrize("what", SIGNED_WRONGLY)
def test_a_signature_made_by_mistake(what: str) -> None:
    text, expected = SIGNED_WRONGLY[what]
    assert names(text) == [expected]


MISSPELLED: dict[str, tuple[str, list[str]]] = {
    "appended a path to a base_url with a query": (
        with_signature(lambda s: f"{s}/chat/completions"),
        ["path_glued", "otherwise_good"],
    ),
    "appended a query with a second question mark": (
        with_signature(lambda s: f"{s}?limit=2"),
        ["second_query", "otherwise_good"],
    ),
    "printed the signature in upper case": (with_signature(str.upper), ["upper_case_hex", "otherwise_good"]),
    "took the base64 digest": (
        with_signature(lambda s: quote(base64.b64encode(bytes.fromhex(s)).decode(), safe="")),
        ["base64_signature", "otherwise_good"],
    ),
    "took the base64url digest": (
        with_signature(lambda s: base64.urlsafe_b64encode(bytes.fromhex(s)).decode().rstrip("=")),
        ["base64_signature", "otherwise_good"],
    ),
    "pasted what openssl printed": (
        with_signature(lambda s: f"SHA2-256(stdin)=+{s}"),
        ["signature_prefix", "otherwise_good"],
    ),
    "kept the newline of the signature": (
        with_signature(lambda s: f"{s}%0A"),
        ["signature_blank", "otherwise_good"],
    ),
    "copied the full stop after the URL": (
        with_signature(lambda s: f"{s}."),
        ["pasted_punctuation", "otherwise_good"],
    ),
    "copied the bracket after the URL": (
        with_signature(lambda s: f"{s})"),
        ["pasted_punctuation", "otherwise_good"],
    ),
    "copied the angle bracket after the URL": (
        with_signature(lambda s: f"{s}>"),
        ["pasted_punctuation", "otherwise_good"],
    ),
    "copied a letter too much": (
        with_signature(lambda s: f"{s}x"),
        ["signature_trailed", "otherwise_good"],
    ),
    "copied half of the URL": (with_signature(lambda s: s[:32]), ["signature_cut", "otherwise_good"]),
    "copied nearly nothing of the signature": (with_signature(lambda s: s[:4]), ["signature_cut"]),
    "used SHA-512": (with_signature(lambda s: s * 2), ["other_hash"]),
    "sent no signature": (with_signature(lambda s: ""), ["signature_empty"]),
    "wrote words into the signature": (with_signature(lambda s: "$SIGNATURE"), ["signature_unreadable"]),
    "signed and sent milliseconds": (url(expires=EXPIRES * 1000), ["milliseconds", "signed_as_sent"]),
    "signed seconds, sent milliseconds": (
        url(CANONICAL, expires=EXPIRES * 1000),
        ["milliseconds", "signed_repaired"],
    ),
    "sent a float": (url(expires=f"{EXPIRES}.5"), ["fraction", "signed_as_sent"]),
    "sent nanoseconds": (url(expires=f"{EXPIRES}000000000"), ["microseconds", "signed_as_sent"]),
    "sent a date": (url(expires="2030-01-01T00:00:00Z"), ["expires_date", "signed_as_sent"]),
    "sent a duration": (url(expires="1h"), ["expires_duration", "signed_as_sent"]),
    "sent a blank after the time": (url(expires=f"{EXPIRES} "), ["expires_spelling", "signed_as_sent"]),
    "copied the URL out of HTML": (
        (BASE + signed()).replace("&", "&amp;"),
        ["html_entities", "otherwise_good"],
    ),
    "left the quotes out in a shell": ((BASE + signed()).partition("&")[0], ["cut_at_ampersand"]),
    "left the quotes out after curl": (f"curl {BASE}{signed()}", ["cut_at_ampersand"]),
    "lost a parameter": (re.sub("X-Presign-Paths=[^&]*&", "", BASE + signed()), ["fields_missing"]),
    "wrote a parameter in lower case": (
        (BASE + signed()).replace("X-Presign-Paths", "x-presign-paths"),
        ["look_alike", "otherwise_good"],
    ),
    "gave a parameter twice": (f"{BASE}{signed()}&X-Presign-Methods=GET", ["field_twice", "otherwise_good"]),
    "lost the query": (f"{BASE}/api/proxy/conn/v1/models", ["query_lost"]),
}  # fmt: skip


@pytest.mark.parametrize("what", MISSPELLED)
def test_a_url_that_is_not_well_formed(what: str) -> None:
    text, expected = MISSPELLED[what]
    assert names(text) == expected


# Malformed only once the signature was good.
LISTS: dict[str, tuple[str, list[str]]] = {
    "signed unsorted": (url(methods="POST,GET"), ["unsorted_list", "signed_as_sent"]),
    "signed with blanks": (url(methods="GET, POST"), ["list_blanks", "signed_as_sent"]),
    "signed twice": (url(paths="v1/*,v1/*"), ["item_twice", "signed_as_sent"]),
    "signed a wildcard beside others": (url(paths="*,v1/*"), ["wildcard_beside_items", "signed_as_sent"]),
    "signed lower case": (url(methods="get"), ["lower_case_methods", "signed_as_sent"]),
    "signed a comma too many": (url(methods="GET,"), ["empty_item", "signed_as_sent"]),
    "signed JSON": (url(methods='["GET"]'), ["json_list", "signed_as_sent"]),
    "signed sorted, sent unsorted": (
        url(presign_canonical("conn", EXPIRES, "GET,POST", "v1/*"), methods="POST,GET"),
        ["unsorted_list", "signed_repaired"],
    ),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_list_that_no_signer_should_write(what: str) -> None:
    text, expected = LISTS[what]
    assert names(text) == expected


def test_two_mistakes_are_both_named() -> None:
    assert names(url(CANONICAL + "\n", secret=SECRET + "\n")) == ["secret_newline", "trailing_newline"]
    text = with_signature(str.upper, url(CANONICAL + "\n").removeprefix(BASE))
    assert names(text) == ["upper_case_hex", "trailing_newline"]


OTHER = "sk_other_0123456789abcdef0123456789"


def test_the_key_of_another_connection_is_named() -> None:
    other = connection("conn_other", upstream=Upstream(Origin("https", "o.test", 443)), keys=ring(OTHER))
    known = registry(connection(), other)
    found = explained(parse(url(secret=OTHER)).request, known).findings
    assert [finding.name for finding in found] == ["other_connection_key"]
    assert "conn_other" in found[0].text
    for_other = url(presign_canonical("conn_other", EXPIRES, "GET", "v1/*"), secret=OTHER)
    assert names(for_other, known) == ["other_connection"]


def test_a_key_past_its_not_after_is_named() -> None:
    keys = KeyRing((SigningKey("k2", Secret(OTHER)), SigningKey("k1", Secret(SECRET), NOW - 86400)))
    known = registry(connection(keys=keys))
    found = explained(parse(url()).request, known)
    assert [finding.name for finding in found.findings] == ["expired_key"]
    assert "key k1: past its not_after" in step(found, "signature")


def test_an_unknown_connection_is_told_with_its_neighbours() -> None:
    unknown = presign_target(SECRET, "con", "v1/models", EXPIRES, "GET", "v1/*")
    found = explained(parse(BASE + unknown).request)
    assert '"con". Similar names: conn' in step(found, "connection")
    assert [finding.name for finding in found.findings] == ["other_connection_key"]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("v1//models", 'behind "/v1"'),
        ("/v1/models", "at its beginning"),
        ("v1/models//", 'behind "/v1/models"'),
    ],
)
def test_a_doubled_slash_is_named_wherever_it_stands(path: str, where: str) -> None:
    found = explained(parse(BASE + presign_target(SECRET, "conn", path, EXPIRES, "GET", "*")).request)
    assert [(one.name, one.text) for one in found.findings] == [
        ("doubled_slash", f"The path holds two slashes {where}: one of them is too many.")
    ]


def test_a_token_that_was_cut_is_not_said_to_be_in_another_base64() -> None:
    assert "token_alphabet" not in names("ps1_abc")


def test_several_carriers_are_named() -> None:
    both = "\n".join(
        f"{name}: {value}" for name, value in presign_headers(SECRET, "conn", EXPIRES, "GET", "v1/*").items()
    )
    assert names(both, url=BASE + signed())[0] == "several_carriers"


def test_headers_without_a_signature_are_named() -> None:
    headers = presign_headers(SECRET, "conn", EXPIRES, "GET", "v1/*")
    del headers["X-Presign-Signature"]
    assert names(json.dumps(headers)) == ["fields_missing"]


def test_two_connections_are_named() -> None:
    headers = presign_headers(SECRET, "conn", EXPIRES, "GET", "v1/*")
    found = names(json.dumps(headers), url=f"{BASE}/api/proxy/other/v1/models")
    assert found[0] == "two_connections"


TOKEN = token(SECRET, "conn", EXPIRES, "GET", "v1/*")
PAYLOAD, SIGNATURE = TOKEN.split(".")
TOKENS = {
    "kept the padding": (
        token(SECRET, "conn", EXPIRES, "GET", "v1/**").replace(".", "=."),
        ["token_padding", "otherwise_good"],
    ),
    "cut the signature": (TOKEN[:-20], ["signature_cut", "otherwise_good"]),
    "cut the token": (PAYLOAD, ["token_cut"]),
    "copied the full stop": (f"{TOKEN}.", ["pasted_punctuation", "otherwise_good"]),
    "invented a version": (TOKEN.replace("ps1_", "ps2_"), ["token_version", "otherwise_good"]),
    "forgot the id": (
        f"ps1_{base64url(f'{EXPIRES}{chr(10)}GET{chr(10)}v1/*')}.{SIGNATURE}",
        ["token_fields"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TOKENS)
def test_a_token_that_is_not_well_formed(what: str) -> None:
    text, expected = TOKENS[what]
    found = [
        name for name in names(f"Authorization: Bearer {text}") if not name.startswith(("expires", "empty"))
    ]
    assert found[: len(expected)] == expected


def test_the_key_of_a_page_is_told_by_its_place() -> None:
    slots = CredentialSlots(frozenset({b"authorization", b"sec-websocket-protocol"}))
    known = registry(connection(conduct=Conduct(websocket=True), taken=slots))
    handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    handshake |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    offer = f"realtime, openai-insecure-api-key.{token(SECRET, 'conn', EXPIRES, 'GET', 'v1/*')}"
    fields = handshake | {"Sec-WebSocket-Protocol": offer}
    options = " ".join(f"-H '{name}: {value}'" for name, value in fields.items())
    text = f"curl {options} {BASE}/v1/realtime"
    found = explained(parse(text).request, known)
    assert "in the subprotocol openai-insecure-api-key.… of a WebSocket" in step(found, "presign")
    assert "added: Sec-WebSocket-Protocol: realtime" in step(found, "forward")


PATHS: dict[str, tuple[str, str, Registry | None, str]] = {
    "asked for the folder itself": ("v1/chat", "v1/chat/*", None, "without_slash"),
    "asked with a slash at the end": ("v1/models/", "v1/models", None, "trailing_slash"),
    "signed a plus escaped, asked for a plain one": ("v1/+49", "v1/%2B49", None, "plain_where_escaped"),
    "asked in other case": ("v1/Models", "v1/models", None, "case_of_path"),
    "asked below a pattern without a star": ("v1/models/gpt", "v1/models", None, "no_wildcard"),
    "signed with the base path": (
        "chat",
        "v1/*",
        registry(connection(upstream=Upstream(UPSTREAM, b"/v1"))),
        "base_in_pattern",
    ),
    "ended the path in a parameter": ("admin;x.jpg", "*.jpg", None, "path_may_end_earlier"),
    "signed a blank behind a comma": ("v1/chat/x", " v1/chat/*,v1/models", None, "blank_in_pattern"),
    "signed a template": ("users/7", "users/{id}", None, "other_pattern_language"),
    "asked beyond the ceiling": (
        "v2/x",
        "*",
        registry(connection(ceiling=Ceiling(paths=(pattern("v1/*"),)))),
        "ceiling",
    ),
}


@pytest.mark.parametrize("what", PATHS)
def test_a_path_that_no_pattern_matches(what: str) -> None:
    path, paths, known, expected = PATHS[what]
    assert names(BASE + signed(path, paths=paths), known) == [expected]


def test_a_huge_field_costs_no_time() -> None:
    started = time.process_time()
    assert names(url(paths=",".join(f"b{n}" for n in range(5000)))) == ["field_too_long"]
    many = Registry(
        {f"c{n}": connection(f"c{n}", keys=ring(OTHER)) for n in range(6000)}, frozenset({GATEWAY})
    )
    assert explain(many, parse(url()).request, NOW).verdict.code == "invalid"
    longest = ",".join(f"{n:03}{'x' * 120}" for n in range(64))
    assert names(url("nothing", paths=longest)) == ["unexplained"]
    assert time.process_time() - started < 5


def test_a_connection_that_the_url_names_is_not_said_to_be_found_by_its_upstream() -> None:
    named = step(explained(parse(BASE + signed("v1/chat")).request), "connection")
    assert named.startswith('"conn", upstream https://')
    assert "the only one" not in named


def test_the_closest_pattern_is_told_with_where_it_stops() -> None:
    found = explained(parse(BASE + signed("v1/chat/stop", paths="files/*,v1/*/completions,v1/m")).request)
    told = step(found, "path")
    assert 'Closest: "v1/*/completions" agrees as far as "v1/"' in told
    assert 'wants "/completions" and the path goes on with "chat/stop"' in told
    umlaut = explained(parse(BASE + signed("v1/b%C3%BCro", paths="v1/büx")).request)
    assert 'agrees as far as "v1/b%C3%BC"' in step(umlaut, "path")


def test_methods_are_told() -> None:
    assert names(BASE + signed(), method="HEAD") == ["head_is_not_get"]
    assert names(BASE + signed(), method="get") == ["lower_case_method"]
    found = explained(parse(BASE + signed(), method="POST").request)
    assert "signed: GET" in step(found, "methods")


def test_the_time_is_told() -> None:
    expired = explained(parse(BASE + signed(expires=NOW - 3 * 86400)).request)
    assert step(expired, "expiry").startswith("It expired 3 days ago")
    assert "1 min left" in step(explained(parse(BASE + signed()).request), "expiry")
    assert names(BASE + signed(expires=3600)) == ["lifetime_as_expires"]
    assert "never" in step(explained(parse(BASE + signed(expires=0)).request), "expiry")


def test_hosts_are_told() -> None:
    query = presign_query(SECRET, "conn", EXPIRES, "GET", "v1/*") + "&X-Presign-Connection=conn"
    assert names(f"http://api.example.com/v1/models?{query}") == ["other_scheme"]
    assert names(f"https://elsewhere.example/v1/models?{query}") == ["other_upstream"]
    assert names(f"https://elsewhere.example{signed()}")[0] == "gateway_host_unknown"
    stranger = explained(parse(f"http://gateway-service:8080{signed()}").request)
    assert stranger.verdict.code == "not_found"
    assert "not one of the gateway's names" in step(stranger, "address")
    pk = registry(project(), deny=True)
    source = source_url(SECRET, "pk", "https://cdn.acme.com/a.png", NOW + 60, "png")
    assert "gateway_host_unknown" in names(f"http://gateway-service:8080{source}", pk)
    # Only the operator knows whether that is the port it listens on.
    published = step(explained(parse(f"http://localhost:9000{signed()}").request), "address")
    assert "if it listens on port 9000" in published
    assert "list localhost under gateway.hosts" in published


def test_other_refusals_after_the_signature_are_told() -> None:
    for change in (
        {"enabled": False},
        {"ceiling": Ceiling(max_lifetime=5)},
        {"injector": QueryCredential((("key", Secret(KEY)),))},
    ):
        known = registry(connection(**change))
        explained(parse(BASE + signed()).request, known)
        explained(parse(f"https://api.example.com/v1/m?x={TOKEN}").request, known)
    revoked = Registry(
        registry().connections,
        frozenset({GATEWAY}),
        revoked=Revocations(urls=frozenset({signature_id(SIGNATURE)})),
    )
    assert step(explained(parse(TOKEN).request, revoked), "revocation") == "This signature is revoked."


def test_a_good_request_is_told_to_the_end() -> None:
    text = f"curl -H 'Cookie: a=b' -H 'X-Api-Key: mine' '{BASE}{signed()}&limit=2'"
    found = explained(parse(text).request)
    assert found.leaving is not None
    assert found.leaving.url == "https://api.example.com/v1/models?limit=2"
    assert {"Cookie", "X-Api-Key", "X-Presign-Signature"} <= set(found.leaving.stripped)
    assert "Authorization: Bearer presign:conn" in found.leaving.added
    assert step(found, "canonical").endswith(f"PRESIGN-HMAC-SHA256⏎\nconn⏎\n{EXPIRES}⏎\nGET⏎\nv1/*")
    assert "mine" not in "\n".join(render(found))
    assert found.claimed.key == "k1"
    assert render(found)[0] == "Granted: the gateway forwards it with the credential."


def test_a_header_that_is_taken_off_is_named_with_what_it_can_carry() -> None:
    given = {
        "Cookie": "a=b",
        "X-Vault-Token": "mine",
        "X-Forwarded-For": "192.0.2.1",
        "X-Original-Host": "a",
        "X-Original-Filename": "a.pdf",
        "Connection": "X-Hop",
        "X-Hop": "1",
        "X-Kept": "1",
    }
    fields = " ".join(f"-H '{name}: {value}'" for name, value in given.items())
    told = step(explained(parse(f"curl {fields} '{BASE}{signed()}'").request), "forward")
    assert "removed, can carry a credential: Cookie, X-Vault-Token\n" in told
    assert "removed, can name the client, or another destination: X-Forwarded-For, X-Original-Host\n" in told
    assert "removed, for this hop only: Connection, X-Hop\n" in told
    assert "X-Kept" not in told
    assert "X-Original-Filename" not in told


def test_a_connection_whose_credential_was_not_fetched_is_explained() -> None:
    late = LateSecret(("false",), 60)
    from presign_proxy.core.credentials import bearer

    known = registry(connection(injector=bearer(late), late=(late,)))
    assert explained(parse(BASE + signed()).request, known).verdict.granted


def test_what_is_not_ours_is_told() -> None:
    asked = parse("https://elsewhere.example/").request
    assert explained(asked).verdict.decision == "pass"
    [first, *_] = render(explained(asked))
    assert "mitmdump passes it on" in first
    assert (
        "`presign serve` answers 403 unsigned, unless gateway.unsigned and --unsigned both say pass" in first
    )
    assert explained(asked, registry(deny=True)).verdict.code == "unsigned"
    assert explained(parse(f"{BASE}/nothing").request).verdict.code == "not_found"


SRC = "https://cdn.acme.com/a b.png".replace(" ", "%20")


def source(canonical: str | None = None, secret: str = SECRET, exp: int | str = EXPIRES) -> str:
    return BASE + source_url(secret, "pk", SRC, exp, "png", canonical)


SOURCES: dict[str, tuple[str, list[str]]] = {
    "did all well": (source(), []),
    "signed with echo": (source(f"pk:{SRC}:{EXPIRES}\n"), ["trailing_newline"]),
    "signed the encoded source": (
        source(f"pk:{base64.urlsafe_b64encode(SRC.encode()).decode().rstrip('=')}:{EXPIRES}"),
        ["signed_encoded_source"],
    ),
    "signed without https": (source(f"pk:{SRC[8:]}:{EXPIRES}"), ["signed_without_scheme"]),
    "forgot the project": (source(f"{SRC}:{EXPIRES}"), ["no_label"]),
    "read the secret with its newline": (source(secret=f"{SECRET}\n"), ["secret_newline"]),
    "used the base64 form of the secret": (source(secret=B64), ["secret_base64"]),
    "sent milliseconds": (source(exp=EXPIRES * 1000), ["milliseconds", "signed_as_sent"]),
    "cut it at the ampersand": (source().partition("&")[0], ["cut_at_ampersand"]),
    "lost the signature": (source().replace("?sig=", "?gis="), ["fields_missing"]),
    "copied it out of HTML": (source().replace("&", "&amp;"), ["html_entities", "otherwise_good"]),
    "wrote it in upper case": (
        re.sub("sig=[0-9a-f]+", lambda m: "sig=" + m[0][4:].upper(), source()),
        ["upper_case_hex", "otherwise_good"],
    ),
    "used another secret": (source(secret=OTHER), ["unexplained"]),
    "let it expire": (source(exp=NOW - 1), []),
    "signed another origin": (BASE + source_url(SECRET, "pk", "https://x.test/", EXPIRES, "png"), []),
    "asked for another format": (BASE + source_url(SECRET, "pk", SRC, EXPIRES, "gif"), []),
}


@pytest.mark.parametrize("what", SOURCES)
def test_a_source_url(what: str) -> None:
    text, expected = SOURCES[what]
    assert names(text, registry(connection(), project())) == expected


def test_a_source_project_in_the_other_mode_is_told() -> None:
    plain = registry(project(signed=False))
    assert "other_mode" in names(source(), plain)
    assert names(f"{BASE}/v1/pk/cdn.acme.com/a.png", plain) == []
    assert names(f"{BASE}/v1/pk/cdn.acme.com/a.png", registry(project())) == ["fields_missing"]
    assert names(f"{BASE}/v1/pk/other.test/a.png", plain) == []
    assert names(f"{BASE}/v1/nobody/cdn.acme.com/a.png", plain) == []


def test_an_intercepted_source_is_told() -> None:
    known = registry(project(intercept=True))
    good = f"{SRC}?sig={sign(SECRET, f'pk:{SRC}:{EXPIRES}')}&exp={EXPIRES}"
    assert names(good, known) == []
    echoed = f"{SRC}?sig={sign(SECRET, f'pk:{SRC}:{EXPIRES}' + chr(10))}&exp={EXPIRES}"
    assert names(echoed, known) == ["trailing_newline"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (2520, "42 min"),
        (3900, "1 hour 5 min"),
        (86400 * 3 + 3600 * 4, "3 days 4 hours"),
        (86400 * 45 + 60, "45 days"),
    ],
)
def test_time_is_told_as_people_do(seconds: int, told: str) -> None:
    assert in_words(seconds) == told


def test_times_beyond_the_calendar_are_told() -> None:
    assert instant(999_999_999_999).startswith("Unix time")


def test_what_is_shown_moves_no_cursor() -> None:
    assert shown("a\x1b[2Jb\u202ec") == "a\\x1b[2Jb\\u202ec"


KNOWN = registry(
    connection(),
    connection(
        "narrow",
        ceiling=Ceiling(methods=("GET",), max_lifetime=30),
        upstream=Upstream(Origin("https", "n.test", 443), b"/v1"),
    ),
    replace(project(), id="pk"),
    project("plain", signed=False),
)
HEADERS = "\n".join(f"{n}: {v}" for n, v in presign_headers(SECRET, "conn", EXPIRES, "GET", "v1/*").items())
GOOD = [
    BASE + signed(),
    f"{BASE}/p/{TOKEN}/v1/models",
    source(),
    f"https://api.example.com/v1/models?{urlencode(presign_params(SECRET, 'conn', EXPIRES, 'GET', 'v1/*'))}",
    f"Authorization: Bearer {TOKEN}",
    HEADERS,
    f"curl '{BASE}{signed()}' -H 'Accept: text/plain'",
    f"{BASE}{presign_target(SECRET, 'narrow', 'x', NOW + 20, 'GET', 'x')}",
    f"{BASE}/v1/plain/cdn.acme.com/a.png",
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "double", "cut"]),
        st.integers(0, 2000),
        st.sampled_from(
            [
                *"&=%/?#*, \n\ta0F.+;'\"\\:@é\x00\u202e\ud800",
                *("%2F", "%00", "%ff", "X-Presign-Paths=", "&amp;", "ps1_", TOKEN, "/../", "//", "HEAD"),
                *("sig=", "exp=", "conn", "narrow", "pk", "000", "Basic "),
            ]
        ),
    ),
    min_size=0,
    max_size=4,
)  # fmt: skip


def edited(text: str, edits: list[tuple[str, int, str]]) -> str:
    for how, at, piece in edits:
        at %= len(text) + 1
        if how == "insert":
            text = text[:at] + piece + text[at:]
        elif how == "delete":
            text = text[:at] + text[at + 1 :]
        elif how == "replace":
            text = text[:at] + piece + text[at + len(piece) :]
        elif how == "double":
            text = text[:at] + text[at : at + 40] + text[at:]
        else:
            text = text[:at] or text
    return text


@given(st.sampled_from(GOOD), EDITS)
@settings(max_examples=600, deadline=None)
def test_whatever_is_pasted_is_explained_as_it_is_decided(
    good: str, edits: list[tuple[str, int, str]]
) -> None:
    try:
        asked = parse(edited(good, edits)).request
    except UnreadableUrl as error:
        assert SIGNATURE not in str(error)
        assert TOKEN not in str(error)
        return
    found = explain(KNOWN, asked, NOW)
    agrees(found, asked, KNOWN)
    if isinstance(decision := ask(asked, KNOWN), Deny):
        assert found.verdict.detail == shown(decision.detail)


@given(
    st.binary(max_size=60),
    st.binary(max_size=30),
    st.sampled_from([GATEWAY, "api.example.com", "cdn.acme.com"]),
)
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise(target: bytes, value: bytes, host: str) -> None:
    origin = Origin("https", host, 443)
    for raw in (target, b"/api/proxy/conn/" + target, b"/v1/pk/" + target + b".png?sig=" + value + b"&exp=1"):
        fields = (
            (b"Host", host.encode()),
            (b"X-Presign-Signature", value),
            (b"Authorization", b"Basic " + target),
        )
        for given_fields in (fields, fields[:1]):
            asked = Request(b"GET", raw, given_fields, b"HTTP/1.1", origin, (("host", host),))
            agrees(explain(KNOWN, asked, NOW), asked, KNOWN)


# The steps at which a request with a good signature may be refused, by the code it is refused with.
STEPS = {
    "malformed": {"lists", "slot", "host", "forward", "presign", "grammar"},
    "invalid": {"origin", "format", "signature"},
    "expired": {"expiry"},
    "revoked": {"revocation"},
    "lifetime_too_long": {"lifetime"},
    "no_expiry_not_allowed": {"lifetime"},
    "method_not_allowed": {"methods"},
    "path_not_allowed": {"path"},
    "not_found": {"path", "address"},
    "host_mismatch": {"host"},
    "upgrade_required": {"forward"},
}
CEILINGS = st.builds(
    Ceiling,
    methods=st.sampled_from([("*",), ("GET",), ("POST", "PUT")]),
    paths=st.sampled_from([(pattern("*"),), (pattern("v1/*"),), (pattern("a"), pattern("v1/b*"))]),
    max_lifetime=st.sampled_from([None, 30, 600]),
    allow_no_expiry=st.booleans(),
    head_as_get=st.booleans(),
    allow_encoded_slash=st.booleans(),
)
REQUEST_PATHS = st.sampled_from(
    [
        "/v1/a",
        "/v1",
        "/v1/b%2Fc",
        "/v1/../a",
        "//a",
        "/a",
        "",
        "/",
        "/v1/%ff",
        "/v1/b%C3%BC",
        "/V1/a",
        "/v1/a/",
    ]
)
EXTRA = st.lists(
    st.sampled_from(
        [
            *((b"Upgrade", b"websocket"), (b"Service-Worker", b"script"), (b"Connection", b"Host")),
            *((b"Cookie", b"a=b"), (b"X-Api-Key", b"mine"), (b"Expect", b"no"), (b"Accept", b"*/*")),
        ]
    ),
    max_size=2,
)
NAMES = st.sampled_from(
    [(), (("host", "HOST"),), (("host", "other.test"),), (("sni", "bad..name"),), (("front-sni", "x.test"),)]
)


@given(
    CEILINGS,
    st.sampled_from(["GET", "POST", "GET,POST", "*", "get", "POST,GET", "GET,", "HEAD"]),
    st.sampled_from(["*", "v1/*", "/v1/a", "v1/b*,v1/a", "a,v1/b", "v1/*/c", "v1/bü", "*,a"]),
    st.sampled_from([0, NOW - 5, NOW, NOW + 20, NOW + 60, NOW + 6000]),
    st.sampled_from([b"GET", b"POST", b"HEAD", b"get", b"TRACE"]),
    REQUEST_PATHS,
    EXTRA,
    NAMES,
    st.sampled_from(["query", "header", "path", "key", "slot", "intercepted", "elsewhere"]),
    st.booleans(),
    st.sampled_from([b"", b"/v1"]),
)
@settings(max_examples=800, deadline=None)
def test_whatever_is_signed_is_explained_as_it_is_decided(
    ceiling: Ceiling,
    methods: str,
    paths: str,
    expires: int,
    method: bytes,
    path: str,
    extra: list[tuple[bytes, bytes]],
    given_names: tuple[tuple[str, str], ...],
    carrier: str,
    enabled: bool,
    base: bytes,
) -> None:
    conduct = Conduct(reject_client_credentials=True)
    known = registry(
        connection(
            ceiling=ceiling,
            enabled=enabled or expires != 0,
            conduct=conduct,
            upstream=Upstream(UPSTREAM, base),
        )
    )
    key = token(SECRET, "conn", expires, methods, paths)
    query = presign_query(SECRET, "conn", expires, methods, paths)
    headers = presign_headers(SECRET, "conn", expires, methods, paths)
    origin = Origin("https", GATEWAY, 443)
    target, fields = f"/api/proxy/conn{path}", list(extra)
    if carrier == "query":
        target += f"?{query}"
    elif carrier == "header":
        fields += [(name.encode(), value.encode()) for name, value in headers.items()]
    elif carrier == "path":
        target = f"/p/{key}{path}"
    elif carrier in ("key", "slot"):
        fields.append((b"Authorization" if carrier == "key" else b"X-Other", key.encode()))
    else:
        origin = UPSTREAM if carrier == "intercepted" else Origin("https", "other.test", 443)
        target = f"{path or '/'}?{query}&X-Presign-Connection=conn"
    fields.append((b"Host", origin.host.encode()))
    host = tuple((kind, origin.host if name == "HOST" else name) for kind, name in given_names)
    asked = Request(method, target.encode(), tuple(fields), b"HTTP/1.1", origin, host)
    found = explain(known, asked, NOW)
    agrees(found, asked, known)
    if found.verdict.code is not None:
        assert found.steps[-1].name in STEPS[found.verdict.code]
    else:
        assert found.steps[-1].name == "forward"
    assert "mine" not in "\n".join(render(found))
