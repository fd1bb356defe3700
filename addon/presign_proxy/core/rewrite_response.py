"""The upstream's response on its way to the client: fields are removed, masked, rewritten and added."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import Denied
from ..http.field_names import header_key
from ..http.message import CONTROLS, TOKEN, Fields
from ..http.response_head import UNFRAMED
from .content_coding import CODINGS, UNREADABLE
from .decision import Forward
from .links import LINKS, MAX_COST, MAX_URLS, Led, cost_of, rewrite_url, weight
from .masked_fields import masked_fields
from .masking import Mask
from .upgrade import SWITCHING, is_of_handshake, switched

_ALWAYS: Final = frozenset(
    b"www-authenticate proxy-authenticate authentication-info proxy-authentication-info keep-alive "
    b"proxy-connection te trailer upgrade surrogate-control x-accel-expires x-accel-redirect "
    b"x-sendfile nel report-to reporting-endpoints content-security-policy-report-only expect-ct "
    b"public-key-pins public-key-pins-report-only access-control-allow-origin "
    b"access-control-allow-credentials access-control-allow-headers access-control-allow-methods "
    b"access-control-allow-private-network access-control-expose-headers access-control-max-age "
    b"timing-allow-origin".split()
)
"""Response headers that are always removed.

They include all headers that make a browser send reports: a report contains the URL of the page, and with it
the presign. They include all headers that let pages of other origins read an answer: the connection says
which pages may (`cors`), and the upstream does not know them.
"""
_GATEWAY_FORM: Final = frozenset(
    b"service-worker-allowed strict-transport-security alt-svc clear-site-data x-content-type-options".split()
)
"""Headers that apply to a whole origin. In gateway form all upstreams share one origin."""
_COOKIES: Final = frozenset((b"set-cookie", b"set-cookie2"))
NOT_IN_TRAILERS: Final = _ALWAYS | _GATEWAY_FORM | _COOKIES
"""Headers that no connection lets pass in trailers."""
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
"""Headers that are removed, by three flags: gateway form, cookies permitted, caching permitted."""
_NEVER_NOMINATED: Final = frozenset((b"connection", b"content-length", b"transfer-encoding"))
_POLICY: Final = b"content-security-policy"
_REPORTING = re.compile(rb"(?:(?<=[;,])|^)[ \t]*report-(?:uri|to)(?![^ \t;,])[^;,]*", re.IGNORECASE)
"""Directives of a policy that make browsers report violations (CSP, level 3, 6.5)."""
_SHARED_CACHING = re.compile(rb"(?:public|proxy-revalidate|s-maxage=.*)", re.IGNORECASE)


class Reply(NamedTuple):
    """A response head: status, reason phrase and fields.

    `encoded` is True if the body must be decoded before it is masked. `sized` is True if a field gives the
    length, `chunked` if a field says that the body is chunked. `links` are rewritten values that contain a
    presign only in the head that is sent to the client.
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
        """The head as it is sent to the client, with presigns that flows do not show."""
        return self._replace(fields=linked(self.fields, self.links)) if self.links else self


def linked(fields: Fields, links: tuple[Led, ...]) -> Fields:
    """Return the fields for the client. A value that another addon has changed meanwhile stays as it is."""
    sent = dict(links)
    return tuple([(name, sent.get(value, value)) for name, value in fields])


def rewrite(reply: Reply, forward: Forward, mask: Mask, limits: Fields = ()) -> Reply:
    """Return the rewritten head. Raises Denied("upstream") if the response must not be forwarded.

    Args:
        limits: the fields that tell what is left of the request's limits. They replace the upstream's own of
            the same names, which tell what is left of the owner's account. Scheme source tells neither.
    """
    handshake = forward.handshake if reply.status == SWITCHING else None
    if not 200 <= reply.status <= 999 and handshake is None:
        raise Denied("upstream", "the upstream switches protocols, or sends an interim response as final")
    names, text = checked_head(reply.reason, reply.fields)
    _check_messages(reply.fields, names, mask)
    switch = switched(reply.fields, handshake) if handshake is not None else ()
    limits = limits if forward.asked is not None else ()
    gone = _gone(reply, names, forward, limits, switches=handshake is not None)
    empty = reply.status in UNFRAMED or handshake is not None
    encoded = b"content-encoding" in names and bool(mask) and _is_encoded(reply)
    encoded = encoded and not empty and forward.facts.method != "HEAD"
    if encoded:
        gone |= {b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest", b"etag"}
    links: list[Led] = []
    fields = [*_kept(reply, names, gone, forward, mask, links), *switch]
    if not forward.connection.conduct.cache:
        cached = b"cache-control" in names
        fields.append((b"Cache-Control", _private(reply.fields) if cached else b"private"))
    reason = mask.mask(reply.reason)
    sent = masked_fields(fields, text, mask)
    if sent is not fields:
        links = [Led(mask.mask(shown), mask.mask(sent)) for shown, sent in links]
    return Reply(
        reply.status,
        reason,
        (*sent, *limits, *_added(forward, gateway=forward.gateway_prefix is not None)),
        encoded,
        b"content-length" in names and b"content-length" not in gone,
        b"transfer-encoding" in names and b"transfer-encoding" not in gone,
        tuple(links),
    )


def _gone(
    reply: Reply, names: list[bytes], forward: Forward, limits: Fields, *, switches: bool
) -> frozenset[bytes]:
    """Return the lower-case names of the fields that are removed."""
    conduct = forward.connection.conduct
    gone = _GONE[forward.gateway_prefix is not None, conduct.cookies, conduct.cache]
    gone |= UNFRAMED.get(reply.status, frozenset())
    if limits:
        gone |= {name.lower() for name, _ in limits}
    if b"connection" in names:
        gone |= _nominated(reply.fields)
    if switches:
        gone |= {b"connection", *[name for name in names if is_of_handshake(header_key(name))]}
    return gone


def _kept(
    reply: Reply,
    names: list[bytes],
    gone: frozenset[bytes],
    forward: Forward,
    mask: Mask,
    links: list[Led],
) -> list[tuple[bytes, bytes]]:
    """Return the fields that are kept. Appends rewritten values to `links`."""
    fields: list[tuple[bytes, bytes]] = []
    named, urls, cost = forward.connection.conduct.url_headers, 0, 0
    for key, (name, value) in zip(names, reply.fields, strict=True):
        if key in gone or key.startswith(b"x-presign") or key.endswith(b"cdn-cache-control"):
            continue
        if key in LINKS or key in named:
            here = weight(key, value)
            urls += here
            cost += cost_of(here, value, forward)
            if urls > MAX_URLS or cost > MAX_COST:
                # A redirect must not be forwarded without a check, so the whole response is refused.
                raise Denied("upstream", "the upstream hands out more URLs than are looked at")
            # Masked after rewriting: rewriting decodes escapes, which may have hidden an echoed credential.
            led = Led(*map(mask.mask, rewrite_url(key, value, reply.status, forward)))
            value = led.shown
            if led.sent != value:
                links.append(led)
        elif key == _POLICY:
            value = _REPORTING.sub(b"", value)
        elif key == b"connection":
            value = b"close" if b"close" in value.lower() else b"keep-alive"
        fields.append((name, value))
    return fields


def checked_head(reason: bytes, fields: Fields) -> tuple[list[bytes], bytes]:
    """Check the grammar of a head. Return its lower-case names, and all of its text, one piece per line.

    Raises Denied("upstream"). mitmproxy refuses some of this too, but quotes it, and with it an echoed key.
    """
    if not fields:
        names, joined = [], b""
    else:
        joined = b"\n".join([name for name, _ in fields])
        names = joined.lower().split(b"\n")
    if joined.translate(None, TOKEN + b"\n") or len(names) != len(fields):
        raise Denied("upstream", "the upstream sends a header name that is not a token")
    values = b"\n".join([reason, *[value for _, value in fields]])
    if len(values.translate(None, CONTROLS)) != len(values) or values.count(b"\n") != len(fields):
        raise Denied("upstream", "the upstream sends a control character in its head")
    return names, b"%b\n%b" % (joined, values)


def _nominated(fields: Fields) -> frozenset[bytes]:
    """Return the names that `Connection` declares as hop-by-hop, without those that frame the message."""
    return frozenset([token.lower() for token in _listed(fields, b"connection")]) - _NEVER_NOMINATED


def _listed(fields: Fields, key: bytes) -> list[bytes]:
    """Return the elements of a list header, from all of its lines (RFC 9110, 5.6.1)."""
    tokens = [token.strip() for name, value in fields if name.lower() == key for token in value.split(b",")]
    return [token for token in tokens if token]


def _is_encoded(reply: Reply) -> bool:
    """Return whether the body has a coding that the gateway decodes.

    Raises Denied("upstream") for any other coding of a body, because the body would be forwarded unmasked.
    """
    named = [token.lower() for token in _listed(reply.fields, b"content-encoding")]
    # Names that are no coding of a body (aws-chunked, utf-8) are ignored: the servers do not encode the body.
    codings = [coding for coding in named if coding in CODINGS | UNREADABLE]
    if not codings:
        return False
    if len(codings) > 1 or codings[0] not in CODINGS or reply.status == 206:
        raise Denied("upstream", "the upstream encodes its body though identity was requested")
    return True


def _check_messages(fields: Fields, names: list[bytes], mask: Mask) -> None:
    """Raise Denied("upstream") if the messages of a gRPC call are compressed: they would pass unmasked."""
    if not mask or b"grpc-encoding" not in names:
        return
    if any(coding.lower() != b"identity" for coding in _listed(fields, b"grpc-encoding")):
        raise Denied("upstream", "the upstream compresses its messages though identity was requested")


def _added(forward: Forward, *, gateway: bool) -> Fields:
    common = (
        (b"Referrer-Policy", b"no-referrer"),
        (b"x-presign-request-id", forward.request_id.encode()),
        *forward.facts.readable,
    )
    if not gateway:
        return common
    # A second policy can only restrict the upstream's own policy further.
    sandbox = ((b"Content-Security-Policy", b"sandbox"), (b"X-Content-Type-Options", b"nosniff"))
    return sandbox + common


def _private(fields: Fields) -> bytes:
    """Return Cache-Control without the directives that let shared caches store (RFC 9111, 5.2.2)."""
    tokens = _listed(fields, b"cache-control")
    tokens = [token for token in tokens if not _SHARED_CACHING.fullmatch(token)]
    if not any(token.lower() in (b"private", b"no-store") for token in tokens):
        tokens.insert(0, b"private")
    return b", ".join(tokens)
