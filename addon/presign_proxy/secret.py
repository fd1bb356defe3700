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
