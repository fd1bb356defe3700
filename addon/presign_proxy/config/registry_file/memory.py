"""What a registry's file held the last time, and the secrets that were had for it."""

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
    """One connection as it was read before, and what was warned of."""

    digest: bytes
    connection: Connection
    warnings: tuple[Problem, ...]


@dataclass(slots=True)
class Memory:
    """What was read of a configuration: after a change of one connection, only that one is read again."""

    context: tuple[Path, Path, Presets] | None = None
    known: dict[str, Known] = field(default_factory=dict)
    forms: dict[Path, Form] = field(default_factory=dict)
    """Of the YAML files that are in force."""
    place: RegistryConfig | None = None
    """Of the registry that is in force."""
    lent: Lent = field(default_factory=lambda: Lent(strict=True))
    """Secrets from outside of the files, for the configuration as well."""
