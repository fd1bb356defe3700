"""The upstream's response on its way to the client: what is taken off, masked, rewritten and put on."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import Denied
from ..http.message import CONTROLS, TOKEN, Fields
from ..http.response_head import UNFRAMED
from .content_coding import CODINGS, UNREADABLE
from .decision import Forward
from .links import LINKS, MAX_TOIL, MAX_URLS, Led, lead, toil, weight
from .masking import Mask

_ALWAYS: Final = frozenset(
    b"www-authenticate proxy-authenticate authentication-info proxy-authentication-info keep-alive "
    b"proxy-connection te trailer upgrade surrogate-control x-accel-expires x-accel-redirect "
    b"x-sendfile nel report-to reporting-endpoints content-security-policy-report-only expect-ct "
    b"public-key-pins public-key-pins-report-only".split()
)
"""Among them all that makes a browser report: what it tells a third party holds the URL of the page, and with
it the presign.
"""
_GATEWAY_FORM: Final = frozenset(
    b"service-worker-allowed strict-transport-security alt-svc clear-site-data x-content-type-options".split()
)
"""Headers that speak for a whole origin, which in gateway form all upstreams share."""
_COOKIES: Final = frozenset((b"set-cookie", b"set-cookie2"))
_GONE: Final = {
    (gateway, cookies, cache): _ALWAYS
    | {b"referrer-policy"}
    | (_GATEWAY_FORM if gateway else frozenset())
    | (frozenset() if cookies else _COOKIES)
    | (frozenset() if cache else {b"cache-control"})
    for gateway in (False, True)
    for cookies in (False, True)
    for cache in (False, True)
}
"""What is taken off: in gateway form or not, where cookies pass or not, where caching passes or not."""
_NEVER_NOMINATED: Final = frozenset((b"connection", b"content-length", b"transfer-encoding"))
_POLICY: Final = b"content-security-policy"
_REPORTING = re.compile(rb"(?:(?<=[;,])|^)[ \t]*report-(?:uri|to)(?![^ \t;,])[^;,]*", re.IGNORECASE)
"""Directives of a policy that say who is told where it was broken (CSP, level 3, 6.5)."""
_SHARED_CACHING = re.compile(rb"(?:public|proxy-revalidate|s-maxage=.*)", re.IGNORECASE)


class Reply(NamedTuple):
    """A response head: status, reason phrase and fields; whether its body must be decoded to be masked, and
    whether its fields tell its length, or that it comes in chunks.

    `links` are values of fields that hold a presign only on their way to the client.
    """

    status: int
    reason: bytes
    fields: Fields
    encoded: bool = False
    sized: bool = False
    chunked: bool = False
    links: tuple[Led, ...] = ()

    @property
    def sent(self) -> Reply:
        """The head that the client gets, where nobody else sees it."""
        return self._replace(fields=linked(self.fields, self.links)) if self.links else self


def linked(fields: Fields, links: tuple[Led, ...]) -> Fields:
    """Fields as the client gets them; a value that somebody has changed meanwhile stays as it is."""
    sent = dict(links)
    return tuple([(name, sent.get(value, value)) for name, value in fields])


def rewrite(reply: Reply, forward: Forward, mask: Mask) -> Reply:
    """The head as the client gets it. Raises Denied("upstream") where it must not be passed on."""
    if not 200 <= reply.status <= 999:
        raise Denied("upstream", "the upstream switches protocols, or sends an interim response as final")
    names, text = _checked(reply)
    conduct = forward.connection.conduct
    gateway = forward.gateway_prefix is not None
    gone = _GONE[gateway, conduct.cookies, conduct.cache]
    empty = reply.status in UNFRAMED
    encoded = b"content-encoding" in names and bool(mask) and _is_encoded(reply)
    encoded = encoded and not empty and forward.facts.method != "HEAD"
    gone |= UNFRAMED.get(reply.status, frozenset())
    if b"connection" in names:
        gone |= _nominated(reply.fields)
    if encoded:
        gone |= {b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest", b"etag"}
    links: list[Led] = []
    fields = _kept(reply, names, gone, forward, mask, links)
    if not conduct.cache:
        cached = b"cache-control" in names
        fields.append((b"Cache-Control", _private(reply.fields) if cached else b"private"))
    reason = reply.reason
    if mask.mask(text) != text:
        fields = _masked(fields, mask)
        reason = mask.mask(reason)
        links = [Led(mask.mask(shown), mask.mask(sent)) for shown, sent in links]
    fields += _added(forward, gateway=gateway)
    return Reply(
        reply.status,
        reason,
        tuple(fields),
        encoded,
        b"content-length" in names and b"content-length" not in gone,
        b"transfer-encoding" in names and b"transfer-encoding" not in gone,
        tuple(links),
    )


def _masked(fields: list[tuple[bytes, bytes]], mask: Mask) -> list[tuple[bytes, bytes]]:
    """All fields masked in one go: one by one, each costs a search for each form, and there may be 60,000.
    A mask is as long as what it hides, and no field holds the line break that stands between them.
    """
    if not fields:
        return []
    pieces = mask.mask(b"\n".join([piece for field in fields for piece in field])).split(b"\n")
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _kept(
    reply: Reply,
    names: list[bytes],
    gone: frozenset[bytes],
    forward: Forward,
    mask: Mask,
    links: list[Led],
) -> list[tuple[bytes, bytes]]:
    """The fields that go on; `links` are added to."""
    fields: list[tuple[bytes, bytes]] = []
    named, urls, cost = forward.connection.conduct.url_headers, 0, 0
    for key, (name, value) in zip(names, reply.fields, strict=True):
        if key in gone or key.startswith(b"x-presign") or key.endswith(b"cdn-cache-control"):
            continue
        if key in LINKS or key in named:
            here = weight(key, value)
            urls += here
            cost += toil(here, value, forward)
            if urls > MAX_URLS or cost > MAX_TOIL:
                # A redirect may not pass unseen, so nothing of the head does.
                raise Denied("upstream", "the upstream hands out more URLs than are looked at")
            # Rewriting takes escapes off, under which an echoed credential was not seen.
            led = Led(*map(mask.mask, lead(key, value, reply.status, forward)))
            value = led.shown
            if led.sent != value:
                links.append(led)
        elif key == _POLICY:
            value = _REPORTING.sub(b"", value)
        elif key == b"connection":
            value = b"close" if b"close" in value.lower() else b"keep-alive"
        fields.append((name, value))
    return fields


def _checked(reply: Reply) -> tuple[list[bytes], bytes]:
    """The lower-case names of a head, and all of its text, one piece a line. Raises Denied("upstream").

    mitmproxy refuses some of it too, but quotes it, with an echoed key.
    """
    if not reply.fields:
        names, joined = [], b""
    else:
        joined = b"\n".join([name for name, _ in reply.fields])
        names = joined.lower().split(b"\n")
    if joined.translate(None, TOKEN + b"\n") or len(names) != len(reply.fields):
        raise Denied("upstream", "the upstream sends a header name that is not a token")
    values = b"\n".join([reply.reason, *[value for _, value in reply.fields]])
    if len(values.translate(None, CONTROLS)) != len(values) or values.count(b"\n") != len(reply.fields):
        raise Denied("upstream", "the upstream sends a control character in its head")
    return names, b"%b\n%b" % (joined, values)


def _nominated(fields: Fields) -> frozenset[bytes]:
    """What `Connection` declares to be for this connection only, without what frames the message."""
    return frozenset([token.lower() for token in _listed(fields, b"connection")]) - _NEVER_NOMINATED


def _listed(fields: Fields, key: bytes) -> list[bytes]:
    """The elements of a header that is a list, over all its lines (RFC 9110, 5.6.1)."""
    tokens = [token.strip() for name, value in fields if name.lower() == key for token in value.split(b",")]
    return [token for token in tokens if token]


def _is_encoded(reply: Reply) -> bool:
    """Raises Denied("upstream") for a coding that cannot be taken off: it would be passed on unread."""
    named = [token.lower() for token in _listed(reply.fields, b"content-encoding")]
    # Of what is no coding of a body (aws-chunked, utf-8), servers have sent the name and nothing else.
    codings = [coding for coding in named if coding in CODINGS | UNREADABLE]
    if not codings:
        return False
    if len(codings) > 1 or codings[0] not in CODINGS or reply.status == 206:
        raise Denied("upstream", "the upstream encodes its body though identity was requested")
    return True


def _added(forward: Forward, *, gateway: bool) -> Fields:
    common = ((b"Referrer-Policy", b"no-referrer"), (b"x-presign-request-id", forward.request_id.encode()))
    if not gateway:
        return common
    # A second policy can only restrict what the upstream's own allows.
    sandbox = ((b"Content-Security-Policy", b"sandbox"), (b"X-Content-Type-Options", b"nosniff"))
    return sandbox + common


def _private(fields: Fields) -> bytes:
    """The Cache-Control of the upstream without what lets shared caches store (RFC 9111, 5.2.2)."""
    tokens = _listed(fields, b"cache-control")
    tokens = [token for token in tokens if not _SHARED_CACHING.fullmatch(token)]
    if not any(token.lower() in (b"private", b"no-store") for token in tokens):
        tokens.insert(0, b"private")
    return b", ".join(tokens)
