"""Source URLs, parsed in the one way every URL parser agrees on."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import Denied
from ..http.hosts import parse_authority
from ..http.message import Origin

MAX_URL: Final = 2048
"""Characters of a source URL."""

# RFC 3986, appendix B, for http(s) only, without userinfo and fragment. Backslash, white space and
# controls are read differently by every second parser, so a URL that holds one is none.
_URL = re.compile(
    r"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#@\\\x00-\x20\x7f]+)(/[^?#\\\x00-\x20\x7f]*)?(\?[^#\\\x00-\x20\x7f]*)?"
)
# Browsers and most libraries remove these (RFC 3986, 5.2.4), encoded too; others send them as they are.
_DOTS = re.compile(r"/(?:\.|%2[Ee]){1,2}(?:/|$)")
# A lone "%" makes some libraries encode every other one of the path once more.
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ILLEGAL = re.compile(r'["<>^`{|}]|[^\x00-\x7f]')


class SourceUrl(NamedTuple):
    """An absolute http(s) URL: origin, and path and query as they go on the wire."""

    origin: Origin
    target: bytes


def parse_url(text: str) -> SourceUrl:
    """Parse a URL of at most `MAX_URL` characters. Raises Denied("invalid").

    What is not legal in a URL but unambiguous (UTF-8, `>`) is percent-encoded; nothing else changes.
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
    """Parse a source URL: its path, too, is one that no parser normalises. Raises Denied("invalid")."""
    url = parse_url(text)
    path = url.target.decode("ascii").partition("?")[0]
    if _DOTS.search(path) or _LONE_PERCENT.search(path):
        raise Denied("invalid", "the source's path holds a dot segment or an incomplete percent-encoding")
    return url


def _encoded(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8"))
