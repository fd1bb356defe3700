"""The path of the configuration file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEFAULT_PATH: Final = "config.yaml"
ENVIRONMENT: Final = "PRESIGN_CONFIG"


def locate(option: str, environ: Mapping[str, str]) -> Path:
    """Return the path of the configuration: the option, else `$PRESIGN_CONFIG`, else `./config.yaml`."""
    return expanded(option or environ.get(ENVIRONMENT) or DEFAULT_PATH).absolute()


def expanded(path: str) -> Path:
    """Return the path with `~` expanded; unchanged if there is no home directory or no such user."""
    with contextlib.suppress(RuntimeError):  # then the file is not found, and the error shows what was typed
        return Path(path).expanduser()
    return Path(path)
