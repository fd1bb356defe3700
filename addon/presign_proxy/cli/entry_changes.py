"""What a command is about to change in an entry of the registry, as people and as programs read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .colours import styled
from .mask import masked


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each key that differs, with both values; None stands for a key that is not there. No secrets."""
    old, new = dict(_flat(masked(before))), dict(_flat(masked(after)))
    names = [*old, *(name for name in new if name not in old)]
    return {
        name: {"before": old.get(name), "after": new.get(name)}
        for name in names
        if old.get(name) != new.get(name)
    }


def _flat(entry: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in entry.items():
        if isinstance(value, dict) and value:
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def lines_of(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the changes as lines: - for what goes, + for what comes."""
    lines = []
    for name, each in found.items():
        for sign, which, meaning in (("-", "before", "refused"), ("+", "after", "granted")):
            if each[which] is not None:
                lines.append(styled(f"  {sign} {name}: {in_words(each[which])}", meaning))
    return lines


def in_words(value: Any) -> str:
    """Return a value as YAML would write it in one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "[" + ", ".join(map(in_words, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {in_words(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)
