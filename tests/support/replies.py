"""Responses to granted requests, in each form that a client uses, as the gateway rewrites them."""

from typing import Any

from presign_proxy.core.connection import Conduct, Upstream
from presign_proxy.core.decision import Forward
from presign_proxy.core.masking import Mask, mask_for
from presign_proxy.core.rewrite_response import Reply, rewrite
from presign_proxy.errors import Denied
from presign_proxy.http.message import Origin
from support.deciding import NOW, SECRET, connection, registry, request, sent, signed
from support.signing import presign_headers, token

BASE = connection(upstream=Upstream(Origin("https", "api.example.com", 443), b"/base"))
HEADERS = tuple(
    (n.encode(), v.encode()) for n, v in presign_headers(SECRET, "conn", NOW + 60, "GET", "*").items()
)
TOKEN = token(SECRET, "conn", NOW + 60, "GET", "*")


def by_query(**conduct: Any) -> Forward:
    known = connection(upstream=BASE.upstream, conduct=Conduct(**conduct))
    return sent(request(signed("v1/a/b", paths="*")), registry(known))


def by_header(**conduct: bool) -> Forward:
    known = connection(upstream=BASE.upstream, conduct=Conduct(**conduct))
    return sent(request("/api/proxy/conn/v1/a/b", *HEADERS), registry(known))


def by_token() -> Forward:
    return sent(request(f"/p/{TOKEN}/v1/a/b"), registry(BASE))


def at_the_api() -> Forward:
    return sent(request("/base/v1/a/b", *HEADERS, host="api.example.com", scheme="https"), registry(BASE))


def reply(
    forward: Forward, *fields: tuple[bytes, bytes], status: int = 200, mask: Mask | None = None
) -> Reply:
    return rewrite(Reply(status, b"OK", fields), forward, mask or mask_for(forward.connection.injector))


def location(forward: Forward, value: str) -> str:
    """Where a client is sent; "refused" if nowhere."""
    try:
        fields = dict(reply(forward, (b"Location", value.encode("latin-1")), status=302).fields)
    except Denied:
        return "refused"
    return fields[b"Location"].decode("latin-1")


AWAY = [
    "https://evil.test/x",
    "//evil.test/x",
    "///evil.test/x",
    "////evil.test/x",
    "https:///evil.test/x",
    "https:/evil.test",
    "https:evil.test",
    "http://api.example.com/base/x",
    "https://api.example.com:8443/base/x",
    "\\\\evil.test/x",
    "/\\evil.test",
    "https://api.example.com\\@evil.test/",
    "https://api.example.com@evil.test/",
    "javascript:alert(1)",
    "//\tevil.test/x",
    " //evil.test",
    "https://[::1",
    "ht\ttps://evil.test",
    "data:text/html,x",
    "é",
]
