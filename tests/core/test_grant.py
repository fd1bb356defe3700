"""What is asked after a good signature: is it revoked, does the token stand where the key would, do all names
agree, and where does it go?
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from presign_proxy.core.connection import Connection, Upstream
from presign_proxy.core.credentials import HeaderCredential, QueryCredential, bearer
from presign_proxy.core.decision import Deny
from presign_proxy.core.registry import Registry
from presign_proxy.core.revocations import Revocations
from presign_proxy.http.message import Origin, Request
from presign_proxy.signing import keys
from presign_proxy.signing.keys import KeyRing, SigningKey, signature_id
from presign_proxy.signing.secret import Secret
from support.asking import Grant
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
from support.signing import presign_query, presign_target, source_url, token

AT = {"host": "api.example.com", "scheme": "https"}
CDN = {"host": "cdn.acme.com", "scheme": "https"}
WORD = token(SECRET, "conn", NOW + 60, "GET", "v1/*").encode()
BEARER = (b"Authorization", b"Bearer " + WORD)
SOURCE = source_url(SECRET, "pk", "https://cdn.acme.com/a.png", NOW + 60, "png")
PLAIN = "/v1/pk/cdn.acme.com/a.png.png"


def without_url(asked: Request, known: Connection) -> Registry:
    """A registry in which the URL of a request is revoked."""
    signature = (
        asked.target[-64:] if b"Signature" in asked.target else asked.target.partition(b"sig=")[2][:64]
    )
    revoked = Revocations(urls=frozenset({signature_id(signature.decode())}))
    return Registry(
        {known.id: known},
        frozenset({GATEWAY}),
        revoked=revoked,
    )


# -- revocation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "other", "known"),
    [
        (signed(), signed(expires=NOW + 61), connection()),
        (SOURCE, source_url(SECRET, "pk", "https://cdn.acme.com/b.png", NOW + 60, "png"), project()),
    ],
)
def test_a_revoked_url_opens_nothing_and_every_other_still_does(
    target: str, other: str, known: Connection
) -> None:
    asked = request(target)
    assert code(asked, registry(known)) == "forward"
    assert code(asked, without_url(asked, known)) == "revoked"
    assert code(request(other), without_url(asked, known)) == "forward"


@pytest.mark.parametrize(("target", "known"), [(signed(), connection()), (SOURCE, project())])
def test_what_a_revoked_key_signed_opens_nothing(target: str, known: Connection) -> None:
    stolen = SigningKey("stolen", Secret(SECRET), revoked=True)
    other = SigningKey("other", Secret("sk_another_0123456789abcdef0123456789"))
    changed = replace(known, keys=KeyRing((other, stolen)))
    assert code(request(target), registry(changed)) == "revoked"
    changed = replace(known, keys=KeyRing((SigningKey("k", Secret(SECRET)), other._replace(revoked=True))))
    assert code(request(target), registry(changed)) == "forward"


@pytest.mark.parametrize(
    ("target", "known"), [(signed(), connection()), (SOURCE, project()), (PLAIN, project(signed=False))]
)
def test_what_names_a_revoked_or_a_disabled_connection_opens_nothing(target: str, known: Connection) -> None:
    assert code(request(target), registry(known)) == "forward"
    assert code(request(target), registry(replace(known, revoked=True))) == "revoked"
    assert code(request(target), registry(replace(known, enabled=False))) == "revoked"


def test_an_expired_url_of_a_revoked_connection_is_expired() -> None:
    known = registry(connection(revoked=True))
    assert code(request(signed(expires=NOW - 1)), known) == "expired"


# -- who is meant -----------------------------------------------------------------------------------------


def test_a_connection_that_leads_nowhere_grants_nothing() -> None:
    known = registry(connection(upstream=None))
    assert code(request(signed()), known) == "invalid"


def test_an_unknown_connection_costs_a_mac_over_a_message_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing the message that was sent, not one of its own: a shorter one would tell who does not exist."""
    messages: list[bytes] = []

    def mac(secret: bytes, message: bytes) -> bytes:
        messages.append(message)
        return hmac.digest(secret, message, "sha256")

    monkeypatch.setattr(keys, "mac", mac)
    name = "c" * 64
    assert code(request(presign_target(SECRET, name, "v1", NOW, "GET", "*"))) == "invalid"
    assert messages == [f"PRESIGN-HMAC-SHA256\n{name}\n{NOW}\nGET\n*".encode()]


def test_a_signature_for_the_connection_without_a_name_opens_nothing() -> None:
    """The id that is signed is the one that is named, or that of the only connection there."""
    query = presign_query(SECRET, "conn", NOW + 60, "GET", "v1/*")
    nameless = presign_query(SECRET, "", NOW + 60, "GET", "v1/*")
    assert code(request(f"/v1/models?{query}", **AT)) == "forward"
    assert code(request(f"/v1/models?{nameless}", **AT)) == "invalid"
    other = f"/v1/models?{query}&X-Presign-Connection=other"
    assert code(request(other, **AT), registry(connection(), connection("other"))) == "invalid"


def test_the_facts_of_a_refusal_after_a_good_signature() -> None:
    decision = ask(request(signed(methods="POST")))
    assert isinstance(decision, Deny)
    facts = decision.facts
    assert (decision.code, facts.verified, facts.key) == ("method_not_allowed", True, "k1")


@pytest.mark.parametrize("target", [signed(expires=NOW - 9), signed(methods="POST"), signed()])
def test_the_path_that_a_thief_still_tries_after_a_revocation_is_known(target: str) -> None:
    decision = ask(request(target), registry(replace(connection(), revoked=True)))
    assert isinstance(decision, Deny)
    assert decision.facts.path == "/v1/models"


def test_the_source_that_is_still_tried_after_a_revocation_is_known() -> None:
    known = replace(project(), revoked=True)
    target = source_url(SECRET, known.id, "https://cdn.acme.com/hero.png?a=b", NOW + 60, "png")
    decision = ask(request(target), registry(known))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.facts.path) == ("revoked", "https://cdn.acme.com/hero.png")


def test_no_path_is_known_before_a_good_signature_or_if_it_is_ambiguous() -> None:
    forged = signed()
    decision = ask(request(forged[:-1] + format(int(forged[-1], 16) ^ 1, "x")))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.facts.path) == ("invalid", None)
    decision = ask(request(signed("v1/../models", expires=NOW - 9)))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.facts.path) == ("expired", None)


# -- the slot of a key token ------------------------------------------------------------------------------

HEADER = HeaderCredential(((b"X-Api-Key", b"", Secret(KEY)),))
QUERY = QueryCredential((("key", Secret(KEY)),))


@pytest.mark.parametrize(
    ("injector", "field", "query", "wanted"),
    [
        (HEADER, BEARER, b"", "forward"),
        (QUERY, BEARER, b"", "forward"),
        (HEADER, (b"X-API-KEY", WORD), b"", "forward"),
        (HEADER, (b"x_api_key", WORD), b"", "forward"),
        (HEADER, (b"X-Other", WORD), b"", "malformed"),
        (QUERY, (b"key", WORD), b"", "malformed"),
        (QUERY, None, b"key=" + WORD, "forward"),
        (QUERY, None, b"k=" + WORD, "malformed"),
        (HEADER, None, b"x-api-key=" + WORD, "malformed"),
        (HEADER, None, b"authorization=" + WORD, "malformed"),
        (bearer(Secret(KEY)), None, b"authorization=" + WORD, "malformed"),
        (bearer(Secret(KEY)), (b"X-Api-Key", WORD), b"", "malformed"),
    ],
)
def test_a_token_stands_in_authorization_or_where_the_key_would(
    injector: HeaderCredential | QueryCredential, field: tuple[bytes, bytes] | None, query: bytes, wanted: str
) -> None:
    asked = request(b"/v1/models?" + query if query else b"/v1/models", *([field] if field else []), **AT)
    assert code(asked, registry(connection(injector=injector))) == wanted


# -- where it goes ----------------------------------------------------------------------------------------

BASED = registry(connection(upstream=Upstream(Origin("https", "api.example.com", 443), b"/base")))


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/base/v1/x", "forward"), ("/v1/x", "path_not_allowed"), ("/basement/v1/x", "path_not_allowed")],
)
def test_a_url_of_the_api_that_is_not_below_its_base_path_is_refused(path: str, wanted: str) -> None:
    query = presign_query(SECRET, "conn", NOW + 60, "GET", "*")
    assert code(request(f"{path}?{query}&X-Presign-Connection=conn", **AT), BASED) == wanted


def test_a_pattern_is_relative_to_the_base_path_in_either_form() -> None:
    query = presign_query(SECRET, "conn", NOW + 60, "GET", "v1/*")
    for asked in (
        request(f"/base/v1/x?{query}&X-Presign-Connection=conn", **AT),
        request(f"/api/proxy/conn/v1/x?{query}"),
    ):
        forward = sent(asked, BASED)
        assert (forward.sent.path, forward.facts.path) == (b"/base/v1/x", "/v1/x")


def test_an_encoded_slash_passes_where_the_connection_allows_it() -> None:
    known = connection()
    allowing = replace(known, ceiling=known.ceiling._replace(allow_encoded_slash=True))
    assert code(request(signed("v1/a%2Fb"))) == "path_not_allowed"
    assert code(request(signed("v1/a%2Fb")), registry(allowing)) == "forward"


NAMES = [
    ([], "forward"),
    (["sni={}"], "forward"),
    (["sni=evil.test"], "host_mismatch"),
    (["sni={}", "host=evil.test"], "host_mismatch"),
    (["host={}", "host=evil.test"], "host_mismatch"),
    (["host={}:443"], "forward"),
    (["host={}:8443"], "host_mismatch"),
    (["host={}:80"], "host_mismatch"),
    (["sni={}:8443"], "forward"),
    (["host=a b"], "malformed"),
    (["sni=1.2"], "malformed"),
    (["scheme=https"], "forward"),
    (["scheme=http"], "host_mismatch"),
    (["scheme=https", "host=evil.test"], "host_mismatch"),
    (["front-sni=proxy.corp.test"], "forward"),
    (["front-sni=proxy.corp.test", "host=evil.test"], "host_mismatch"),
]


@pytest.mark.parametrize(("given", "wanted"), NAMES)
def test_every_name_the_client_gave_is_that_of_the_upstream(given: list[str], wanted: str) -> None:
    for target, at, known in (
        ("/v1/models", AT, registry()),
        (f"/a.png?{SOURCE.partition('?')[2]}", CDN, registry(project(intercept=True))),
    ):
        names = tuple(name.format(at["host"]).split("=") for name in given)
        fields = [BEARER] if at is AT else []
        assert code(request(target, *fields, **at, names=names), known) == wanted


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ((("front-sni", GATEWAY),), "forward"),
        ((("front-sni", "evil.test"),), "host_mismatch"),
        ((("sni", "evil.test"),), "host_mismatch"),
        ((("scheme", "https"),), "host_mismatch"),
    ],
)
def test_every_name_the_client_gave_is_that_of_the_gateway(
    names: tuple[tuple[str, str], ...], wanted: str
) -> None:
    assert code(request(signed(), names=names)) == wanted
    assert code(request(SOURCE, names=names), registry(project())) == wanted


# -- sources ----------------------------------------------------------------------------------------------


def test_a_source_without_a_query_is_fetched_without_one() -> None:
    forward = sent(request(SOURCE), registry(project()))
    assert (forward.sent.query, forward.gateway_prefix) == (None, b"")
    empty = source_url(SECRET, "pk", "https://cdn.acme.com/a.png?", NOW + 60, "png")
    assert sent(request(empty), registry(project())).sent.query == b""


def test_an_intercepted_source_has_no_prefix() -> None:
    asked = request(f"/a.png?{SOURCE.partition('?')[2]}", **CDN)
    forward = sent(asked, registry(project(intercept=True)))
    assert (forward.gateway_prefix, forward.resolve, forward.facts.carrier) == (None, (), "query")


def test_the_facts_of_a_source_in_plain_text() -> None:
    facts = sent(request(PLAIN), registry(project(signed=False))).facts
    assert (facts.scheme, facts.carrier, facts.connection) == ("source", "path", "pk")
    assert (facts.verified, facts.path) == (False, "https://cdn.acme.com/a.png")


def test_what_was_signed_is_nothing_to_a_project_in_allowlist_mode() -> None:
    """Its keys do not even verify: one mode per project."""
    decision = ask(request(SOURCE), registry(project(signed=False)))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.facts.verified) == ("invalid", False)


def test_a_project_that_does_not_exist_is_named_nowhere() -> None:
    for target in (SOURCE, PLAIN):
        decision = ask(request(target.replace("/pk/", "/nobody/")), registry(project()))
        assert isinstance(decision, Deny)
        assert (decision.code, decision.facts.connection) == ("invalid", None)


def test_an_upstream_is_no_source() -> None:
    """A connection of the other scheme is none, whatever it signed."""
    target = source_url(SECRET, "conn", "https://cdn.acme.com/a.png", NOW + 60, "png")
    assert code(request(target)) == "invalid"


# -- the gateway's form at a host that is not the gateway ---------------------------------------------------

FORMS: dict[str, Callable[[Grant], tuple[str, tuple[tuple[str, str], ...]]]] = {
    "query": lambda grant: (f"/api/proxy/{grant.connection}/v1/models?{grant.query}", ()),
    "header": lambda grant: (f"/api/proxy/{grant.connection}/v1/models", tuple(grant.headers.items())),
    "path": lambda grant: (f"/p/{grant.token}/v1/models", ()),
    "key": lambda grant: (
        f"/api/proxy/{grant.connection}/v1/models",
        (("Authorization", f"Bearer {grant.token}"),),
    ),
}


def at(host: str, carrier: str, grant: Grant) -> Request:
    target, fields = FORMS[carrier](grant)
    return request(target, *((name.encode(), value.encode()) for name, value in fields), host=host)


@pytest.mark.parametrize("carrier", FORMS)
@pytest.mark.parametrize("host", ["localhost:9000", "presign-gateway", "gateway.svc.cluster.local:8080"])
def test_a_name_that_the_gateway_does_not_know_is_told(host: str, carrier: str) -> None:
    """It was "no signing key of the connection made this signature", with a good one."""
    refused = ask(at(host, carrier, Grant("conn", expires=NOW + 60, secret=SECRET)))
    assert isinstance(refused, Deny)
    assert refused.code == "not_found"
    assert host.partition(":")[0] in refused.detail
    assert "gateway.hosts" in json.loads(refused.answer.body)["error"]["message"]


@pytest.mark.parametrize("carrier", FORMS)
def test_the_gateways_form_elsewhere_tells_nobody_which_connections_and_upstreams_there_are(
    carrier: str,
) -> None:
    """Without a good signature, every guess gets one answer."""
    bodies = set()
    for host in ("api.example.com", "elsewhere.example", "localhost:9000"):
        for name in ("conn", "conn_other"):
            refused = ask(at(host, carrier, Grant(name, expires=NOW + 60, secret="sk_wrong")))
            assert isinstance(refused, Deny)
            bodies.add((refused.answer.status, refused.answer.body))
    assert len(bodies) == 1


def test_a_source_at_a_name_that_the_gateway_does_not_know_is_told_to_the_operator() -> None:
    """The client reads the same as everybody without a presign."""
    known = registry(project(), deny=True)
    told = ask(request(SOURCE, host="gateway-service:8080"), known)
    other = ask(request(SOURCE.replace("/pk/", "/pk_other/"), host="gateway-service:8080"), known)
    assert isinstance(told, Deny)
    assert isinstance(other, Deny)
    assert told.detail.startswith("gateway-service:8080 is not one of the gateway's names")
    assert other.detail == "the request carries no presign"
    assert told.answer == other.answer
    assert code(request(SOURCE, host="elsewhere.example"), registry(project())) == "pass"


def test_an_api_may_have_paths_like_the_gateways_own() -> None:
    def to_itself(paths: str) -> Request:
        grant = Grant("conn", expires=NOW + 60, secret=SECRET, paths=paths)
        return request(
            "/api/proxy/x/y",
            *((name.encode(), value.encode()) for name, value in grant.headers.items()),
            host="api.example.com",
            scheme="https",
        )

    assert code(to_itself("api/*")) == "forward"
    assert code(to_itself("v1/*")) == "path_not_allowed"
