"""CONNECT: which tunnels are built, and for whom; the decision alone, without any proxy."""

from __future__ import annotations

import pytest

from presign_proxy.core import tunnel
from presign_proxy.http.message import Request
from support.deciding import GATEWAY, NOW, SECRET, connection, project, registry, request
from support.signing import presign_headers, token

CONNECTIONS = (connection(), project(intercept=True))


def connect(host: str, *fields: tuple[bytes, bytes]) -> Request:
    return request("/", *fields, method="CONNECT", host=host, scheme="https")


@pytest.mark.parametrize("host", ["api.example.com", GATEWAY])
def test_a_tunnel_to_a_known_place_is_built(host: str) -> None:
    assert tunnel.refused(registry(*CONNECTIONS, deny=True), connect(host)) is None


@pytest.mark.parametrize(
    "host", ["evil.test", "api.example.com.evil.test", "api.example.com:8443", "127.0.0.1"]
)
def test_a_tunnel_to_anywhere_else_is_refused_where_unsigned_requests_are(host: str) -> None:
    assert tunnel.refused(registry(*CONNECTIONS, deny=True), connect(host)) == "unsigned"
    assert tunnel.refused(registry(*CONNECTIONS), connect(host)) is None


def test_without_a_registry_no_tunnel_is_built() -> None:
    assert tunnel.refused(None, connect("api.example.com")) == "unsigned"


@pytest.mark.parametrize("deny", [True, False])
def test_a_presign_on_a_connect_opens_nothing(deny: bool) -> None:
    """The proxy in front would read it, and what is inside the tunnel is another request."""
    word = token(SECRET, "conn", NOW + 60, "GET", "*").encode()
    headers = presign_headers(SECRET, "conn", NOW + 60, "GET", "*").items()
    for fields in (
        [(name.encode(), value.encode()) for name, value in headers],
        [(b"Authorization", b"Bearer " + word)],
        [(b"X-Custom", word)],
    ):
        asked = connect("api.example.com", *fields)
        assert tunnel.refused(registry(*CONNECTIONS, deny=deny), asked) == "malformed", fields
