"""The core without any proxy around it: a registry, requests as bytes, decisions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.connection import Conduct, Connection, SourceRules, Upstream
from presign_proxy.core.credentials import bearer
from presign_proxy.core.decide import decide
from presign_proxy.core.decision import Decision, Deny, Forward
from presign_proxy.core.registry import Registry
from presign_proxy.http.hosts import parse_authority
from presign_proxy.http.message import Origin, Request
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.secret import Secret
from support.signing import presign_target

NOW = 1_800_000_000
SECRET = "sk_0123456789abcdef0123456789abcdef"
KEY = "sk-REALSECRET-0123456789"
UPSTREAM = Origin("https", "api.example.com", 443)
GATEWAY = "presign.local"


def ring(*secrets: str) -> KeyRing:
    return KeyRing(tuple(SigningKey(f"k{n}", Secret(secret)) for n, secret in enumerate(secrets, 1)))


def connection(name: str = "conn", **changes: Any) -> Connection:
    """A presign connection to `UPSTREAM` with a bearer key."""
    plain = Connection(
        id=name,
        upstream=Upstream(UPSTREAM),
        injector=bearer(Secret(KEY)),
        keys=ring(SECRET),
        ceiling=Ceiling(),
    )
    return replace(plain, **changes)


def project(name: str = "pk", **rules: Any) -> Connection:
    """A source project, signed, for https://cdn.acme.com."""
    origins = (Origin("https", "cdn.acme.com", 443),)
    given = {"origins": origins, "formats": frozenset({"png", "jpg"})} | rules
    return Connection(id=name, source=SourceRules(**given), keys=ring(SECRET), conduct=Conduct())


def registry(*connections: Connection, deny: bool = False) -> Registry:
    known = connections or (connection(),)
    return Registry({one.id: one for one in known}, frozenset({GATEWAY}), deny_unsigned=deny)


def request(
    target: str | bytes,
    *fields: tuple[bytes, bytes],
    method: str = "GET",
    host: str = GATEWAY,
    scheme: str = "http",
    **more: Any,
) -> Request:
    """A request addressed to `host`, with its Host field first."""
    raw = target.encode() if isinstance(target, str) else target
    origin = parse_authority(host, scheme)
    assert origin is not None
    all_fields = ((b"Host", host.encode()), *fields)
    given = {"version": b"HTTP/1.1", "names": (("host", host),)} | more
    return Request(method=method.encode(), target=raw, fields=all_fields, origin=origin, **given)


def signed(
    path: str = "v1/models", methods: str = "GET", paths: str = "v1/*", expires: int | str = NOW + 60
) -> str:
    """A target in the seed's URL form, signed for connection `conn`."""
    return presign_target(SECRET, "conn", path, expires, methods, paths)


def ask(asked: Request, known: Registry | None = None, now: int = NOW) -> Decision:
    return decide(known or registry(), asked, now, "req_test")


def code(asked: Request, known: Registry | None = None, now: int = NOW) -> str:
    """The code of a refusal, "forward" or "pass"."""
    decision = ask(asked, known, now)
    if isinstance(decision, Deny):
        return decision.code
    return "forward" if isinstance(decision, Forward) else "pass"


def sent(asked: Request, known: Registry | None = None) -> Forward:
    decision = ask(asked, known)
    assert isinstance(decision, Forward), decision
    return decision
