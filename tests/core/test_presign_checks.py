"""The checks of a presign: their order, and that each refusal names the check that made it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlencode

import pytest

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.core.presign_checks import PRESIGN_CHECKS, checks_of
from presign_proxy.core.registry import Registry
from presign_proxy.core.source_checks import SOURCE_CHECKS
from presign_proxy.http.message import Origin, Request
from presign_proxy.signing import canonical
from presign_proxy.signing.presign_scheme import Presign
from presign_proxy.signing.signed_policy import PolicyText, Terms
from presign_proxy.signing.signer import Signer
from support.deciding import NOW, SECRET, ask, connection, project, registry, request, signed
from support.signing import presign_params, source_url, token

AT = {"host": "api.example.com", "scheme": "https"}


def policed(**terms: Any) -> Request:
    grant = Signer("conn", SECRET).sign(["GET"], ["v1/*"], expires_at=NOW + 60, terms=Terms(**terms))
    return request(grant.url("v1/a").removeprefix("http://presign.local"), (b"Content-Length", b"9"))


def misspelt() -> Request:
    """A signed policy whose Client is not sorted, signed as it is."""
    written = PolicyText(client="10.1.0.0/16,10.0.0.0/16")
    message = canonical.policy("conn", str(NOW + 60), "GET", "v1/*", written)
    fields = presign_params(SECRET, "conn", NOW + 60, "GET", "v1/*", message.decode())
    return request(f"/api/proxy/conn/v1/a?{urlencode(fields | {'X-Presign-Client': written.client})}")


def as_token(*fields: tuple[bytes, bytes]) -> Request:
    word = token(SECRET, "conn", NOW + 60, "GET", "v1/*").encode()
    return request("/v1/a", *((name, value + word) for name, value in fields), **AT)


# A request that fails at each check, and passes those before it.
FAILS: dict[str, tuple[Request, Registry]] = {
    "signature": (request(signed()[:-4] + "0000"), registry()),
    "lists": (request(signed(paths="v1/*,,")), registry()),
    "policy": (misspelt(), registry()),
    "not_before": (policed(not_before=NOW + 9), registry()),
    "expiry": (request(signed(expires=NOW - 1)), registry()),
    "revocation": (request(signed()), registry(connection(revoked=True))),
    "lifetime": (request(signed()), registry(connection(ceiling=Ceiling(max_lifetime=5)))),
    "slot": (as_token((b"X-Api-Key", b"")), registry()),
    "client": (policed(clients=(ip_network("203.0.113.0/24"),)), registry()),
    "methods": (request(signed(), method="POST"), registry()),
    "path": (request(signed("v2/models")), registry()),
    "host": (
        request(signed().removeprefix("/api/proxy/conn"), names=(("host", "x.test"),), **AT),
        registry(),
    ),
    "body": (policed(max_body=8), registry()),
}
SOURCE = source_url(SECRET, "pk", "https://cdn.acme.com/a.png", NOW + 60, "png")
SOURCE_FAILS: dict[str, tuple[Any, ...]] = {
    "project": (request("/v1/pk/cdn.acme.com/a.png.png"), registry(project())),
    "signature": (request(SOURCE[:-1]), registry(project())),
    "expiry": (
        request(source_url(SECRET, "pk", "https://cdn.acme.com/a.png", NOW - 1, "png")),
        registry(project()),
    ),
    "revocation": (request(SOURCE), registry(replace(project(), enabled=False))),
    "origin": (request(SOURCE), registry(project(origins=(Origin("https", "other.test", 443),)))),
    "format": (request(SOURCE), registry(project(formats=frozenset({"gif"})))),
    "methods": (request(SOURCE, method="POST"), registry(project())),
    "host": (request(SOURCE, names=(("host", "x.test"),)), registry(project())),
}


@pytest.mark.parametrize("step", FAILS)
def test_a_refusal_names_the_check_that_made_it(step: str) -> None:
    asked, known = FAILS[step]
    decision = ask(asked, known)
    assert isinstance(decision, Deny)
    assert decision.facts.step == step, decision.detail


@pytest.mark.parametrize("step", SOURCE_FAILS)
def test_a_refusal_of_a_source_url_names_the_check_that_made_it(step: str) -> None:
    decision = ask(*SOURCE_FAILS[step])
    assert isinstance(decision, Deny)
    assert decision.facts.step == step, decision.detail


def test_every_check_is_tried_above() -> None:
    """The first check refuses nothing: an unknown connection costs what a bad signature costs."""
    assert ["connection", *FAILS] == [check.name for check in PRESIGN_CHECKS]
    assert list(SOURCE_FAILS) == [check.name for check in SOURCE_CHECKS]


def test_what_passes_every_check_names_none() -> None:
    decision = ask(request(signed()))
    assert isinstance(decision, Forward)
    assert decision.facts.step == ""


def test_checks_of_a_policy_or_a_token_are_made_of_those_alone() -> None:
    claim = Presign("query", "conn", "0", "GET", "*", "x", gateway=True, path=b"/", query=None)
    names = [check.name for check in checks_of(claim)]
    assert not {"policy", "not_before", "client", "body", "slot"} & set(names)
    assert len(names) == len(PRESIGN_CHECKS) - 5
