"""Recognition of a browser that opens a page: its user reads what is answered."""

from __future__ import annotations

from typing import Final

from .message import Fields, Head

_HTML: Final = b"text/html"
_ANYTHING: Final = b"*/*"
_JSON: Final = b"application/json"
_MOST: Final = 1024
"""Bytes of Accept that are looked at: browsers send 60 to 200. This is done before anything is verified."""
_OF_JAVA: Final = ((b"image/gif", b"image/jpeg", b"*", _ANYTHING), (b"image/gif", b"image/jpeg", _ANYTHING))
"""What follows text/html in the default of Java's HttpURLConnection, which many SDKs send unchanged."""


def is_navigation(fields: Fields, head: Head) -> bool:
    """Return whether a person reads the answer, in a browser.

    A browser says so itself (Fetch Metadata, `Sec-Fetch-Mode: navigate`). Where that field is missing, the
    request must ask for HTML before anything else that an API would answer with.
    """
    if head.joined.find(b"sec-fetch-mode") >= 0:
        modes = [value.strip() for name, value in fields if name.lower() == b"sec-fetch-mode"]
        if modes:
            return modes == [b"navigate"]
    if head.values.find(_HTML) < 0:
        return False
    accepted = b",".join([value for name, value in fields if name.lower() == b"accept"])
    if len(accepted) > _MOST:
        return False
    kinds = [item.partition(b";")[0].strip().lower() for item in accepted.split(b",")]
    if _HTML not in kinds or tuple(kinds[1:]) in _OF_JAVA:
        return False
    before = kinds[: kinds.index(_HTML)]
    return _ANYTHING not in before and _JSON not in before
