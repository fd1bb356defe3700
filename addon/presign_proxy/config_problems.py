"""What can be wrong with what people wrote or have, in words for them."""

from __future__ import annotations

from typing import Final, NamedTuple

Location = tuple[str | int, ...]

UNCONFIRMED: Final[list[str]] = []
"""Sentences about files that were written, of which the disk has not confirmed that they stay. The command
prints them last, whatever it did.
"""


class Foreseen(Exception):
    """An error that people can mend. The command prints its text, which holds no secret, and exits with 1."""


class Problem(NamedTuple):
    """One thing that is wrong with a file; never a value from it."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        # Keys come from the file: nothing in them may move the cursor or start a line.
        path = "".join(char if char.isprintable() else "?" for char in self.path[:200])
        return where + (f"{path}: " if path else "") + self.message


class ConfigError(Foreseen):
    """A configuration that is not usable, with everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
