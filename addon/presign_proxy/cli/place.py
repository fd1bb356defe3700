"""The place where the command runs: the environment, and the path of the configuration, not yet read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ..config.path import ENVIRONMENT, locate
from ..config_problems import Foreseen


class Failure(Foreseen):
    """A verb cannot do its work. The text says why and what to do. Exit code 1."""


class Place:
    """The first argument of every verb. Making it reads nothing."""

    def __init__(self, path: Path, environ: Mapping[str, str], *, is_chosen: bool = True) -> None:
        self.path = path
        self.environ = environ
        self._is_chosen = is_chosen

    @classmethod
    def at(cls, config: Path | None) -> Self:
        is_chosen = config is not None or bool(os.environ.get(ENVIRONMENT))
        return cls(locate(str(config or ""), os.environ), os.environ, is_chosen=is_chosen)

    @property
    def base(self) -> Path:
        """The directory at which relative paths of the configuration start."""
        return self.path.parent

    @property
    def is_configured(self) -> bool:
        """True if there is a configuration, or one was named: then its absence is a mistake."""
        return self._is_chosen or os.path.lexists(self.path)

    @property
    def exists(self) -> bool:
        return self.path.exists()
