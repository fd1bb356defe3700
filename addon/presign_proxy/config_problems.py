"""Errors in files and settings that an operator can correct, as text for the operator."""

from __future__ import annotations

from typing import Final, NamedTuple

Location = tuple[str | int, ...]

UNCONFIRMED: Final[list[str]] = []
"""Sentences about files that were written but that the disk has not confirmed. The command prints them last,
whatever else it did.
"""


class Foreseen(Exception):
    """An error that the user can correct. The command prints its text and exits with 1.

    The text holds no secret.
    """


class Problem(NamedTuple):
    """One error in a file. It never holds a value from the file."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        # Keys come from the file. They must not move the cursor or start a new line.
        path = "".join(char if char.isprintable() else "?" for char in self.path[:200])
        return where + (f"{path}: " if path else "") + self.message


class ConfigError(Foreseen):
    """A configuration that cannot be used, with all of its problems."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
