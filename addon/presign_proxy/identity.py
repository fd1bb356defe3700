"""Request ids: what an answer, a log line and a support question have in common."""

from __future__ import annotations

import secrets


def new_request_id() -> str:
    """`req_` and 24 hex digits, unguessable, so that an id proves that its bearer saw the answer."""
    return f"req_{secrets.token_hex(12)}"
