"""How the carriers of scheme presign are spelled (presign.click, `X-Presign-*`): their names and paths."""

from __future__ import annotations

from typing import Final

MAX_LIST: Final = 8 * 1024
"""Bytes of the methods and of the paths value."""

NAMES: Final = {
    "connection_id": "X-Presign-Connection",
    "expires": "X-Presign-Expires",
    "methods": "X-Presign-Methods",
    "paths": "X-Presign-Paths",
    "signature": "X-Presign-Signature",
}
"""How the fields of version 1 are called in query and header."""
TERMS: Final = {
    "not_before": "X-Presign-Not-Before",
    "max_uses": "X-Presign-Max-Uses",
    "client": "X-Presign-Client",
    "max_body": "X-Presign-Max-Body",
    "key": "X-Presign-Key",
    "id": "X-Presign-Id",
}
"""Those of a signed policy, in the order in which they are signed; with any of them it is version 2."""

API_PROXY: Final = b"/api/proxy/"
TOKEN_PATH: Final = b"/p/"
