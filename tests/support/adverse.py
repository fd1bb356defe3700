"""Heads of any size that are as dear as they can be to whoever takes them apart, and that nobody signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from presign_proxy.http.message import Request
from support.deciding import request

SIZES = (1024, 4 * 1024, 16 * 1024, 60 * 1024)

# What is repeated. Each was slow in some parser once, or looks like what is searched for.
UNITS = (
    b"%",
    b"%&",
    b"%2",
    b"%25",
    b"%%32",
    b"%41",
    b"a%41",
    b"%252541a",
    b"%3b",
    b"%26",
    b"%0",
    b"&",
    b"a=b&",
    b";",
    b"a;",
    b"#",
    b"?",
    b"/",
    b"/.",
    b"//",
    b".",
    b"*",
    b",",
    b"a,",
    b"=",
    b"+",
    b"[",
    b"]",
    b"-",
    b"_",
    b" ",
    b"\t",
    b"A",
    b"\xcc\x81",
    b"%CC%81",
    b"ps1_",
    b"ps2_",
    b"ps1_.",
    b".0123456789abcdef",
    b"0123456789abcdef",
    b"x-presign",
    b"x%2dpresign",
    b"presign;",
    b"X-Presign-Expires=1&",
    b"x-presign-expires=1&",
    b"x-presign-expires",
    b"sig=0123456789abcdef",
    b"exp=1&",
    b"sig=&",
    b"chunked,",
    b"close, ",
    b"127.0.0.1,",
    b"::",
    b"a.",
    b"a,",
    b"openai-insecure-api-key.",
    b"openai-insecure-api-key.ps1_,",
)


def repeated(unit: bytes, size: int) -> bytes:
    return (unit * (size // len(unit) + 1))[:size]


Place = Callable[[bytes], Request]

SIGNED = (
    "X-Presign-Expires=1800000060&X-Presign-Methods=GET&X-Presign-Paths=*&X-Presign-Signature=" + "0" * 64
)


def _in_header(name: bytes, before: bytes = b"") -> Place:
    return lambda text: request(f"/api/proxy/conn/v1/models?{SIGNED}", (name, before + text))


PLACES: dict[str, Place] = {
    "query beside a presign": lambda text: request(f"/api/proxy/conn/v1/models?{SIGNED}&".encode() + text),
    "query behind one field": lambda text: request(b"/api/proxy/conn/v1/models?X-Presign-Expires=1&" + text),
    "query": lambda text: request(b"/api/proxy/conn/v1/models?" + text),
    "query elsewhere": lambda text: request(b"/v1/models?" + text, host="api.example.com"),
    "value of a field": lambda text: request(b"/api/proxy/conn/v1/models?X-Presign-Paths=" + text),
    "path": lambda text: request(b"/api/proxy/conn/" + text + f"?{SIGNED}".encode()),
    "path of none": lambda text: request(b"/" + text),
    "path elsewhere": lambda text: request(b"/" + text, host="api.example.com"),
    "path elsewhere with a presign": lambda text: request(
        b"/" + text + f"?{SIGNED}".encode(), host="api.example.com", scheme="https"
    ),
    "connection": lambda text: request(b"/api/proxy/" + text + f"/x?{SIGNED}".encode()),
    "path token": lambda text: request(b"/p/ps1_" + text + b"." + b"0" * 64 + b"/x"),
    "source": lambda text: request(b"/v1/pk/" + text + b".png?exp=1&sig=" + b"0" * 64),
    "query of a source": lambda text: request(b"/v1/pk/aGVsbG8.png?exp=1&" + text),
    "header": _in_header(b"X-Long"),
    "header behind a token": _in_header(b"X-Long", b"ps1_"),
    "Authorization": _in_header(b"Authorization"),
    "Basic": _in_header(b"Authorization", b"Basic "),
    "Bearer": _in_header(b"Authorization", b"Bearer ps1_"),
    "Cookie": _in_header(b"Cookie"),
    "Connection": _in_header(b"Connection"),
    "X-Forwarded-For": _in_header(b"X-Forwarded-For"),
    "Referer": _in_header(b"Referer"),
    "Accept": _in_header(b"Accept", b"text/html,"),
    "Accept before HTML": lambda text: request("/nothing", (b"Accept", text + b",text/html")),
    "Host": _in_header(b"Host"),
    "Upgrade": _in_header(b"Upgrade"),
    "subprotocols": _in_header(b"Sec-WebSocket-Protocol", b"openai-insecure-api-key.ps1_"),
    "subprotocols behind one": _in_header(b"Sec-WebSocket-Protocol", b"ps1_,"),
    "preflight": lambda text: request(
        "/api/proxy/conn/v1/models",
        (b"Origin", b"https://app.example"),
        (b"Access-Control-Request-Method", b"GET"),
        (b"Access-Control-Request-Headers", text[:4096]),
        method="OPTIONS",
    ),
    "preflight of another page": lambda text: request(
        f"/api/proxy/conn/v1/models?{SIGNED}",
        (b"Origin", text),
        (b"Access-Control-Request-Method", text),
        method="OPTIONS",
    ),
    "handshake": lambda text: request(
        f"/api/proxy/conn/v1/models?{SIGNED}",
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Extensions", text),
        (b"Sec-WebSocket-Key", text),
    ),
    "TE": _in_header(b"TE"),
    "Content-Length": _in_header(b"Content-Length"),
    "presign header": _in_header(b"X-Presign-Paths"),
    "header name": lambda text: request(f"/api/proxy/conn/v1/models?{SIGNED}", (text, b"1")),
    "method": lambda text: request(f"/api/proxy/conn/v1/models?{SIGNED}", method=text.decode("latin-1")),
    "many headers": lambda text: request(
        "/api/proxy/conn/v1/models", *[(text[:2], text[:4])] * (len(text) // 6)
    ),
    "many presign headers": lambda text: request(
        "/api/proxy/conn/v1/models", *[(b"X-Presign-Paths", text[:2])] * (len(text) // 17)
    ),
}


def heads(size: int) -> Iterator[tuple[str, Request]]:
    """Every unit in every place, with its name."""
    for place, made in PLACES.items():
        for unit in UNITS:
            yield f"{place}: {unit!r}", made(repeated(unit, size))
