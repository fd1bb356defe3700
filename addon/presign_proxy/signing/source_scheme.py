"""Scheme source (Motioness, `sig`/`exp`): a signed or allowed source URL.

Every refusal of this scheme is a bare 403, so only the audit log contains the details from here.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import Malformed
from ..http.message import Fields, Request
from ..http.query import check_parameters, has_param, target
from . import base64url, grammar
from .source_url import MAX_URL

_MAX_ENCODED: Final = 6 * MAX_URL
"""Most bytes of a source URL in base64url with its format: four UTF-8 bytes a character, and a third more."""

BODY_OF_SOURCE: Final = "a source is asked for without a body"
PREFIX: Final = b"/v1/"
FORM: Final = re.compile(rb"/v1/[^/?]*/")
_FORM = re.compile(rf"/v1/({grammar.CONNECTION_ID})/(.+)".encode(), re.DOTALL)
_SIGNED = re.compile(rf"([A-Za-z0-9_-]+)\.({grammar.EXTENSION})".encode())
_PLAIN = re.compile(rf"(.+)\.({grammar.EXTENSION})".encode(), re.DOTALL)
_EXP = re.compile(grammar.UNIX_TIME.encode())
_SIG = re.compile(grammar.SIGNATURE.encode())
_SIGNED_BY: Final = frozenset((b"sig", b"exp"))
_NAMED: Final = _SIGNED_BY | {b"key"}
_A_SIG = re.compile(rf"(?:^|&)sig={grammar.SIGNATURE}(?![^&])".encode())
_AN_EXP = re.compile(rf"(?:^|&)exp={grammar.UNIX_TIME}(?![^&])".encode())


class Source(NamedTuple):
    """A parsed, unverified source request.

    `url` is the source URL if the request is signed (`signature` and `exp` set). In allowlist mode it has no
    scheme. In interception form `format` is None, because the URL has none, and `project` is empty if the URL
    names none.
    """

    project: str
    url: str
    format: str | None
    signature: str | None
    exp: str | None


def recognise(request: Request) -> Source | None:
    """Return the claim of a request at a gateway host under this scheme, or None. Raises Malformed."""
    match = _FORM.fullmatch(request.path)
    if match is None:
        return None
    project, rest = match[1].decode("ascii"), match[2]
    fields, _ = _fields(request.query)
    if not fields:
        return _plain(project, rest)
    if set(fields) != {b"sig", b"exp"}:
        raise Malformed("one of sig and exp is missing")
    signed = _SIGNED.fullmatch(rest) if len(rest) <= _MAX_ENCODED else None
    if signed is None:
        raise Malformed("the source is not base64url with a format")
    url, extension = base64url.decode(signed[1], "the source"), signed[2].decode("ascii")
    return Source(project, url, extension, fields[b"sig"].decode(), fields[b"exp"].decode())


def names_signature(query: bytes | None) -> bool:
    """Return whether some parser would find `sig` or `exp` in a query."""
    return query is not None and has_param(query, _SIGNED_BY)


def check_bodyless(fields: Fields) -> None:
    """Refuse a request with a body. Raises Malformed.

    Sources are requested with GET and HEAD, and many upstreams do not read a body there.

    Args:
        fields: well-formed, see `message.check_grammar`.
    """
    for name, value in fields:
        key = name.lower()
        if key == b"transfer-encoding" or (key == b"content-length" and value != b"0"):
            raise Malformed(BODY_OF_SOURCE)


def recognise_intercepted(request: Request) -> Source | None:
    """Return the claim of a request that is addressed to an allowed origin, or None. Raises Malformed.

    The source URL is the URL of the request without `sig`, `exp` and `key`; every other byte is kept.
    """
    if not _is_signed(request.query):
        return None
    fields, query = _fields(request.query, named=True)
    try:
        url = f"{request.origin}{target(request.path, query).decode('utf-8')}"
    except UnicodeDecodeError:
        raise Malformed("the source URL is not UTF-8") from None
    key = fields.get(b"key", b"").decode("ascii", "replace")
    return Source(key, url, None, fields[b"sig"].decode(), fields[b"exp"].decode())


def _is_signed(query: bytes | None) -> bool:
    """Return whether a query has a `sig` and an `exp` of our form. Others belong to another service.

    A query with several of them still counts as ours, and is refused as malformed later. If it passed as
    another service's, a good signature in it would leak.
    """
    return query is not None and bool(_A_SIG.search(query) and _AN_EXP.search(query))


def _fields(query: bytes | None, *, named: bool = False) -> tuple[dict[bytes, bytes], bytes | None]:
    """Split a query into `sig`, `exp` (and `key` if `named`) and the rest. Raises Malformed.

    Each of them may occur at most once, and only in this spelling.
    """
    names = _NAMED if named else _SIGNED_BY
    found: dict[bytes, bytes] = {}
    rest: list[bytes] = []
    check_parameters(query)
    for piece in query.split(b"&") if query is not None else ():
        name, equals, value = piece.partition(b"=")
        if name not in names:
            rest.append(piece)
            continue
        if not equals or name in found:
            raise Malformed(f"{name.decode()} has no value or is given twice")
        found[name] = value
    others = b"&".join(rest) if rest else None
    if others is not None and not named and has_param(others, names):
        raise Malformed("a parameter looks like sig or exp but is not spelled like it")
    if b"exp" in found and not _EXP.fullmatch(found[b"exp"]):
        raise Malformed("exp is not a plain Unix time in seconds")
    if b"sig" in found and not _SIG.fullmatch(found[b"sig"]):
        raise Malformed("sig is not 64 lower-case hex digits")
    return found, others


def _plain(project: str, rest: bytes) -> Source:
    match = _PLAIN.fullmatch(rest)
    if match is None:
        raise Malformed("the source has no format")
    try:
        return Source(project, match[1].decode("utf-8"), match[2].decode("ascii"), None, None)
    except UnicodeDecodeError:
        raise Malformed("the source is not UTF-8") from None
