"""Scheme source: which URLs are signed, read and refused, and what is left alone."""

import re
from collections.abc import Callable

import pytest

from presign_proxy.core.decision import Deny
from presign_proxy.errors import Denied, Malformed
from presign_proxy.http.message import Origin
from presign_proxy.signing import source_scheme as scheme
from presign_proxy.signing.source_url import parse_url
from support.deciding import NOW, SECRET, ask, code, project, registry, request, sent
from support.signing import sign
from support.sources import PNG, source


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
