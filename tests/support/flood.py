"""Requests that nobody signed, of which no two are alike in anything that could be remembered."""

from presign_proxy.message import Request
from support.asking import wire
from support.deciding import GATEWAY, NOW, request
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
