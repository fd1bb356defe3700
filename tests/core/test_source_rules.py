"""Which sources a project may fetch, and which of them get its credential."""

import ipaddress

import pytest

from presign_proxy.core.connection import SourceRules
from presign_proxy.core.credentials import bearer
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.source_url import parse_url
from support.deciding import code, project, registry, request, sent
from support.sources import PNG, source


@pytest.mark.parametrize(
    ("origins", "src", "allowed"),
    [
        (("https://acme.com",), "https://acme.com/x", True),
        (("https://acme.com",), "https://a.b.acme.com/x", True),
        (("https://acme.com",), "https://evilacme.com/x", False),
        (("https://acme.com",), "https://acme.com.evil.test/x", False),
        (("https://acme.com",), "http://acme.com/x", False),
        (("https://acme.com",), "https://acme.com:8443/x", False),
        (("https://acme.com:8443",), "https://a.acme.com:8443/x", True),
        ((), "https://anything.example/x", True),
        ((), "https://anything.example:8443/x", False),
    ],
)
def test_an_origin_admits_itself_and_its_subdomains(
    origins: tuple[str, ...], src: str, allowed: bool
) -> None:
    known = registry(project(origins=tuple(parse_url(text).origin for text in origins)))
    assert code(request(source(src)), known) == ("forward" if allowed else "invalid")


def test_any_public_origin_has_to_be_said_beside_a_list() -> None:
    assert code(request(source("https://other.example/x")), registry(project())) == "invalid"
    assert code(request(source("https://other.example/x")), registry(project(any_public=True))) == "forward"


def test_the_credential_goes_to_listed_origins_only_not_even_to_subdomains() -> None:
    from dataclasses import replace

    known = registry(replace(project(any_public=True), injector=bearer(Secret("sk-REALSECRET-1"))))
    for src, carries in (
        (PNG, True),
        ("https://a.cdn.acme.com/x", False),
        ("https://other.example/x", False),
    ):
        assert (b"REALSECRET" in repr(sent(request(source(src)), known).sent).encode()) == carries


def test_an_allowlist_serves_plain_text_over_https_first() -> None:
    plain = registry(
        project(signed=False, origins=(Origin("https", "acme.com", 443), Origin("http", "old.net", 80)))
    )
    assert str(sent(request("/v1/pk/cdn.acme.com/a.png.jpg?w=2"), plain).origin) == "https://cdn.acme.com"
    assert str(sent(request("/v1/pk/old.net/a.jpg.jpg"), plain).origin) == "http://old.net"
    assert code(request("/v1/pk/evil.test/a.jpg.jpg"), plain) == "invalid"
    assert code(request("/v1/pk/https://acme.com/a.jpg.jpg"), plain) == "invalid"
    assert code(request(source()), plain) == "invalid"


def test_own_networks_count_for_listed_origins_only() -> None:
    home = (ipaddress.ip_network("10.0.0.0/8"),)
    known = registry(project(any_public=True, networks=home))
    assert sent(request(source()), known).resolve == home
    assert sent(request(source("https://other.example/x")), known).resolve == ()


def test_rules_grant_nothing_by_default() -> None:
    rules = SourceRules()
    assert (rules.signed, rules.any_public, rules.formats, rules.networks, rules.intercept) == (
        True,
        False,
        frozenset(),
        (),
        False,
    )
