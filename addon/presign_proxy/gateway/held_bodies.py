"""Bodies that are read whole before anything is sent: each has a bound, and so have all of a worker."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import Final

from ..core.policy import body_too_large_to_hold
from ..errors import Denied

MAX_ALL: Final = 64 * 1024 * 1024
"""Most bytes of all held bodies of a worker. Those of one presign have at most as much as they leave to the
others: half of it, if there are no others.
"""
EMPTY: Final = sha256().hexdigest().encode("ascii")
"""The digest of a body that is not there."""
_LATER: Final = "Too many bodies are being read: try again in a moment."
_SOON: Final = ((b"Retry-After", b"1"),)


class HeldBody:
    """The body of one request, as far as it has come."""

    __slots__ = ("_among", "_hash", "_kept", "_most", "_whose", "size")

    def __init__(self, among: HeldBodies, most: int, whose: str) -> None:
        """Args: most: bytes that it may have."""
        self._among = among
        self._whose = whose
        self._most = most
        # In one piece: of a body that comes two bytes at a time, a list would take twenty times as much.
        self._kept = bytearray()
        self._hash = sha256()
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Keep a piece. Raises Denied if it is one too many: then nothing is kept any more."""
        size = self.size + len(piece)
        if size > self._most:
            self.let_go()
            raise body_too_large_to_hold(self._most)
        if not self._among.has_room(len(piece), self._whose):
            self.let_go()
            raise Denied("unavailable", "the held bodies of this presign, or of all, fill their memory",
                         fields=_SOON, sentence=_LATER)  # fmt: skip
        self._among.note(len(piece), self._whose)
        self.size = size
        self._hash.update(piece)
        self._kept += piece

    def digest(self) -> bytes:
        """Return SHA-256 of all that has come, in hexadecimal digits."""
        return self._hash.hexdigest().encode("ascii")

    def whole(self) -> bytes:
        """Return all that has come: the very bytes of which `digest` is the hash."""
        return bytes(self._kept)

    def let_go(self) -> None:
        """Keep nothing any more. May be called more than once."""
        self._kept = bytearray()
        self._among.note(-self.size, self._whose)
        self.size = 0


class HeldBodies:
    """All held bodies of a worker."""

    def __init__(self, most: int = MAX_ALL) -> None:
        self._most = most
        self.size = 0
        """Bytes of all of them."""
        self._of: Counter[str] = Counter()
        """Bytes of those of each presign."""

    def has_room(self, more: int, whose: str) -> bool:
        """Return whether so many more bytes may be kept: a presign may use what it leaves to all others."""
        return self._of[whose] + more <= self._most - self.size - more

    def note(self, more: int, whose: str) -> None:
        """Note that so many more bytes are kept, or fewer."""
        self.size += more
        self._of[whose] += more
        if not self._of[whose]:
            del self._of[whose]

    def begin(self, most: int, whose: str) -> HeldBody:
        """Return a body of which nothing has come.

        Args:
            most: bytes that it may have.
            whose: the signature of its request. Without shares, the holder of one could keep out all others.
        """
        return HeldBody(self, most, whose)
