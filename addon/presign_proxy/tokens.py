"""Tokens: a whole grant as one word, for places that take nothing else."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from . import base64url, grammar
from .errors import Malformed

PREFIX: Final = b"ps1_"
_TOKEN = re.compile(rf"ps1_([A-Za-z0-9_-]+)\.({grammar.SIGNATURE})".encode())
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
    fields = base64url.decode(encoded, "the token").split("\n")
    if len(fields) != 4:
        raise Malformed("the token does not hold exactly four fields")
    names = ("connection_id", "expires", "methods", "paths")
    return {**dict(zip(names, fields, strict=True)), "signature": signature.decode("ascii")}


def format_token(connection_id: str, expires: str, methods: str, paths: str, signature: str) -> str:
    """The token of a grant; the inverse of `parse_token`."""
    payload = "\n".join((connection_id, expires, methods, paths))
    return f"ps1_{base64url.encode(payload)}.{signature}"


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
