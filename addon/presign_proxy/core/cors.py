"""Which pages of other origins may call a connection: CORS, as in the Fetch Standard, 3.2.

The rules open nothing by themselves. A request of a page needs a valid signature like any other. The rules
only say whether its browser sends the request, and lets the page read the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ..http.message import MAX_FIELDS, TOKEN, Fields, Head, Request
from ..signing.carrier_names import NAMES, TERMS

ANY: Final = b"*"
_ORIGIN: Final = b"origin"
_METHOD: Final = b"access-control-request-method"
_HEADERS: Final = b"access-control-request-headers"
_PRIVATE: Final = b"access-control-request-private-network"
_MAX_NAMED: Final = 4096
"""Bytes of the longest list of header names that is answered; it has as many names as a request fields.

Browsers send far less.
"""
_OURS: Final = frozenset(
    (b"authorization", b"content-type", *[one.lower().encode() for one in (*NAMES.values(), *TERMS.values())])
)
"""Headers that a page may always send: they hold the presign, or say what the body is."""
_EXPOSED: Final = (
    b"X-Presign-Error",
    b"X-Presign-Request-Id",
    b"Retry-After",
    b"RateLimit",
    b"RateLimit-Policy",
)
"""Headers of the gateway's own that a page may always read."""
_ALLOW: Final = b"Access-Control-Allow-Origin"
_CREDENTIALS: Final = b"Access-Control-Allow-Credentials"
_EXPOSE: Final = b"Access-Control-Expose-Headers"
_VARIES: Final = (b"Vary", b"Origin")
READABLE: Final = (_ALLOW, _CREDENTIALS, _EXPOSE, b"Vary")
"""The names of the fields that `Cors.readable` returns."""
_PREFLIGHT_VARIES: Final = (
    b"Vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
)


class Cors(NamedTuple):
    """The pages that may call a connection.

    `origins` are serialised origins, or `ANY`. `headers` are the lower-case names of headers that pages may
    send, besides those that hold a presign, or `ANY`. `expose` are the names of headers that pages may read.
    `max_age` are seconds for which a browser keeps the answer to a preflight. With `credentials`, a listed
    page may send its cookies.
    """

    origins: frozenset[bytes]
    headers: frozenset[bytes] = frozenset((ANY,))
    expose: tuple[bytes, ...] = ()
    max_age: int = 600
    credentials: bool = False

    def readable(self, head: Head, fields: Fields) -> Fields:
        """Return the fields that let the page of a request read the answer.

        `Vary` is always among them, because a cache may keep the answer for a page of another origin.
        """
        allowed = self._allowed(origin_of(head, fields))
        if not allowed:
            return (_VARIES,)
        return (*allowed, (_EXPOSE, b", ".join((*_EXPOSED, *self.expose))), _VARIES)

    def admits(self, origin: bytes | None) -> bool:
        """Return whether pages of an origin may call the connection."""
        return origin is not None and (origin in self.origins or ANY in self.origins)

    def preflight(self, request: Request, head: Head, methods: Iterable[str]) -> Fields:
        """Return the fields of the answer to a preflight whose origin is admitted.

        Args:
            methods: those that the connection allows.
        """
        origin, wanted = origin_of(head, request.fields), _value(head, request.fields, _METHOD) or b""
        allowed = [method.encode() for method in methods]
        if allowed == [ANY]:
            allowed = [] if wanted.translate(None, TOKEN) else [wanted]
        found = [
            *self._allowed(origin),
            (b"Access-Control-Allow-Methods", b", ".join(allowed)),
            (b"Access-Control-Max-Age", b"%d" % self.max_age),
        ]
        if names := self._names(_value(head, request.fields, _HEADERS) or b""):
            found.append((b"Access-Control-Allow-Headers", b", ".join(names)))
        if origin in self.origins and _value(head, request.fields, _PRIVATE) == b"true":
            found.append((b"Access-Control-Allow-Private-Network", b"true"))
        return (*found, _PREFLIGHT_VARIES)

    def _allowed(self, origin: bytes | None) -> Fields:
        if origin is None or not self.admits(origin):
            return ()
        if origin not in self.origins:
            return ((_ALLOW, ANY),)
        found = (_ALLOW, origin)
        return (found, (_CREDENTIALS, b"true")) if self.credentials else (found,)

    def _names(self, wanted: bytes) -> list[bytes]:
        """Return the names of a list that pages may send. Names that are no tokens are left out."""
        if len(wanted) > _MAX_NAMED or wanted.count(b",") >= MAX_FIELDS:
            return []
        names = [name.strip().lower() for name in wanted.split(b",")]
        known = ANY in self.headers
        return [
            name
            for name in names
            if name and not name.translate(None, TOKEN) and (known or name in _OURS or name in self.headers)
        ]


def is_preflight(request: Request, head: Head) -> bool:
    """Return whether a browser asks if a page may send a request (Fetch Standard, 4.8). It has no body."""
    return (
        request.method == b"OPTIONS"
        and _ORIGIN in head.names
        and head.names.count(_METHOD) == 1
        and b"transfer-encoding" not in head.names
        and (_value(head, request.fields, b"content-length") or b"0") == b"0"
    )


def origin_of(head: Head, fields: Fields) -> bytes | None:
    """Return the origin of the page that makes a request; None if no page makes it, or that is unclear."""
    return _value(head, fields, _ORIGIN)


def merged(rules: Iterable[Cors]) -> Cors | None:
    """Return rules for requests whose connection is not known: what any of the rules allows. None for none.

    A browser asks about a request before it sends the presign, so the connection may be unknown then. What
    the request may do is decided when it comes.
    """
    found = list(dict.fromkeys(rules))
    if not found:
        return None
    return Cors(
        frozenset().union(*[one.origins for one in found]),
        frozenset().union(*[one.headers for one in found]),
        (),
        min(one.max_age for one in found),
        any(one.credentials for one in found),
    )


def _value(head: Head, fields: Fields, name: bytes) -> bytes | None:
    """Return the value of a header that comes exactly once; None otherwise."""
    if head.names.count(name) != 1:
        return None
    return fields[head.names.index(name)][1]
