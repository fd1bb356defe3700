"""Request ids, which connect an answer, a log line and a support question."""

from __future__ import annotations

import os
from typing import Final

_SIZE: Final = 12
_MANY: Final = 128
_ready: list[str] = []
"""Unused ids, at most `_MANY`. A system call for each id would cost more than most of a decision."""

# Two processes must not give out the same id.
os.register_at_fork(after_in_child=_ready.clear)


def new_request_id() -> str:
    """Return `req_` and 24 hex digits. They are unguessable: an id proves that its bearer saw the answer."""
    try:
        return f"req_{_ready.pop()}"
    except IndexError:
        digits = os.urandom(_SIZE * _MANY).hex()
        first, *more = (digits[at : at + 2 * _SIZE] for at in range(0, len(digits), 2 * _SIZE))
        _ready[:] = more
        return f"req_{first}"
