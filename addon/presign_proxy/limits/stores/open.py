"""The choice of a store, from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ...signing.secret import Secret
from .memory import MemoryStore
from .sqlite import SqliteStore
from .store import Store, StoreError


@dataclass(frozen=True, slots=True)
class Choice:
    """A store that can be opened.

    Args:
        url: memory://, sqlite:///PATH or redis[s]://[USER@]HOST[:PORT][/DATABASE].
        base: the directory of the configuration, to which paths are relative.
        password: the password for Redis.
        ca: the certificate authorities for rediss://.
    """

    url: str
    base: Path
    password: Secret | None = None
    ca: str | None = None

    def is_same(self, other: Choice | None) -> bool:
        """Return whether both open the same store in the same way."""
        if other is None or (self.url, self.base, self.ca) != (other.url, other.base, other.ca):
            return False
        mine, theirs = self.password, other.password
        return (mine.reveal() if mine else None) == (theirs.reveal() if theirs else None)

    @property
    def is_private(self) -> bool:
        """True if no other process can count in this store."""
        return self.url.startswith("memory:")

    @property
    def path(self) -> Path | None:
        """The file of sqlite; None for other stores."""
        return self.base / self.url.removeprefix("sqlite:///") if self.url.startswith("sqlite:") else None

    @property
    def address(self) -> tuple[str, int] | None:
        """The address of Redis; None for other stores. No request may ever go there."""
        if not self.url.startswith("redis"):
            return None
        parts = urlsplit(self.url)
        return parts.hostname or "localhost", parts.port or 6379

    @property
    def name(self) -> str:
        """The store in log lines: its kind and address, or its file. No user and no password."""
        if self.address is not None:
            host, port = self.address
            return f"{self.url.partition(':')[0]} at {f'[{host}]' if ':' in host else host}:{port}"
        return str(self.path or "memory")

    @property
    def obstacle(self) -> str:
        """Why the file of sqlite cannot be used, for a warning at the start; empty otherwise.

        Redis is not asked.
        """
        return SqliteStore(self.path).obstacle() if self.path is not None else ""

    @property
    def refusal(self) -> str:
        """Why Redis answers but cannot count; empty if it can count, or does not answer within a second."""
        if not self.url.startswith("redis"):
            return ""
        from .redis import refusal  # an extra, and a second to import

        return refusal(self.url, self.password, self.base / self.ca if self.ca else None)

    def open(self) -> Store:
        """Return the store. Raises StoreError if the choice makes no sense.

        Nothing is connected or created yet. An error of the store itself appears on first use.
        """
        if self.is_private:
            return MemoryStore()
        if self.path is not None:
            return SqliteStore(self.path)
        from .redis import RedisStore  # an extra, and a second to import

        return RedisStore(self.url, self.password, self.base / self.ca if self.ca else None)


def problem_of(choice: Choice) -> str | None:
    """Return what is wrong with a choice, in words that repeat nothing of it; None if nothing is."""
    if not choice.url.startswith("redis"):
        return None
    try:
        parts = urlsplit(choice.url)
        port = parts.port
    except ValueError:
        return "is not a URL as in redis://127.0.0.1:6379/0"
    if parts.password is not None:
        return "holds a password: URLs end up in logs; write limits.password"
    database = parts.path.removeprefix("/")
    if parts.query or parts.fragment or port == 0 or (database and not database.isdecimal()):
        return "is not redis://[USER@]HOST[:PORT][/DATABASE]"
    if choice.ca and parts.scheme != "rediss":
        return "has a ca, which only rediss:// needs"
    try:
        choice.open()
    except StoreError as error:
        return str(error)
    return None
