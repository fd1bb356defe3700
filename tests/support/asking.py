"""A presign as its holder has it, in every carrier, and requests written out for the wire."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from support.raw import Response, Tls, parse_response, send_raw
from support.signing import presign_headers, presign_query, token

SECRET = "sk_signing_secret_of_these_tests_0123456789"
"""Signs for every connection that a test makes for itself."""

Given = Mapping[str, str] | Iterable[tuple[str, str]]


def in_an_hour() -> int:
    return int(time.time()) + 3600


@dataclass(frozen=True)
class Grant:
    """What was signed. Everything, for an hour, unless a test says otherwise."""

    connection: str
    methods: str = "*"
    paths: str = "*"
    expires: int | str = field(default_factory=in_an_hour)
    secret: str = SECRET

    @property
    def query(self) -> str:
        return presign_query(self.secret, self.connection, self.expires, self.methods, self.paths)

    @property
    def headers(self) -> dict[str, str]:
        """The header carrier, with the name of the connection."""
        return presign_headers(self.secret, self.connection, self.expires, self.methods, self.paths)

    @property
    def unnamed(self) -> dict[str, str]:
        """The header carrier without the name of the connection."""
        return {name: value for name, value in self.headers.items() if name != "X-Presign-Connection"}

    @property
    def token(self) -> str:
        return token(self.secret, self.connection, self.expires, self.methods, self.paths)

    def target(self, path: str) -> str:
        """The seed's URL form without its origin."""
        return f"/api/proxy/{self.connection}/{path}{'&' if '?' in path else '?'}{self.query}"


def wire(
    target: str, headers: Given = (), method: str = "GET", host: str = "presign.local", body: bytes = b""
) -> bytes:
    """An HTTP/1.1 request; its fields in the order given, after `Host`."""
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    if body:
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("utf-8") + body


def ask(
    port: int,
    target: str,
    headers: Given = (),
    method: str = "GET",
    host: str = "presign.local",
    body: bytes = b"",
    tls: Tls | None = None,
) -> Response:
    """Send one request on a connection of its own."""
    received = send_raw(port, wire(target, headers, method, host, body), tls=tls)
    return parse_response(received, method == "HEAD")


def code(response: Response) -> tuple[int, str | None]:
    """Status and the product's own name for its refusal."""
    return response.status, response.header("x-presign-error")
