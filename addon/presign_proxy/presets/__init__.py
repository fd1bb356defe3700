"""Presets: what is known of a provider, as data.

Each entry of `providers.json`: `name`, `upstream` (base URL), `auth` (`type`, and `header` or `param`),
`headers` (defaults, added where absent), `docs`, `sample` (a path to try).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def providers() -> dict[str, dict[str, Any]]:
    """All presets by name."""
    found: dict[str, dict[str, Any]] = json.loads(
        files(__package__).joinpath("providers.json").read_text("utf-8")
    )
    return found
