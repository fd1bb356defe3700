"""The verifying core where it is easily got wrong by one: what tools/mutate found untested."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.policy import check_method
from presign_proxy.errors import Denied, Malformed
from presign_proxy.signing import base64url, canonical, grammar
from presign_proxy.signing.grammar import parse_list
from presign_proxy.signing.keys import KeyRing, SigningKey, is_guessable, is_weak, signature_id
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.signer import Signer
from presign_proxy.signing.tokens import format_token, has_start, holds_token, parse_token
from support.deciding import NOW, SECRET, ask, code, connection, project, registry, request, ring, sent
from support.signing import base64url as encoded
from support.signing import presign_target, sign, source_url, token

SIGNATURE = "0123456789abcdef" * 4
VECTORS = json.loads((Path(__file__).parent / "data" / "seed_vectors.json").read_text("utf-8"))


# -- tokens ---------------------------------------------------------------------------------------------


def test_a_token_is_what_it_says_and_back() -> None:
    made = format_token("conn", "1", "GET", "v1/*", SIGNATURE)
    assert parse_token(made.encode()) == {
        "connection_id": "conn",
        "expires": "1",
        "methods": "GET",
        "paths": "v1/*",
        "signature": SIGNATURE,
    }


@pytest.mark.parametrize(
    "fields", ["", "conn", "conn\n1\nGET", "conn\n1\nGET\nv1/*\nmore", "conn\n1\nGET\nv1/*\n"]
)
def test_a_token_of_other_than_four_fields_is_malformed(fields: str) -> None:
    with pytest.raises(Malformed, match=r"exactly four fields|of the form"):
        parse_token(f"ps1_{encoded(fields)}.{SIGNATURE}".encode())


@pytest.mark.parametrize("start", ["ps1_", "ps2_"])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_token_is_found_through_two_rounds_of_percent_encoding(start: str, times: int) -> None:
    text = f"x{start}abc.{SIGNATURE}"
    for _ in range(times):
        text = text.replace("%", "%25").replace("_", "%5f")
    assert holds_token(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ps1_",
        f".{SIGNATURE}",
        f".{SIGNATURE} ps1_",
        f".{SIGNATURE}ps2_x",
        f"ps1_abc.{SIGNATURE[1:]}",
        "a%20b",
        "a%25252520b",
    ],
)
def test_what_is_no_token_is_found_nowhere(text: str) -> None:
    assert holds_token(text.encode()) is False


def test_a_token_that_no_encoder_makes_is_told_as_a_token() -> None:
    with pytest.raises(Malformed, match="the base64url of the token is not canonical"):
        parse_token(f"ps1_YR.{SIGNATURE}".encode())


def test_both_versions_begin_a_token() -> None:
    assert has_start(b"a ps1_") and has_start(b"a ps2_")
    assert not has_start(b"a ps3_")


@pytest.mark.parametrize("version", ["ps1_", "ps2_"])
@pytest.mark.parametrize("name", [b"X-Custom", b"Accept"])
def test_a_token_of_any_version_that_went_astray_is_malformed(version: str, name: bytes) -> None:
    field = (name, f"{version}{encoded('a')}.{SIGNATURE}".encode())
    assert code(request("/open", field, host="elsewhere.test")) == "malformed"


# -- base64url ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "über", "X", "?>", "X" * 9, "abW"])
def test_base64url_is_what_the_library_makes_of_it(text: str) -> None:
    made = base64url.encode(text)
    assert made == base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    assert base64url.decode(made.encode(), "it") == text


@pytest.mark.parametrize("word", ["YR", "YWJ", "YWI9", "Y", "_w", "YWJjX"])
def test_base64url_that_no_encoder_makes_is_malformed(word: str) -> None:
    if word == "YWI9":
        assert base64url.decode(word.encode(), "it") == "ab="
        return
    with pytest.raises(Malformed, match=r"of it is not canonical|it is not base64url"):
        base64url.decode(word.encode(), "it")


# -- keys -----------------------------------------------------------------------------------------------


def test_the_id_of_a_signature_is_the_beginning_of_its_hash() -> None:
    assert signature_id(SIGNATURE) == hashlib.sha256(SIGNATURE.encode()).hexdigest()[:32]


def test_four_keys_verify_and_a_fifth_is_refused() -> None:
    secrets = [f"sk_{number}_0123456789abcdef" for number in range(5)]
    four = ring(*secrets[:4])
    for secret in secrets[:4]:
        found = four.verify(b"message", sign(secret, "message"), NOW)
        assert found is not None
        assert found.secret.reveal() == secret
    assert four.verify(b"message", sign(secrets[4], "message"), NOW) is None
    with pytest.raises(ValueError, match="at most 4"):
        ring(*secrets)


def test_of_two_keys_with_one_secret_the_live_one_counts() -> None:
    old, new = SigningKey("old", Secret(SECRET), not_after=NOW - 1), SigningKey("new", Secret(SECRET))
    signature = sign(SECRET, "message")
    for keys in ((old, new), (new, old)):
        found = KeyRing(keys).verify(b"message", signature, NOW)
        assert found is not None
        assert found.id == "new"
    first = KeyRing((SigningKey("a", Secret(SECRET)), SigningKey("b", Secret(SECRET)))).verify(
        b"message", signature, NOW
    )
    assert first is not None
    assert first.id == "a"


@pytest.mark.parametrize(("now", "is_live"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
def test_a_key_is_live_to_its_last_second(now: int, is_live: bool) -> None:
    assert SigningKey("k", Secret(SECRET), not_after=NOW).is_live(now) is is_live


@pytest.mark.parametrize("macs", [1, 2, 4])
def test_an_expired_key_alone_in_its_ring_is_no_key(macs: int) -> None:
    """Also where other rings hold more: the decoys beside it belong to no key."""
    keys = KeyRing((SigningKey("k", Secret(SECRET), not_after=NOW - 1),))
    assert keys.verify(b"message", sign(SECRET, "message"), NOW, macs) is None


def test_a_key_is_what_it_was_when_it_was_registered() -> None:
    key = SigningKey("k", Secret(SECRET), revoked=True)
    with pytest.raises(AttributeError):
        key.revoked = False  # type: ignore[misc]
    assert key.revoked
    assert not hasattr(key, "__dict__")  # a hundred thousand of them are kept


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("k", True), ("2026-11.a_B", True), ("k" * 64, True), ("k" * 65, False), ("", False), ("a b", False)],
)
def test_the_id_of_a_key_is_one_word(name: str, is_one: bool) -> None:
    assert bool(re.fullmatch(grammar.KEY_ID, name)) is is_one


TRIED = {"asis": lambda secret: secret, "none": lambda _: None, "cut": lambda secret: secret[3:]}


@pytest.mark.parametrize("length", [8, 9, 32])
def test_a_guess_names_the_key_the_message_and_the_misreading(length: int) -> None:
    """For `explain`: which mistake of a signer leads to this signature."""
    keys = ring("sk_first_0123456789", "sk_second_123456789")
    beginning = bytes.fromhex(sign("second_123456789", "other"))[:length]
    found = list(keys.tries({"one": b"message", "two": b"other"}, TRIED, beginning))
    assert [(one.key.id, one.message, one.variant) for one in found] == [("k2", "two", "cut")]
    assert not list(keys.tries({"one": b"message"}, TRIED, beginning))


def test_a_guess_is_not_made_from_seven_bytes() -> None:
    beginning = bytes.fromhex(sign(SECRET, "message"))
    for length, expected in ((7, 0), (8, 1)):
        assert len(list(ring(SECRET).tries({"": b"message"}, TRIED, beginning[:length]))) == expected


def test_as_many_macs_as_the_largest_ring_needs() -> None:
    """Two of four MACs: a ring of two still verifies with both, and one beyond them does not."""
    secrets = ("sk_first_0123456789", "sk_second_123456789", "sk_third_0123456789")
    three = ring(*secrets)
    verified = [three.verify(b"m", sign(secret, "m"), NOW, 2) is not None for secret in secrets]
    assert verified == [True, True, False]


def test_no_key_stands_for_what_does_not_exist() -> None:
    """Its secrets are random: nobody can sign for nothing, also where the registry holds several keys."""
    assert KeyRing(()).verify(b"m", sign("", "m"), NOW) is None
    asked = request(presign_target("", "conn_none", "v1", NOW, "GET", "*"))
    decision = ask(asked)
    assert isinstance(decision, Deny)
    assert (decision.code, decision.facts.connection) == ("invalid", None)


# -- the vectors of the seeds, without any proxy -----------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["presign"], ids=lambda vector: vector["signature"][:8])
def test_a_published_presign_verifies(vector: dict[str, Any]) -> None:
    methods, paths = ",".join(sorted(vector["methods"])), ",".join(sorted(vector["paths"]))
    message = canonical.presign(vector["connection_id"], str(vector["expires"]), methods, paths)
    assert message.decode() == vector["canonical"]
    keys = ring(vector["signing_secret"])
    assert keys.verify(message, vector["signature"], NOW) is keys.keys[0]


@pytest.mark.parametrize("vector", VECTORS["source_url"], ids=lambda vector: vector["signature"][:8])
def test_a_published_source_verifies(vector: dict[str, Any]) -> None:
    message = canonical.source(vector["project_key"], vector["source_url"], str(vector["expires"]))
    assert message.decode() == vector["signed_string"]
    keys = ring(vector["signing_secret"])
    assert keys.verify(message, vector["signature"], NOW) is keys.keys[0]


def test_the_canonical_strings_are_those_of_the_seeds() -> None:
    assert canonical.presign("c", "1", "GET", "ü") == "PRESIGN-HMAC-SHA256\nc\n1\nGET\nü".encode()
    assert canonical.source("pk", "https://a/ü", "1") == "pk:https://a/ü:1".encode()


# -- lists, expiry, methods ---------------------------------------------------------------------------------


def test_a_list_holds_sixty_four_items_at_most() -> None:
    items = [f"v{number:03}" for number in range(65)]
    assert parse_list(",".join(items[:64]), "paths") == tuple(items[:64])
    with pytest.raises(Malformed, match="more than 64"):
        parse_list(",".join(items), "paths")


@pytest.mark.parametrize(
    ("methods", "paths", "told"),
    [
        ("GET", "a,", "paths holds an empty item"),
        ("GET,", "a", "methods holds an empty item"),
        ("GET", "a,*", "paths is not sorted by code point"),
        ("*,GET", "a", "methods holds a wildcard beside"),
        ("Get", "a", "methods holds something that is not an upper-case method"),
    ],
)
def test_the_audit_log_says_which_list_is_wrong(methods: str, paths: str, told: str) -> None:
    decision = ask(request(presign_target(SECRET, "conn", "v1", NOW, methods, paths)))
    assert isinstance(decision, Deny)
    assert decision.detail.startswith(told)


@pytest.mark.parametrize(("size", "wanted"), [(8192, "path_not_allowed"), (8193, "malformed")])
def test_a_list_holds_eight_kibibytes_at_most(size: int, wanted: str) -> None:
    for filler in ("x", "ü"):
        paths = (filler * size)[: size // len(filler.encode())]
        paths += "x" * (size - len(paths.encode()))
        target = presign_target(SECRET, "conn", "v1", NOW, "GET", paths)
        assert code(request(target)) == wanted


@pytest.mark.parametrize(
    ("left", "wanted"), [(59, "forward"), (60, "forward"), (61, "lifetime_too_long"), (-1, "expired")]
)
def test_a_lifetime_is_at_most_what_the_connection_allows(left: int, wanted: str) -> None:
    known = registry(connection(ceiling=Ceiling(max_lifetime=60)))
    asked = request(presign_target(SECRET, "conn", "v1", NOW + left, "GET", "*"))
    assert code(asked, known) == wanted


@pytest.mark.parametrize(
    ("ceiling", "wanted"),
    [
        (Ceiling(), "forward"),
        (Ceiling(allow_no_expiry=False), "no_expiry_not_allowed"),
        (Ceiling(max_lifetime=10**12), "no_expiry_not_allowed"),
        (Ceiling(max_lifetime=0), "no_expiry_not_allowed"),
    ],
)
def test_eternity_ends_where_any_bound_is_set(ceiling: Ceiling, wanted: str) -> None:
    asked = request(presign_target(SECRET, "conn", "v1", 0, "GET", "*"))
    assert code(asked, registry(connection(ceiling=ceiling))) == wanted


@pytest.mark.parametrize(
    ("method", "signed", "allowed", "head_as_get", "wanted"),
    [
        ("HEAD", "GET", ("GET",), True, "forward"),
        ("HEAD", "GET", ("HEAD",), True, "forward"),
        ("HEAD", "GET", ("GET",), False, "method_not_allowed"),
        ("HEAD", "POST", ("GET",), True, "method_not_allowed"),
        ("POST", "GET", ("*",), True, "method_not_allowed"),
        ("POST", "*", ("GET",), True, "method_not_allowed"),
        ("GET", "HEAD", ("*",), True, "method_not_allowed"),
        ("get", "*", ("*",), True, "method_not_allowed"),
        ("A" * 32, "*", ("*",), True, "forward"),
        ("A" * 33, "*", ("*",), True, "method_not_allowed"),
        ("M-SEARCH", "M-SEARCH", ("*",), True, "forward"),
    ],
)
def test_a_method_is_both_signed_and_allowed(
    method: str, signed: str, allowed: tuple[str, ...], head_as_get: bool, wanted: str
) -> None:
    ceiling = Ceiling(methods=allowed, head_as_get=head_as_get)
    asked = request(presign_target(SECRET, "conn", "v1", NOW, signed, "*"), method=method)
    assert code(asked, registry(connection(ceiling=ceiling))) == wanted


@pytest.mark.parametrize("method", [b"G\xc3\x89T", b"\xff", b""])
def test_a_method_of_other_than_capitals_is_never_forwarded(method: bytes) -> None:
    with pytest.raises(Denied) as denied:
        check_method(method, ("*",), Ceiling())
    assert denied.value.code == "method_not_allowed"


@pytest.mark.parametrize(
    ("signed", "allowed", "whose"), [("POST", "GET", "the signature"), ("GET", "POST", "the connection")]
)
def test_the_audit_log_says_who_does_not_allow_a_method(signed: str, allowed: str, whose: str) -> None:
    with pytest.raises(Denied) as denied:
        check_method(b"GET", (signed,), Ceiling(methods=(allowed,)))
    assert denied.value.detail == f"{whose} does not allow this method"


@pytest.mark.parametrize("digits", [64, 65])
def test_an_id_has_sixty_four_characters_at_most(digits: int) -> None:
    name = "c" * digits
    asked = request(presign_target(SECRET, name, "v1", NOW, "GET", "*"))
    assert code(asked, registry(connection(name))) == ("forward" if digits == 64 else "malformed")


# -- what the audit log is told -----------------------------------------------------------------------------


def test_the_facts_of_a_grant() -> None:
    facts = sent(request(presign_target(SECRET, "conn", "v1/models", NOW, "GET", "*"))).facts
    assert (facts.scheme, facts.carrier, facts.connection, facts.key) == ("presign", "query", "conn", "k1")
    assert (facts.path, facts.verified, facts.method) == ("/v1/models", True, "GET")
    signature = sign(SECRET, f"PRESIGN-HMAC-SHA256\nconn\n{NOW}\nGET\n*")
    assert facts.signature == signature_id(signature)


def test_the_facts_of_a_source() -> None:
    asked = request(source_url(SECRET, "pk", "https://cdn.acme.com/a/ü.png?v=1", NOW, "png"))
    decision = ask(asked, registry(project()))
    assert isinstance(decision, Forward)
    facts = decision.facts
    assert (facts.scheme, facts.carrier, facts.connection) == ("source", "query", "pk")
    assert facts.path == "https://cdn.acme.com/a/%C3%BC.png"


def test_a_refusal_before_a_good_signature_tells_no_path() -> None:
    for target in ("/api/proxy/none/x?", "/api/proxy/conn/x?"):
        asked = request(
            target + presign_target("sk_wrong_one", "conn", "", NOW, "GET", "*").partition("?")[2]
        )
        decision = ask(asked)
        assert isinstance(decision, Deny)
        assert (decision.facts.path, decision.facts.verified, decision.facts.signature) == (None, False, None)
        assert decision.facts.connection == ("conn" if "/conn/" in target else None)


# -- where it goes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "prefix"), [("v1/models", b"/api/proxy/conn"), ("v1/", b"/api/proxy/conn")])
def test_a_grant_knows_what_stood_before_its_path(path: str, prefix: bytes) -> None:
    forward = sent(request(presign_target(SECRET, "conn", path, NOW, "GET", "*")))
    assert forward.gateway_prefix == prefix


def test_the_prefix_of_a_path_token_is_not_repeated() -> None:
    word = token(SECRET, "conn", NOW, "GET", "*")
    assert sent(request(f"/p/{word}/v1/models")).gateway_prefix == b""
    field = (b"Authorization", f"Bearer {word}".encode())
    forward = sent(request("/v1", field, host="api.example.com", scheme="https"))
    assert (forward.gateway_prefix, forward.resolve) == (None, None)


@pytest.mark.parametrize("target", ["/api/proxy/conn", "/p/{token}"])
def test_a_gateway_url_without_a_path_is_not_found(target: str) -> None:
    if "token" in target:
        asked = request(target.format(token=token(SECRET, "conn", NOW, "GET", "*")))
    else:
        asked = request(f"{target}?{presign_target(SECRET, 'conn', '', NOW, 'GET', '*').partition('?')[2]}")
    assert code(asked) == "not_found"


def test_a_signer_says_how_a_comma_in_a_path_is_signed() -> None:
    signer = Signer("conn", SECRET)
    with pytest.raises(ValueError, match="signed as %2C"):
        signer.sign(["GET"], ["v1/a,b"], expires_at=NOW + 60)
    grant = signer.sign(["GET"], ["v1/a%2Cb"], expires_at=NOW + 60)
    assert code(request(grant.url("v1/a,b", ""))) == "forward"


@pytest.mark.parametrize(("size", "weak", "guessable"), [
    (5, True, True), (6, True, False), (15, True, False), (16, False, False),
])  # fmt: skip
def test_a_secret_is_weak_and_guessable_by_its_bytes(size: int, weak: bool, guessable: bool) -> None:
    for text in ("x" * size, "é" * (size // 2) + "x" * (size % 2)):
        assert (is_weak(Secret(text)), is_guessable(Secret(text))) == (weak, guessable)
