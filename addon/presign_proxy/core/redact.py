"""What nobody may see of a request: its presign and its credentials, wherever a client puts them."""

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
    """Target and header of a refused request as people may see them."""

    target: bytes
    fields: Fields


def redact(target: bytes, fields: Fields) -> Redacted:
    """Without signature and credential. A signature that was refused here may be good elsewhere, so the
    whole query goes. Of a request with more fields than are served none is shown: nobody reads them all.
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
    """The header of a request without a presign, for whoever it goes to. A client may tell there where it is
    or comes from, and that was a presigned URL: in `Referer`, in `HX-Current-URL`, in a cookie.
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
    """One that holds more escapes than are looked at is hidden."""
    return text.count(b"%") > MAX_ESCAPES or holds_presign(text)


def holds_presign(text: bytes) -> bool:
    """Whether a text could hold a presign of any kind, however often it is encoded."""
    texts = decodings(text)
    folded = fold_decoded(texts[-1])
    return b"x-presign" in folded or bool(_SIGNED_SOURCE.search(folded)) or any(map(shows_token, texts))
