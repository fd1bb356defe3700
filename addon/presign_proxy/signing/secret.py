"""A value that must not be shown."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Text that neither `repr`, `str`, `format`, a traceback nor a pickle shows. Equality is by identity."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Every call of this is a place where a secret leaves its type: keep them few."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")


class LateSecret(Secret):
    """A secret that is fetched when it is first needed: what `argv` prints, good for `ttl` seconds.

    Stands in an injector until that is `filled`. To reveal it before is an error, never an empty text.
    """

    __slots__ = ("argv", "ttl")

    def __init__(self, argv: tuple[str, ...], ttl: int) -> None:
        super().__init__("")
        self.argv = argv
        self.ttl = ttl

    def reveal(self) -> NoReturn:
        raise LookupError("this secret has not been fetched")
