"""Rewriting of URLs in answers. A URL of the upstream is rewritten so that it goes through the gateway."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urljoin

from ..errors import Denied
from ..http.client_address import public_origin
from ..http.hosts import parse_authority
from ..http.message import Origin
from ..http.paths import canonical_path
from ..signing.carrier_names import TOKEN_PATH
from ..signing.presign_scheme import in_query
from . import policy
from .connection import Connection
from .credentials import Outgoing
from .decision import Forward
from .path_credential import seen_by_clients
from .redirects import comes_back

LINKS: Final = frozenset(
    b"location content-location link operation-location azure-asyncoperation x-goog-upload-url "
    b"x-goog-upload-control-url".split()
)
"""Response headers with URLs that the client may request next."""
MAX_LINKS: Final = 32
"""Most URLs in one `Link` header. No API sends more; in a longer header no URL is rewritten."""
MAX_URLS: Final = 256
"""Most URLs in all such headers of an answer, because each is checked. A head has room for 20,000."""
MAX_COST: Final = 512 * 1024
"""Most bytes that all of them may cost; see `cost_of`."""
_BYTE_COST: Final = 8
"""The cost of a byte of a URL, relative to a byte of the requested URL: each may become an escape."""
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 307, 308))
_URL = re.compile(r"(https?)://([^/?#]+)(.*)", re.IGNORECASE)
_TAIL = re.compile(r"[?#].*")
# A reference without control characters, blanks and backslashes. After a scheme, or at the beginning, `//`
# must be followed by a host at once, because browsers skip any number of slashes before a host.
_REFERENCE = re.compile(
    rb"(?:https?://[^/?#]|//[^/?#]|(?![A-Za-z][A-Za-z0-9+.-]*:|//))[!-\[\]-~]*", re.IGNORECASE
)
# Characters that are illegal in a URL but unambiguous. Not the tab: browsers drop it.
_UNSAFE = re.compile(rb"[\x80-\xff \"<>^`{|}]")
# A URL in a Link header (RFC 8288, 3), or a quoted text. Possessive, so that no text is tried twice.
_LINKED = re.compile(rb'<([^<>]*)>|"(?:[^"\\]|\\.)*+"?')


class Place(NamedTuple):
    """Where a URL leads: the connection at that upstream, the path with query and fragment, and what of it is
    below the base of the upstream, as clients have it; None if it is not below the base.
    """

    connection: Connection
    target: bytes
    below: bytes | None

    @property
    def seen(self) -> bytes | None:
        """The path as it is signed."""
        return None if self.below is None else self.connection.seen(self.below)


class Led(NamedTuple):
    """A rewritten header value: `shown` in a flow, without the presign, and `sent` to the client, with it."""

    shown: bytes
    sent: bytes


def weight(key: bytes, value: bytes) -> int:
    """Return the number of URLs to check in a header."""
    return min(value.count(b"<"), MAX_LINKS) if key == b"link" else 1


def cost_of(urls: int, value: bytes, forward: Forward) -> int:
    """Return the cost of rewriting a header with so many URLs, in bytes.

    Each URL is resolved against the requested one. A URL of one character may be resolved against a path of
    60,000 bytes, and the result may be as long.
    """
    asked = forward.asked.request.target if forward.asked else forward.plain.path
    return _BYTE_COST * len(value) + urls * len(asked)


def rewrite_url(key: bytes, value: bytes, status: int, forward: Forward) -> Led:
    """Rewrite the URLs of a header that is one of `LINKS`, or one that the connection names.

    Raises Denied("redirect_not_allowed") if a client would send its presign to another server.
    """
    if key == b"link":
        return _link(value, forward)
    if key == b"location" and status in _REDIRECTS:
        return _redirect(value, status, forward)
    return _url(value, forward, whole=key != b"content-location")


def _link(value: bytes, forward: Forward) -> Led:
    if value.count(b"<") > MAX_LINKS:
        return Led(value, value)
    shown, sent, at = [], [], 0
    for match in _LINKED.finditer(value):
        if match[1] is None:
            continue
        led = _url(match[1], forward, whole=True)
        between = value[at : match.start(1)]
        shown += [between, led.shown]
        sent += [between, led.sent]
        at = match.end(1)
    rest = value[at:]
    return Led(b"".join([*shown, rest]), b"".join([*sent, rest]))


def _redirect(value: bytes, status: int, forward: Forward) -> Led:
    """Rewrite a redirect to the form of URL that the client used. The gateway never follows redirects.

    A client sends its headers, and a key token in them, again to the target of a redirect. So a redirect away
    from the upstream is refused, unless the client's request to the target goes through the gateway too.
    """
    reference = _encoded(value)
    method = _next_method(forward.facts.method, status)
    place = _place(reference, forward, method)
    in_gateway = forward.gateway_prefix is not None
    stays = place is not None and (place.below is not None or not in_gateway)
    resent = forward.facts.carrier in ("header", "key") and not forward.connection.conduct.redirects
    if resent and not stays and not comes_back(value, forward.proxied):
        why = "a redirect to another origin would take the presign with it"
        raise Denied("redirect_not_allowed", why)
    if place is None:
        return Led(value, value)
    if in_gateway:
        return _at_gateway(place, forward, whole=False, method=method)
    # The client addresses the API itself, and its query with the presign went to the same URL.
    seen = _as_addressed(place)
    led = _with_presign(seen, place, forward, method)
    return led if led.shown != led.sent or seen != place.target else Led(reference, reference)


def _url(value: bytes, forward: Forward, *, whole: bool) -> Led:
    """Rewrite a URL that the client may request later to the gateway's form.

    Args:
        whole: write an absolute URL with the gateway's origin, because some clients resolve no relative ones.
    """
    if forward.gateway_prefix is None:
        return Led(value, value)
    place = _place(_encoded(value), forward)
    return Led(value, value) if place is None else _at_gateway(place, forward, whole=whole)


def _at_gateway(place: Place, forward: Forward, *, whole: bool, method: str | None = None) -> Led:
    """Return a place on an upstream as a URL in the form that the client used."""
    upstream, asked, seen = forward.connection.upstream, forward.asked, place.seen
    if upstream is None or seen is None:
        # Absolute, because a relative URL would go to another connection of the gateway.
        outside = str(forward.origin).encode("ascii") + place.target
        return Led(outside, outside)
    rest = seen + place.target[len(_path_of(place.target)) :]
    origin = public_origin(asked.request, asked.trusted).encode("ascii") if whole and asked else b""
    if forward.facts.carrier != "path":
        url = origin + (forward.gateway_prefix or b"") + rest
        return _with_presign(url, place, forward, method) if whole or method else Led(url, url)
    if not whole or asked is None:
        # Relative to the client's URL, which contains the token, so that no header repeats the token.
        depth = forward.connection.seen(forward.plain.path[len(upstream.base) :]).count(b"/") - 1
        relative = (b"../" * depth or b"./") + rest.removeprefix(b"/")
        return Led(relative, relative)
    path = asked.request.path
    token = path[len(TOKEN_PATH) : path.find(b"/", len(TOKEN_PATH))]
    start = origin + TOKEN_PATH
    return Led(start + _label(forward) + rest, start + token + rest)


def _with_presign(url: bytes, place: Place, forward: Forward, method: str | None) -> Led:
    """Return a URL with the presign of the client's query added, if the presign permits that URL."""
    asked = forward.asked
    presign = in_query(asked.request.query) if asked and forward.facts.carrier in ("query", "key") else b""
    if not presign or not _is_signed(place, method, forward):
        return Led(url, url)
    head, mark, fragment = url.partition(b"#")
    head += b"&" if b"?" in head else b"?"
    return Led(head + _label(forward) + mark + fragment, head + presign + mark + fragment)


def _label(forward: Forward) -> bytes:
    """Return the text that a flow shows in place of the presign."""
    return b"presign:" + forward.connection.id.encode("ascii")


def _is_signed(place: Place, method: str | None, forward: Forward) -> bool:
    """Return whether signature and connection allow a path, and a method if the next one is known."""
    asked, ceiling, seen = forward.asked, forward.connection.ceiling, place.seen
    if asked is None or seen is None:
        return False
    try:
        if method is not None:
            policy.check_method(method.encode("ascii", "replace"), asked.methods, ceiling)
        policy.check_path(seen, asked.paths, ceiling)
    except Denied:
        return False
    return True


def _next_method(method: str, status: int) -> str:
    """Return the method with which clients follow a redirect (RFC 9110, 15.4; Fetch, 4.4)."""
    if status == 303 or (status in (301, 302) and method == "POST"):
        return "HEAD" if method == "HEAD" else "GET"
    return method


def _below(target: bytes, connection: Connection) -> bytes | None:
    """Return the path of a target below the base of the connection; None if it is not below the base."""
    upstream = connection.upstream
    seen = seen_by_clients(connection.injector, _path_of(target))
    return upstream.relative(seen) if upstream and seen is not None else None


def _as_addressed(place: Place) -> bytes:
    """Return a target as a client of the connection addresses it: without a credential in its path."""
    upstream = place.connection.upstream
    if upstream is None or place.below is None:
        return place.target
    return upstream.base + place.below + place.target[len(_path_of(place.target)) :]


def _path_of(target: bytes) -> bytes:
    return target.partition(b"?")[0].partition(b"#")[0]


def _encoded(value: bytes) -> bytes:
    """Percent-encode blanks and raw UTF-8 in a reference, as clients do. Nothing else changes.

    That is safe in the path, the query and the fragment. A host with an escape is not valid, so it never
    counts as the upstream.
    """
    if not _UNSAFE.search(value) or value != value.strip(b" \t"):
        return value
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value
    return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], value)


def _place(reference: bytes, forward: Forward, method: str | None = None) -> Place | None:
    """Return where a reference leads, if all clients resolve it to an upstream of the connection; else None.

    At the gateway, that may be another upstream than the one that has answered, if the presign permits the
    path. What it does not permit there is like any other URL: the client may go there without the presign.
    """
    resolved, known = _resolved(reference, forward), forward.connection
    if resolved is None:
        return None
    origin, target = resolved
    own = Place(known, target, _below(target, known)) if origin == forward.origin else None
    if (own is None or own.below is None) and known.upstreams and forward.gateway_prefix is not None:
        there = [known.at(one) for one in known.upstreams.values() if one.upstream.origin == origin]
        places = [Place(one, target, _below(target, one)) for one in there]
        signed = [one for one in places if _is_signed(one, method, forward)]
        return min(signed, key=lambda one: len(one.below or b""), default=own)  # below the longest base
    return own


def _resolved(value: bytes, forward: Forward) -> tuple[Origin, bytes] | None:
    """Return origin, and path, query and fragment, of a reference that all clients resolve alike.

    None for any other reference, and for one that no client of the gateway may have meant.
    """
    match = _REFERENCE.fullmatch(value)
    if match is None:
        return None
    try:
        # The path that the upstream was asked for, which a credential may be a part of.
        sent = forward.sent if isinstance(forward.sent, Outgoing) else forward.plain
        path = sent.path.decode("ascii")
        absolute = urljoin(f"{forward.origin}{path}", value.decode("ascii"))
    except ValueError:
        return None
    found = _URL.fullmatch(absolute)
    origin = parse_authority(found[2], found[1].lower()) if found is not None else None
    if found is None or origin is None:
        return None
    if origin != forward.origin and not forward.connection.leads_to(origin):
        return None
    path = _TAIL.sub("", found[3])
    tail = found[3][len(path) :]
    try:
        canonical = canonical_path((path or "/").encode("ascii"), allow_encoded_slash=True)
    except Denied:
        return None
    return origin, canonical + tail.encode("ascii")
