"""The buffer of what a client has sent and no exchange has taken."""

from __future__ import annotations

from ...http.message import MAX_HEAD
from . import request_head


class RequestBuffer:
    """The beginning of the next request, or heads that were sent ahead, one behind the other."""

    __slots__ = ("_looked_at", "data", "owes_head", "served")

    def __init__(self) -> None:
        self.data = b""
        self._looked_at = 0
        """Bytes in which no head ends."""
        self.owes_head = True
        """True if a deadline runs until the head is whole."""
        self.served = False
        """True if a head was ever taken."""

    def next_head(self) -> int:
        """Return the size of the head in front; 0 where it may still come; -1 where it never will.

        What was looked at before is not looked at again: a head may come byte by byte.
        """
        data, seen = self.data, self._looked_at
        self._looked_at = 0
        end = data.find(request_head.END, max(seen - 3, 0), MAX_HEAD)
        if end != -1:
            return end + 4
        if len(data) >= MAX_HEAD or not request_head.may_begin(data, seen):
            return end
        self._looked_at = len(data)
        return 0

    def drop(self) -> bytes:
        """Return all of it, and keep nothing."""
        data, self.data = self.data, b""
        return data
