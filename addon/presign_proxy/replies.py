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
from .message import CONTROLS, TOKEN, Fields
from .paths import canonical_path

_ALWAYS: Final = frozenset(
    b"www-authenticate proxy-authenticate authentication-info proxy-authentication-info keep-alive "
    b"proxy-connection te trailer upgrade surrogate-control x-accel-expires x-accel-redirect "
    b"x-sendfile".split()
)
_GATEWAY_FORM: Final = frozenset(
    b"service-worker-allowed strict-transport-security alt-svc clear-site-data x-content-type-options nel "
    b"report-to reporting-endpoints".split()
)
"""Headers that speak for a whole origin, which in gateway form all upstreams share."""
_LOCATIONS: Final = frozenset((b"location", b"content-location"))
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
_SHARED_CACHING = re.compile(rb"(?:public|proxy-revalidate|s-maxage=.*)", re.IGNORECASE)
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 307, 308))
_URL = re.compile(r"(https?)://([^/?#]+)(.*)", re.IGNORECASE)
_TAIL = re.compile(r"[?#].*")
# A reference without controls, blanks and backslashes; with a scheme it has exactly two slashes and a host,
# as it must have after two slashes without one. Browsers make a host of what follows any number of slashes.
_REFERENCE = re.compile(
    rb"(?:https?://[^/?#]|//[^/?#]|(?![A-Za-z][A-Za-z0-9+.-]*:|//))[!-\[\]-~]*", re.IGNORECASE
)


class Reply(NamedTuple):
    """A response head: status, reason phrase and fields; whether its body must be decoded to be masked, and
    whether its fields tell its length, or that it comes in chunks.
    """

    status: int
    reason: bytes
    fields: Fields
    encoded: bool = False
    sized: bool = False
    chunked: bool = False


def rewrite(reply: Reply, forward: Forward, mask: Mask) -> Reply:
    """The head as the client gets it. Raises Denied("upstream") where it must not be passed on."""
    if not 200 <= reply.status <= 999:
        raise Denied("upstream", "the upstream switches protocols, or sends an interim response as final")
    names, text = _checked(reply)
    conduct = forward.connection.conduct
    gateway = forward.gateway_prefix is not None
    gone = _GONE[gateway, conduct.cookies, conduct.cache]
    empty = reply.status in (204, 304)
    encoded = b"content-encoding" in names and bool(mask) and _is_encoded(reply)
    encoded = encoded and not empty and forward.facts.method != "HEAD"
    if empty:
        gone |= {b"transfer-encoding"}  # mitmproxy would end a body that is not there
    if b"connection" in names:
        gone |= _nominated(reply.fields)
    if encoded:
        gone |= {b"content-encoding", b"content-length", b"content-md5", b"digest", b"repr-digest", b"etag"}
    fields = _kept(reply, names, gone, forward)
    if not conduct.cache:
        cached = b"cache-control" in names
        fields.append((b"Cache-Control", _private(reply.fields) if cached else b"private"))
    reason = reply.reason
    if mask.mask(text) != text:
        fields = [(mask.mask(name), mask.mask(value)) for name, value in fields]
        reason = mask.mask(reason)
    fields += _added(forward, gateway=gateway)
    return Reply(
        reply.status,
        reason,
        tuple(fields),
        encoded,
        b"content-length" in names and b"content-length" not in gone,
        b"transfer-encoding" in names and b"transfer-encoding" not in gone,
    )


def _kept(
    reply: Reply, names: list[bytes], gone: frozenset[bytes], forward: Forward
) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for key, (name, value) in zip(names, reply.fields, strict=True):
        if key in gone or key.startswith(b"x-presign") or key.endswith(b"cdn-cache-control"):
            continue
        if key in _LOCATIONS:
            value = _location(key, value, reply.status, forward)
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
    if b"transfer-encoding" in names:
        for name, value in reply.fields:
            if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise Denied("upstream", "the upstream encodes its body for the transfer")
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
    codings = [token.lower() for token in _listed(reply.fields, b"content-encoding")]
    codings = [coding for coding in codings if coding != b"identity"]
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


def _location(key: bytes, value: bytes, status: int, forward: Forward) -> bytes:
    """Where a redirect leads, in the form of URL the client used; never followed by us.

    A client re-sends its headers, and a key token with them, to wherever it is redirected: away from the
    upstream as the client addresses it, that is refused.
    """
    in_gateway = forward.gateway_prefix is not None
    target = _on_upstream(value, forward)
    upstream = forward.connection.upstream
    below = upstream.relative(target.partition(b"?")[0].partition(b"#")[0]) if upstream and target else None
    stays = target is not None if not in_gateway else below is not None
    resent = forward.facts.carrier in ("header", "key") and not forward.connection.conduct.redirects
    if resent and not stays and key == b"location" and status in _REDIRECTS:
        raise Denied("upstream", "a redirect to another origin would take the presign with it")
    if target is None or not in_gateway:
        return value
    if upstream is None or below is None:
        # Absolute, because relative to the gateway it would lead to somebody else.
        return str(forward.origin).encode("ascii") + target
    rest = target[len(upstream.base) :]
    if forward.gateway_prefix:
        return forward.gateway_prefix + rest
    # Relative to the URL of the client, which holds the token: it need not be repeated in a header.
    depth = forward.plain.path[len(upstream.base) :].count(b"/") - 1
    return (b"../" * depth or b"./") + rest.removeprefix(b"/")


def _on_upstream(value: bytes, forward: Forward) -> bytes | None:
    """Path, query and fragment of a reference that every client resolves to the upstream's own origin."""
    match = _REFERENCE.fullmatch(value)
    if match is None:
        return None
    try:
        absolute = urljoin(f"{forward.origin}{forward.plain.path.decode('ascii')}", value.decode("ascii"))
    except ValueError:
        return None
    found = _URL.fullmatch(absolute)
    if found is None or parse_authority(found[2], found[1].lower()) != forward.origin:
        return None
    path = _TAIL.sub("", found[3])
    tail = found[3][len(path) :]
    try:
        return canonical_path((path or "/").encode("ascii"), allow_encoded_slash=True) + tail.encode("ascii")
    except Denied:
        return None
