"""Redaction of requests for people: presigns and credentials are removed, wherever a client puts them."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..http.field_names import fold_decoded, header_key
from ..http.message import MAX_FIELDS, Fields
from ..http.percent import decodings
from ..signing import grammar
from ..signing.disclosure import MAX_ESCAPES, discloses
from ..signing.tokens import shows_token
from .strip_list import is_credential

_SIGNED_SOURCE = re.compile(rf"sig={grammar.SIGNATURE}".encode())


class Redacted(NamedTuple):
    """The target and the header of a refused request, as people may see them."""

    target: bytes
    fields: Fields


def redact(target: bytes, fields: Fields) -> Redacted:
    """Return target and header without signature and credential.

    The whole query is removed, because a signature that is refused here may be valid elsewhere. If a request
    has more fields than the gateway accepts, no field is shown.
    """
    path, mark, _ = target.partition(b"?")
    if may_hold_presign(path):
        path = b"/[redacted]"
    shown = () if len(fields) > MAX_FIELDS else tuple([_shown(name, value) for name, value in fields])
    return Redacted(path + b"?[redacted]" if mark else path, shown)


def _shown(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    key = header_key(name)
    secret = key.startswith(b"x-presign") or is_credential(key) or key == b"cookie"
    hidden = secret or may_hold_presign(value) or discloses(value)
    return b"[redacted]" if discloses(name) else name, b"[redacted]" if hidden else value


def without_presigns(fields: Fields) -> Fields:
    """Return the header of a request that passes through, without fields that contain a presign.

    A client may report its current or previous URL there (`Referer`, `HX-Current-URL`, a cookie), and that
    may be a presigned URL.
    """
    return tuple(
        [
            field
            for field in fields
            if not discloses(field[1])
            and (header_key(field[0]) != b"referer" or not may_hold_presign(field[1]))
        ]
    )


def may_hold_presign(text: bytes) -> bool:
    """Return whether a text could contain a presign. One with too many escapes to decode counts as such."""
    return text.count(b"%") > MAX_ESCAPES or holds_presign(text)


def holds_presign(text: bytes) -> bool:
    """Return whether a text could contain a presign of either scheme, however often it is encoded."""
    texts = decodings(text)
    folded = fold_decoded(texts[-1])
    return b"x-presign" in folded or bool(_SIGNED_SOURCE.search(folded)) or any(map(shows_token, texts))
