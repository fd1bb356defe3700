"""The names and paths under which requests carry scheme presign (presign.click, `X-Presign-*`)."""

from __future__ import annotations

from typing import Final

MAX_LIST: Final = 8 * 1024
"""Most bytes of the value of methods, and of the value of paths."""

NAMES: Final = {
    "connection_id": "X-Presign-Connection",
    "expires": "X-Presign-Expires",
    "methods": "X-Presign-Methods",
    "paths": "X-Presign-Paths",
    "signature": "X-Presign-Signature",
}
"""The names of the fields of version 1, in query and header."""
TERMS: Final = {
    "client": "X-Presign-Client",
    "id": "X-Presign-Id",
    "key": "X-Presign-Key",
    "max_body": "X-Presign-Max-Body",
    "max_uses": "X-Presign-Max-Uses",
    "not_before": "X-Presign-Not-Before",
}
"""The names of the fields of a signed policy, in the order in which they are signed: sorted by code point.

A presign with any of them is of version 2.
"""

API_PROXY: Final = b"/api/proxy/"
TOKEN_PATH: Final = b"/p/"
