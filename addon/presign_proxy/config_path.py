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
    path = Path(option or environ.get(ENVIRONMENT) or DEFAULT_PATH)
    with contextlib.suppress(RuntimeError):  # no such user: the file will not be found
        path = path.expanduser()
    return path.absolute()
