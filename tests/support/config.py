"""Writes a configuration where the product accepts one: readable by its owner only."""

import json
from pathlib import Path
from typing import Any

import yaml


def write_config(config: dict[str, Any], directory: Path, name: str = "config.yaml") -> Path:
    """Write `config` to `directory`/`name` (0600 in a 0700 directory) and return the path.

    In one step, so that a gateway which watches the file never reads half of it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    path = directory / name
    draft = directory / f".{name}.draft"
    draft.touch(mode=0o600)
    draft.chmod(0o600)
    # PyYAML writes an alias for an object that occurs twice, and the product refuses aliases.
    plain = json.loads(json.dumps(config))
    draft.write_text(
        yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, explicit_end=True), encoding="utf-8"
    )
    return draft.replace(path)
