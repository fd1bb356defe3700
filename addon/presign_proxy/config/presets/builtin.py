"""Presets: what is known of a provider, as data.

`providers.json` maps the names of presets to entries as `model.Preset` says:

- `name`, `upstream` (base URL; what a provider's documentation writes behind it stays in the request),
  `docs`, `sample` (a path to GET that changes nothing), `headers` (defaults, added where absent).
- `auth`: its `type`, and where the key goes: `header`, with a `prefix` where words stand before the key, or
  `param`, or for basic a fixed `username` or `password` beside it. Or `asks`: several values, by name; those
  that are no secrets are `public`.
- `env`: the variables in which the provider's own SDK, command or documentation has its key, the usual one
  first; with `asks`, one for each in the same order.
- `allow_encoded_slash`, `also`, `challenge`, `url_headers`: as of a connection, `also` only beside the
  preset's upstream.
- `sdk_base`: the path that the provider's SDK expects in its base URL.
- `vars`: the variables in the host of `upstream`, each with the `pattern` of its values and what it is
  `about`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def providers() -> dict[str, dict[str, Any]]:
    """All built-in presets by name."""
    found: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("providers.json").read_text("utf-8")
    )
    return found
