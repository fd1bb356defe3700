"""Source URLs: what is admitted is what every URL parser at hand reads in the same way."""

import ipaddress
import itertools
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import urllib3

from presign_proxy.errors import Denied
from presign_proxy.signing.source_url import SourceUrl, parse_source
from support import thirdparty

Read = tuple[str, str, int, str]
"""Scheme, host, port, and path with query, each in one spelling."""

DEFAULT = {"http": 80, "https": 443}


def plain(target: str) -> str:
    """Percent-encoded as everybody does it: what delimits keeps its escape, the rest is spelled out."""

    def decoded(match: re.Match[bytes]) -> bytes:
        octet = bytes.fromhex(match[1].decode())
        return match[0].upper() if octet in b"/?#[]@!$&()*+,;=:%\\" or octet < b"!" else octet

    octets = re.sub(rb"%(?![0-9A-Fa-f]{2})", b"%25", target.encode("utf-8"))
    return re.sub(rb"%([0-9A-Fa-f]{2})", decoded, octets).decode("latin-1")


def read(scheme: str, host: str, port: int | None, path: str, query: str = "") -> Read:
    bare = host.strip("[]").lower()
    try:
        bare = ipaddress.ip_address(bare).compressed
    except ValueError:
        assert ":" not in bare
    mark = "?" if query else ""
    return (
        scheme.lower(),
        bare,
        DEFAULT[scheme.lower()] if port is None else port,
        plain((path or "/") + mark + query),
    )


def by_urllib(text: str) -> Read:
    parts = urlsplit(text)
    return read(parts.scheme, parts.hostname or "", parts.port, parts.path, parts.query)


def by_httpx(text: str) -> Read:
    url = httpx.URL(text)
    return read(url.scheme, url.raw_host.decode(), url.port, *url.raw_path.decode().split("?", 1))


def by_urllib3(text: str) -> Read:
    """And by requests and pip with it. It removes dot segments, as RFC 3986 and browsers do."""
    url = urllib3.util.parse_url(text)
    return read(url.scheme or "", url.host or "", url.port, url.path or "", url.query or "")


PARSERS: dict[str, Callable[[str], Read]] = {"urllib": by_urllib, "httpx": by_httpx, "urllib3": by_urllib3}


def by_us(url: SourceUrl) -> Read:
    path, _, query = url.target.decode("ascii").partition("?")
    return read(url.origin.scheme, url.origin.host, url.origin.port, path, query)


def disagreements(text: str) -> list[str]:
    """Who reads an admitted URL in another way than we do; nobody for one that is refused."""
    try:
        ours = by_us(parse_source(text))
    except Denied:
        return []
    found = []
    for name, parse in PARSERS.items():
        try:
            theirs = parse(text)
        except Exception as error:
            found.append(f"{text!r}: {name} refuses it: {error!r}")
            continue
        if theirs != ours:
            found.append(f"{text!r}: {name} reads {theirs}, we {ours}")
    return found


# fmt: off
HOSTS = [
    "cdn.acme.com", "CDN.Acme.COM", "a_b.example", "xn--bcher-kva.example", "93.184.216.34",
    "[2001:db8::1]", "[2001:DB8:0:0::1]", "[::ffff:10.0.0.1]", "[::127.0.0.1]", "[fe80::1%25eth0]",
    "[fe80::1%eth0]", "[::1]x", "x[::1]", "[]", "[::1", "::1]", "127.1", "0177.0.0.1", "0x7f.1",
    "2130706433", "0x7f000001", "1.2.3.4.5", "1.2.3.08", "1.2.3", "256.1.1.1", "cdn.acme.com.",
    ".cdn.acme.com", "cdn..acme.com", "cdn%2eacme.com", "cdn%00.acme.com", "cdn.acme.com%2f.evil.test",
    "①②⑦.0.0.1", "127。0。0。1", "büro.example", "ﬀ.example", "ß.example", 'a\xadb.example',
    "user@cdn.acme.com", "evil.test@cdn.acme.com", "evil.test:80@cdn.acme.com",
    "cdn.acme.com:80@evil.test", "@cdn.acme.com", 'cdn.acme.com\\@evil.test', 'cdn.acme.com\\.evil.test',
    "cdn.acme.com;evil.test", "cdn.acme.com,evil.test", "cdn.acme.com&x", "cdn.acme.com%09",
    'cdn.acme.com\t.evil.test', 'cdn.acme.com\u2028', 'cdn.acme.com\u3000', "-a.example", "a-.example",
    "a!b", "(a)", "a*b", "a$b",
]
PORTS = [
    "", ":", ":80", ":080", ":443", ":8080", ":0", ":65535", ":65536", ":+80", ":-1", ":8_0", ":８０",
    ":80:80", ": 80", ":80#",
]
TARGETS = [
    "/", "/a", "/a/b.png?x=1&y=%20z", "?x=1", "?/../a", "/a?/../b", "/a/../b", "/a/./b", "/a/..", "/a/.",
    "/..", "/.", "/%2e%2e/a", "/.%2E/a", "/a/%2e", "/%2e%2e%2fa", "/..a", "/a..", "/...", "/.a", "/a//b",
    "//", "//evil.test/a", "/a;b/c", "/..;/a", "/%c0%ae%c0%ae/a", "/é", "/%C3%A9", "/%zz", "/%", "/a%00b",
    "/<a>", "/{a}|^`", '/?\'"', "/a'b", '/a\\b', '/a/..\\b', '\\a', "#x", "/a#b", "/a?b#c",
    "@evil.test/a", "/@evil.test", "/a@b:c", "/:80", "?@evil.test", ";@evil.test/", "&@evil.test",
    "/a%20b%", "/%2e%2",
]
SCHEMES = [
    "http://", "https://", "HTTPS://", "http:/", "http:", 'http:\\\\', "http:///", "//", " http://",
    "http ://", "ftp://", "view-source:http://",
]
# fmt: on


def test_no_url_is_admitted_that_another_parser_reads_differently() -> None:
    made = [
        *(f"https://{host}{port}/a" for host, port in itertools.product(HOSTS, PORTS)),
        *(f"{scheme}{host}/a" for scheme, host in itertools.product(SCHEMES, HOSTS)),
        *(f"https://{host}{target}" for host, target in itertools.product(HOSTS, TARGETS)),
    ]
    wrong = [why for text in made for why in disagreements(text)]
    assert not wrong, "\n".join(wrong)
    admitted = sum(_is_admitted(text) for text in made)
    assert 100 < admitted < len(made) / 2


def _is_admitted(text: str) -> bool:
    try:
        parse_source(text)
    except Denied:
        return False
    return True


@pytest.mark.parametrize(
    "path",
    [
        "/a%20b%",
        "/%zz",
        "/a/../b",
        "/a/./b",
        "/..",
        "/.",
        "/a/..",
        "/a/.",
        "/%2e%2e/a",
        "/.%2E/a",
        "/a/%2e",
        "/a/..?x=1",
    ],
)
def test_a_path_that_some_parsers_normalise_makes_no_source(path: str) -> None:
    with pytest.raises(Denied):
        parse_source(f"https://cdn.acme.com{path}")


@pytest.mark.parametrize("path", ["/a..b", "/...", "/.well-known/x", "/a?x=/../b", "/..a/b.", "//a"])
def test_dots_that_are_no_segment_stay(path: str) -> None:
    assert parse_source(f"https://cdn.acme.com{path}").target == path.encode()


# -- web-platform-tests ---------------------------------------------------------------------------------


def by_whatwg(case: dict[str, Any]) -> Read | None:
    """What the standard makes of it; None where it fails, or makes no http(s) URL of it."""
    if case.get("failure") or case["protocol"] not in ("http:", "https:"):
        return None
    port = int(case["port"]) if case["port"] else None
    return read(
        case["protocol"][:-1], case["hostname"], port, case["pathname"], case["search"].removeprefix("?")
    )


def test_no_url_is_admitted_that_a_browser_reads_differently() -> None:
    """Without its base, which a source URL has none of."""
    path = thirdparty.folder("wpt", "url", "resources") / "urltestdata.json"
    cases = [case for case in json.loads(path.read_text("utf-8")) if isinstance(case, dict)]
    wrong, admitted = [], 0
    for case in cases:
        text = case["input"]
        try:
            ours = by_us(parse_source(text))
        except Denied:
            continue
        admitted += 1
        if (standard := by_whatwg(case)) != ours:
            wrong.append(f"{text!r}: a browser reads {standard}, we {ours}")
        if case.get("username") or case.get("password") or case.get("hash"):
            wrong.append(f"{text!r}: holds userinfo or a fragment")
        wrong += disagreements(text)
    assert not wrong, "\n".join(wrong)
    print(f"of {len(cases)} URLs, admitted: {admitted}")
    assert len(cases) > 800
    assert admitted > 40
