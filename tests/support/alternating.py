"""One client that alternates between the lane and mitmproxy, and an upstream that sees which of them asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from support.asking import Grant
from support.byhand import Wire
from support.lanes import SIGNING, LaneLab
from support.leaks import FOREVER, LONG_AGO
from support.raw import connect, connect_tls, parse_response

PAGE = "https://app.example"
TUNNEL, TLS_TUNNEL = "tunnel", "tunnel to an upstream over TLS"
WAYS = ("client", "direct_tls_client", "tls_client", TUNNEL)
KINDS = ("refused", "preflight", "passed", "granted with TE", "granted with Expect")


def answer(text: str, *fields: str, status: str = "200 OK") -> bytes:
    """A whole answer with a length."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(text)}", "", text]).encode()


@dataclass
class Alternating:
    """A client, and the upstream connections of the lane's pool and of mitmproxy."""

    lab: LaneLab
    way: str
    client: Wire
    api: Wire
    """The one that another client has left in the pool: only the lane takes it."""
    beside: dict[str, Wire] = field(default_factory=dict)
    """Those that mitmproxy has made for this client, by the kind of request."""

    @classmethod
    def begin(cls, lab: LaneLab, way: str = "client") -> Alternating:
        api = lab.warm()
        if way == TLS_TUNNEL:
            sock = connect_tls(lab.gateway.port, "localhost", lab.hand.port, cafile=lab.gateway.ca)
            return cls(lab, way, Wire(sock), api)
        if way != TUNNEL:
            return cls(lab, way, getattr(lab, way)(), api)
        client = Wire(connect(lab.gateway.port))
        client.send(f"CONNECT 127.0.0.1:{lab.hand.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.read_head().startswith(b"HTTP/1.1 200 ")
        return cls(lab, way, client, api)

    def __enter__(self) -> Alternating:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    # -- requests -------------------------------------------------------------------------------------

    def head(self, path: str, *fields: str, method: str = "GET", expires: int = FOREVER) -> bytes:
        """A presigned request, as this client addresses its upstream."""
        if self.way not in (TUNNEL, TLS_TUNNEL):
            return self.lab.head(*fields, method=method, path=path, expires=expires)
        given = Grant(self.lab.cid, expires=expires, secret=SIGNING).headers
        self.lab.issuer.issued.add(given["X-Presign-Signature"])
        return self._lines(f"{method} /{path}", [*fields, *map(": ".join, given.items())])

    def foreign(self, path: str, *fields: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
        """An unsigned request to the same upstream."""
        origin = "" if self.way in (TUNNEL, TLS_TUNNEL) else self.lab.hand.url
        return self._lines(f"{method} {origin}/{path}", fields, version)

    def _lines(self, begin: str, fields: Iterable[str], version: str = "HTTP/1.1") -> bytes:
        host = f"Host: {'localhost' if self.way == TLS_TUNNEL else '127.0.0.1'}:{self.lab.hand.port}"
        return "\r\n".join([f"{begin} {version}", host, *fields, "", ""]).encode()

    # -- exchanges ------------------------------------------------------------------------------------

    def ours(self, path: str) -> None:
        """A granted request that the lane serves."""
        self.client.send(self.head(path))
        self.served(path)

    def served(self, path: str) -> None:
        """The lane sends it, and the client gets its own answer."""
        assert f"/{path} ".encode() in self.api.read_head()
        self.api.send(answer(f"lane {path}"))
        self.gets(f"lane {path}")

    def gets(self, text: str, status: bytes = b"200") -> None:
        """The client gets this answer, and nothing before it."""
        received = self.client.read_response()
        assert received.startswith(b"HTTP/1.1 %b " % status)
        assert received.count(b"HTTP/1.") == 1
        assert received.endswith(f"\r\n\r\n{text}".encode())

    def upstream(self, kind: str = "passed") -> Wire:
        """mitmproxy's own connection for requests of this kind: those that are granted share one."""
        kind = kind.partition(" ")[0]
        if kind not in self.beside:
            self.beside[kind] = self.lab.hand.accept()
        return self.beside[kind]

    def other(self, kind: str, path: str) -> None:
        """A request that the lane leaves to mitmproxy, from its beginning to its end."""
        if kind == "refused":
            self.client.send(self.head(path, expires=LONG_AGO))
            assert parse_response(self.client.read_response()).status == 403
        elif kind == "preflight":
            asks = [f"Origin: {PAGE}", "Access-Control-Request-Method: GET"]
            self.client.send(self.head(path, *asks, method="OPTIONS"))
            assert parse_response(self.client.read_response()).status == 204
        elif kind == "passed":
            self.client.send(self.foreign(path))
            self.answered(kind, path)
        elif kind == "granted with TE":
            self.client.send(self.head(path, "TE: trailers"))
            self.answered(kind, path)
        else:
            self.client.send(self.head(path, "Content-Length: 4", "Expect: 100-continue", method="POST"))
            assert self.client.read_head().startswith(b"HTTP/1.1 100 ")
            self.client.send(b"body")
            self.answered(kind, path, b"body")

    def answered(self, kind: str, path: str, body: bytes = b"") -> None:
        """mitmproxy sends it, and the client gets its own answer."""
        api = self.upstream(kind)
        assert f"/{path} ".encode() in api.read_head()
        assert api.read_exactly(len(body)) == body
        api.send(answer(f"beside {path}"))
        self.gets(f"beside {path}")
