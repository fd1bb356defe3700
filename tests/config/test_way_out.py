"""`gateway.upstream_proxy`: what is refused at the start, and what the environment says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import Loaded, load
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.way_out import DIRECT, Exempt, UpstreamProxy, WayOut
from support.asking import SECRET
from support.config import write_config
from support.lab import bearer_connection


def loaded(tmp_path: Path, section: Any, **environ: str) -> Loaded:
    connection = bearer_connection("https://api.test", SECRET)
    config = {"gateway": {"upstream_proxy": section}, "connections": {"conn": connection}}
    return load(write_config(config, tmp_path), environ)


def way_out(tmp_path: Path, section: Any, **environ: str) -> WayOut:
    return loaded(tmp_path, section, **environ).registry.destinations.way_out


def problems(tmp_path: Path, section: Any, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        way_out(tmp_path, section, **environ)
    return [str(one).removeprefix(f"{tmp_path / 'config.yaml'}:") for one in error.value.problems]


def password(proxy: UpstreamProxy | None) -> str | None:
    assert proxy is not None
    return proxy.password.reveal() if proxy.password is not None else None


def test_without_the_section_upstreams_are_dialled_directly(tmp_path: Path) -> None:
    config = {"connections": {"conn": bearer_connection("https://api.test", SECRET)}}
    found = load(write_config(config, tmp_path), {"HTTPS_PROXY": "http://proxy.test:1"})
    assert found.registry.destinations.way_out is DIRECT


def test_one_proxy_serves_both_schemes(tmp_path: Path) -> None:
    section = {
        "url": "http://gate%40way@Proxy.test:3128/",
        "password": {"env": "PROXY_PASSWORD"},
        "no_proxy": ["intranet.test", "10.0.0.0/8"],
    }
    found = way_out(tmp_path, section, PROXY_PASSWORD="pass:word")
    assert found.https is found.http is not None
    assert (found.https.scheme, found.https.host, found.https.port) == ("http", "proxy.test", 3128)
    assert (found.https.user, password(found.https)) == ("gate@way", "pass:word")
    assert found.exempt[0] == Exempt("intranet.test", ".intranet.test")
    assert str(found) == "through http://proxy.test:3128, with 2 exceptions"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"url": "http://u:pa55word@p.test:1"},
            "3:5: gateway.upstream_proxy.url: holds a password",
        ),
        ({"url": "https://p.test:1"}, "3:5: gateway.upstream_proxy.url: is https: TLS to the proxy"),
        (
            {"url": "http://p.test"},
            "3:5: gateway.upstream_proxy.url: has to be the URL of a proxy",
        ),
        ({"url": "p.test:3128"}, "3:5: gateway.upstream_proxy.url: has to be the URL of a proxy"),
        ({"url": "socks4://p.test:1"}, "3:5: gateway.upstream_proxy.url: has to be the URL of a proxy"),
        ({"url": "http://p.test:1/x"}, "3:5: gateway.upstream_proxy.url: has to be the URL of a proxy"),
        ({"url": "http://@p.test:1"}, "3:5: gateway.upstream_proxy.url: its user is empty"),
        ({"url": "http://a%0d%0ab@p.test:1"}, "3:5: gateway.upstream_proxy.url: its user is empty"),
        ({"url": "http://p.test:1", "password": "x"}, "4:5: gateway.upstream_proxy.password: names no user"),
        (
            {"url": "http://u@p.test:1", "password": "ä" * 128},
            "4:5: gateway.upstream_proxy.password: is empty",
        ),
        (
            {"url": "http://u@p.test:1", "no_proxy": ["a.test", "a b"]},
            "6:7: gateway.upstream_proxy.no_proxy.1: has to be a name, .suffix, address, network or *",
        ),
        ({"url": "http://p.test:1", "user": "u"}, "4:5: gateway.upstream_proxy.user: is not a key"),
        ("none", "2:3: gateway.upstream_proxy: has to be env"),
        ("http://p.test:1", "2:3: gateway.upstream_proxy: has to be env"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_no_secret(tmp_path: Path, section: Any, problem: str) -> None:
    (told,) = problems(tmp_path, section)
    assert told.startswith(problem)
    assert "pa55word" not in told


@pytest.mark.parametrize(
    ("environ", "https", "http"),
    [
        ({"HTTPS_PROXY": "http://p.test:1"}, "http://p.test:1", None),
        ({"https_proxy": "http://p.test:1", "HTTPS_PROXY": "http://q.test:1"}, "http://p.test:1", None),
        ({"HTTP_PROXY": "p.test:1"}, None, "http://p.test:1"),
        ({"HTTP_PROXY": "p.test:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": "p.test:1", "REQUEST_METHOD": "GET"}, None, "http://p.test:1"),
        ({"ALL_PROXY": "socks5h://p.test:1"}, "socks5://p.test:1", "socks5://p.test:1"),
        (
            {"all_proxy": "socks5://p.test:1", "HTTP_PROXY": "q.test:1"},
            "socks5://p.test:1",
            "http://q.test:1",
        ),
        ({"HTTPS_PROXY": ""}, None, None),
        ({}, None, None),
    ],
)
def test_the_usual_variables_are_read(
    tmp_path: Path, environ: dict[str, str], https: str | None, http: str | None
) -> None:
    """A header `Proxy` of a client becomes $HTTP_PROXY where a program runs as CGI (httpoxy)."""
    found = loaded(tmp_path, "env", **environ)
    out = found.registry.destinations.way_out
    assert [str(one) if one else None for one in (out.https, out.http)] == [https, http]
    warned = any("no variable names a proxy" in str(one) for one in found.warnings)
    assert warned is (https is http is None)


def test_a_password_in_the_environment_is_a_secret(tmp_path: Path) -> None:
    found = way_out(tmp_path, "env", https_proxy="http://user:p%40ss@p.test:1")
    assert password(found.https) == "p@ss"
    assert "p@ss" not in repr(found)
    assert "p%40ss" not in repr(found)


def test_a_variable_that_is_no_proxy_is_told_without_its_text(tmp_path: Path) -> None:
    (told,) = problems(tmp_path, "env", HTTPS_PROXY="https://user:pa55word@p.test:1")
    assert told.startswith("2:3: gateway.upstream_proxy: $HTTPS_PROXY is https: TLS to the proxy itself")
    assert "pa55word" not in told


def test_an_odd_entry_of_no_proxy_is_ignored_and_told(tmp_path: Path) -> None:
    """Without it, its destinations go through the proxy."""
    found = loaded(tmp_path, "env", ALL_PROXY="http://p.test:1", NO_PROXY=" a.test,,<local> 10.0.0.0/8,")
    out = found.registry.destinations.way_out
    assert len(out.exempt) == 2
    assert any("$NO_PROXY: its entry 2 is no name" in str(one) for one in found.warnings)
