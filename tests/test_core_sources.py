"""Scheme source: URLs, allowlists, addresses."""

import base64
import ipaddress
import re
from collections.abc import Callable

import pytest

from presign_proxy.core.connection import SourceRules
from presign_proxy.core.credentials import bearer
from presign_proxy.core.decision import Deny
from presign_proxy.errors import Denied, Malformed
from presign_proxy.http.message import Origin
from presign_proxy.http.networks import is_public, judge
from presign_proxy.signing import source_scheme as scheme
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.source_url import parse_url
from support.deciding import NOW, SECRET, ask, code, project, registry, request, sent
from support.signing import sign

PNG = "https://cdn.acme.com/hero.png"


def source(
    src: str = PNG, exp: int | str = NOW + 60, form: str = "png", project: str = "pk", text: str | None = None
) -> str:
    """A signed source URL for project `pk`."""
    encoded = base64.urlsafe_b64encode(src.encode()).rstrip(b"=").decode()
    signature = sign(SECRET, text or f"{project}:{src}:{exp}")
    return f"/v1/{project}/{encoded}.{form}?sig={signature}&exp={exp}"


def test_a_signed_source_is_fetched_as_it_is() -> None:
    forward = sent(request(source("https://cdn.acme.com/a/b.png?x=1&y=%20z") + "&w=200"), registry(project()))
    assert (str(forward.origin), forward.sent.path, forward.sent.query) == (
        "https://cdn.acme.com",
        b"/a/b.png",
        b"x=1&y=%20z",
    )
    assert forward.resolve == ()


REFUSED = {
    "expired": source(exp=NOW - 1),
    "exp=0 is long past": source(exp=0),
    "negative": source(exp=-1),
    "milliseconds": source(exp=1900000000000),
    "another separator": source(text=f"pk|{PNG}|{NOW + 60}"),
    "exp not signed": source(text=f"pk:{PNG}"),
    "another project": source(project="other"),
    "a format that is not served": source(form="gif"),
    "no format": source().replace(".png?", "?"),
    "standard base64": source("https://cdn.acme.com/?>>>???").replace("_", "/").replace("-", "+"),
    "padding": source("https://cdn.acme.com/a").replace(".png?", "=.png?"),
    "exp twice": source() + "&exp=9999999999",
    "sig twice": source() + "&sig=" + "0" * 64,
    "sig encoded": source().replace("sig=", "s%69g="),
    "upper-case sig": source().replace("sig=", "Sig="),
    "no exp": source().partition("&exp")[0],
    "plain text in signed mode": "/v1/pk/cdn.acme.com/hero.png.png",
    "plain text with sig": f"/v1/pk/{PNG}.png?sig={'0' * 64}&exp={NOW + 60}",
    "a presign as well": source() + "&X-Presign-Expires=0",
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_source_that_is_not_signed_as_published_is_refused_without_a_word(how: str) -> None:
    from presign_proxy.core.answers import refusal

    decision = ask(request(REFUSED[how]), registry(project()))
    answer = refusal(decision.code, "req", decision.style)
    assert (answer.status, answer.body) == (403, b"Forbidden")


URLS = [
    "gopher://cdn.acme.com/_x",
    "//cdn.acme.com/a",
    "cdn.acme.com/a",
    "https:/cdn.acme.com",
    "https://",
    "https:///x",
    "http://user:pw@cdn.acme.com/a",
    "http://cdn.acme.com:65536/",
    "http://cdn.acme.com:0/",
    "http://cdn.acme.com:/",
    "http://2130706433/",
    "http://127.1/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://1.2.3/",
    "http://1.2.3.4.5/",
    "http://①②⑦.0.0.1/",
    "http://127。0。0。1/",
    "http://cdn.acme.com./x",
    "http://cdn.acme.com/a b",
    "http://a\\b/",
    "http://cdn.acme.com/a\tb",
    "http://cdn.acme.com/#x",
    "http://cdn.acme.com\\@evil.test/",
    "http://[::1",
    "http://[v1.x]/",
    "http://cdn.acme.com:80:80/",
    "http://cdn%2eacme.com/",
    "http://büro.example/",
    "https://a" + "a" * 2048,
    "http://-a.com/",
    "http://1.2.3.08/",
    "http://cdn.acme.com:８０/",
    "http://999.1.1.1/",
    "http://a..b/",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_two_parsers_read_differently_is_none(url: str) -> None:
    with pytest.raises(Denied):
        parse_url(url)


def test_what_is_unambiguous_is_encoded_and_nothing_else() -> None:
    assert parse_url("https://cdn.acme.com/café/☃.png").target == b"/caf%C3%A9/%E2%98%83.png"
    assert parse_url("https://cdn.acme.com/>>>???/~~.png").target == b"/%3E%3E%3E???/~~.png"
    assert parse_url("HTTPS://CDN.acme.com").target == b"/"
    assert parse_url("http://[2001:DB8:0::1]:81/").origin == Origin("http", "2001:db8::1", 81)


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


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_sources_are_only_read(method: str) -> None:
    assert code(request(source(), method=method), registry(project())) == "method_not_allowed"
    assert code(request(source(), method="HEAD"), registry(project())) == "forward"


def intercepted(extra: str = "", query: str = "x=1&", src: str = "https://cdn.acme.com/a.png?x=1") -> str:
    return f"/a.png?{query}sig={sign(SECRET, f'pk:{src}:{NOW + 60}')}&exp={NOW + 60}{extra}"


AT = {"host": "cdn.acme.com", "scheme": "https"}


def test_a_project_can_intercept_its_own_origins() -> None:
    known = registry(project(intercept=True))
    forward = sent(request(intercepted(), **AT), known)
    assert (forward.sent.path, forward.sent.query) == (b"/a.png", b"x=1")
    assert code(request(intercepted("&key=pk"), **AT), known) == "forward"
    assert code(request(intercepted("&key=other"), **AT), known) == "invalid"
    assert code(request(intercepted().replace("x=1", "x=2"), **AT), known) == "invalid"


@pytest.mark.parametrize(
    "query",
    ["key=a&key=b", "sig=abc", "sig=Ab%3D&se=2024-01-01", "exp=1", "sig=a&sig=b&exp=1", "?sig=x;exp=1"],
)
def test_the_signatures_of_other_people_are_left_alone(query: str) -> None:
    assert code(request(f"/a.png?{query}", **AT), registry(project(intercept=True))) == "pass"
    assert (
        code(request(f"/a.png?sig={'0' * 64}&exp=1", host="azure.example"), registry(project(intercept=True)))
        == "pass"
    )


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("hash={0}&exp=1", "pass"),
        ("sig={0}&expires=1", "pass"),
        ("sig={0}&exp=abc&t=1", "pass"),
        ("sig={0}&t=1", "pass"),
        ("sig=abc&exp=1&hash={0}", "pass"),
        ("sig={0}&exp=1", "invalid"),
        ("sig={0}&exp=1&sig={0}", "malformed"),
        ("sig={0}&exp=1&exp=1", "malformed"),
        ("sig={0}&exp=1&exp", "malformed"),
        ("sig={0}&exp=1&exp=abc", "malformed"),
        ("sig=abc&exp=1&sig={0}", "malformed"),
        ("sig={0}&exp=1&key=a&key=a", "malformed"),
        ("sig={0}&exp=1&key", "malformed"),
        ("sig={0}&exp=1&key=\xfc", "invalid"),
        ("sig={0}&exp=1&Sig=2", "invalid"),
    ],
)
def test_what_could_be_signed_for_a_project_is_ours_and_nothing_else(query: str, wanted: str) -> None:
    asked = request(f"/a.png?{query.format('0' * 64)}", **AT)
    assert code(asked, registry(project(intercept=True))) == wanted
    assert code(request("/a.png", **AT), registry(project(intercept=True))) == "pass"


def test_an_intercepted_url_keeps_every_parameter_of_its_own() -> None:
    """Also one that looks like a field: there it was signed with the rest."""
    known = registry(project(intercept=True))
    for query in ("x=1&y=2", "Sig=1", "x=1;sig=2", "?"):
        asked = request(intercepted(query=f"{query}&", src=f"https://cdn.acme.com/a.png?{query}"), **AT)
        assert sent(asked, known).sent.query == query.encode()
    asked = request(intercepted(query="", src="https://cdn.acme.com/a.png"), **AT)
    assert sent(asked, known).sent.query is None
    raw = request(intercepted(query="", src="https://cdn.acme.com/a.png").encode() + b"&x=\xff", **AT)
    assert code(raw, known) == "malformed"


def test_an_intercepted_url_of_two_projects_names_one() -> None:
    twins = registry(project(intercept=True), project("other", intercept=True))
    assert code(request(intercepted(), **AT), twins) == "invalid"
    assert code(request(intercepted("&key="), **AT), twins) == "invalid"
    assert code(request(intercepted("&key=pk"), **AT), twins) == "forward"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: url.replace("sig=", "s%69g="), "looks like sig or exp"),
        (lambda url: url + "&Exp=1", "looks like sig or exp"),
        (lambda url: url + "&a=1;exp=1", "looks like sig or exp"),
        (lambda url: url + f"&exp={NOW + 60}", "exp has no value or is given twice"),
        (lambda url: url + "&sig=" + url.partition("sig=")[2][:64], "sig has no value or is given twice"),
        (lambda url: url.partition("&exp=")[0] + "&exp", "exp has no value or is given twice"),
        (lambda url: url.partition("&exp=")[0], "one of sig and exp is missing"),
        (lambda url: url.partition("?")[0] + f"?exp={NOW}", "one of sig and exp is missing"),
        (lambda url: url.replace("&exp=", "&exp=0"), "exp is not a plain Unix time"),
        (lambda url: url.replace("sig=", "sig=0"), "sig is not 64 lower-case hex digits"),
        (lambda url: url.replace(".png?", "=.png?"), "not base64url with a format"),
        (lambda url: url.replace(".png?", "?"), "not base64url with a format"),
        (lambda url: f"/v1/pk/YR.png?{url.partition('?')[2]}", "base64url of the source is not canonical"),
        (lambda _: "/v1/pk/a", "the source has no format"),
        (lambda _: "/v1/pk/a.p-g", "the source has no format"),
        (lambda _: b"/v1/pk/\xff.png", "the source is not UTF-8"),
    ],
)
def test_the_audit_log_says_what_is_wrong_with_a_source(
    change: Callable[[str], str | bytes], told: str
) -> None:
    decision = ask(request(change(source())), registry(project()))
    assert isinstance(decision, Deny)
    assert re.search(told, decision.detail)


def test_a_source_with_a_project_s_own_name_beside_it_is_fetched_all_the_same() -> None:
    """`key` is a field where the path does not name the project, and a parameter like any other here."""
    for query in ("&key=pk", "&key=other&key=x", "&w=200&h=1"):
        assert sent(request(source() + query), registry(project())).sent.query is None


@pytest.mark.parametrize(("length", "wanted"), [(2048, "forward"), (2049, "invalid")])
def test_a_source_has_two_thousand_and_forty_eight_characters_at_most(length: int, wanted: str) -> None:
    src = "https://cdn.acme.com/".ljust(length, "a")
    assert code(request(source(src)), registry(project())) == wanted


def test_in_reverse_mode_the_api_keeps_what_begins_like_a_source() -> None:
    known, at = registry(project()), {"host": "api.example.com", "scheme": "https", "reverse": True}
    assert code(request(source(), **at), known) == "forward"
    assert code(request(source(exp=NOW - 1), **at), known) == "expired"
    assert code(request("/v1/models/gpt.json", **at), known) == "pass"
    assert code(request("/v1/other/x.png", **at), known) == "pass"


PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "192.0.2.1",
    "168.63.129.16",
    "::1",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "5f00::1",
    "3fff::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_known_to_be_public_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(Denied):
        judge([address], ())
    with pytest.raises(Denied):
        judge(["93.184.216.34", address], ())


def test_public_addresses_and_allowed_networks_are_dialled() -> None:
    assert judge(["93.184.216.34", "2606:2800:220:1::1"], ()) == "93.184.216.34"
    assert judge(["10.0.0.5"], (ipaddress.ip_network("10.0.0.0/8"),)) == "10.0.0.5"
    for strange in ("fe80::1%eth0", "localhost", "127.1", ""):
        with pytest.raises(Denied) as denied:
            judge([strange], ())
        assert denied.value.code == "invalid"
    with pytest.raises(Denied) as denied:
        judge([], ())
    assert denied.value.code == "upstream"


def test_nothing_is_public_that_python_calls_private() -> None:
    import random

    chance = random.Random(1)
    for _ in range(20000):
        four = ipaddress.IPv4Address(chance.getrandbits(32))
        six = ipaddress.IPv6Address((chance.getrandbits(3) << 125) | chance.getrandbits(125))
        for address in (four, six):
            assert not is_public(address) or address.is_global


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


@pytest.mark.parametrize("path", ["/a/../b", "/%2e%2e/b", "/a/.", "/a%20b%"])
def test_a_signed_source_that_browsers_would_fetch_elsewhere_is_refused(path: str) -> None:
    assert code(request(source(f"https://cdn.acme.com{path}")), registry(project())) == "invalid"


@pytest.mark.parametrize(
    ("name", "value", "is_refused"),
    [
        (b"Transfer-Encoding", b"chunked", True),
        (b"content-length", b"1", True),
        (b"Content-Length", b"0", False),
        (b"X-Length", b"1", False),
    ],
)
def test_a_source_is_asked_for_without_a_body(name: bytes, value: bytes, is_refused: bool) -> None:
    if is_refused:
        with pytest.raises(Malformed):
            scheme.check_bodyless(((b"Accept", b"*/*"), (name, value)))
    else:
        scheme.check_bodyless(((name, value),))


@pytest.mark.parametrize(("count", "is_refused"), [(1000, False), (1001, True)])
def test_a_source_with_more_parameters_than_are_read_is_malformed(count: int, is_refused: bool) -> None:
    query = b"&".join([b"a=1"] * count)
    if is_refused:
        with pytest.raises(Malformed):
            scheme._fields(query)
    else:
        assert scheme._fields(query) == ({}, query)
