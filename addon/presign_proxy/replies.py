"""The upstream's response on its way to the client: what is taken off, masked, rewritten and put on."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urljoin

from .decisions import Forward
from .decoding import CODINGS
from .errors import Denied
from .hosts import parse_authority
from .masking import Mask
from .message import TOKEN, Fields

_ALWAYS: Final = frozenset(
    b"www-authenticate proxy-authenticate authentication-info proxy-authentication-info keep-alive "
    b"proxy-connection te trailer upgrade cdn-cache-control surrogate-control".split()
)
_GATEWAY_FORM: Final = frozenset(
    b"service-worker-allowed strict-transport-security alt-svc clear-site-data".split()
)
"""Headers that speak for a whole origin, which in gateway form all upstreams share."""
_SHARED_CACHING = re.compile(rb"(?:public|proxy-revalidate|s-maxage=.*)", re.IGNORECASE)
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 307, 308))
_URL = re.compile(r"(https?)://([^/?#\\]*)(.*)", re.IGNORECASE | re.DOTALL)


class Reply(NamedTuple):
    """A response head: status, reason phrase and fields; whether its body must be decoded to be masked."""

    status: int
    reason: bytes
    fields: Fields
    encoded: bool = False


def rewrite(reply: Reply, forward: Forward, mask: Mask) -> Reply:
    """The head as the client gets it. Raises Denied("upstream") where it must not be passed on."""
    if reply.status == 101 or reply.status < 200:
        raise Denied("upstream", "the upstream switches protocols, or sends an interim response as final")
    conduct = forward.connection.conduct
    gateway = forward.gateway_prefix is not None
    gone = _ALWAYS | (_GATEWAY_FORM if gateway else frozenset())
    if not conduct.cookies:
        gone |= {b"set-cookie", b"set-cookie2"}
    encoded = bool(mask) and _is_encoded(reply)
    if encoded:
        gone |= {b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest", b"etag"}
    fields: list[tuple[bytes, bytes]] = []
    if b"".join([name for name, _ in reply.fields]).translate(None, TOKEN):
        # mitmproxy would refuse it too, but quote the name, in which a credential may stand.
        raise Denied("upstream", "the upstream sends a header name that is not a token")
    for name, value in reply.fields:
        key = name.lower()
        if key in gone or key.startswith(b"x-presign"):
            continue
        if key in (b"location", b"content-location"):
            value = _location(key, value, reply.status, forward)
        elif key == b"connection":
            value = b"close" if b"close" in value.lower() else b"keep-alive"
        elif key == b"cache-control" and not conduct.cache:
            continue
        elif key == b"referrer-policy":
            continue
        fields.append((name, mask.mask(value)))
    if not conduct.cache:
        fields.append((b"Cache-Control", _private(reply.fields)))
    fields += _added(forward, gateway=gateway)
    return Reply(reply.status, mask.mask(reply.reason), tuple(fields), encoded)


def _is_encoded(reply: Reply) -> bool:
    """Raises Denied("upstream") for a coding that cannot be taken off: it would be passed on unread."""
    codings = [
        token.strip().lower()
        for name, value in reply.fields
        if name.lower() == b"content-encoding"
        for token in value.split(b",")
        if token.strip().lower() not in (b"", b"identity")
    ]
    if not codings:
        return False
    if len(codings) > 1 or codings[0] not in CODINGS or reply.status == 206:
        raise Denied("upstream", "the upstream encodes its body though identity was requested")
    return True


def _added(forward: Forward, *, gateway: bool) -> Fields:
    common = ((b"Referrer-Policy", b"no-referrer"), (b"X-Presign-Request-Id", forward.request_id.encode()))
    if not gateway:
        return common
    # A second policy can only restrict what the upstream's own allows.
    sandbox = ((b"Content-Security-Policy", b"sandbox"), (b"X-Content-Type-Options", b"nosniff"))
    return sandbox + common


def _private(fields: Fields) -> bytes:
    """The Cache-Control of the upstream without what lets shared caches store (RFC 9111, 5.2.2)."""
    tokens = [
        token.strip()
        for name, value in fields
        if name.lower() == b"cache-control"
        for token in value.split(b",")
        if token.strip() and not _SHARED_CACHING.fullmatch(token.strip())
    ]
    if not any(token.lower() in (b"private", b"no-store") for token in tokens):
        tokens.insert(0, b"private")
    return b", ".join(tokens)


def _location(key: bytes, value: bytes, status: int, forward: Forward) -> bytes:
    """Where a redirect leads, in the form of URL the client used; never followed by us."""
    target = _same_origin(value, forward)
    if target is None:
        # A client re-sends its headers to wherever it is redirected, and a key token with them.
        resent = forward.facts.carrier in ("header", "key") and not forward.connection.conduct.redirects
        if resent and key == b"location" and status in _REDIRECTS:
            raise Denied("upstream", "a redirect to another origin would take the presign with it")
        return value
    upstream = forward.connection.upstream
    below = upstream.relative(target) if upstream else None
    if forward.gateway_prefix is None or upstream is None or below is None:
        return value
    if forward.gateway_prefix:
        return forward.gateway_prefix + below
    # Relative to the URL of the client, which holds the token: it need not be repeated in a header.
    depth = forward.shown.path[len(upstream.base) :].count(b"/") - 1
    return (b"../" * depth or b"./") + below.removeprefix(b"/")


def _same_origin(value: bytes, forward: Forward) -> bytes | None:
    """Path, query and fragment of a reference, if it stays on the upstream's origin."""
    text = value.decode("latin-1")
    try:
        absolute = urljoin(f"{forward.origin}{forward.shown.path.decode('ascii')}", text)
    except ValueError:
        return None
    match = _URL.fullmatch(absolute)
    # Browsers read a backslash as a slash, and so as the end of a host.
    if match is None or "\\" in text or parse_authority(match[2], match[1].lower()) != forward.origin:
        return None
    return match[3].encode("latin-1") or b"/"
