"""Source URLs. Only URLs that every URL parser reads alike are accepted."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import Denied
from ..http.hosts import parse_authority
from ..http.message import Origin

MAX_URL: Final = 2048
"""Most characters of a source URL."""

# RFC 3986, appendix B, for http(s) only, without userinfo and fragment. Parsers read backslash, white space
# and control characters differently, so a URL that contains one is refused.
_URL = re.compile(
    r"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#@\\\x00-\x20\x7f]+)(/[^?#\\\x00-\x20\x7f]*)?(\?[^#\\\x00-\x20\x7f]*)?"
)
# Dot segments, plain or encoded. Browsers and most libraries remove them (RFC 3986, 5.2.4); others send them.
_DOTS = re.compile(r"/(?:\.|%2[Ee]){1,2}(?:/|$)")
# A "%" without two hex digits. Because of it, some libraries encode all other "%" of the path once more.
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ILLEGAL = re.compile(r'["<>^`{|}]|[^\x00-\x7f]')


class SourceUrl(NamedTuple):
    """An absolute http(s) URL: the origin, and path and query as they are sent."""

    origin: Origin
    target: bytes


def parse_url(text: str) -> SourceUrl:
    """Parse a URL of at most `MAX_URL` characters. Raises Denied("invalid").

    Characters that are illegal but unambiguous (UTF-8, `>`) are percent-encoded; nothing else changes.
    """
    if len(text) > MAX_URL:
        raise Denied("invalid", f"the source URL is longer than {MAX_URL} characters")
    match = _URL.fullmatch(text)
    origin = parse_authority(match[2], match[1].lower()) if match else None
    if match is None or origin is None or match[2].rpartition(":")[0].endswith(".") or match[2].endswith("."):
        raise Denied("invalid", "the source is not an absolute http(s) URL that all parsers read alike")
    try:
        target = _ILLEGAL.sub(_encoded, (match[3] or "/") + (match[4] or ""))
    except UnicodeEncodeError:
        raise Denied("invalid", "the source URL is not UTF-8") from None
    return SourceUrl(origin, target.encode("ascii"))


def parse_source(text: str) -> SourceUrl:
    """Parse a source URL whose path no parser changes by normalising. Raises Denied("invalid")."""
    url = parse_url(text)
    path = url.target.decode("ascii").partition("?")[0]
    if _DOTS.search(path) or _LONE_PERCENT.search(path):
        raise Denied("invalid", "the source's path holds a dot segment or an incomplete percent-encoding")
    return url


def _encoded(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8"))
