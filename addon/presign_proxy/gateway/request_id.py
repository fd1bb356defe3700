"""Request ids: what an answer, a log line and a support question have in common."""

from __future__ import annotations

import os
from typing import Final

_SIZE: Final = 12
_MANY: Final = 128
_ready: list[str] = []
"""Ids that nobody has yet, `_MANY` at most: to ask the system for each costs more than most of a decision."""

# Two processes must not hand out the same.
os.register_at_fork(after_in_child=_ready.clear)


def new_request_id() -> str:
    """`req_` and 24 hex digits, unguessable, so that an id proves that its bearer saw the answer."""
    try:
        return f"req_{_ready.pop()}"
    except IndexError:
        digits = os.urandom(_SIZE * _MANY).hex()
        first, *more = (digits[at : at + 2 * _SIZE] for at in range(0, len(digits), 2 * _SIZE))
        _ready[:] = more
        return f"req_{first}"
