"""Where in a request its presign stood, and what is left of its path without it."""

from ipaddress import ip_network
from typing import Any

import pytest

from presign_proxy.core.connection import Conduct
from presign_proxy.core.decision import Deny
from presign_proxy.core.registry import Registry
from support.deciding import GATEWAY, NOW, SECRET, ask, code, connection, registry, request, sent
from support.signing import presign_target, token


@pytest.mark.parametrize(("path", "prefix"), [("v1/models", b"/api/proxy/conn"), ("v1/", b"/api/proxy/conn")])
def test_a_grant_knows_what_stood_before_its_path(path: str, prefix: bytes) -> None:
    forward = sent(request(presign_target(SECRET, "conn", path, NOW, "GET", "*")))
    assert forward.gateway_prefix == prefix


def test_the_prefix_of_a_path_token_is_not_repeated() -> None:
    word = token(SECRET, "conn", NOW, "GET", "*")
    assert sent(request(f"/p/{word}/v1/models")).gateway_prefix == b""
    field = (b"Authorization", f"Bearer {word}".encode())
    forward = sent(request("/v1", field, host="api.example.com", scheme="https"))
    assert (forward.gateway_prefix, forward.resolve) == (None, None)


@pytest.mark.parametrize("target", ["/api/proxy/conn", "/p/{token}"])
def test_a_gateway_url_without_a_path_is_not_found(target: str) -> None:
    if "token" in target:
        asked = request(target.format(token=token(SECRET, "conn", NOW, "GET", "*")))
    else:
        asked = request(f"{target}?{presign_target(SECRET, 'conn', '', NOW, 'GET', '*').partition('?')[2]}")
    assert code(asked) == "not_found"


@pytest.mark.parametrize(
    ("changes", "target", "expected"),
    [
        ({"conduct": Conduct(challenge=True)}, "/v2/", (401, "unsigned")),
        ({"conduct": Conduct(challenge=True)}, "/v2/a/manifests/1", (401, "unsigned")),
        ({"conduct": Conduct(challenge=True)}, "/v2", (404, "not_found")),
        ({"conduct": Conduct(challenge=True)}, "/v1", (404, "not_found")),
        ({"conduct": Conduct(challenge=True), "enabled": False}, "/v2/", (404, "not_found")),
        ({}, "/v2/", (404, "not_found")),
    ],
)
def test_a_client_of_registries_is_asked_for_its_key_if_there_is_a_registry(
    changes: dict[str, Any], target: str, expected: tuple[int, str]
) -> None:
    denied = ask(request(target), registry(connection(**changes)))
    assert isinstance(denied, Deny)
    assert (denied.answer.status, denied.code) == expected
    challenged = [name for name, _ in denied.fields if name == b"WWW-Authenticate"]
    assert len(challenged) == (expected[0] == 401)


@pytest.mark.parametrize(
    ("client", "scheme", "expected"),
    [
        ("203.0.113.5", "http", "not_found"),
        ("203.0.113.5", "https", "unsigned"),
        ("127.0.0.1", "http", "unsigned"),
        ("10.1.2.3", "http", "unsigned"),
    ],
)
def test_nobody_is_asked_to_send_a_key_unencrypted(client: str, scheme: str, expected: str) -> None:
    known = connection(conduct=Conduct(challenge=True))
    networks = (ip_network("10.0.0.0/8"),)
    tls_only = Registry({"conn": known}, frozenset({GATEWAY}), tls_only=True, trusted_proxies=networks)
    assert code(request("/v2/", scheme=scheme, client=client), tls_only) == expected


@pytest.mark.parametrize("host", ["presign.local", "api.example.com"])
@pytest.mark.parametrize(
    "field",
    [
        (b"Sec-Fetch-Mode", b"navigate"),
        (b"sec-fetch-site", b"cross-site"),
        (b"Accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
    ],
)
def test_a_browser_is_not_asked_for_a_key_that_other_sites_could_then_use(
    host: str, field: tuple[bytes, bytes]
) -> None:
    known = registry(connection(conduct=Conduct(challenge=True)), deny=True)
    target = "/v2/" if host == "presign.local" else "/v2/a/manifests/1"
    of_docker = ask(request(target, host=host, scheme="https"), known)
    assert isinstance(of_docker, Deny)
    assert (of_docker.answer.status, len(of_docker.fields)) == (401, 1)
    of_browser = ask(request(target, field, host=host, scheme="https"), known)
    assert isinstance(of_browser, Deny)
    assert of_browser.answer.status in (403, 404)
    assert of_browser.fields == ()
