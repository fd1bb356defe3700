"""Where the command runs: the environment, and the configuration that is meant, which nobody has read yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ..config.path import locate
from ..config_problems import Foreseen


class Failure(Foreseen):
    """It cannot be done; the text says why and what to do. Exit code 1."""


class Place:
    """What every verb is given. Nothing is read when it is made."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ

    @classmethod
    def at(cls, config: Path | None) -> Self:
        return cls(locate(str(config or ""), os.environ), os.environ)

    @property
    def base(self) -> Path:
        """The directory from which relative paths of the configuration count."""
        return self.path.parent

    @property
    def exists(self) -> bool:
        return self.path.exists()
