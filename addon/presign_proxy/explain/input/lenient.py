"""A lenient reader of presigns, which explains requests that are not well-formed.

It decides nothing. The strict parsers of the gateway are in `signing`.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from ...http.field_names import fold, header_key, param_key
from ...http.message import Request
from ...signing.carrier_names import API_PROXY, TERMS
from ...signing.carrier_names import NAMES as V1

NAMES: Final = V1 | TERMS
_FIELDS: Final = {name.lower().encode(): field for field, name in NAMES.items()}
_TOKEN = re.compile(rb"ps[12]_([A-Za-z0-9_+/=-]{1,24000})(?:\.([^\s\"'&?/]{0,200}))?")
_SOURCE_PATH = re.compile(rb"/v1/([^/?]+)/([^?]+)\.([A-Za-z0-9]{1,16})")


class Value(NamedTuple):
    """One field: `text` decoded, `raw` as received, `name` as it was spelled, and the carrier."""

    text: str
    raw: str
    name: str
    carrier: str


class Loose(NamedTuple):
    """The apparent claim of a request.

    `fields` are all values that were found, by field. `tokens` are the whole tokens. `entities` is True if
    `&` is written as in HTML.
    """

    fields: dict[str, list[Value]]
    tokens: tuple[str, ...] = ()
    entities: bool = False

    def first(self, field: str) -> str | None:
        found = self.fields.get(field)
        return found[0].text if found else None

    @property
    def carriers(self) -> tuple[str, ...]:
        """The carriers that contain parts of a presign, without the connection id in a gateway URL's path."""
        found = [value.carrier for values in self.fields.values() for value in values]
        return tuple(dict.fromkeys(carrier for carrier in found if carrier != "address"))


def read(request: Request) -> Loose:
    """Return everything in a request that looks like a part of a presign (scheme presign)."""
    loose = Loose({})
    query = request.query or b""
    entities = b"&amp;" in query
    for piece in query.replace(b"&amp;", b"&").split(b"&"):
        name, _, value = piece.partition(b"=")
        if field := _FIELDS.get(param_key(name)):
            _add(loose, field, _decoded(value), value, name, "query")
    for name, value in request.fields:
        if field := _FIELDS.get(header_key(name)):
            _add(loose, field, value.decode("utf-8", "replace"), value, name, "header")
    tokens = _tokens(request)
    for token, carrier in dict.fromkeys(tokens):  # one key token may be in several slots
        _add_token(loose, token, carrier)
    path = request.path
    if path.startswith(API_PROXY):
        named = path[len(API_PROXY) :].partition(b"/")[0]
        _add(loose, "connection_id", named.decode("ascii", "replace"), named, b"", "address")
    return loose._replace(
        tokens=tuple(token.decode("ascii", "replace") for token, _ in tokens), entities=entities
    )


def _add(loose: Loose, field: str, text: str, raw: bytes, name: bytes, carrier: str) -> None:
    value = Value(text, raw.decode("utf-8", "replace"), name.decode("utf-8", "replace"), carrier)
    loose.fields.setdefault(field, []).append(value)


def _decoded(value: bytes) -> str:
    return unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace")


def _tokens(request: Request) -> list[tuple[bytes, str]]:
    """Return each token with its carrier, `path` or `key`."""
    places = [(unquote_to_bytes(request.path), "path"), (request.query or b"", "key")]
    for name, value in request.fields:
        if header_key(name) != b"referer":
            places += [(value, "key"), (_from_basic(value), "key")]
    return [(match[0], carrier) for text, carrier in places for match in _TOKEN.finditer(text)][:8]


def _from_basic(value: bytes) -> bytes:
    word, _, encoded = value.partition(b" ")
    if word.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(encoded.strip() + b"==")
    except binascii.Error:
        return b""


def _add_token(loose: Loose, token: bytes, carrier: str) -> None:
    encoded, dot, signature = token[4:].partition(b".")
    payload = text_of(encoded)
    if payload is None:
        return
    lines = payload.replace("\r\n", "\n").split("\n")
    values = list(zip(("connection_id", "expires", "methods", "paths"), lines, strict=False))
    for line in lines[4:]:
        name, _, value = line.partition(":")
        field = name.strip().lower().removeprefix("x-presign-").replace("-", "_")
        values += [(field, value.strip())] if field in TERMS else []
    for field, text in values:
        _add(loose, field, text, text.encode("utf-8", "replace"), b"", carrier)
    if dot:
        _add(loose, "signature", signature.decode("utf-8", "replace"), signature, b"", carrier)


def text_of(encoded: bytes) -> str | None:
    """Decode base64 of text, in either alphabet, with or without padding; None if it is not text."""
    plain = encoded.rstrip(b"=").replace(b"+", b"-").replace(b"/", b"_")
    try:
        return base64.urlsafe_b64decode(plain + b"=" * (-len(plain) % 4)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def lookalikes(request: Request) -> tuple[str, ...]:
    """Return the names that look like presign fields but are misspelled, as received."""
    query = (request.query or b"").replace(b"&amp;", b"&")
    names = [piece.partition(b"=")[0] for piece in query.split(b"&")]
    wrong = [
        name for name in names if b"presign" in fold(name) and name.decode("latin-1") not in NAMES.values()
    ]
    wrong += [
        name
        for name, _ in request.fields
        if header_key(name).startswith(b"x-presign") and name.lower() not in _FIELDS
    ]
    return tuple(name.decode("utf-8", "replace")[:64] for name in wrong)


class LooseSource(NamedTuple):
    """The apparent claim of a request under scheme source: values as text, None if missing."""

    project: str
    url: str
    format: str
    sig: str | None
    exp: str | None
    encoded: str
    entities: bool = False


def read_source(request: Request) -> LooseSource | None:
    """Return the parts of a source URL at a gateway host, or None if the path has another form."""
    match = _SOURCE_PATH.fullmatch(request.path)
    if match is None:
        return None
    query = request.query or b""
    pairs = [piece.partition(b"=") for piece in query.replace(b"&amp;", b"&").split(b"&")]
    fields = {name: _decoded(value) for name, _, value in reversed(pairs)}
    encoded = match[2].decode("utf-8", "replace")
    url = text_of(unquote_to_bytes(match[2])) or encoded
    project, extension = match[1].decode("utf-8", "replace"), match[3].decode("ascii")
    return LooseSource(
        project, url, extension, fields.get(b"sig"), fields.get(b"exp"), encoded, b"&amp;" in query
    )
