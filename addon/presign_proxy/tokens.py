"""Tokens: a whole grant as one word, for places that take nothing else."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from . import grammar
from .errors import Malformed

PREFIX: Final = b"ps1_"
_TOKEN = re.compile(rf"ps1_([A-Za-z0-9_-]+)\.({grammar.SIGNATURE})".encode())
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_STARTS: Final = (PREFIX, b"ps2_")
_SIGNATURE = re.compile(rf"\.{grammar.SIGNATURE}".encode())


def parse_token(token: bytes) -> dict[str, str]:
    """The fields of a token, `ps1_` base64url(id LF expires LF methods LF paths) `.` signature.

    Strict: the base64url re-encodes to itself, exactly four fields. Raises Malformed.
    """
    match = _TOKEN.fullmatch(token)
    if not match:
        raise Malformed("the token is not of the form ps1_{base64url}.{signature}")
    encoded, signature = match.groups()
    try:
        standard = encoded.translate(_STANDARD)
        payload = binascii.a2b_base64(standard + b"=" * (-len(encoded) % 4))
        if binascii.b2a_base64(payload, newline=False).rstrip(b"=") != standard:
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


def has_start(text: bytes) -> bool:
    """Whether a token could begin in a text, as it stands."""
    return b"ps1_" in text or b"ps2_" in text


def holds_token(text: bytes) -> bool:
    """Whether something that could be a token stands anywhere in a text, percent-encoded or not.

    In linear time: a start, and somewhere behind it a dot with a signature.
    """
    for _ in range(3):
        for start in _STARTS:
            at = text.find(start)
            if at >= 0 and _SIGNATURE.search(text, at):
                return True
        if b"%" not in text:
            return False
        text = unquote_to_bytes(text)
    return False
