"""Scheme presign (presign.click, `X-Presign-*`): one grant, four carriers.

Recognising is generous and parsing is strict: whatever some parser between here and the upstream could
take for a part of a presign makes the request ours, and ours is well-formed or refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from ..errors import Malformed
from ..message import Head, Request
from ..query import HIDING, fold, form_decode, hidden_names

Carrier = Literal["query", "header", "path", "key"]

MAX_LIST: Final = 8 * 1024
"""Bytes of the methods and of the paths value."""

_FIELDS: Final = {
    b"X-Presign-Connection": "connection_id",
    b"X-Presign-Expires": "expires",
    b"X-Presign-Methods": "methods",
    b"X-Presign-Paths": "paths",
    b"X-Presign-Signature": "signature",
}
_HEADERS: Final = {name.lower(): field for name, field in _FIELDS.items()}
_REQUIRED: Final = ("expires", "methods", "paths", "signature")

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EXPIRES = re.compile(r"0|[1-9][0-9]{0,11}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TOKEN = re.compile(rb"ps1_([A-Za-z0-9_-]+)\.([0-9a-f]{64})")
_TOKEN_START = re.compile(rb"ps[12]_")
# A piece without any of these cannot hide a name that some parser would find in it.
_SUSPICIOUS = re.compile(rb"[;#?]|^[^=]*%|presign", re.IGNORECASE)
_IN_PATH = re.compile(rb"x-presign-[a-z-]+\s*=|/ps[12]_")

API_PROXY: Final = b"/api/proxy/"
TOKEN_PATH: Final = b"/p/"


class Slot(NamedTuple):
    """Where a key token stood: a lower-case header name or a folded query parameter."""

    kind: Literal["header", "param"]
    name: bytes


class Presign(NamedTuple):
    """A parsed, unverified presign.

    `path` is what follows the gateway prefix with its leading slash, or the whole path where the request
    is addressed to the API itself (`gateway` False); `query` is the query without the presign. Both are
    as received.
    """

    carrier: Carrier
    connection_id: str | None
    expires: str
    methods: str
    paths: str
    signature: str
    gateway: bool
    path: bytes
    query: bytes | None
    slot: Slot | None = None


def recognise(request: Request, head: Head, *, gateway: bool) -> Presign | None:
    """What the request claims under this scheme, or None where it carries no part of a presign.

    Args:
        gateway: whether it is addressed to the gateway itself.

    Raises Malformed.
    """
    claimed, query = _from_query(request.query)
    found: list[tuple[Carrier, dict[str, str], Slot | None]] = []
    if claimed:
        found.append(("query", claimed, None))
    if headers := _from_headers(request, head):
        found.append(("header", headers, None))
    for place, token in _key_tokens(request, head):
        found.append(("key", parse_token(token), place))
        if place.kind == "param":
            query = _without_token(query)
    named, path, token_claim = _from_path(request.path, gateway=gateway)
    if token_claim:
        found.append(("path", token_claim, None))
    if not found:
        if named is None:
            return None
        raise Malformed("the URL names a connection but no presign")
    if len(found) > 1:
        raise Malformed("it carries more than one presign: " + ", ".join(carrier for carrier, _, _ in found))
    carrier, fields, slot = found[0]
    if named is not None and fields.setdefault("connection_id", named) != named:
        raise Malformed("two different connections are named")
    return _checked(carrier, fields, slot, gateway, path, query)


def _checked(
    carrier: Carrier,
    fields: dict[str, str],
    slot: Slot | None,
    gateway: bool,
    path: bytes,
    query: bytes | None,
) -> Presign:
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise Malformed(f"the presign has no {', '.join(missing)}")
    connection_id = fields.get("connection_id")
    expires, methods, paths, signature = (fields[name] for name in _REQUIRED)
    if connection_id is not None and not _ID.fullmatch(connection_id):
        raise Malformed("the connection id is not 1 to 64 of A-Z a-z 0-9 _ -")
    if not _EXPIRES.fullmatch(expires):
        raise Malformed(_why_expires(expires))
    if not _SIGNATURE.fullmatch(signature):
        raise Malformed("the signature is not 64 lower-case hex digits")
    if len(methods) > MAX_LIST or len(paths) > MAX_LIST:
        raise Malformed(f"a list is longer than {MAX_LIST} characters")
    # isprintable() is the cheap answer for nearly all; it also says no to some characters that are fine.
    if not (methods.isprintable() and paths.isprintable()) and _CONTROL.search(methods + paths):
        raise Malformed("a list holds a control character")
    return Presign(carrier, connection_id, expires, methods, paths, signature, gateway, path, query, slot)


def _why_expires(expires: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{12}", expires):
        return "expires has 13 digits: milliseconds, where seconds are expected"
    return "expires is neither 0 nor a plain Unix time in seconds"


def _from_query(query: bytes | None) -> tuple[dict[str, str], bytes | None]:
    """The presign fields of a raw query and the rest of it, byte for byte."""
    if query is None or (b"X-Presign-" not in query and b"x-presign" not in fold(query)):
        return {}, query
    fields: dict[str, str] = {}
    rest: list[bytes] = []
    hiding = HIDING.search(query) is not None
    for piece in query.split(b"&"):
        name, equals, value = piece.partition(b"=")
        field = _FIELDS.get(name)
        if field is None:
            if _SUSPICIOUS.search(piece) and any(b"x-presign" in found for found in hidden_names(piece)):
                raise Malformed("a query parameter looks like a presign field but is not spelled like one")
            rest.append(piece)
            continue
        if not equals:
            raise Malformed("a presign parameter has no value")
        if field in fields:
            raise Malformed(f"{field} is given twice")
        if hiding and any(b"x-presign" in found for found in hidden_names(piece)[1:]):
            raise Malformed("a presign field is hidden behind another one")
        fields[field] = form_decode(value)
    return fields, b"&".join(rest) if rest else None


def _from_headers(request: Request, head: Head) -> dict[str, str]:
    fields: dict[str, str] = {}
    if b"presign" not in head.joined:
        return fields
    for raw, value in request.fields:
        name = raw.lower()
        if not name.replace(b"_", b"-").startswith(b"x-presign"):
            continue
        field = _HEADERS.get(name)
        if field is None:
            raise Malformed("a header looks like a presign field but is none")
        if field in fields:
            raise Malformed(f"{field} is given twice")
        try:
            fields[field] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a presign header is not UTF-8") from None
    return fields


def _key_tokens(request: Request, head: Head) -> list[tuple[Slot, bytes]]:
    """Tokens that stand where a credential would: header values, Basic's password, query parameters."""
    found: list[tuple[Slot, bytes]] = []
    if b"authorization" in head.names:
        found += _in_authorization(request, head)
    if b"ps1_" in head.values or b"ps2_" in head.values:
        found += [
            (Slot("header", name), value)
            for name, (_, value) in zip(head.names, request.fields, strict=False)
            if _TOKEN_START.match(value) and not name.startswith(b"x-presign")
        ]
    if request.query and b"=ps" in request.query:
        for piece in request.query.split(b"&"):
            name, _, value = piece.partition(b"=")
            if _TOKEN_START.match(value):
                found.append((Slot("param", fold(name)), value))
    return found


def _in_authorization(request: Request, head: Head) -> Iterator[tuple[Slot, bytes]]:
    """Tokens behind a scheme word, or in Basic's user name and password."""
    for index, name in enumerate(head.names[: len(request.fields)]):
        if name == b"authorization":
            word, _, rest = request.fields[index][1].partition(b" ")
            rest = _basic_token(rest.strip()) if word.lower() == b"basic" else rest.lstrip()
            if _TOKEN_START.match(rest):
                yield Slot("header", name), rest


def _basic_token(encoded: bytes) -> bytes:
    """Basic's password, or its user name where the password is empty (RFC 7617)."""
    try:
        username, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return b""
    return password or username


def _without_token(query: bytes | None) -> bytes | None:
    kept = [piece for piece in (query or b"").split(b"&") if not _TOKEN_START.match(piece.partition(b"=")[2])]
    return b"&".join(kept) if kept else None


def _from_path(path: bytes, *, gateway: bool) -> tuple[str | None, bytes, dict[str, str]]:
    """Connection named in the path, the path behind the gateway prefix, and the claim of a path token."""
    if gateway and path.startswith(API_PROXY):
        named, slash, rest = path[len(API_PROXY) :].partition(b"/")
        return named.decode("ascii", "replace"), slash + rest, {}
    if gateway and path.startswith(TOKEN_PATH):
        token, slash, rest = path[len(TOKEN_PATH) :].partition(b"/")
        return None, slash + rest, parse_token(token)
    if b"x-presign" in (folded := fold(path)) or b"/ps" in folded:
        if _IN_PATH.search(folded):
            raise Malformed("a part of a presign stands in the path")
    return None, path, {}


def parse_token(token: bytes) -> dict[str, str]:
    """The fields of a token, `ps1_` base64url(id LF expires LF methods LF paths) `.` signature.

    Strict: the base64url re-encodes to itself, exactly four fields. Raises Malformed.
    """
    match = _TOKEN.fullmatch(token)
    if not match:
        raise Malformed("the token is not of the form ps1_{base64url}.{signature}")
    encoded, signature = match.groups()
    try:
        payload = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
        if base64.urlsafe_b64encode(payload).rstrip(b"=") != encoded:
            raise Malformed("the token's base64url is not canonical")
        fields = payload.decode("utf-8").split("\n")
    except (binascii.Error, UnicodeDecodeError):
        raise Malformed("the token's payload is not base64url of UTF-8") from None
    if len(fields) != 4:
        raise Malformed("the token does not hold exactly four fields")
    names = ("connection_id", "expires", "methods", "paths")
    return {**dict(zip(names, fields, strict=True)), "signature": signature.decode("ascii")}


def format_token(connection_id: str, expires: str, methods: str, paths: str, signature: str) -> str:
    """The token of a grant; the inverse of `parse_token`."""
    payload = "\n".join((connection_id, expires, methods, paths)).encode()
    return f"ps1_{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.{signature}"
