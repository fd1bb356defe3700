"""The memory of the last load: the connections of the registry's file, and their secrets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...config_problems import Problem
from ...core.connection import Connection
from ..outside_secrets import Lent
from ..presets.apply import Presets
from ..schema.config import RegistryConfig
from ..whole_file import Form


class Known(NamedTuple):
    """One connection as it was built before, with its warnings."""

    digest: bytes
    connection: Connection
    warnings: tuple[Problem, ...]


@dataclass(slots=True)
class Memory:
    """The results of the last load: after a change of one connection, only that one is built again."""

    context: tuple[Path, Path, Presets] | None = None
    known: dict[str, Known] = field(default_factory=dict)
    forms: dict[Path, Form] = field(default_factory=dict)
    """The forms of the YAML files in force."""
    place: RegistryConfig | None = None
    """The section `registry` in force."""
    lent: Lent = field(default_factory=lambda: Lent(strict=True))
    """The secrets from outside the files, of the registry and of the configuration."""
