"""Source URLs: parsed in the one way every URL parser agrees on, and held against a project's rules."""

from __future__ import annotations

import re
from typing import NamedTuple

from .connections import SourceRules
from .errors import Denied
from .hosts import parse_authority
from .message import Origin
from .schemes.source import MAX_URL

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


class Admitted(NamedTuple):
    """A source URL that a project's rules admit.

    `listed`: an allowed origin admits it, so the project's own networks and that origin's port count;
    `exact`: an allowed origin is exactly this one, so the project's credential may go there.
    """

    url: SourceUrl
    listed: bool
    exact: bool


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


def admit_signed(text: str, rules: SourceRules) -> Admitted:
    """Hold a signed source URL against a project's rules. Raises Denied("invalid")."""
    url = parse_source(text)
    listed = _is_listed(url.origin, rules)
    if not listed and rules.origins and not rules.any_public:
        raise Denied("invalid", "the source is not on an allowed origin")
    return _with_port(url, rules, listed=listed)


def admit_plain(text: str, rules: SourceRules) -> Admitted:
    """Hold an unsigned source without scheme against a project's allowlist. Raises Denied("invalid")."""
    for scheme in ("https", "http"):
        url = parse_source(f"{scheme}://{text}")
        if _is_listed(url.origin, rules):
            return _with_port(url, rules, listed=True)
    raise Denied("invalid", "the source is not on an allowed origin")


def _with_port(url: SourceUrl, rules: SourceRules, *, listed: bool) -> Admitted:
    if not listed and url.origin.port not in (80, 443) and url.origin.port not in rules.ports:
        raise Denied("invalid", "the source's port is not allowed")
    return Admitted(url, listed, url.origin in rules.origins)


def _is_listed(origin: Origin, rules: SourceRules) -> bool:
    """Whether an allowed origin admits this one: itself or a subdomain, on a label boundary."""
    return any(
        (origin.scheme, origin.port) == (allowed.scheme, allowed.port)
        and (origin.host == allowed.host or origin.host.endswith("." + allowed.host))
        for allowed in rules.origins
    )
