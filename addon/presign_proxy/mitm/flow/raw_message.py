"""mitmproxy's messages, read and written as raw bytes: `message.data` alone, without its conveniences."""

from __future__ import annotations

from typing import Final

from mitmproxy import http

from ...http.message import Fields

_NO_HEADERS: Final = http.Headers()


def twin[T](one: T) -> T:
    """Return a shallow copy, as `copy.copy` makes it of an object without methods for copying."""
    made = object.__new__(type(one))
    vars(made).update(vars(one))
    return made


def is_h1(version: bytes) -> bool:
    """Return whether a version is one of HTTP/1."""
    return version.startswith(b"HTTP/1")


def announced(fields: Fields) -> int | None:
    """Return the bytes that Content-Length announces, or None. Over HTTP/2 fewer may come all the same."""
    lengths = [value.strip() for name, value in fields if name.lower() == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


def headers_of(fields: Fields) -> http.Headers:
    """Return headers of fields that are known to be pairs of bytes: the constructor checks each again."""
    headers = twin(_NO_HEADERS)
    headers.fields = fields
    return headers
