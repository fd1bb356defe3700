"""Secrets: texts that must never be shown by accident."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """A text that `repr`, `str`, `format`, tracebacks and pickles do not show. Equality is by identity."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text. With every call of this a secret leaves its type, so keep the calls few."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")


class LateSecret(Secret):
    """A secret that is fetched on first use: the output of the program `argv`, valid for `ttl` seconds.

    It is a placeholder in an injector until the injector is `filled`. Revealing it is an error, so that it
    never passes for an empty secret.
    """

    __slots__ = ("argv", "lines", "ttl")

    def __init__(self, argv: tuple[str, ...], ttl: int, *, lines: bool = False) -> None:
        """Args: lines: permit line breaks, as in a private key. Such a secret is never sent itself."""
        super().__init__("")
        self.argv = argv
        self.ttl = ttl
        self.lines = lines

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for secrets that are fetched in the same way, also after a reload."""
        return (*self.argv, "\0lines") if self.lines else self.argv

    @property
    def family(self) -> tuple[str, ...]:
        """Equal for secrets that cannot be fetched for the same reasons."""
        return self.key

    @property
    def needs(self) -> tuple[LateSecret, ...]:
        """The secrets that programs print for it: itself, unless it is fetched in another way."""
        return (self,)

    def reveal(self) -> NoReturn:
        raise LookupError("this secret has not been fetched")
