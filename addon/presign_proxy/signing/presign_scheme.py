"""Scheme presign (presign.click, `X-Presign-*`): one grant, four carriers.

Recognition is generous and parsing is strict. A request is ours if any parser between here and the upstream
could take something in it for a part of a presign. A request that is ours is well-formed or refused.

Bytes are searched with `find`. CPython's `in` first tries to take its argument as a number, and to raise and
drop that TypeError takes ten times as long as the search.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from ..errors import Malformed
from ..http.field_names import fold, fold_decoded
from ..http.message import Head, Request
from ..http.percent import CONTROL, decodings
from ..http.query import MAX_PARAMETERS, check_parameters, form_decode, hides
from . import grammar
from .carrier_names import API_PROXY, MAX_LIST, NAMES, TERMS, TOKEN_PATH
from .disclosure import discloses, shows_signature
from .key_token import NOTHING, Beside, KeyToken, TokenSlot, check_once, key_tokens, without_token
from .signed_policy import PolicyText, check_written
from .tokens import has_start, parse_token, shows_token, split_shape

Carrier = Literal["query", "header", "path", "key"]

_MAX_VALUE: Final = 3 * MAX_LIST
"""Most bytes of a value in a query, where each byte may be an escape."""

_FIELDS: Final = {name.encode(): field for field, name in (NAMES | TERMS).items()}
_HEADERS: Final = {name.lower(): field for name, field in _FIELDS.items()}
_REQUIRED: Final = ("expires", "methods", "paths", "signature")

_ID = re.compile(grammar.CONNECTION_ID)
_EXPIRES = re.compile(grammar.UNIX_TIME)
_SIGNATURE = re.compile(grammar.SIGNATURE)
_CONTROL = re.compile(CONTROL)
_SPELLED = re.compile(rb"(?:^|&)(?:" + b"|".join(_FIELDS) + rb")(?![^=&])")
_HIDING = re.compile(rb"[;#?]")
_LOOKALIKE: Final = b"x-presign"
_IN_PATH = re.compile(rb"x-presign-(?:" + b"|".join(name[10:].lower() for name in _FIELDS) + rb")\s{0,4}=")


class Presign(NamedTuple):
    """A parsed, unverified presign.

    `path` is the path after the gateway prefix, with its leading slash. If the request is addressed to the
    API itself (`gateway` False), it is the whole path. `query` is the query without the presign. Both are as
    received.
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
    slots: tuple[TokenSlot, ...] = ()
    """The places of the token of carrier key. Some clients fill several places from one key."""
    written: PolicyText | None = None
    """The signed policy (version 2); None in version 1."""
    beside: tuple[Beside, ...] = ()
    """What stands beside the token in its places, where anything does."""


def recognise(request: Request, head: Head, *, gateway: bool) -> Presign | None:
    """Return the claim of a request under this scheme, or None if it carries no part of a presign.

    Args:
        gateway: True if the request is addressed to the gateway itself.

    Raises Malformed.
    """
    if discloses(request.method):
        raise Malformed("there is a presign in the method")
    raw_path, mark, raw_query = request.target.partition(b"?")
    claimed, query, tokens = _from_query(raw_query if mark else None)
    found: list[tuple[Carrier, dict[str, str]]] = []
    if claimed:
        found.append(("query", claimed))
    if headers := _from_headers(request, head):
        found.append(("header", headers))
    keys = key_tokens(request, head, query if tokens else None)
    # The same key token may be in several slots: some SDKs fill two of them from one key.
    found += [("key", parse_token(token)) for token in dict.fromkeys([one.token for one in keys])]
    if any(one.slot.kind == "param" for one in keys):
        query = without_token(query)
    named, path, token_claim = _from_path(raw_path, gateway=gateway)
    if token_claim:
        found.append(("path", token_claim))
    if not found:
        if named is None:
            return None
        raise Malformed("the URL names a connection but no presign")
    if len(found) > 1:
        raise Malformed("it carries more than one presign: " + ", ".join(carrier for carrier, _ in found))
    check_once(keys)
    carrier, fields = found[0]
    if named is not None and fields.setdefault("connection_id", named) != named:
        raise Malformed("two different connections are named")
    return _checked(carrier, fields, keys, gateway, path, query)


def _checked(
    carrier: Carrier,
    fields: dict[str, str],
    keys: list[KeyToken],
    gateway: bool,
    path: bytes,
    query: bytes | None,
) -> Presign:
    try:
        expires, methods = fields["expires"], fields["methods"]
        paths, signature = fields["paths"], fields["signature"]
    except KeyError:
        missing = [name for name in _REQUIRED if name not in fields]
        raise Malformed(f"the presign has no {', '.join(missing)}") from None
    connection_id = fields.get("connection_id")
    if connection_id is not None and not _ID.fullmatch(connection_id):
        raise Malformed("the connection id is not 1 to 64 of A-Z a-z 0-9 _ -")
    if not _EXPIRES.fullmatch(expires):
        raise Malformed(_why_expires(expires))
    if not _SIGNATURE.fullmatch(signature):
        raise Malformed("the signature is not 64 lower-case hex digits")
    if max(len(methods), len(paths)) > MAX_LIST // 4 and (
        len(methods.encode()) > MAX_LIST or len(paths.encode()) > MAX_LIST
    ):
        raise Malformed(f"a list is longer than {MAX_LIST} bytes")
    # isprintable() is cheap and true for nearly all lists. It is false for some permitted characters too, so
    # the pattern decides then.
    if not (methods.isprintable() and paths.isprintable()) and _CONTROL.search(methods + paths):
        raise Malformed("a list holds a control character")
    written = None
    if len(fields) > len(_REQUIRED) + (connection_id is not None):
        written = _written(fields)
    slots = tuple([one.slot for one in keys]) if keys else ()
    beside = tuple([one.beside for one in keys if one.beside != NOTHING]) if keys else ()
    found = (carrier, connection_id, expires, methods, paths, signature, gateway, path, query)
    return Presign(*found, slots, written, beside)


def _written(fields: dict[str, str]) -> PolicyText:
    """Return the policy of a presign that has at least one field of it (version 2). Raises Malformed."""
    given = {name: fields[name] for name in PolicyText._fields if name in fields}
    empty = [name for name, value in given.items() if not value]
    if empty:
        raise Malformed(f"{empty[0]} is empty: a field that says nothing is left out")
    written = PolicyText(**given)
    check_written(written)
    return written


def _why_expires(expires: str) -> str:
    if re.fullmatch(r"[1-9][0-9]{12}", expires):
        return "expires has 13 digits: milliseconds, where seconds are expected"
    return "expires is neither 0 nor a plain Unix time in seconds"


def _from_query(query: bytes | None) -> tuple[dict[str, str], bytes | None, bool]:
    """Split a raw query into its presign fields and the rest, byte for byte.

    The last item of the result is True if the rest may contain a token.
    """
    if query is None:
        return {}, None, False
    # Only look-alikes need folding, not the exact spelling. Dots are folded too, because frameworks read them
    # as underscores.
    if query.find(b"X-Presign-") < 0:
        if query.find(b"%") < 0 and query.lower().find(b"resign") < 0:
            return {}, query, has_start(query)
        texts = decodings(query)
        if fold_decoded(texts[-1]).replace(b".", b"-").find(_LOOKALIKE) < 0:
            return {}, query, any(map(shows_token, texts))
    if query.count(b"&") >= MAX_PARAMETERS:
        return _from_crowd(query)
    fields: dict[str, str] = {}
    rest: list[bytes] = []
    for piece in query.split(b"&"):
        name, equals, value = piece.partition(b"=")
        field = _FIELDS.get(name)
        if field is None:
            rest.append(piece)
            continue
        if not equals:
            raise Malformed("a presign parameter has no value")
        if field in fields:
            raise Malformed(f"{field} is given twice")
        if len(value) > _MAX_VALUE:  # only lists can be that long
            raise Malformed(f"a list is longer than {MAX_LIST} bytes")
        if (behind := _HIDING.search(value)) and hides(value[behind.start() :], _LOOKALIKE):
            raise Malformed("a presign field is hidden behind another one")
        fields[field] = form_decode(value)
    if not rest:
        return fields, None, False
    others = b"&".join(rest)
    _refuse_lookalikes(others)
    return fields, others, others.find(b"%") >= 0 or has_start(others)


def in_query(query: bytes | None) -> bytes:
    """Return the part of a query that is the presign, as received; empty if there is none.

    Args:
        query: the query of a granted request, in which no presign field is hidden.
    """
    pieces = query.split(b"&") if query is not None else []
    mine = [
        piece for piece in pieces if (parts := piece.partition(b"="))[0] in _FIELDS or split_shape(parts[2])
    ]
    return b"&".join(mine)


def _from_crowd(query: bytes) -> tuple[dict[str, str], bytes, bool]:
    """Handle a query with more parameters than are parsed: refuse it if it is ours, else return it unchanged.

    Raises Malformed.
    """
    if _SPELLED.search(query):
        check_parameters(query)
    _refuse_lookalikes(query)
    return {}, query, True


def _refuse_lookalikes(query: bytes) -> None:
    """Raise Malformed if another parameter could be taken for a presign field, or discloses a presign.

    The rest of a query is sent to the upstream, shown in flows and written to flow dumps, unchanged.
    """
    # Without any of these, a query cannot contain a name that a parser would take for a presign field.
    if not (query.find(b"%") >= 0 or query.lower().find(b"presign") >= 0 or _HIDING.search(query)):
        return
    if hides(query, _LOOKALIKE):
        raise Malformed("a query parameter looks like a presign field but is not spelled like one")
    if shows_signature(fold(query)):
        raise Malformed("a query parameter tells a presigned URL")


def _from_headers(request: Request, head: Head) -> dict[str, str]:
    fields: dict[str, str] = {}
    if head.joined.find(b"presign") < 0:
        return fields
    for raw, value in request.fields:
        name = raw.lower()
        if name.find(b"presign") < 0 or not name.replace(b"_", b"-").startswith(b"x-presign"):
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


def _from_path(path: bytes, *, gateway: bool) -> tuple[str | None, bytes, dict[str, str]]:
    """Return the connection named in a path, the path after the gateway prefix, and a path token's claim."""
    if gateway and path.startswith(API_PROXY):
        named, slash, rest = path[len(API_PROXY) :].partition(b"/")
        _refuse_in_path(rest, "there is a token in the path for the upstream")
        return named.decode("ascii", "replace"), slash + rest, {}
    if gateway and path.startswith(TOKEN_PATH):
        token, slash, rest = path[len(TOKEN_PATH) :].partition(b"/")
        _refuse_in_path(rest, "there is a token in the path for the upstream")
        # Clients join a base URL that ends in a slash with a path that begins with one. One of the two
        # slashes is dropped before the path is matched and sent. A third one is refused, as is any other
        # empty segment.
        return None, slash + rest.removeprefix(b"/"), parse_token(token)
    _refuse_in_path(path, "there is a token in the path of another host")
    return None, path, {}


def _refuse_in_path(path: bytes, why: str) -> None:
    """Raise Malformed if a path contains a token or a presign field.

    A path is sent to the upstream, shown in flows and written to the audit log, unchanged. A client that
    joins a base URL twice puts the token into it.
    """
    if path.find(b"%") < 0 and not has_start(path) and path.lower().find(b"resign") < 0:
        return
    texts = decodings(path)
    if texts[-1].lower().find(b"resign") >= 0 and _IN_PATH.search(fold_decoded(texts[-1])):
        raise Malformed("there is a presign field in the path")
    if any(map(shows_token, texts)):
        raise Malformed(why)
