"""Scheme source (Motioness, `sig`/`exp`): a signed or allowed source URL.

Every refusal of this scheme is a bare 403, so the details here reach the audit log only.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .. import base64url, grammar
from ..errors import Malformed
from ..message import Request
from ..query import hidden_names, target

PREFIX: Final = b"/v1/"
FORM: Final = re.compile(rb"/v1/[^/?]*/")
_FORM = re.compile(rf"/v1/({grammar.CONNECTION_ID})/(.+)".encode(), re.DOTALL)
_SIGNED = re.compile(rf"([A-Za-z0-9_-]+)\.({grammar.EXTENSION})".encode())
_PLAIN = re.compile(rf"(.+)\.({grammar.EXTENSION})".encode(), re.DOTALL)
_EXP = re.compile(grammar.UNIX_TIME.encode())
_SIG = re.compile(grammar.SIGNATURE.encode())


class Source(NamedTuple):
    """A parsed, unverified source request.

    `url` is the source URL where the request is signed (`signature` and `exp` set); in allowlist mode it
    is without its scheme. In interception form `format` is None, for the URL has none, and `project` is
    empty where none is named.
    """

    project: str
    url: str
    format: str | None
    signature: str | None
    exp: str | None


def recognise(request: Request) -> Source | None:
    """What a request at a gateway host claims under this scheme, or None. Raises Malformed."""
    match = _FORM.fullmatch(request.path)
    if match is None:
        return None
    project, rest = match[1].decode("ascii"), match[2]
    fields, _ = _fields(request.query)
    if not fields:
        return _plain(project, rest)
    if set(fields) != {b"sig", b"exp"}:
        raise Malformed("one of sig and exp is missing")
    signed = _SIGNED.fullmatch(rest)
    if signed is None:
        raise Malformed("the source is not base64url with a format")
    url, extension = base64url.decode(signed[1], "the source"), signed[2].decode("ascii")
    return Source(project, url, extension, fields[b"sig"].decode(), fields[b"exp"].decode())


def recognise_intercepted(request: Request) -> Source | None:
    """What a request addressed to an allowed origin itself claims, or None. Raises Malformed.

    The source URL is the request's with `sig`, `exp` and `key` removed and every other byte kept.
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
    """Whether a query carries a `sig` and an `exp` that could be ours; else they belong to other people.

    More than one of either makes it malformed rather than somebody else's: the good one would leak.
    """
    found = [piece.partition(b"=") for piece in (query or b"").split(b"&")]
    return any(name == b"sig" and _SIG.fullmatch(value) for name, _, value in found) and any(
        name == b"exp" and _EXP.fullmatch(value) for name, _, value in found
    )


def _fields(query: bytes | None, *, named: bool = False) -> tuple[dict[bytes, bytes], bytes | None]:
    """`sig` and `exp` (and `key`), each at most once and spelled so, and the rest of the query."""
    names = {b"sig", b"exp", b"key"} if named else {b"sig", b"exp"}
    found: dict[bytes, bytes] = {}
    rest: list[bytes] = []
    for piece in query.split(b"&") if query is not None else ():
        name, equals, value = piece.partition(b"=")
        if name not in names:
            if not named and names.intersection(hidden_names(piece)):
                raise Malformed("a parameter looks like sig or exp but is not spelled like it")
            rest.append(piece)
            continue
        if not equals or name in found:
            raise Malformed(f"{name.decode()} has no value or is given twice")
        found[name] = value
    if b"exp" in found and not _EXP.fullmatch(found[b"exp"]):
        raise Malformed("exp is not a plain Unix time in seconds")
    if b"sig" in found and not _SIG.fullmatch(found[b"sig"]):
        raise Malformed("sig is not 64 lower-case hex digits")
    return found, b"&".join(rest) if rest else None


def _plain(project: str, rest: bytes) -> Source:
    match = _PLAIN.fullmatch(rest)
    if match is None:
        raise Malformed("the source has no format")
    try:
        return Source(project, match[1].decode("utf-8"), match[2].decode("ascii"), None, None)
    except UnicodeDecodeError:
        raise Malformed("the source is not UTF-8") from None
