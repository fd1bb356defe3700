"""Which destinations go through the proxy: a name, a suffix, a network, a port, and never loopback."""

from __future__ import annotations

import pytest

from presign_proxy.config.proxy_url import parse_exempt
from presign_proxy.core.way_out import DIRECT, Exempt, UpstreamProxy, UpstreamTls, WayOut
from presign_proxy.signing.secret import Secret

HTTPS, HTTP = UpstreamProxy("http", "proxy.test", 3128), UpstreamProxy("socks5", "2001:db8::1", 1080)


def exempt(*texts: str) -> WayOut:
    found = [parse_exempt(text) for text in texts]
    return WayOut(HTTPS, HTTP, tuple([one for one in found if one is not None]))


def test_each_scheme_has_its_proxy() -> None:
    out = WayOut(HTTPS, HTTP)
    assert out.proxy_for("https", "api.test", 443) is HTTPS
    assert out.proxy_for("http", "api.test", 80) is HTTP
    assert DIRECT.proxy_for("https", "api.test", 443) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"])
def test_loopback_means_another_machine_to_a_proxy(host: str) -> None:
    """Plain http is allowed to loopback: through a proxy the credential would be on the network."""
    assert WayOut(HTTPS, HTTP).proxy_for("http", host, 80) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "is_exempt"),
    [
        ("api.test", "api.test", 443, True),
        ("api.test", "a.api.test", 443, True),
        ("api.test", "evil-api.test", 443, False),
        ("api.test", "api.test.evil", 443, False),
        (".api.test", "a.api.test", 443, True),
        (".api.test", "api.test", 443, False),
        ("*.api.test", "a.b.api.test", 443, True),
        ("*.api.test", "api.test", 443, False),
        ("API.test.", "api.test", 443, True),
        ("api.test:8443", "api.test", 8443, True),
        ("api.test:8443", "api.test", 443, False),
        ("*", "api.test", 1, True),
        ("*:8443", "api.test", 8443, True),
        ("*:8443", "api.test", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "api.test", 443, False),
        ("10.0.0.0/8:8443", "10.1.2.3", 8443, True),
        ("10.0.0.0/8:8443", "10.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3", "10.1.2.4", 443, False),
        ("2001:db8::/32", "2001:db8::5", 443, True),
        ("[2001:db8::5]:8443", "2001:db8::5", 8443, True),
        ("[2001:db8::5]:8443", "2001:db8::5", 443, False),
    ],
)
def test_what_is_exempt_goes_past_the_proxy(entry: str, host: str, port: int, is_exempt: bool) -> None:
    assert (exempt(entry).proxy_for("https", host, port) is None) is is_exempt


@pytest.mark.parametrize("entry", [
    "", "a b", "api.test:0", "api.test:65536", "http://api.test", "10.0.0.0/33", "10.0.0.1/8", "127.1",
    "-.test", "<local>", "api.*",
])  # fmt: skip
def test_what_is_no_entry_is_none(entry: str) -> None:
    assert parse_exempt(entry) is None


def test_a_network_is_compared_with_all_addresses_that_were_judged() -> None:
    """One of them is dialled, and it is unknown which."""
    out = exempt("10.0.0.0/8")
    assert out.proxy_for("https", "api.test", 443, ("10.0.0.1", "10.0.0.2")) is None
    assert out.proxy_for("https", "api.test", 443, ("10.0.0.1", "93.184.216.34")) is HTTPS
    assert Exempt().covers("api.test", 443, ())


def test_a_proxy_is_shown_without_user_and_password() -> None:
    assert str(HTTPS) == "http://proxy.test:3128"
    assert str(HTTP) == "socks5://[2001:db8::1]:1080"
    secret = UpstreamProxy("http", "proxy.test", 1, "user", Secret("pass-word"), "mark")
    assert "pass-word" not in repr(secret)


def test_settings_are_equal_if_their_content_is() -> None:
    one, other = UpstreamTls("mark", None, "chain", Secret("key")), UpstreamTls("mark")
    assert one == other
    assert hash(one) == hash(other)
    assert one != UpstreamTls("another mark", None, "chain")
    assert "chain" not in repr(one)
    first = UpstreamProxy("http", "a.test", 1, "u", Secret("1"), "1")
    assert first != UpstreamProxy("http", "a.test", 1, "u", Secret("2"), "2")
