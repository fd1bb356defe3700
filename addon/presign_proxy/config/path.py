"""Which file is the configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEFAULT_PATH: Final = "config.yaml"
ENVIRONMENT: Final = "PRESIGN_CONFIG"


def locate(option: str, environ: Mapping[str, str]) -> Path:
    """Which file is meant: the option, else `$PRESIGN_CONFIG`, else `./config.yaml`."""
    return expanded(option or environ.get(ENVIRONMENT) or DEFAULT_PATH).absolute()


def expanded(path: str) -> Path:
    """A path whose `~` is the home directory; as it is where there is none, or no such user."""
    with contextlib.suppress(RuntimeError):  # the file will not be found, and is told with what was typed
        return Path(path).expanduser()
    return Path(path)
