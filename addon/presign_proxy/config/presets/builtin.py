"""The built-in presets: the known facts about providers, as data.

`providers.json` maps the names of presets to entries of the form `model.Preset`:

- `name`, `upstream` (base URL; the path that a provider's documentation writes behind it stays in the
  request), `docs`, `sample` (a path to GET that changes nothing), `headers` (defaults, added if absent).
- `auth`: its `type`, and the place of the key: `header`, with a `prefix` if text stands before the key, or
  `param`, or for basic a fixed `username` or `password` beside the key. Or `asks`: several values by name;
  those that are not secret are listed in `public`.
- `env`: the variables in which the provider's own SDK, command or documentation keeps the key, the usual one
  first; with `asks`, one for each value in the same order.
- `base_env`: the variables in which the provider's own SDKs look for their base URL.
- `allow_encoded_slash`, `also`, `challenge`, `redirects`, `upstreams`, `url_headers`, `websocket`: as in a
  connection. `also` and `upstreams` apply only with the preset's own upstream.
- `key_shapes`, `key_slots`: as in a connection; `sniffed` if tools of the provider refuse keys without a
  shape.
- `sdk_base`: the path that the provider's SDK expects in its base URL.
- `vars`: the variables in the host of `upstream`, each with the `pattern` of its values and a description,
  `about`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


@cache
def providers() -> dict[str, dict[str, Any]]:
    """Return all built-in presets by name."""
    found: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("providers.json").read_text("utf-8")
    )
    return found


def upstreams_of(entry: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return `upstreams` of a connection with those of its preset; nothing if the preset adds none.

    They belong to the provider's own upstream, and to a connection with one secret, which they take in other
    forms. What the connection says itself takes precedence.
    """
    auth = entry.get("auth")
    kind = auth.get("type") if isinstance(auth, dict) else None
    mine = entry.get("upstreams", {})
    if "upstreams" not in preset or "upstream" in entry or not isinstance(mine, dict):
        return {}
    if kind not in (None, preset["auth"]["type"], "bearer", "oauth2"):
        return {}
    return {"upstreams": {**preset["upstreams"], **mine}}
