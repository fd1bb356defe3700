"""URLs that an answer hands out. Where one leads into the upstream, it is led through the gateway."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urljoin

from ..errors import Denied
from ..http.client_address import public_origin
from ..http.hosts import parse_authority
from ..http.paths import canonical_path
from ..signing.carrier_names import TOKEN_PATH
from ..signing.presign_scheme import in_query
from . import policy
from .decision import Forward
from .redirects import comes_back

LINKS: Final = frozenset(
    b"location content-location link operation-location azure-asyncoperation x-goog-upload-url "
    b"x-goog-upload-control-url".split()
)
"""Response headers that hold URLs for the client to ask next."""
MAX_LINKS: Final = 32
"""URLs in one `Link` header; of a longer one, which no API sends, none is led through the gateway."""
MAX_URLS: Final = 256
"""URLs in all such headers of an answer. Each costs a look at what was signed: a head has room for 20,000."""
MAX_TOIL: Final = 512 * 1024
"""Bytes that all of them may cost; see `toil`."""
_DEAR: Final = 8
"""What a byte of a URL costs, in bytes of the URL that was asked: each may become an escape."""
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 307, 308))
_URL = re.compile(r"(https?)://([^/?#]+)(.*)", re.IGNORECASE)
_TAIL = re.compile(r"[?#].*")
# A reference without controls, blanks and backslashes; with a scheme it has exactly two slashes and a host,
# as it must have after two slashes without one. Browsers make a host of what follows any number of slashes.
_REFERENCE = re.compile(
    rb"(?:https?://[^/?#]|//[^/?#]|(?![A-Za-z][A-Za-z0-9+.-]*:|//))[!-\[\]-~]*", re.IGNORECASE
)
# What may not stand in a URL and has one meaning there all the same. No tab: browsers drop it.
_UNSAFE = re.compile(rb"[\x80-\xff \"<>^`{|}]")
# A URL of a Link (RFC 8288, 3), or a quoted text beside one. What is begun is not tried a second time.
_LINKED = re.compile(rb'<([^<>]*)>|"(?:[^"\\]|\\.)*+"?')


class Led(NamedTuple):
    """A header value as people see it in a flow, and as the client gets it: only there is the presign."""

    shown: bytes
    sent: bytes


def weight(key: bytes, value: bytes) -> int:
    """How many URLs of a header are looked at."""
    return min(value.count(b"<"), MAX_LINKS) if key == b"link" else 1


def toil(urls: int, value: bytes, forward: Forward) -> int:
    """What it costs to look at a header with so many URLs, in bytes. Each is held against the one that was
    asked: one of a letter is resolved against 60,000 of those, and may come out as long.
    """
    asked = forward.asked.request.target if forward.asked else forward.plain.path
    return _DEAR * len(value) + urls * len(asked)


def lead(key: bytes, value: bytes, status: int, forward: Forward) -> Led:
    """What becomes of a header that is one of `LINKS`, or one that its connection names.

    Raises Denied("redirect_not_allowed") where a client would take its presign to somebody else.
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
    """Where a redirect leads, in the form of URL the client used; never followed by us.

    A client re-sends its headers, and a key token with them, to wherever it is redirected: away from the
    upstream as the client addresses it, that is refused, unless the gateway stands before that place too.
    """
    reference = _encoded(value)
    target = _on_upstream(reference, forward)
    below = None if target is None else _below(target, forward)
    in_gateway = forward.gateway_prefix is not None
    stays = below is not None if in_gateway else target is not None
    resent = forward.facts.carrier in ("header", "key") and not forward.connection.conduct.redirects
    if resent and not stays and not comes_back(value, forward.proxied):
        why = "a redirect to another origin would take the presign with it"
        raise Denied("redirect_not_allowed", why)
    method = _next_method(forward.facts.method, status)
    if target is None:
        return Led(value, value)
    if in_gateway:
        return _at_gateway(target, below, forward, whole=False, method=method)
    # To the API's own URL, from which the client comes, and to which its query went as well.
    led = _with_presign(target, below, forward, method)
    return led if led.shown != led.sent else Led(reference, reference)


def _url(value: bytes, forward: Forward, *, whole: bool) -> Led:
    """A URL that the client may ask later, in the gateway's form.

    Args:
        whole: with the gateway's origin, as clients want it that do not resolve what is relative.
    """
    if forward.gateway_prefix is None:
        return Led(value, value)
    target = _on_upstream(_encoded(value), forward)
    if target is None:
        return Led(value, value)
    return _at_gateway(target, _below(target, forward), forward, whole=whole)


def _at_gateway(
    target: bytes, below: bytes | None, forward: Forward, *, whole: bool, method: str | None = None
) -> Led:
    """A target of the upstream's origin in the form that the client used."""
    upstream, asked = forward.connection.upstream, forward.asked
    if upstream is None or below is None:
        # Absolute, because relative to the gateway it would lead to somebody else.
        outside = str(forward.origin).encode("ascii") + target
        return Led(outside, outside)
    rest = target[len(upstream.base) :]
    origin = public_origin(asked.request, asked.trusted).encode("ascii") if whole and asked else b""
    if forward.facts.carrier != "path":
        url = origin + (forward.gateway_prefix or b"") + rest
        return _with_presign(url, below, forward, method) if whole or method else Led(url, url)
    if not whole or asked is None:
        # Relative to the URL of the client, which holds the token: it need not be repeated in a header.
        depth = forward.plain.path[len(upstream.base) :].count(b"/") - 1
        relative = (b"../" * depth or b"./") + rest.removeprefix(b"/")
        return Led(relative, relative)
    path = asked.request.path
    token = path[len(TOKEN_PATH) : path.find(b"/", len(TOKEN_PATH))]
    start = origin + TOKEN_PATH
    return Led(start + _label(forward) + rest, start + token + rest)


def _with_presign(url: bytes, below: bytes | None, forward: Forward, method: str | None) -> Led:
    """A URL with the presign that the client has in its query, where that would be granted."""
    asked = forward.asked
    presign = in_query(asked.request.query) if asked and forward.facts.carrier in ("query", "key") else b""
    if not presign or below is None or not _is_signed(below, method, forward):
        return Led(url, url)
    head, mark, fragment = url.partition(b"#")
    head += b"&" if b"?" in head else b"?"
    return Led(head + _label(forward) + mark + fragment, head + presign + mark + fragment)


def _label(forward: Forward) -> bytes:
    """Stands in a flow where the presign is."""
    return b"presign:" + forward.connection.id.encode("ascii")


def _is_signed(path: bytes, method: str | None, forward: Forward) -> bool:
    """Whether signature and connection allow a path; and a method, where it is known which one comes."""
    asked, ceiling = forward.asked, forward.connection.ceiling
    if asked is None:
        return False
    try:
        if method is not None:
            policy.check_method(method.encode("ascii", "replace"), asked.methods, ceiling)
        policy.check_path(path, asked.paths, ceiling)
    except Denied:
        return False
    return True


def _next_method(method: str, status: int) -> str:
    """With which method clients follow a redirect (RFC 9110, 15.4; Fetch, 4.4)."""
    if status == 303 or (status in (301, 302) and method == "POST"):
        return "HEAD" if method == "HEAD" else "GET"
    return method


def _below(target: bytes, forward: Forward) -> bytes | None:
    """The path of a target below the base of the connection; None where it is not below."""
    upstream = forward.connection.upstream
    return upstream.relative(target.partition(b"?")[0].partition(b"#")[0]) if upstream else None


def _encoded(value: bytes) -> bytes:
    """A reference with blanks and raw UTF-8 percent-encoded, as clients would; what else it is, stays.

    Only what stands in the path, the query or the fragment is the same then: a host with an escape is none.
    """
    if not _UNSAFE.search(value) or value != value.strip(b" \t"):
        return value
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value
    return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], value)


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
