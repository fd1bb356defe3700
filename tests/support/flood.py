"""Requests that nobody signed, of which no two are alike in anything that could be remembered."""

from presign_proxy.http.message import Request
from support.asking import wire
from support.deciding import GATEWAY, NOW, request
from support.h2frames import END_HEADERS, END_STREAM, HEADERS, NEWEST, frame, head_of, literal
from support.signing import base64url

Field = tuple[str, str]


def unlike(number: int) -> tuple[str, list[Field], str]:
    """Target, fields and host: each time another id, path, pattern, parameter, header, token and name."""
    tag = f"{number:x}"
    signature = f"{number:064x}"
    fields = [(f"X-{tag}", tag), (f"X-Forwarded-{tag}", tag), ("Accept", f"text/{tag}")]
    query = f"{tag}={tag}&X-Presign-Expires={NOW + number}&X-Presign-Methods=GET"
    query += f"&X-Presign-Paths=v1%2F{tag}%2F*&X-Presign-Signature={signature}"
    shapes: tuple[tuple[str, list[Field], str], ...] = (
        (f"/api/proxy/conn_{tag}/v1/{tag}?{query}", fields, GATEWAY),
        (f"/api/proxy/conn/v1/{tag}?{query}", fields, GATEWAY),
        (f"/p/ps1_{base64url(f'conn_{tag}\n{NOW}\nGET\n*')}.{signature}/{tag}", fields, GATEWAY),
        (
            f"/v1/pk_{tag}/{base64url(f'https://{tag}.test/')}.png?sig={signature}&exp={NOW + number}",
            fields,
            GATEWAY,
        ),
        (f"/{tag}?{query}", fields, f"h{tag}.test"),
        (f"/api/proxy/conn/{tag}", [*fields, ("X-Presign-Signature", signature)], GATEWAY),
        (f"/api/proxy/conn/{tag}", [*fields, ("Authorization", f"Bearer ps1_{tag}.{signature}")], GATEWAY),
        (f"/{tag}/{tag}?x-presign-{tag}=1", fields, GATEWAY),
    )
    return shapes[number % len(shapes)]


def as_request(number: int) -> Request:
    target, fields, host = unlike(number)
    return request(target, *[(name.encode(), value.encode()) for name, value in fields], host=host)


def as_bytes(number: int) -> bytes:
    target, fields, host = unlike(number)
    return wire(target, fields, host=host)


# -- the dearest heads that were found ----------------------------------------------------------------

DEAR = ("parameters", "header", "path", "escapes")
"""Where 60 KiB of what is slow to decode stands."""


def dear_over_h1(variant: str) -> bytes:
    """A head of nearly 64 KiB."""
    unit = b"a%41" if variant == "escapes" else b"%&"
    filler = unit * (60_000 // len(unit))
    parts = {"parameters": b"?X-Presign-Expires=1&" + filler, "escapes": b"?" + filler, "path": filler}
    head = b"GET /api/proxy/conn/x" + parts.get(variant, b"") + b" HTTP/1.1\r\nHost: presign.local\r\n"
    return head + (b"X-Long: " + filler + b"\r\n" if variant == "header" else b"") + b"\r\n"


def dear_over_h2() -> bytes:
    """A hundred heads of 56 KB in one segment: a field of 4,000 bytes, named again and again."""
    head = head_of(b"/api/proxy/conn/x")
    first = head + literal(b"x-a", b"%" * 4000, kept=True) + NEWEST * 13
    blocks = [first] + [head + NEWEST * 14] * 99
    ends = END_HEADERS | END_STREAM
    return b"".join(frame(HEADERS, block, ends, 2 * n + 1) for n, block in enumerate(blocks))
