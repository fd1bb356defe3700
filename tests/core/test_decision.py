"""The facts of a decision, which the audit log is told."""

from presign_proxy.core.decision import Deny, Forward
from presign_proxy.signing.keys import signature_id
from support.deciding import NOW, SECRET, ask, project, registry, request, sent
from support.signing import presign_target, sign, source_url


def test_the_facts_of_a_grant() -> None:
    facts = sent(request(presign_target(SECRET, "conn", "v1/models", NOW, "GET", "*"))).facts
    assert (facts.scheme, facts.carrier, facts.connection, facts.key) == ("presign", "query", "conn", "k1")
    assert (facts.path, facts.verified, facts.method) == ("/v1/models", True, "GET")
    signature = sign(SECRET, f"PRESIGN-HMAC-SHA256\nconn\n{NOW}\nGET\n*")
    assert facts.signature == signature_id(signature)


def test_a_grant_that_is_logged_by_mistake_tells_no_secret_and_no_presign() -> None:
    found = sent(request(presign_target(SECRET, "conn", "v1/models", NOW, "GET", "*")))
    assert repr(found) == f"Forward('req_test', connection={found.connection.id!r})"
    assert f"{found}" == str(found) == repr(found)


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
