"""Version 2, the signed policy: what it grants and refuses, and that neither version is ever the other."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presign_proxy import Signer, Terms
from presign_proxy.core.answers import refusal
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.registry import Registry
from presign_proxy.core.revocations import Revocations
from presign_proxy.http.message import Request
from presign_proxy.http.networks import parse_network
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.signed_policy import parse as parse_terms
from presign_proxy.signing.tokens import parse_token
from support import policy_vectors
from support.deciding import GATEWAY, NOW, SECRET, ask, code, connection, registry, request
from support.policy import ORDER, VECTORS, Policy
from support.signing import presign_headers, presign_target, sign, token

CLIENT = "203.0.113.9"
EVERY = {"Not-Before": str(NOW), "Client": "203.0.113.0/24", "Max-Body": "9", "Key": "k1", "Id": "a"}


def known(**changes: Any) -> Registry:
    keys = KeyRing(tuple(SigningKey(name, Secret(secret)) for name, secret in VECTORS["secrets"].items()))
    return registry(connection("conn_vector", keys=keys, **changes))


def presented(vector: dict[str, Any], carrier: str) -> Request | None:
    """The vector's request in one carrier; None where no request can carry it so."""
    asked = vector["request"]
    fields = [(b"Content-Length", str(asked["content_length"]).encode())] if asked["content_length"] else []
    more = {"method": asked["method"], "client": asked["client"]}
    if carrier == "query":
        return request(vector["url"], *fields, **more)
    if carrier == "path":
        return request(f"/p/{vector['token']}/{asked['path']}", *fields, **more)
    target = f"/api/proxy/conn_vector/{asked['path']}"
    if carrier == "key":
        fields.append((b"Authorization", f"Bearer {vector['token']}".encode()))
        return request(target, *fields, **more)
    if any(char in value for value in vector["headers"].values() for char in "\r\n"):
        return None
    fields += [(name.encode(), value.encode()) for name, value in vector["headers"].items()]
    return request(target, *fields, **more)


@pytest.mark.parametrize("carrier", ["query", "header", "path", "key"])
@pytest.mark.parametrize("vector", VECTORS["every_carrier"], ids=lambda one: one["about"])
def test_a_vector_ends_as_it_says_in_every_carrier(vector: dict[str, Any], carrier: str) -> None:
    asked = presented(vector, carrier)
    if asked is not None:
        assert code(asked, known(), vector["request"]["now"]) == vector["outcome"]


@pytest.mark.parametrize("vector", VECTORS["query"], ids=lambda one: one["about"])
def test_a_vector_of_fields_ends_as_it_says(vector: dict[str, Any]) -> None:
    assert code(presented(vector, "query"), known()) == vector["outcome"]


@pytest.mark.parametrize("carrier", ["path", "key"])
@pytest.mark.parametrize("vector", VECTORS["token"], ids=lambda one: one["about"])
def test_a_vector_of_a_token_ends_as_it_says(vector: dict[str, Any], carrier: str) -> None:
    assert code(presented(vector, carrier), known()) == vector["outcome"]


@pytest.mark.parametrize("vector", VECTORS["counted"], ids=lambda one: one["about"])
def test_a_limited_number_of_uses_is_verified_and_never_granted_uncounted(vector: dict[str, Any]) -> None:
    # Verified, or it would be `invalid`; granted only where something counts.
    assert code(presented(vector, "query"), known()) in ("forward", "unavailable")
    changed = vector["url"].replace("Max-Uses=", "Max-Uses=9")
    assert code(request(changed, client=CLIENT), known()) == "invalid"


@pytest.mark.parametrize("vector", VECTORS["every_carrier"] + VECTORS["counted"], ids=lambda v: v["about"])
def test_the_signer_makes_the_vectors(vector: dict[str, Any]) -> None:
    """Byte for byte, where the vector is one that can be made."""
    if vector["outcome"] in ("malformed", "invalid") or vector["about"] == "expired before it began":
        return
    grant, terms = vector["grant"], vector["terms"]
    numbers = {name: int(terms[name]) for name in ("not_before", "max_uses", "max_body") if name in terms}
    clients = tuple(filter(None, map(parse_network, terms.get("client", "").split(","))))
    wanted = Terms(**numbers, clients=clients, key=terms.get("key"), id=terms.get("id"))
    signed = Signer(grant["connection"], VECTORS["secrets"][vector["signed_with"]]).sign(
        grant["methods"].split(","),
        grant["paths"].split(","),
        expires_at=int(grant["expires"]),
        terms=wanted,
    )
    assert signed.signature == vector["signature"]
    assert signed.token == vector["token"]
    assert signed.headers == vector["headers"]
    assert signed.url("v1/models", "http://x") == f"http://x{vector['url']}"
    assert parse_terms(signed.written) == wanted
    assert signed.signature not in repr(signed)


def test_the_vectors_are_those_that_their_recipe_makes() -> None:
    made = subprocess.run(
        [sys.executable, policy_vectors.__file__], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(made.stdout) == VECTORS
    source = Path(policy_vectors.__file__).read_text("utf-8")
    assert "presign_proxy" not in source and "from support" not in source


# -- versions --------------------------------------------------------------------------------------------

TERMS = st.fixed_dictionaries(
    {},
    optional={
        "Not-Before": st.integers(1, NOW).map(str),
        "Client": st.sampled_from(["203.0.113.0/24", "0.0.0.0/0,2001:db8::/32", "203.0.113.9/32"]),
        "Max-Body": st.integers(0, 10**12 - 1).map(str),
        "Key": st.just("k1"),
        "Id": st.text("abcXYZ019_-", min_size=1, max_size=64),
    },
)


def carried(headers: dict[str, str], whole: str, target: str, carrier: str) -> Request:
    if carrier == "query":
        return request(target, client=CLIENT)
    if carrier == "path":
        return request(f"/p/{whole}/v1/models", client=CLIENT)
    fields = {"Authorization": f"Bearer {whole}"} if carrier == "key" else headers
    pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
    return request("/api/proxy/conn/v1/models", *pairs, client=CLIENT)


CARRIERS = st.sampled_from(["query", "header", "path", "key"])


@given(TERMS.filter(bool), CARRIERS)
def test_what_was_signed_as_version_2_is_granted_as_version_2_only(
    terms: dict[str, str], carrier: str
) -> None:
    good = Policy(SECRET, terms)
    assert code(carried(good.headers, good.token, good.target("v1/models"), carrier)) == "forward"
    # The same signature, its policy taken off: it is of version 1 then, and not signed.
    bare = {name: value for name, value in good.headers.items() if name[10:] not in ORDER}
    payload = "\n".join(["conn", "0", "GET", "v1/*"]).encode()
    shorter = f"ps1_{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{good.signature}"
    query = "&".join(f"{name}={value}" for name, value in bare.items())
    stripped = carried(bare, shorter, f"/api/proxy/conn/v1/models?{query}", carrier)
    assert code(stripped) == "invalid"


@given(TERMS.filter(bool), CARRIERS)
def test_what_was_signed_as_version_1_takes_no_policy(terms: dict[str, str], carrier: str) -> None:
    four = (SECRET, "conn", 0, "GET", "v1/*")
    plain = carried(
        presign_headers(*four), token(*four), presign_target(SECRET, "conn", "v1/models", *four[2:]), carrier
    )
    assert code(plain) == "forward"
    added = Policy(SECRET, terms, canonical="\n".join(["PRESIGN-HMAC-SHA256", "conn", "0", "GET", "v1/*"]))
    assert code(carried(added.headers, added.token, added.target("v1/models"), carrier)) == "invalid"


FIELD = st.sampled_from(
    ["X-Presign-Expires", "X-Presign-Paths", "X-Presign-Methods", *(f"X-Presign-{name}" for name in ORDER)]
)


@given(TERMS.filter(bool), st.dictionaries(FIELD, st.text("0129/*.:,abGETk-", max_size=9), min_size=1))
@settings(max_examples=500)
def test_a_changed_field_never_grants(terms: dict[str, str], changes: dict[str, str]) -> None:
    good = Policy(SECRET, terms)
    headers = good.headers | changes
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    decision = ask(request("/api/proxy/conn/v1/models", *pairs, client=CLIENT))
    if isinstance(decision, Forward):
        assert headers == good.headers


@given(st.lists(st.text("abc\n0,.:/1", max_size=6), min_size=0, max_size=14), st.sampled_from("12"))
@settings(max_examples=500)
def test_no_token_reads_as_two_versions(values: list[str], version: str) -> None:
    payload = base64.urlsafe_b64encode("\n".join(values).encode()).decode().rstrip("=")
    whole = f"ps{version}_{payload}.{'0' * 64}"
    decision = ask(request(f"/p/{whole}/v1/models"))
    assert isinstance(decision, Deny)
    if decision.code != "malformed":
        lines = "\n".join(values).split("\n")
        assert (len(lines) == 4) is (version == "1")
        fields = parse_token(whole.encode())
        assert bool(fields.keys() & {"not_before", "max_uses", "client", "max_body", "key", "id"}) == (
            version == "2"
        )


def test_a_policy_of_nothing_cannot_be_made_or_presented() -> None:
    nothing = Policy(SECRET, {})
    assert code(request(f"/p/{nothing.token}/v1/models")) == "malformed"
    # Without any field it is version 1, which has another label.
    assert code(request(nothing.target("v1/models"))) == "invalid"
    signed = Signer("conn", SECRET).sign(["GET"], ["v1/*"], expires_at=0, terms=Terms())
    assert signed.token.startswith("ps1_")
    assert signed == Signer("conn", SECRET).sign(["GET"], ["v1/*"], expires_at=0)


@pytest.mark.parametrize(
    "terms",
    [
        Terms(not_before=0),
        Terms(not_before=10**12),
        Terms(not_before=NOW + 61),
        Terms(max_uses=0),
        Terms(max_uses=-1),
        Terms(max_body=-1),
        Terms(max_body=10**12),
        Terms(key=""),
        Terms(key="a/b"),
        Terms(id=""),
        Terms(id="a.b"),
        Terms(id="a\nb"),
        Terms(clients=tuple(ip_network(f"10.{n}.0.0/16") for n in range(65))),
        Terms(clients=(ip_network("::ffff:10.0.0.0/104"),)),
    ],
)
def test_the_signer_refuses_terms_that_no_gateway_takes(terms: Terms) -> None:
    with pytest.raises(ValueError):
        Signer("conn", SECRET).sign(["GET"], ["v1/*"], expires_at=NOW + 60, terms=terms)


# -- carriers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDER)
@pytest.mark.parametrize(
    "spelled", ["x-presign-{}", "X-PRESIGN-{}", "X_Presign_{}", "X-Presign%2D{}", "X-Presign-{}[]"]
)
def test_a_look_alike_of_a_policy_field_is_malformed(name: str, spelled: str) -> None:
    v1 = presign_target(SECRET, "conn", "v1/models", NOW + 60, "GET", "v1/*")
    assert code(request(f"{v1}&{spelled.format(name)}=1")) == "malformed"
    assert code(request(f"{v1}&{spelled.format(name.lower().replace('-', '_'))}=1")) == "malformed"
    assert code(request(f"{v1};{spelled.format(name)}=1")) == "malformed"


@pytest.mark.parametrize("name", ORDER)
def test_a_policy_field_alone_makes_a_request_ours(name: str) -> None:
    field = f"X-Presign-{name}"
    assert code(request(f"/v1/models?{field}=1", host="api.example.com", scheme="https")) == "malformed"
    header = (field.encode(), b"1")
    assert code(request("/v1/models", header, host="api.example.com", scheme="https")) == "malformed"
    assert code(request(f"/x/{field}=1", host="other.test")) == "malformed"


@pytest.mark.parametrize("name", ORDER)
def test_the_policy_in_another_carrier_than_the_grant_is_malformed(name: str) -> None:
    good = Policy(SECRET, EVERY | {"Max-Uses": "1"})
    moved = f"X-Presign-{name}"
    query = {key: value for key, value in good.fields.items() if key != moved}
    target = "/api/proxy/conn/v1/models?" + "&".join(f"{key}={value}" for key, value in query.items())
    header = (moved.encode(), good.fields[moved].encode())
    assert code(request(target, header, client=CLIENT)) == "malformed"
    assert code(request(f"/p/{good.token}/v1/models?{moved}=1", client=CLIENT)) == "malformed"
    assert code(request(f"/p/{good.token}/v1/models", header, client=CLIENT)) == "malformed"
    twice = f"{good.target('v1/models')}&{moved}={good.fields[moved]}"
    assert code(request(twice, client=CLIENT)) == "malformed"


def test_a_token_of_version_2_is_ours_in_every_slot_and_never_passes_through() -> None:
    good = Policy(SECRET, EVERY).token
    api = {"host": "api.example.com", "scheme": "https", "client": CLIENT}
    for word in ("Bearer", "token", "Whatever"):
        assert code(request("/v1/models", (b"Authorization", f"{word} {good}".encode()), **api)) == "forward"
    password = base64.b64encode(f"user:{good}".encode())
    assert code(request("/v1/models", (b"Authorization", b"Basic " + password), **api)) == "forward"
    username = base64.b64encode(f"{good}:".encode())
    assert code(request("/v1/models", (b"Authorization", b"Basic " + username), **api)) == "forward"
    wrong = [
        request("/v1/models", (b"X-Api-Key", good.encode()), **api),
        request("/v1/models", (b"Proxy-Authorization", f"Bearer {good}".encode()), **api),
        request(f"/v1/models?key={good}", **api),
        request(f"/v1/models?a=x{good}", **api),
        request(f"/v1/{good}", **api),
        request("/v1/models", (b"X-Anything", good.encode()), **api),
        request("/v1/models", (b"X-Anything", f"a {good}".encode()), **api),
        request("/v1/models", (b"Authorization", f"Bearer {good[:-5]}".encode()), **api),
        request("/v1/models", (b"X-Api-Key", good[:40].encode()), **api),
        request("/v1/models", (b"Authorization", f"Bearer {good}".encode()), (b"X-A", good.encode()), **api),
    ]
    for asked in wrong:
        assert code(asked) == "malformed", asked
        assert code(asked._replace(origin=asked.origin._replace(host="other.test"))) == "malformed", asked


def test_nothing_of_the_policy_reaches_the_upstream_nor_what_people_see() -> None:
    good = Policy(SECRET, EVERY)
    for carrier in ("query", "header", "path", "key"):
        asked = carried(good.headers, good.token, good.target("v1/models?a=1"), carrier)
        decision = ask(asked)
        assert isinstance(decision, Forward)
        told = [str(one).lower() for one in (decision.sent, decision.shown)]
        for text in told:
            assert "presign-" not in text and "ps2_" not in text and good.signature not in text


# -- terms -----------------------------------------------------------------------------------------------


def test_it_is_refused_in_the_order_of_the_specification() -> None:
    """What comes first is told, whatever else is wrong: a holder learns no more than he has to."""
    late = {"Not-Before": str(NOW + 1), "Client": "198.51.100.0/24", "Max-Body": "0"}
    body = (b"Content-Length", b"5")
    wrong = {"method": "PUT", "client": CLIENT}

    def told(terms: dict[str, str], expires: int, **asked: Any) -> str:
        return code(request(Policy(SECRET, terms, expires=expires).target("other"), body, **asked))

    assert told(late, NOW - 1, **wrong) == "not_yet_valid"
    begun = late | {"Not-Before": "1"}
    assert told(begun, NOW - 1, **wrong) == "expired"
    assert told(begun, 0, **wrong) == "client_not_allowed"
    here = begun | {"Client": "203.0.113.0/24"}
    assert told(here, 0, **wrong) == "method_not_allowed"
    assert told(here, 0, client=CLIENT) == "path_not_allowed"


def test_a_key_that_is_named_verifies_alone_and_only_while_it_lives() -> None:
    first, second = (SigningKey(name, Secret(f"sk_{name}_0123456789abcdef")) for name in ("k1", "k2"))

    def told(named: str, signer: SigningKey, *keys: SigningKey) -> str:
        asked = Policy(signer.secret.reveal(), {"Key": named}).target("v1/models")
        return code(request(asked), registry(connection(keys=KeyRing(keys))))

    assert told("k1", first, first, second) == "forward"
    assert told("k2", second, first, second) == "forward"
    for named, signer in (("k2", first), ("k1", second), ("k3", first), ("K1", first)):
        assert told(named, signer, first, second) == "invalid"
    assert told("k1", first, first._replace(not_after=NOW - 1), second) == "invalid"
    assert told("k1", first, first._replace(revoked=True), second) == "revoked"
    # A key of the same secret under another name is another key.
    assert told("k2", first, first, first._replace(id="k2")) == "forward"


def test_what_is_invalid_for_its_key_is_answered_like_everything_invalid() -> None:
    answers = set()
    for terms in ({"Key": "k1"}, {"Key": "k9"}, {"Id": "a"}):
        decision = ask(request(Policy("sk_of_somebody_else_0123456789", terms).target("v1/models")))
        assert isinstance(decision, Deny)
        assert (decision.facts.verified, decision.facts.id, decision.facts.key) == (False, None, None)
        answers.add(refusal(decision.code, "req", decision.style, decision.status))
    assert len(answers) == 1


def test_a_revoked_id_is_revoked_for_its_connection_alone() -> None:
    one, other = connection(), connection("other")
    revoked = Revocations(ids=frozenset({"conn/nightly"}))
    gone = Registry(
        {"conn": one, "other": other},
        frozenset({GATEWAY}),
        revoked=revoked,
    )

    def told(terms: dict[str, str], name: str = "conn") -> str:
        return code(request(Policy(SECRET, terms, connection=name).target("v1/models")), gone)

    assert told({"Id": "nightly"}) == "revoked"
    assert told({"Id": "nightly"}, "other") == "forward"
    assert told({"Id": "Nightly"}) == "forward"
    assert told({"Key": "k1"}) == "forward"


def test_an_announced_body_that_is_too_large_is_refused_with_413() -> None:
    asked = Policy(SECRET, {"Max-Body": "10"}).target("v1/models")
    for length, told in (("0", "forward"), ("10", "forward"), ("11", "too_large"), ("9" * 18, "too_large")):
        assert code(request(asked, (b"Content-Length", length.encode()))) == told
    decision = ask(request(asked, (b"content-length", b"11")))
    assert isinstance(decision, Deny)
    assert decision.status == 413
    assert refusal(decision.code, "req", decision.style, decision.status).status == 413
    # Whoever sends two lengths gets the reading that grants less.
    assert code(request(asked, (b"Content-Length", b"1"), (b"Content-Length", b"11"))) == "too_large"


def test_a_list_of_clients_costs_nothing_before_its_signature_is_good() -> None:
    parse_terms.cache_clear()
    clients = ",".join(sorted(f"10.{n}.0.0/16" for n in range(60)))
    forged = Policy("sk_of_somebody_else_0123456789", {"Client": clients})
    assert code(request(forged.target("v1/models"), client="10.1.1.1")) == "invalid"
    assert parse_terms.cache_info().currsize == 0
    good = Policy(SECRET, {"Client": clients})
    assert code(request(good.target("v1/models"), client="10.1.1.1")) == "forward"
    assert parse_terms.cache_info().currsize == 1


def test_a_client_field_of_any_size_is_refused_at_once() -> None:
    for text in ("1" * 9000, "1." * 4000, "1/1," * 2000, "1/1," * 2000 + "x", "/" * 5000):
        asked = Policy(SECRET, {"Client": text}).target("v1/models")
        assert code(request(asked)) == "malformed"


def test_the_terms_are_on_the_grant_and_the_id_in_the_facts() -> None:
    decision = ask(request(Policy(SECRET, EVERY).target("v1/models"), client=CLIENT))
    assert isinstance(decision, Forward)
    network = parse_network("203.0.113.0/24")
    assert decision.terms == Terms(not_before=NOW, clients=(network,), max_body=9, key="k1", id="a")
    assert (decision.facts.id, decision.facts.key) == ("a", "k1")
    plain = ask(request(presign_target(SECRET, "conn", "v1/models", 0, "GET", "*")))
    assert isinstance(plain, Forward)
    assert plain.terms == Terms()
    assert plain.facts.id is None


def test_the_canonical_string_is_the_one_of_the_document() -> None:
    text = Policy(SECRET, {"Client": "10.0.0.0/8"}).text
    assert text == "PRESIGN-HMAC-SHA256-2\nconn\n0\nGET\nv1/*\nclient:10.0.0.0/8"
    written = Signer("conn", SECRET).sign(
        ["GET"], ["v1/*"], expires_at=0, terms=Terms(clients=(parse_network("10.0.0.0/8"),))
    )
    assert written.signature == sign(SECRET, text)
